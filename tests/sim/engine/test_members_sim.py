"""Members that come and go while faults happen: seeds pass, and something happens in them."""

from __future__ import annotations

from tests.sim.engine.members import run_members_seed


def test_seeds_with_changes_of_members_pass() -> None:
    # In 10 and 20 all founders go, and new learners need a copy from a leader they never heard of.
    results = [run_members_seed(seed) for seed in (0, 1, 2, 10, 20)]
    assert [(result.seed, result.broken) for result in results if result.broken] == []
    done = [
        sum(one.faults.get(kind, 0) for one in results) for kind in ("Add", "Promote", "Remove")
    ]
    assert all(count > 0 for count in done), done


def test_one_seed_is_one_run() -> None:
    assert run_members_seed(1).digest == run_members_seed(1).digest
