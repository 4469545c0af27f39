"""Times that follow from distances."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftdb.base.errors import ConfigError
from raftdb.consensus import Timing
from raftdb.consensus.timing import STRETCH_MAX, check_timing, stretched
from tests.consensus.trio import Trio

LAN = Timing()


@given(st.integers(1, 9), st.lists(st.floats(0, 60), max_size=8))
def test_they_always_fit_together_and_never_shrink(voters: int, trips: list[float]) -> None:
    timing = stretched(LAN, voters, trips)
    check_timing(timing)
    assert timing.election_min_s >= LAN.election_min_s
    assert timing.election_max_s >= LAN.election_max_s
    assert timing.leader_timeout_s >= LAN.leader_timeout_s
    assert LAN.heartbeat_s <= timing.heartbeat_s <= LAN.election_min_s / 3
    assert timing.election_min_s <= STRETCH_MAX * LAN.election_min_s


def test_near_members_keep_the_configured_times() -> None:
    assert stretched(LAN, 3, [0.001, 0.02]) == LAN
    assert stretched(LAN, 3, []) == LAN
    assert stretched(LAN, 1, [9.0]) == LAN


def test_the_way_to_the_nearest_majority_counts() -> None:
    far = stretched(LAN, 3, [0.25, 0.25])
    assert (far.election_min_s, far.election_max_s) == pytest.approx((0.75, 1.5))
    assert (far.heartbeat_s, far.leader_timeout_s) == pytest.approx((0.1, 1.5))
    # Two of five are an ocean away: the other three decide.
    assert stretched(LAN, 5, [0.001, 0.001, 0.25, 0.25]) == LAN
    assert stretched(LAN, 5, [0.001, 0.25, 0.25, 0.25]).election_min_s == pytest.approx(0.75)


def test_an_engine_takes_new_times_and_its_failover_follows_them() -> None:
    trio = Trio()
    leader = trio.leader()
    slow = stretched(LAN, 3, [1.0, 1.0])
    for node in trio.cluster.live():
        trio.cluster.call(node.name, node.engine.set_timing, slow)
    # Deadlines that were drawn before still pass.
    trio.run(3.0)
    leader = trio.leader()
    before = leader.status().term
    trio.cluster.kill(leader.name, power=True)
    trio.run(1.5)
    assert {node.status().term for node in trio.cluster.live()} == {before}, "too early"
    assert trio.run_until(lambda: bool(trio.cluster.leaders()), 12.0) > 0
    assert Timing() == LAN, "an engine's times are its own"
    with pytest.raises(ConfigError):
        leader.engine.set_timing(Timing(election_min_s=0.01))
