"""The simulation itself: seeds pass, one seed is one run, and planted bugs are noticed.

`python -m tests.sim.engine --seeds 0:2000` runs more; `… planted` looks for the planted bugs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from raftdb.consensus.wall import Wall
from tests.sim.checkers import Broken, Checker, all_checkers
from tests.sim.engine import planted
from tests.sim.engine.run import Result, Simulation, run_seed

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_seeds_pass(first: int) -> None:
    results = [run_seed(seed) for seed in range(first, first + 10)]
    assert [(result.seed, result.broken) for result in results if result.broken] == []
    assert sum(result.writes for result in results) > 500
    assert sum(result.reads for result in results) > 500
    assert max(result.terms for result in results) > 2


def test_one_seed_is_one_run() -> None:
    first, again, other = run_seed(7), run_seed(7), run_seed(8)
    assert first.digest == again.digest
    assert first.digest != other.digest


def digest_of(hash_seed: str) -> str:
    program = "from tests.sim.engine.run import run_seed; print(run_seed(11).digest)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


def test_one_seed_is_one_run_whatever_strings_hash_to() -> None:
    assert digest_of("1") == digest_of("2") == run_seed(11).digest


QUICK = (
    planted.NothingWaits,
    planted.OwnVoteDoesNotWait,
    planted.CommitsByMinority,
    planted.StockAppend,
    planted.ReadsBeforeNoop,
)
"""Found within a few seeds; `python -m tests.sim.engine planted` looks for all of them."""


@pytest.mark.parametrize("bug", QUICK, ids=lambda bug: bug.__name__)
def test_a_planted_bug_is_noticed(bug: type[Wall]) -> None:
    _used, _simulated_s, broken, seed = planted.hunt(bug, range(20))
    assert broken
    assert not run_seed(seed).broken


def test_every_rule_that_was_planted_is_a_rule() -> None:
    for bug in (*planted.SWARM, *planted.SCRIPTED):
        rules = [name for name in vars(bug) if not name.startswith("_")]
        assert all(hasattr(Wall, name) for name in rules), bug


class Trip(Checker):
    """A checker that is never content."""

    def on_acknowledged(self, client: int, sequence: int, index: int) -> None:
        raise Broken("trip", "on purpose")


def test_a_broken_invariant_ends_the_run_and_is_reported() -> None:
    simulation = Simulation(3)
    simulation.checkers.append(Trip())
    result: Result = simulation.run()
    assert result.invariant == "trip"
    assert result.notes


def test_checkers_are_fresh_for_each_run() -> None:
    assert all(a is not b for a, b in zip(all_checkers(), all_checkers(), strict=True))
