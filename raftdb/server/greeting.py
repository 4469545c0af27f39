"""The welcome: who this node is, and who leads."""

from __future__ import annotations

import raftdb.wire as wire
from raftdb._version import __version__
from raftdb.base.errors import ProtocolError
from raftdb.base.limits import Limits
from raftdb.node import Replica


def greet(replica: Replica, limits: Limits, hello: wire.Hello) -> wire.Welcome:
    """Answer a Hello. Raises Error when the client looks for another cluster or version."""
    version = wire.choose_version(hello)
    identity = replica.identity
    for asked, here, what in (
        (hello.cluster_id, identity.cluster_id, "cluster"),
        (hello.history, identity.history, "history"),
    ):
        if asked is not None and asked != here:
            raise ProtocolError(
                f"this node belongs to {what} {here}, and the client asked for {asked}",
                code=f"wrong_{what}",
                hint="check the addresses in the connection's URL",
            )
    status = replica.status()
    address = identity.client_address(status.leader)
    return wire.Welcome(
        version=version,
        cluster_id=identity.cluster_id,
        history=identity.history,
        node_id=identity.node_id,
        role=status.role,
        term=int(status.term),
        leader=wire.Endpoint(status.leader, str(address)) if status.leader and address else None,
        members=tuple(
            wire.Endpoint(member.node_id, str(member.client_address), member.location)
            for member in identity.members
        ),
        frame_bytes_max=limits.client_frame_bytes_max,
        requests_max=limits.requests_per_connection_max,
        server_version=__version__,
    )
