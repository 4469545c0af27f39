"""What a member remembers of those that have lost the ends of their logs, for its status."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from raftdb.base.ids import Index, NodeId
from raftdb.consensus.port import EngineStatus, PeerStatus
from raftdb.node.amnesia import _HEAD, _PROMOTE, _RELIEVE, HEARD_S, MARK, Reliever
from tests.node.fakes import MEMBERS, FakeEngine, HandLoop, Quiet


class Voters(FakeEngine):
    """So many members, all voters, some of them connected."""

    def __init__(self, count: int) -> None:
        super().__init__(role="follower", leader=None)
        self.members = tuple(replace(one, role="voter") for one in MEMBERS[:count])
        self.up = {str(one.node_id) for one in self.members}

    def status(self) -> EngineStatus:
        peers = tuple(
            PeerStatus(NodeId(name), name in self.up, Index(0), None) for name in ("n2", "n3")
        )
        return replace(super().status(), members=self.members, peers=peers)


class Log(Quiet):
    def __init__(self) -> None:
        self.errors: list[dict[str, Any]] = []

    def error(self, event: str, **fields: Any) -> None:
        self.errors.append({"event": event, **fields})


def make(count: int) -> tuple[Voters, HandLoop, Log, Reliever]:
    engine, loop, log = Voters(count), HandLoop(), Log()
    ports: Any = SimpleNamespace(clock=loop, executor=loop, log=log)
    return engine, loop, log, Reliever(engine, ports)  # type: ignore[arg-type]


def note(kind: int) -> bytes:
    return _HEAD.pack(MARK, kind, bytes(8), 0)


def test_one_of_two_voters_that_has_forgotten_is_named_with_what_helps() -> None:
    engine, loop, log, reliever = make(2)
    # It led before, and nobody has stood since.
    engine.leader = "n2"
    assert reliever.facts() == {"members": [], "problem": "", "hint": ""}
    for _ in range(3):
        reliever.on_note(NodeId("n2"), note(_RELIEVE))
    assert [one["event"] for one in log.errors] == ["memory_lost_elsewhere"]
    # It ended, as it does after ten seconds: what it said is still what is the matter.
    engine.up.discard("n2")
    loop.pass_time(100 * HEARD_S)
    told = reliever.facts()
    assert told["members"] == ["n2"]
    assert "n2 of the voters n1, n2 lost the end of the log" in told["problem"]
    assert "stop n1, run `raftdb recover DIR --keep n2" in told["hint"]
    # Back, and it does not say so any more.
    engine.up.add("n2")
    assert reliever.facts() == {"members": [], "problem": "", "hint": ""}


def test_one_of_three_is_told_of_and_no_dead_end() -> None:
    engine, _loop, log, reliever = make(3)
    reliever.on_note(NodeId("n3"), note(_RELIEVE))
    assert reliever.facts() == {"members": ["n3"], "problem": "", "hint": ""}
    reliever.on_note(NodeId("n2"), note(_RELIEVE))
    assert "--keep n2 --keep n3" in reliever.facts()["hint"]
    # Where somebody leads it goes on by itself.
    engine.leader = "n1"
    assert reliever.facts() == {"members": ["n2", "n3"], "problem": "", "hint": ""}
    engine.leader = None
    reliever.on_note(NodeId("n2"), note(_PROMOTE))
    assert reliever.facts()["members"] == ["n3"]
    # Strangers are nobody's problem.
    reliever.on_note(NodeId("n9"), note(_RELIEVE))
    assert reliever.facts()["members"] == ["n3"]
    assert len(log.errors) == 1
