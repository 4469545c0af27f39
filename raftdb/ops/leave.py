"""A node leaves its cluster, asked for on its own machine and with its own certificate.

leadership elsewhere  ->  removed from the members  ->  its process has ended
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from raftdb.base.config import NodeConfig
from raftdb.base.errors import ConfigError, OperationalError
from raftdb.base.ids import Address
from raftdb.base.ports import Clock, Files
from raftdb.journal.recovery import LOCK_NAME
from raftdb.ops.inspect import find_node
from raftdb.ops.leader import Connection as LeaderConnection
from raftdb.ops.leader import move_leader
from raftdb.ops.member import Connection, change_member, list_members
from raftdb.ops.target import SCHEME, Target

__all__ = ["leave_cluster", "node_target", "wait_until_ended"]

POLL_S = 0.05


class LeavingConnection(Connection, LeaderConnection, Protocol):
    """What is needed of a connection to the cluster."""

    def status(self) -> dict[str, Any]:
        """What a node says of itself."""


def node_target(config: NodeConfig, more: Sequence[Address] = ()) -> Target:
    """The cluster as this node reaches it as a client: by its own address, those of the members
    that its configuration names, and `more`; with its own certificate."""
    own = [one for one in config.members if one.node_id == config.node_id]
    others = [one for one in config.members if one.node_id != config.node_id]
    known = [*(one.client_address for one in (*own, *others)), *more]
    hosts = ",".join(dict.fromkeys(str(one) for one in known))
    options: dict[str, Any] = {"cluster": config.cluster_id}
    if config.tls is None:
        options["insecure"] = True
    else:
        options |= {"ca": config.tls.ca, "cert": config.tls.certificate, "key": config.tls.key}
    return Target(f"{SCHEME}{hosts}/", options, f"the configuration of {config.node_id}")


def leave_cluster(
    config: NodeConfig,
    target: Target,
    connection: LeavingConnection,
    files: Files,
    clock: Clock,
    *,
    timeout_s: float,
    force: bool = False,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Hand leadership over, remove the node from the members, and wait until it has ended. May be
    asked again after an interruption. Returns what `list_members` does.

    `force`: as for a removal. Raises ConfigError where the node is no member or the only voter,
    OperationalError where the others could not go on without it (then it is a member still), or
    where it was removed and has not ended in time.
    """
    end_s = clock.monotonic_s() + timeout_s
    told = list_members(connection)
    me = next((one for one in told["members"] if one["node_id"] == config.node_id), None)
    if me is None and config.node_id not in told["removed"]:
        raise ConfigError(
            f"{config.node_id} is no member of this cluster",
            code="no_member",
            hint="members are " + ", ".join(str(one["node_id"]) for one in told["members"]),
        )
    if me is not None:
        others = [one for one in told["members"] if one["role"] == "voter" and one is not me]
        if others and connection.status()["leader"] == config.node_id:
            left_s = max(1.0, end_s - clock.monotonic_s())
            _before, now = move_leader(connection, target, None, left_s, clock)
            progress(f"{now} leads")
        left_s = max(1.0, end_s - clock.monotonic_s())
        told = change_member(
            connection, "remove", config.node_id, timeout_s=left_s, clock=clock, force=force
        )
        progress("removed from the members")
    wait_until_ended(config, files, clock, max(1.0, end_s - clock.monotonic_s()))
    return told


def wait_until_ended(config: NodeConfig, files: Files, clock: Clock, timeout_s: float) -> None:
    """Until no process has the node's data. Raises OperationalError."""
    node = find_node(Path(config.data_dir), files)
    end_s = clock.monotonic_s() + timeout_s
    while True:
        try:
            files.lock(os.path.join(node.journal, LOCK_NAME))()
        except BlockingIOError:
            if clock.monotonic_s() >= end_s:
                raise OperationalError(
                    f"{config.node_id} is no member any more, and its process has not ended yet",
                    code="not_ended",
                    hint="look at its log; it may be killed, since it counts for nothing now",
                ) from None
            threading.Event().wait(POLL_S)
        else:
            return
