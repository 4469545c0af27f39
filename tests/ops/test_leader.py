"""Why leadership did not go where it was to go."""

from __future__ import annotations

import re
from copy import copy
from typing import Any

import pytest

from raftdb.base.errors import DeadlineError, OperationalError
from raftdb.ops import leader
from raftdb.ops.leader import move_leader
from raftdb.ops.status import ClusterState, NodeState
from raftdb.ops.target import Target
from tests.ops.test_upgrade import cluster, node


class Refusing:
    """A connection to a cluster whose leader cannot hand over."""

    def execute(self, sql: str, parameters: Any = (), /) -> Any:
        return self

    def fetchall(self) -> list[Any]:
        return [(1,)]

    def transfer_leadership(self, target: str | None = None) -> None:
        raise OperationalError(f"{target} did not take over", code="transfer")


class Twice:
    """A clock by which a second try comes too late."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic_s(self) -> float:
        self.now_s += 1.0
        return self.now_s


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (node("n2", "eu"), "n2 did not take over$"),
        (node("n2", "eu", damage={"reason": "page 7"}), "over; n2 is damaged: page 7$"),
        (node("n2", "eu", disk_full=True, stopping=True), "has a full disk and is being stopped$"),
        (NodeState("n2", "n2:1", problem="refused"), r"over; n2 does not answer \(refused\)$"),
        (NodeState("n2", "n2:1", voter=False, facts={}), "over; n2 is a learner"),
    ],
)
def test_what_is_the_matter_with_the_node_is_said(
    there: NodeState, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state: ClusterState = cluster(node("n1", "eu"), there)
    monkeypatch.setattr(leader, "cluster_status", lambda _target: state)
    with pytest.raises(OperationalError) as caught:
        move_leader(Refusing(), Target("raftdb://n1:1/"), "n2", 1.5, Twice())  # type: ignore[arg-type]
    assert re.search(said, caught.value.message), caught.value.message
    assert caught.value.code == "not_moved"
    assert "raftdb status" in caught.value.hint


class Moved:
    """A leader that hands over, and whose answer is lost."""

    state = cluster(node("n1", "eu"), node("n2", "eu"))

    def execute(self, sql: str, parameters: Any = (), /) -> Any:
        return self

    def fetchall(self) -> list[Any]:
        return [(1,)]

    def transfer_leadership(self, target: str | None = None) -> None:
        self.state.leader = "n2"
        raise DeadlineError("no reply", outcome="unknown")


def test_a_hand_over_whose_answer_was_lost_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = Moved()
    monkeypatch.setattr(leader, "cluster_status", lambda _target: copy(moved.state))
    found = move_leader(moved, Target("raftdb://n1:1/"), "n2", 2.5, Twice())  # type: ignore[arg-type]
    assert found == ("n1", "n2")
