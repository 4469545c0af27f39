"""Moving leadership, and saying where it went."""

from __future__ import annotations

from typing import Any, Protocol

from raftdb.base.errors import ConfigError, OperationalError, UnavailableError
from raftdb.base.ids import NodeId
from raftdb.base.ports import Clock
from raftdb.ops.status import cluster_status
from raftdb.ops.target import Target


class Connection(Protocol):
    """What is needed of a connection to the cluster."""

    def execute(self, sql: str, parameters: Any = (), /) -> Any:
        """A linearizable read: it ends when there is a leader that can serve it."""

    def transfer_leadership(self, target: str | None = None) -> None:
        """Ask the leader to hand over."""


def move_leader(
    connection: Connection, target: Target, wanted: NodeId | None, timeout_s: float, clock: Clock
) -> tuple[str, str]:
    """Hand leadership over; returns (who led, who leads). Raises ConfigError for a node that is no
    member, OperationalError when it stayed where it was."""
    deadline_s = clock.monotonic_s() + timeout_s
    before = cluster_status(target)
    if before.leader is None:
        raise UnavailableError("there is no leader to move from", hint="see raftdb status")
    names = [node.node_id for node in before.nodes]
    if wanted is not None and wanted not in names:
        raise ConfigError(f"{wanted} is no member", hint="members are " + ", ".join(names))
    if wanted == before.leader:
        return before.leader, before.leader
    state = before
    problem = ""
    while clock.monotonic_s() < deadline_s:
        # Another node may win the election that a transfer starts: then it is asked in turn.
        try:
            connection.transfer_leadership(wanted)
        except OperationalError as error:
            if error.code != "transfer" and not error.retryable:
                raise
            problem = error.message
        connection.execute("SELECT 1").fetchall()
        state = cluster_status(target)
        if state.leader == (wanted or state.leader) and state.leader not in (None, before.leader):
            return before.leader, str(state.leader)
    raise OperationalError(
        problem or f"leadership is at {state.leader or 'nobody'}, not where it was to go",
        code="not_moved",
        hint="a node that lags far behind cannot take over: see raftdb status",
    )
