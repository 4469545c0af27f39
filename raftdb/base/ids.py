"""Names of things: the field's standard terms, as types."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NewType

from raftdb.base.errors import ConfigError

Term = NewType("Term", int)
"""A Raft term: 0 before the first election, then growing by at least one per election."""

Index = NewType("Index", int)
"""Position of an entry in the Raft log, from 1. Index 1 is the base entry that every log has."""

NodeId = NewType("NodeId", str)
"""Name of a member, unique for the life of a cluster: a lost disk means a new name (rule J5)."""

ClusterId = NewType("ClusterId", str)
"""32 hexadecimal digits, drawn by `raftdb init`."""

HistoryId = NewType("HistoryId", str)
"""32 hexadecimal digits naming one history of a cluster; a restore forks a new one (rule S4)."""

_PORT_DIGITS_MAX = 9
"""Of a port as text: Python refuses to read a number of thousands of digits, by another error."""
_HOST_CHARACTERS_MAX = 253
"""Of a name in the DNS (RFC 1035). Clients refuse a welcome with longer ones."""
EVERYWHERE = ("0.0.0.0", "::")
"""Hosts to listen at, and at which nobody is found."""
_NODE_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_HEX_ID = re.compile(r"[0-9a-f]{32}")
_LOCATION = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}(/[a-z0-9][a-z0-9_-]{0,31}){0,3}")


def parse_node_id(text: str) -> NodeId:
    """Check a node's name: 1 to 32 of a-z, 0-9 and inner hyphens. Raises ConfigError."""
    if not _NODE_ID.fullmatch(text):
        raise ConfigError(
            f"{text!r} is not a node id",
            hint="use 1 to 32 lower-case letters, digits and inner hyphens, such as n1",
        )
    return NodeId(text)


def parse_cluster_id(text: str) -> ClusterId:
    """Check a cluster id: 32 lower-case hexadecimal digits. Raises ConfigError."""
    if not _HEX_ID.fullmatch(text):
        raise ConfigError(
            f"{text!r} is not a cluster id",
            hint="it has 32 hexadecimal digits; copy it from the configuration that init wrote",
        )
    return ClusterId(text)


def parse_location(text: str) -> str:
    """Check a hierarchical location such as eu/madrid/rack3, widest first. Raises ConfigError."""
    if not _LOCATION.fullmatch(text):
        raise ConfigError(
            f"{text!r} is not a location",
            hint="use one to four parts of lower-case letters, digits, - and _, joined by /",
        )
    return text


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """A TCP end point: host name or IP literal, and port 1 to 65535."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read host:port or [ipv6]:port. Raises ConfigError."""
    host, colon, port_text = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    is_number = port_text.isascii() and port_text.isdigit() and len(port_text) <= _PORT_DIGITS_MAX
    if not colon or not 0 < len(host) <= _HOST_CHARACTERS_MAX or not is_number:
        raise ConfigError(
            f"{text[:80]!r} is not an address", hint="write host:port, or [ipv6]:port"
        )
    port = int(port_text)
    if not 1 <= port <= 65535:
        raise ConfigError(f"port {port} of {text!r} is not between 1 and 65535")
    return Address(host, port)


def parse_reachable(text: str) -> Address:
    """The same, of a place where others are to find somebody. Raises ConfigError."""
    found = parse_address(text)
    if found.host in EVERYWHERE:
        raise ConfigError(
            f"{text!r} means every address of a machine, and nobody can be reached there",
            hint="give the address under which the others reach the node; where it listens is "
            "peer_listen and client_listen in its configuration",
        )
    return found
