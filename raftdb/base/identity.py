"""Who a certificate names, and which certificates are revoked: formats, no IO.

A certificate of raftdb names one party by its single URI subject alternative name (RFC 5280
section 4.2.1.6):

    raftdb://<cluster id>/node/<node id>
    raftdb://<cluster id>/client/<client name>

The revocation file is JSON (docs/security.md): serial numbers, each with name and date.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from raftdb.base.errors import AuthError, ConfigError
from raftdb.base.ids import ClusterId, NodeId
from raftdb.base.ports import Peer

NODE = "node"
CLIENT = "client"
REVOCATION_VERSION = 1
REVOCATION_BYTES_MAX = 4 << 20
"""About 20,000 entries; more means that the CA should be replaced."""

_CLIENT_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_URI = re.compile(
    r"raftdb://(?P<cluster>[0-9a-f]{32})/"
    r"(?:(?P<node>node)/(?P<node_id>[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?)"
    r"|client/(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?))"
)
_SERIAL = re.compile(r"[0-9a-f]{1,40}")


def parse_client_name(text: str) -> str:
    """Check a client's name: 1 to 64 of A-Z, a-z, 0-9 and inner . _ -. Raises ConfigError."""
    if not _CLIENT_NAME.fullmatch(text):
        raise ConfigError(
            f"{text!r} is not a client name",
            hint="use 1 to 64 letters, digits and inner dots, hyphens and underscores",
        )
    return text


def node_uri(cluster_id: ClusterId, node_id: NodeId) -> str:
    """What the certificate of a node carries."""
    return f"raftdb://{cluster_id}/{NODE}/{node_id}"


def client_uri(cluster_id: ClusterId, name: str) -> str:
    """What the certificate of a client carries."""
    return f"raftdb://{cluster_id}/{CLIENT}/{name}"


def parse_identity_uri(uri: str) -> tuple[str, str, ClusterId]:
    """Split such a URI into (role, name, cluster id). Raises AuthError."""
    match = _URI.fullmatch(uri)
    if match is None:
        raise AuthError(
            f"the certificate names {uri[:120]!r}, which is no raftdb identity",
            hint="it should be raftdb://<cluster id>/node/<id> or raftdb://<cluster id>/client/…",
        )
    if match["node"]:
        return NODE, match["node_id"], ClusterId(match["cluster"])
    return CLIENT, match["name"], ClusterId(match["cluster"])


def identity_from_uris(uris: Iterable[str], remote: str) -> Peer:
    """The party that the URI names of one certificate prove. Exactly one, or AuthError."""
    found = list(uris)
    if len(found) != 1:
        raise AuthError(
            f"the certificate has {len(found)} URI names, and must have exactly one",
            hint="issue certificates by `raftdb cert`",
        )
    role, name, cluster_id = parse_identity_uri(found[0])
    return Peer(role, name, cluster_id, remote)


@dataclass(frozen=True, slots=True)
class Revocation:
    """One certificate that must not be trusted any more."""

    serial: int
    name: str
    """The identity URI it had, for people."""
    revoked_at: str
    """ISO 8601, UTC."""


def render_revocations(revocations: Iterable[Revocation]) -> str:
    """The revocation file's text, in the order of serial numbers."""
    rows = [
        {"serial": f"{one.serial:x}", "name": one.name, "revoked_at": one.revoked_at}
        for one in sorted(revocations, key=lambda one: one.serial)
    ]
    return json.dumps({"version": REVOCATION_VERSION, "revoked": rows}, indent=2) + "\n"


def parse_revocations(text: str, where: str) -> Mapping[int, Revocation]:
    """Read the revocation file's text; `where` is its path, for messages. Raises ConfigError."""
    try:
        return _revocations(json.loads(text))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ConfigError(
            f"{where} is not a revocation file: {error}",
            hint="copy the CA directory's revoked.json again",
        ) from error


def _revocations(value: Any) -> dict[int, Revocation]:
    if not isinstance(value, dict) or value.get("version") != REVOCATION_VERSION:
        raise ValueError(f"version {REVOCATION_VERSION} is expected")
    rows = value["revoked"]
    if not isinstance(rows, list):
        raise ValueError("`revoked` is not a list")
    result: dict[int, Revocation] = {}
    for row in rows:
        serial = row["serial"]
        if not isinstance(serial, str) or not _SERIAL.fullmatch(serial):
            raise ValueError(f"serial {serial!r} is not hexadecimal")
        number = int(serial, 16)
        result[number] = Revocation(number, str(row["name"]), str(row["revoked_at"]))
    return result
