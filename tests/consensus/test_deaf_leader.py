"""A leader that is heard and hears nothing, or only now and then: in virtual time, many seeds."""

from __future__ import annotations

import pytest

from raftdb.consensus import Timing
from raftdb.consensus.wall import Wall
from tests.consensus.trio import Trio

SEEDS = range(1, 11)
TWICE_S = 2 * Timing().election_max_s


def _deaf(trio: Trio, name: str) -> set[tuple[str, str]]:
    return {(other, name) for other in trio.cluster.hosts if other != name}


class OnlyStepsDown(Wall):
    """Row 9: who steps down stays connected, and asks those whom it does not hear."""

    def hangs_up(self, silence_s: float, leader_timeout_s: float) -> bool:
        return False


def _until_another_commits(seed: int, count: int, wall: Wall | None = None) -> float:
    """From the moment when the leader hears nobody until another one has committed its no-op."""
    trio = Trio(count, seed=seed, wall=wall)
    old = trio.leader()
    trio.run(1.0 + seed * 0.0137)
    trio.cluster.fabric.block(_deaf(trio, old.name))

    def writes() -> bool:
        found = [node.status() for node in trio.cluster.live() if node is not old]
        return any(one.role == "leader" and one.commit_index == one.last_index for one in found)

    return trio.run_until(writes)


@pytest.mark.parametrize("count", [3, 5])
def test_a_deaf_leader_costs_less_than_two_election_timeouts(count: int) -> None:
    """Check-quorum takes one; it hangs up, and whoever notices does not wait for another."""
    took_s = sorted(_until_another_commits(seed, count) for seed in SEEDS)
    assert took_s[-1] < TWICE_S, took_s
    assert took_s[-1] > Timing().leader_timeout_s, "nothing was cut"


def test_one_that_only_steps_down_costs_more() -> None:
    assert max(_until_another_commits(seed, 3, OnlyStepsDown()) for seed in SEEDS) > TWICE_S


def test_a_flapping_leader_is_left_and_not_taken_back() -> None:
    """A minute with a path that breaks and mends, in one direction or both."""
    for seed in (1, 2):
        trio = Trio(seed=seed)
        name = trio.leader().name
        terms = {trio.leader().status().term}
        end_s = trio.world.now_s + 60
        draw, deaf = trio.world.random, _deaf(trio, name)
        while trio.world.now_s < end_s:
            both = {(b, a) for a, b in deaf} if draw.random() < 0.5 else set()
            trio.cluster.fabric.block(deaf | both)
            for _ in range(2):
                end_of_this_s = trio.world.now_s + draw.uniform(0.2, 1.0)
                while trio.world.now_s < end_of_this_s:
                    trio.run(0.05)
                    terms |= {s.term for s in trio.statuses() if s.role == "leader"}
                trio.cluster.fabric.block(set())
        assert 2 <= len(terms) <= 4, (seed, terms)
