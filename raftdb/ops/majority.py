"""Which members of a cluster run, and whom they follow: asked before a recovery begins."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from raftdb.base.config import NodeConfig
from raftdb.base.errors import Error
from raftdb.base.settings import MemberConfig
from raftdb.client import connect
from raftdb.ops.status import gather

__all__ = ["running_members"]

ASK_S = 2.0


def running_members(
    config: NodeConfig, members: Sequence[MemberConfig], seen: Collection[str]
) -> dict[str, str]:
    """Those of the members, beside `seen`, that answer a client with this node's certificate: each
    with the leader that it follows, `` without one."""
    addresses = [str(one.client_address) for one in members if one.node_id not in seen]
    if not addresses:
        return {}
    options: dict[str, Any] = {"insecure": True}
    if config.tls is not None:
        tls = config.tls
        options = {"ca": tls.ca, "cert": tls.certificate, "key": tls.key}
    options |= {"cluster": config.cluster_id, "pin": True, "read": "local", "timeout": ASK_S}
    try:
        found = gather(addresses, lambda address: connect(f"raftdb://{address}/", **options))
    except Error:
        return {}
    return {one.node_id: one.leader or "" for one in found.nodes if one.answers}
