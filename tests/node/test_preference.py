"""Leadership goes where the settings want it, and only there, and only when that is sound."""

from __future__ import annotations

from typing import Any

import pytest

from raftdb.base.cluster import ClusterSettings
from raftdb.base.ids import Index, NodeId, Term
from raftdb.consensus.port import EngineStatus, PeerStatus
from raftdb.node.preference import CHECK_EVERY_S, STABLE_S, Preference
from raftdb.node.proximity import FIRST_S, HEARD_S, Proximity
from tests.node.fakes import MEMBERS, Bench


class Engine:
    """A leader whose followers are as the test says."""

    def __init__(self) -> None:
        self.role = "leader"
        self.answers = {"n2": True, "n3": True}
        self.match = {"n2": 1_000, "n3": 1_000}
        self.transfers: list[tuple[Any, Any]] = []
        self.told: list[tuple[bytes, Any]] = []

    def status(self) -> EngineStatus:
        peers = tuple(
            PeerStatus(NodeId(name), True, Index(self.match[name]), None, self.answers[name])
            for name in ("n2", "n3")
        )
        index = Index(1_000)
        return EngineStatus(
            NodeId("n1"), self.role, Term(1), None, index, index, index, index, index, peers
        )

    def transfer_leadership(self, target: Any, done: Any) -> None:
        self.transfers.append((target, done))

    def tell(self, data: bytes, to: Any = None) -> None:
        self.told.append((data, to))


class World:
    """n1 leads in r1; n2 is in r2, n3 in r3."""

    def __init__(self, *preferred: str) -> None:
        bench = Bench()
        self.loop, self.engine = bench.loop, Engine()
        self.settings = ClusterSettings(leader_preference=preferred)
        self.unfit = {"n2": "", "n3": ""}
        self.proximity = Proximity(self.engine, bench.ports, str)  # type: ignore[arg-type]
        self.proximity.unfit = self.unfit.__getitem__  # type: ignore[method-assign]
        self.preference = Preference(
            self.engine,  # type: ignore[arg-type]
            lambda: self.settings,
            lambda: MEMBERS,
            self.proximity,
            bench.ports,
        )
        self.preference.start()

    def targets(self, seconds: float) -> list[str]:
        """Where it moved meanwhile."""
        before = len(self.engine.transfers)
        self.loop.pass_time(seconds)
        return [str(target) for target, _done in self.engine.transfers[before:]]


STABLE = STABLE_S + 2 * CHECK_EVERY_S


def test_it_moves_to_the_best_place_after_a_stable_while() -> None:
    world = World("r3", "r2")
    assert world.targets(STABLE_S - CHECK_EVERY_S) == []
    assert world.targets(3 * CHECK_EVERY_S) == ["n3"]
    assert world.targets(60.0) == [], "one move at a time"


def test_it_stays_where_it_should_be_or_when_nothing_is_preferred() -> None:
    assert World().targets(60.0) == []
    assert World("r1/here", "r2").targets(60.0) == []
    assert World("r9").targets(60.0) == []


@pytest.mark.parametrize("trouble", ["lags", "silent", "unfit"])
def test_it_avoids_who_lags_is_silent_or_should_not_lead(trouble: str) -> None:
    world = World("r3", "r2")
    if trouble == "lags":
        world.engine.match["n3"] = 500
    elif trouble == "silent":
        world.engine.answers["n3"] = False
    else:
        world.unfit["n3"] = "its disk does not answer"
    assert world.targets(STABLE) == ["n2"]
    assert world.preference.successor() == "n2"


def test_a_break_begins_the_while_anew() -> None:
    world = World("r3")
    for _ in range(5):
        world.loop.pass_time(STABLE_S - CHECK_EVERY_S)
        world.unfit["n3"] = "x"
        world.loop.pass_time(CHECK_EVERY_S)
        world.unfit["n3"] = ""
    assert world.engine.transfers == []


def test_each_move_makes_the_next_wait_longer() -> None:
    world = World("r3")
    [target] = world.targets(STABLE)
    assert target == "n3"
    world.engine.transfers[0][1]("n3 did not take over")
    assert world.targets(1.5 * STABLE_S) == []
    assert world.targets(STABLE_S) == ["n3"]


def test_a_follower_moves_nothing() -> None:
    world = World("r3")
    world.engine.role = "follower"
    assert world.targets(60.0) == []


def test_when_nobody_is_known_to_be_fit_the_most_advanced_will_do() -> None:
    world = World("r3")
    world.unfit.update(n2="x", n3="x")
    assert world.preference.successor() is None


def test_round_trips_are_measured_and_fitness_is_told() -> None:
    bench, engine = Bench(), Engine()
    reasons = ["its disk does not answer"]
    one = Proximity(engine, bench.ports, lambda: reasons[0])  # type: ignore[arg-type]
    two = Proximity(engine, bench.ports, str)  # type: ignore[arg-type]
    assert (one.round_trip_s("n2"), two.unfit("n1")) == (None, "not heard of")
    one.start()
    bench.loop.pass_time(FIRST_S)
    (asked, to), engine.told[:] = engine.told[0], []
    assert to is None
    two.on_note(NodeId("n1"), asked)
    assert two.unfit("n1") == "its disk does not answer"
    [(echo, back)] = engine.told
    assert back == "n1"
    bench.loop.now_s += 0.04
    one.on_note(NodeId("n2"), echo)
    assert one.round_trip_s("n2") == pytest.approx(0.04)
    one.on_note(NodeId("n2"), b"P")
    one.on_note(NodeId("n2"), echo[:1] + b"\x02" + b"\xff" * 8)
    assert one.round_trip_s("n2") == pytest.approx(0.04), "an answer to no question"
    bench.loop.now_s += HEARD_S
    assert two.unfit("n1") == "not heard of"
