"""Which members of a cluster run, and whom they follow: asked before a recovery begins."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from raftdb.base.config import NodeConfig
from raftdb.base.errors import Error
from raftdb.base.settings import MemberConfig
from raftdb.client import connect

__all__ = ["running_members"]

ASK_S = 2.0


def running_members(config: NodeConfig, seen: Collection[str]) -> dict[str, str]:
    """Members beside `seen` that answer a client with this node's certificate: each with the leader
    that it follows, `` without one."""
    others = [one for one in config.members if one.node_id not in seen]
    if not others:
        return {}
    with ThreadPoolExecutor(len(others)) as pool:
        answers = list(pool.map(lambda one: _ask(config, one), others))
    found = zip(others, answers, strict=True)
    return {one.node_id: answer for one, answer in found if answer is not None}


def _ask(config: NodeConfig, member: MemberConfig) -> str | None:
    options: dict[str, Any] = {"insecure": True}
    if config.tls is not None:
        tls = config.tls
        options = {"ca": tls.ca, "cert": tls.certificate, "key": tls.key}
    try:
        connection = connect(
            f"raftdb://{member.client_address}/",
            cluster=config.cluster_id,
            pin=True,
            read="local",
            timeout=ASK_S,
            **options,
        )
        try:
            return str(connection.status().get("leader") or "")
        finally:
            connection.close()
    except Error:
        return None
