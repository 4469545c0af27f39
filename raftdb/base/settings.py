"""Kinds of settings: how a value is read from TOML and from text, written, and complained about.

One `Setting` describes one key. `raftdb.base.config` makes the table of them from its dataclasses;
loading, `--print-config`, `raftdb init` and the test of the documentation all go by that table.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from raftdb.base.errors import ConfigError
from raftdb.base.ids import (
    Address,
    ClusterId,
    HistoryId,
    NodeId,
    parse_address,
    parse_cluster_id,
    parse_location,
    parse_node_id,
)

INTEGER_MAX = (1 << 63) - 1
_INTEGER = re.compile(r"[+-]?[0-9]+(_[0-9]+)*")
_BOOLEANS = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of value. The functions raise ValueError, or ConfigError with a better text."""

    wanted: str
    """Completes "should be …"."""
    from_toml: Callable[[Any], Any]
    """From what tomllib gives; also takes a value that is of the final type already."""
    from_text: Callable[[str], Any]
    """From an environment variable or a flag."""
    to_toml: Callable[[Any], str]
    is_path: bool = False


_VARIABLES = {"history": "RAFTDB_HISTORY_ID"}
"""RAFTDB_HISTORY is the shell's: the file that remembers what was typed."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of the configuration."""

    key: str
    """Dotted: section and name, or a name alone."""
    kind: Kind
    doc: str
    default: Any

    @property
    def variable(self) -> str:
        """Its environment variable: RAFTDB_LIMITS__CURSORS_MAX for limits.cursors_max."""
        return _VARIABLES.get(self.key, "RAFTDB_" + self.key.replace(".", "__").upper())


@dataclass(frozen=True, slots=True)
class MemberConfig:
    """One member of the cluster, as every node's configuration lists it."""

    node_id: NodeId
    location: str
    peer_address: Address
    """Where the other nodes reach it."""
    client_address: Address
    """Where clients reach it."""


MEMBER_KEYS = {
    "node_id": "Name of the member, unique for the life of the cluster.",
    "location": "Where it stands, widest first: region/site/rack.",
    "peer_address": "host:port where the other nodes reach it.",
    "client_address": "host:port where clients reach it.",
}


def toml_text(text: str) -> str:
    """A TOML basic string. (JSON's escapes are TOML's, but for DEL.)"""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the key most like `name`: in full, or in another section."""
    keys = list(known)
    same_leaf = [key for key in keys if key.rpartition(".")[2] == name.rpartition(".")[2]]
    close = same_leaf or difflib.get_close_matches(name, keys, 1, 0.6)
    asked = f"did you mean {close[0]}? " if close else ""
    return f"{asked}docs/configuration.md lists all keys"


def parse_history_id(text: str) -> HistoryId:
    """Check a history id: 32 hexadecimal digits, as a cluster id. Raises ConfigError."""
    try:
        return HistoryId(parse_cluster_id(text))
    except ConfigError as error:
        raise ConfigError(f"{text!r} is not a history id", hint=error.hint) from error


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > INTEGER_MAX:
        raise ValueError
    return value


def _integer_from_text(text: str) -> int:
    if len(text) > 30 or not _INTEGER.fullmatch(text):
        raise ValueError
    return _integer(int(text))


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError
    return float(value)


def _number_from_text(text: str) -> float:
    return _number(float(text))


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _boolean_from_text(text: str) -> bool:
    if text.lower() not in _BOOLEANS:
        raise ValueError
    return _BOOLEANS[text.lower()]


def _path(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError
    return value


def _optional_path(value: Any) -> str:
    return "" if value == "" else _path(value)


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(
        isinstance(one, str) and one for one in value
    ):
        raise ValueError
    return tuple(value)


def _texts_to_toml(value: tuple[str, ...]) -> str:
    return "[" + ", ".join(toml_text(one) for one in value) + "]"


def _parsed(parse: Callable[[str], Any]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if not isinstance(value, str):
            raise ValueError
        return parse(value)

    return read


def _text_kind(wanted: str, parse: Callable[[str], Any]) -> Kind:
    return Kind(wanted, _parsed(parse), parse, lambda value: toml_text(str(value)))


def choice(*allowed: str) -> Kind:
    """One of some words."""

    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError
        return text

    return _text_kind("one of " + ", ".join(allowed), parse)


def _address(value: Any) -> Address:
    if isinstance(value, str):
        return parse_address(value)
    if not isinstance(value, Address):
        raise ValueError
    return value


def _member(value: Any) -> MemberConfig:
    if isinstance(value, MemberConfig):
        return value
    if not isinstance(value, dict):
        raise ValueError
    unknown = [key for key in value if key not in MEMBER_KEYS]
    if unknown:
        raise ConfigError(
            f"unknown key {unknown[0]!r} in a member", hint=nearest(unknown[0], MEMBER_KEYS)
        )
    missing = [key for key in MEMBER_KEYS if not isinstance(value.get(key), str)]
    if missing:
        raise ConfigError(
            f"a member lacks {missing[0]}", hint="each of [[members]] has " + ", ".join(MEMBER_KEYS)
        )
    return MemberConfig(
        parse_node_id(value["node_id"]),
        parse_location(value["location"]),
        parse_address(value["peer_address"]),
        parse_address(value["client_address"]),
    )


def _members(value: Any) -> tuple[MemberConfig, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError
    return tuple(_member(one) for one in value)


def _members_from_text(text: str) -> tuple[MemberConfig, ...]:
    members = []
    for part in text.split(";"):
        fields = [field.strip() for field in part.split(",")]
        if len(fields) != len(MEMBER_KEYS):
            raise ValueError
        members.append(_member(dict(zip(MEMBER_KEYS, fields, strict=True))))
    return tuple(members)


def _members_to_toml(members: tuple[MemberConfig, ...]) -> str:
    blocks = []
    for member in members:
        lines = [f"{key} = {toml_text(str(getattr(member, key)))}" for key in MEMBER_KEYS]
        blocks.append("\n".join(["[[members]]", *lines]))
    return "\n\n".join(blocks)


def _routes(value: Any) -> tuple[tuple[NodeId, Address], ...]:
    """From texts ID=HOST:PORT, or what was read from them before."""
    if not isinstance(value, list | tuple):
        raise ValueError
    routes: dict[NodeId, Address] = {}
    for one in value:
        if isinstance(one, str):
            name, _, address = one.partition("=")
            node_id, to = parse_node_id(name), parse_address(address)
        elif isinstance(one, tuple) and len(one) == 2 and isinstance(one[1], Address):
            node_id, to = one
        else:
            raise ValueError
        if node_id in routes:
            raise ConfigError(f"there are two routes to {node_id}", hint="give one")
        routes[node_id] = to
    return tuple(routes.items())


def _routes_to_toml(routes: tuple[tuple[NodeId, Address], ...]) -> str:
    return _texts_to_toml(tuple(f"{node_id}={address}" for node_id, address in routes))


INTEGER = Kind("a whole number", _integer, _integer_from_text, str)
NUMBER = Kind("a number", _number, _number_from_text, repr)
BOOLEAN = Kind("true or false", _boolean, _boolean_from_text, lambda value: str(value).lower())
PATH = Kind("a path", _path, _path, toml_text, is_path=True)
OPTIONAL_PATH = Kind("a path, or nothing", _optional_path, _optional_path, toml_text, is_path=True)
TEXTS = Kind(
    "a list of texts (as text: separated by blanks)",
    _texts,
    lambda text: tuple(text.split()),
    _texts_to_toml,
)
ADDRESS = Kind("host:port", _address, parse_address, lambda value: toml_text(str(value)))
NODE_ID: Kind = _text_kind("a node id", lambda text: NodeId(parse_node_id(text)))
CLUSTER_ID: Kind = _text_kind("a cluster id", lambda text: ClusterId(parse_cluster_id(text)))
HISTORY_ID: Kind = _text_kind("a history id", parse_history_id)
MEMBERS = Kind(
    "a list of [[members]] (as text: id,location,peer address,client address;…)",
    _members,
    _members_from_text,
    _members_to_toml,
)
ROUTES = Kind(
    "a list of node=host:port (as text: separated by blanks)",
    _routes,
    lambda text: _routes(text.split()),
    _routes_to_toml,
)
