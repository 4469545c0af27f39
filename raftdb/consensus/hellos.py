"""Who is there: what the first word on a connection has to be."""

from __future__ import annotations

import json

from raftdb.base.errors import ConfigError, ProtocolError
from raftdb.base.ids import parse_node_id
from raftdb.consensus.link import Link
from raftdb.consensus.messages import PROTOCOL_VERSION, CopyHello, Hello

__all__ = ["check_hello"]


def check_hello(mine: Hello, link: Link, hello: Hello | CopyHello) -> None:
    """Whether who says so may say anything more; of another history it is only what it claims to
    be. Raises ProtocolError."""
    name = hello.node_id
    assert link.connection is not None
    peer = link.connection.peer
    if hello.version != PROTOCOL_VERSION:
        raise ProtocolError(
            f"{name} speaks peer protocol {hello.version}, this node {PROTOCOL_VERSION}",
            hint="run releases that are at most one apart",
        )
    if hello.cluster_id != mine.cluster_id:
        raise ProtocolError(
            f"{name} at {peer.remote} belongs to cluster {hello.cluster_id}",
            hint="an address in the configuration leads to another cluster",
        )
    if peer.role and (peer.role != "node" or peer.name != name):
        raise ProtocolError(f"the certificate of {peer.name!r} does not allow to be {name!r}")
    if name == mine.node_id:
        raise ProtocolError(f"{name!r} is this node's own name")
    try:
        parse_node_id(name)
    except ConfigError as error:
        raise ProtocolError(error.message) from None
    if link.dialled is not None and link.dialled != name:
        raise ProtocolError(f"{name} answers at the address of {link.dialled}")
    if hello.history_id != mine.history_id:
        return
    if hello.library != mine.library:
        raise ProtocolError(
            f"{name} runs pysyncobj {hello.library}, this node {mine.library}",
            hint="install the same release of raftdb on all nodes",
        )
    if hello.fingerprint != mine.fingerprint:
        raise ProtocolError(
            f"{name} computes differently: {_differences(hello.fingerprint, mine.fingerprint)}",
            hint="replicas must run the same SQLite build with the same arithmetic: install "
            "the same release on machines of one kind",
        )


def _differences(theirs: bytes, mine: bytes) -> str:
    """In what two fingerprints differ, for people. They are JSON objects, as far as is known here;
    what came from a peer is shown cut to a bound."""
    try:
        there, here = json.loads(theirs), json.loads(mine)
        names = sorted(there.keys() | here.keys())
        found = [
            f"{name} is {str(there.get(name))[:80]} there, {str(here.get(name))[:80]} here"
            for name in names[:20]
            if there.get(name) != here.get(name)
        ]
        return "; ".join(found)
    except (ValueError, AttributeError, RecursionError):
        return f"its fingerprint is {theirs[:64].hex()}, here it is {mine[:64].hex()}"
