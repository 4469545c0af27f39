"""Moving leadership, and saying where it went."""

from __future__ import annotations

from typing import Any, Protocol

from raftdb.base.errors import UNKNOWN, ConfigError, OperationalError, UnavailableError
from raftdb.base.ids import NodeId
from raftdb.base.locations import is_within
from raftdb.base.ports import Clock
from raftdb.ops.status import ClusterState, cluster_status, troubles_of
from raftdb.ops.target import Target


class Connection(Protocol):
    """What is needed of a connection to the cluster."""

    def execute(self, sql: str, parameters: Any = (), /) -> Any:
        """A linearizable read: it ends when there is a leader that can serve it."""

    def transfer_leadership(self, target: str | None = None) -> None:
        """Ask the leader to hand over."""


def node_for(state: ClusterState, to: str) -> NodeId:
    """The node that is meant by its id or by a location: there the leader, else the answering one
    with the fewest entries to come. Raises ConfigError, UnavailableError."""
    if any(node.node_id == to for node in state.nodes):
        return NodeId(to)
    there = [node for node in state.nodes if is_within(node.location, to)]
    if not there:
        known = ", ".join(f"{node.node_id} ({node.location})" for node in state.nodes)
        raise ConfigError(f"{to} is no member and no location of one", hint=f"members: {known}")
    able = [node for node in there if node.answers]
    if not able:
        raise UnavailableError(f"no node in {to} answers", hint="see raftdb status")
    best = min(
        able, key=lambda node: (node.node_id != state.leader, node.lag_entries or 0, node.node_id)
    )
    return NodeId(best.node_id)


def move_leader(
    connection: Connection, target: Target, to: str | None, timeout_s: float, clock: Clock
) -> tuple[str, str]:
    """Hand leadership over to a node or to a location (None: to the most advanced follower);
    returns (who led, who leads). Raises ConfigError for a node that is no member, OperationalError
    when it stayed where it was."""
    deadline_s = clock.monotonic_s() + timeout_s
    before = cluster_status(target)
    if before.leader is None:
        raise UnavailableError("there is no leader to move from", hint="see raftdb status")
    wanted = None if to is None else node_for(before, to)
    if wanted == before.leader:
        return before.leader, before.leader
    state = before
    problem = ""
    while clock.monotonic_s() < deadline_s:
        # Another node may win the election that a transfer starts: then it is asked in turn.
        try:
            connection.transfer_leadership(wanted)
        except OperationalError as error:
            # Of an order whose reply was lost, the cluster's state tells what became of it.
            if error.code != "transfer" and not error.retryable and error.outcome != UNKNOWN:
                raise
            problem = error.message
        connection.execute("SELECT 1").fetchall()
        state = cluster_status(target)
        if state.leader == (wanted or state.leader) and state.leader not in (None, before.leader):
            return before.leader, str(state.leader)
    why = _why_not(state, wanted)
    raise OperationalError(
        (problem or f"leadership is at {state.leader or 'nobody'}, not where it was to go") + why,
        code="not_moved",
        hint="see raftdb status"
        if why
        else "a node that lags far behind cannot take over: see raftdb status",
    )


def _why_not(state: ClusterState, wanted: str | None) -> str:
    """What is known to be the matter with the node that was to lead."""
    node = next((one for one in state.nodes if one.node_id == wanted), None)
    if node is None:
        return ""
    found = troubles_of(node)
    if not node.answers:
        found.append(f"does not answer ({node.problem})")
    if not node.voter:
        found.append("is a learner, which counts in no majority")
    return f"; {wanted} " + " and ".join(found) if found else ""
