"""The simulation of whole nodes: seeds pass, one seed is one run, and what breaks is told.

`python -m tests.sim --minutes 10` runs many more.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim import report
from tests.sim.__main__ import main
from tests.sim.checkers import Broken, Checker, whole_checkers
from tests.sim.faults import kinds
from tests.sim.run import Simulation, run_seed
from tests.sim.settings import draw_settings
from tests.workloads import OK, read_history

ROOT = Path(__file__).parents[2]


def is_short(seed: int) -> bool:
    """Whether a run takes half a second of processor or so."""
    settings = draw_settings(seed)
    busy = settings.clients * settings.duration_s / settings.pause_s
    return busy * len(settings.sizes.places) < 2500 and settings.duration_s < 120


SHORT = [seed for seed in range(300) if is_short(seed)]


@pytest.mark.parametrize("seed", SHORT[:20])
def test_seeds_pass(seed: int) -> None:
    result = run_seed(seed)
    assert not result.broken
    assert result.acknowledged > 0
    assert result.terms > 0


def test_those_seeds_are_of_many_kinds() -> None:
    chosen = [draw_settings(seed) for seed in SHORT[:20]]
    assert {settings.profile for settings in chosen} >= {"rack", "metro", "continent"}
    assert {len(settings.sizes.places) for settings in chosen} >= {3, 5, 7}


def test_one_seed_is_one_run() -> None:
    first, again, other = run_seed(0), run_seed(0), run_seed(1)
    assert first.digest == again.digest
    assert first.digest != other.digest


def digest_of(seed: int, hash_seed: str) -> str:
    program = f"from tests.sim.run import run_seed; print(run_seed({seed}).digest)"
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
    assert digest_of(11, "1") == digest_of(11, "2") == run_seed(11).digest


class Trip(Checker):
    """A checker that is content with nothing after some operations."""

    def __init__(self) -> None:
        self.left = 20

    def on_return(self, record: object) -> None:
        self.left -= 1
        if self.left == 0:
            raise Broken("trip", "on purpose")


def test_a_broken_invariant_ends_the_run_and_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    result = Simulation(7, checkers=[*whole_checkers(), Trip()]).run()
    assert result.invariant == "trip"
    report.explain(result, {"nodes": 3})
    told = capsys.readouterr().out
    assert "trip: on purpose" in told
    assert "python -m tests.sim --seed 7 --nodes 3 --trace" in told
    assert len(told.splitlines()) > 10


def test_leaving_a_fault_out_leaves_the_others_as_they_are() -> None:
    every = Simulation(9)
    some = Simulation(9, without={0, 2})
    numbers = [event.number for event in every.nemesis.events]
    assert [event.number for event in some.nemesis.events] == [
        n for n in numbers if n not in (0, 2)
    ]
    for simulation in (every, some):
        simulation.cluster.close()


def test_every_kind_of_fault_is_drawn_by_some_seed() -> None:
    drawn: set[str] = set()
    for seed in range(60):
        settings = draw_settings(seed)
        events = settings.plan.schedule(seed, settings.duration_s)
        drawn |= {event.kind for event in events}
    assert drawn == set(kinds())


def test_one_seed_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "history.jsonl"
    assert main(["--seed", "11", "--trace", "--history", str(path)]) == 0
    told = capsys.readouterr().out
    assert "all faults end" in told
    assert "simulated over" not in told
    records = list(read_history(path))
    assert any(record.outcome == OK for record in records)


def test_orders_that_make_no_sense_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--nodes", "6"])
    assert caught.value.code == 2
    assert "--nodes" in capsys.readouterr().err
