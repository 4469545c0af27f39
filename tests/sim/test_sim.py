"""The simulation of whole nodes: seeds pass, one seed is one run, and what breaks is told.

`python -m tests.sim --minutes 10` runs many more.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from tests.sim import many, report
from tests.sim.__main__ import main
from tests.sim.checkers import Broken, Checker, whole_checkers
from tests.sim.checkers.memberships import Memberships
from tests.sim.disk import Fault, SimFiles
from tests.sim.faults import kinds
from tests.sim.members import new_machine, order
from tests.sim.planted import scenarios_copies
from tests.sim.planted.members import done
from tests.sim.planted.script import Script
from tests.sim.run import Result, Simulation, run_seed
from tests.sim.settings import draw_settings
from tests.sim.shrink import shrink
from tests.sim.words import plain
from tests.workloads import OK, Mix, Verdict, judged, read_history
from tests.workloads.registers import Registers

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


CHANGING = [seed for seed in SHORT if draw_settings(seed).changes_members]


def test_members_come_and_go() -> None:
    changes: Counter[str] = Counter()
    for seed in CHANGING[:5]:
        result = run_seed(seed)
        assert not result.broken
        changes.update(result.changes)
    assert changes.keys() == {"add", "promote", "demote", "remove"}


def test_a_new_node_answers_at_the_address_of_a_lost_one() -> None:
    """Its disk is empty, its name is another: who expects the old one does not talk to it."""

    def play(s: Script) -> None:
        lost = s.others(s.leader())[0]
        s.cluster.retire(lost, lost=True)
        known = s.node(s.leader()).configurations.latest
        add = new_machine(s.nemesis, random.Random(1), known, at=lost)
        done(s, order("remove", lost))
        done(s, add)
        done(s, order("promote", "x4"))
        s.written(2)
        found = s.node("x4").configurations.latest.member("x4")
        assert found is not None
        assert found.peer_address.host == lost

    script = Script(play)
    assert not script.run().broken
    assert {str(one.node_id) for one in script.cluster.configuration().members} >= {"x4"}


def test_those_seeds_are_of_many_kinds() -> None:
    chosen = [draw_settings(seed) for seed in SHORT[:20]]
    assert {settings.profile for settings in chosen} >= {"rack", "metro", "continent"}
    assert {len(settings.sizes.places) for settings in chosen} >= {3, 5, 7}


def test_one_seed_is_one_run() -> None:
    first, again, other = run_seed(0), run_seed(0), run_seed(1)
    assert first.digest == again.digest
    assert first.digest != other.digest


def digest_of(seed: int, hash_seed: str, **environment: str) -> str:
    program = f"from tests.sim.run import run_seed; print(run_seed({seed}).digest)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd="/",
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONHASHSEED": hash_seed,
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


def test_one_seed_is_one_run_whatever_strings_hash_to_and_wherever_it_runs() -> None:
    elsewhere = digest_of(11, "2", TZ="Asia/Tokyo", LC_ALL="C")
    assert digest_of(11, "1") == elsewhere == run_seed(11).digest


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
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"seed 7 \(\d nodes, \w+, .*\): BROKEN trip: on purpose", lines[-2])
    assert lines[-1] == "reproduce: python -m tests.sim --seed 7 --nodes 3 --trace"
    assert len(lines) == report.LAST_NOTES + 3
    assert lines[0].startswith("last events of seed 7 ")
    assert any(" follows n" in line for line in lines)
    assert re.search(r"c\d+ \w+ \w+ \{.*\}, begun at \d", lines[-3])


class Raises(Checker):
    """A checker with a defect of its own."""

    def on_return(self, record: object) -> None:
        raise ZeroDivisionError("of a checker")


def test_an_exception_nobody_foresaw_is_told_with_its_place(
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = Simulation(7, checkers=[Raises()]).run()
    report.failures([result] * (report.TOLD_MAX + 1), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "seed 7: BROKEN ZeroDivisionError: of a checker: python -m tests.sim --seed 7 --trace"
    )
    assert any("in on_return" in line for line in lines)
    assert lines[-1] == "reproduce: python -m tests.sim --seed 7 --trace"


@pytest.mark.parametrize("method", ["on_append", "in_force"])
def test_a_checker_that_is_at_a_loss_has_found_something(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Not the node in whose midst it looked, nor the simulation."""

    def at_a_loss(*_seen: object, **_more: object) -> None:
        raise KeyError("what no log has")

    monkeypatch.setattr(Memberships, method, at_a_loss)
    result = run_seed(SHORT[0])
    assert "makes no sense of what it sees: KeyError: 'what no log has' (in " in result.broken
    assert result.invariant in ("commit held", "elected by voters", "members by log")


def test_a_judge_that_is_at_a_loss_has_found_something(monkeypatch: pytest.MonkeyPatch) -> None:
    def at_a_loss(*_seen: object, **_more: object) -> None:
        raise IndexError("of rows")

    monkeypatch.setattr(judged, "check_linearizable", at_a_loss)
    settings = replace(draw_settings(SHORT[0]), duration_s=2.0, clients=1)
    result = run_seed(SHORT[0], settings=settings, workload=Mix([(Registers(), 1.0)]))
    assert result.invariant == "judged"
    assert "makes no sense of what it sees: IndexError: of rows" in result.broken


class NeedsFaults(Checker):
    """Breaks in a run that has each of these faults."""

    def __init__(self, *numbers: str) -> None:
        self.missing = set(numbers)

    def on_event(self, kind: str, name: str, facts: dict[str, object]) -> None:
        if kind == "fault":
            self.missing.discard(name)
            if not self.missing:
                raise Broken("needs faults", "all of them")


def test_shrinking_finds_the_faults_that_matter(capsys: pytest.CaptureFixture[str]) -> None:
    drawn = draw_settings(SHORT[0])
    plan = replace(drawn.plan, every_s=0.1)
    settings = replace(drawn, duration_s=2.5, clients=1, plan=plan)

    def simulate(seed: int, **options: Any) -> Simulation:
        checkers = [NeedsFaults("1", "4")]
        return Simulation(seed, settings=settings, checkers=checkers, **options)

    assert shrink(SHORT[0], {}, simulate) == 1
    told = capsys.readouterr().out
    kept = re.findall(r"^ +(\d+) at .* s  [\w-]+$", told, re.MULTILINE)
    assert kept == ["1", "4"]
    last = told.splitlines()[-1]
    without = re.fullmatch(r"reproduce: .* --without ([\d,]+) --trace", last)
    assert without
    left_out = {int(number) for number in without[1].split(",")}
    assert left_out.isdisjoint({1, 4})
    again = simulate(SHORT[0], without=left_out)
    assert [event.number for event in again.nemesis.events] == [1, 4]
    assert again.run().invariant == "needs faults"


def test_what_breaks_nothing_is_not_shrunk(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", str(SHORT[0]), "--shrink"]) == 0
    assert "breaks nothing" in capsys.readouterr().out


def test_a_soak_runs_until_it_is_told_to_stop(tmp_path: Path) -> None:
    failures = tmp_path / "failures.txt"
    options = ["--nodes", "3", "--profile", "rack", "--jobs", "1", "--every", "0", "--first", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.sim", "soak", *options, "--failures", str(failures)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if " 2 seeds, 0 broken" in line:
                process.send_signal(signal.SIGTERM)
                break
        told, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert told.startswith("stopped\n")
    assert "cluster-hours" in told
    assert not errors
    assert not failures.exists()


def test_a_soak_remembers_what_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many, "results", trips)
    path = tmp_path / "failures.txt"
    assert many.run_fresh(many.Fresh(failures=path), {"nodes": 3}, 1) == 1
    command = "python -m tests.sim --seed 5 --nodes 3 --trace"
    assert path.read_text() == f"{command}  # trip: on purpose\n"
    lines = capsys.readouterr().out.splitlines()
    assert "BROKEN trip: on purpose" in lines[-2]
    assert lines[-1] == f"reproduce: {command}"


def trips(seeds: Iterator[int], *_how: object) -> Iterator[Result]:
    yield Result(next(seeds), "", nodes=3)
    notes = ["   3.5172 n2 starts again "]
    yield Result(5, "", nodes=3, broken="trip: on purpose", invariant="trip", notes=notes)
    raise KeyboardInterrupt


def test_fresh_seeds_that_break_are_told_and_fail_nothing_where_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many, "results", trips)
    stories = tmp_path / "stories"
    options = ["--minutes", "1", "--report-only", "--stories", str(stories)]
    assert main(options) == 0
    told = capsys.readouterr().out
    assert "!! 1 FRESH SEEDS BROKE" in told
    last = told[told.index("!!!!") :]
    story = stories / "seed-5.txt"
    for line in (
        "seed 5: trip: on purpose",
        "python -m tests.sim --seed 5 --trace",
        f"its story: {story}",
    ):
        assert line in last
    assert story.read_text().splitlines() == [
        "   3.5172 n2 ends, and is started again at once",
        "BROKEN trip: on purpose",
        "reproduce: python -m tests.sim --seed 5 --trace",
    ]
    assert main(["--minutes", "1"]) == 1


def test_when_the_time_is_over_what_is_under_way_is_given_up(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []
    assert not list(many.results([70], {}, 1, time.perf_counter(), left))
    assert left == [70]

    def none(_seeds: object, _choice: object, _jobs: int, end_s: float, left: list[int]) -> Any:
        left.append(70)
        return iter(())

    monkeypatch.setattr(many, "results", none)
    assert many.run_fresh(many.Fresh(seconds=0.0), {}, 1) == 0
    assert "given up when the time was over: seeds 70" in capsys.readouterr().out


def test_what_the_simulation_itself_raises_is_told_with_its_seed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def raises(seed: int, **_choice: object) -> Result:
        raise ZeroDivisionError("while it was set up")

    monkeypatch.setattr(many, "run_seed", raises)
    result = many._work((7, {}))
    assert (result.seed, result.broken) == (7, "ZeroDivisionError: while it was set up")
    assert "in raises" in result.traceback


def test_a_run_without_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "ENDLESS_S", 0.01)
    [result] = many.results([SHORT[0]], {}, 1)
    assert result.seed == SHORT[0]
    assert result.invariant == "endless"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("spent_s", [0.02, 0.2], ids=str)
def test_a_run_without_end_is_told_by_what_it_has_spent(
    monkeypatch: pytest.MonkeyPatch, spent_s: float
) -> None:
    """Also while its cluster is founded. Where the time ends in a finalizer, what is raised there
    is lost with a warning, and raised again a moment later."""
    monkeypatch.setattr(many, "ENDLESS_CPU_S", spent_s)
    result = many._work((SHORT[0], {}))
    assert result.invariant == "endless"
    assert "s of processor time, at\n" in result.broken


def test_clients_that_could_not_begin_before_the_faults_ended_begin_nothing_later() -> None:
    """Or they would write behind the last reads, which then miss what was acknowledged (seed
    414653316282)."""
    settings = draw_settings(SHORT[0])
    simulation = Simulation(SHORT[0], settings=replace(settings, duration_s=0.1))
    result = simulation.run()
    assert not result.broken
    records = simulation.history.records
    first = next(n for n, record in enumerate(records) if record.arguments.get("final"))
    assert {record.client for record in records[first:]} == {simulation.operator.number}


def test_who_is_to_stop_does_not_wait_for_regions_that_were_lost_for_good() -> None:
    """A client asks for more regions than are left, and for an outcome until it knows it (seed
    100275)."""
    client = Simulation(SHORT[0]).clients[0]
    client._durability = "locations=3"
    client._core.leave_unsettled((Mock(),))
    assert client._may_resume()
    client.stop()
    assert not client._may_resume()
    client._durability = ""
    assert client._may_resume()


def test_the_story_says_why_a_node_starts_again() -> None:
    reason = "this node's files are damaged: it heals from the others"
    line = f"   3.5172 n2 starting_again reason={reason}"
    assert plain(line) == f"   3.5172 n2 is to start again: {reason}"
    assert "copy" not in plain("   3.5172 n2 starts again ")


def test_a_majority_that_has_to_wait_for_a_copy_has_the_time() -> None:
    """Two of five were lost, and one of the others was outrun (seed 238879915056)."""

    def play(s: Script) -> None:
        leader, follower = scenarios_copies.outrun(s)
        lost = next(name for name in s.others(leader) if name != follower)
        s.down(lost)
        s.host(lost).damaged = True
        s.host(lost).files = SimFiles(random.Random("a new disk"))
        s.up(follower)

    limits = {"journal_segment_bytes": 2048, "peer_part_bytes": 400}
    script = Script(play, limits=limits, wal_bytes=1, keep_bytes=1)
    result = script.run()
    assert not result.broken
    assert result.copies == 1


def test_a_node_whose_disk_failed_a_call_may_heal() -> None:
    """What it could not read it takes for damaged (seed 175)."""
    healed: list[str] = []

    def play(s: Script) -> None:
        follower = s.others(s.leader())[0]
        host = s.host(follower)
        host.excused = True
        host.files.inject(Fault("read", 3, contains="-wal"))
        s.written(5)
        s.until(lambda: host.node is not None and host.node.machine.absent)
        healed.append(follower)

    script = Script(play, wal_bytes=1)
    assert not script.run().broken
    assert healed


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


def test_a_search_that_came_to_its_bound_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(judged, "check_linearizable", lambda *_a, **_k: Verdict(None, 9, 0))
    settings = replace(draw_settings(SHORT[0]), duration_s=3.0, clients=1)
    result = run_seed(SHORT[0], settings=settings, workload=Mix([(Registers(), 1.0)]))
    assert not result.broken
    assert result.undecided == ("register",)
    report.table([result, Result(5, "")], 1.0)
    told = capsys.readouterr().out
    assert f"1 histories came to the bound of the search for an order: seed {SHORT[0]}" in told


def test_one_of_many_seeds_is_run_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = iter(("one", "one", "one", "other", "alone"))
    monkeypatch.setattr(many, "run_seed", lambda seed, **_choice: Result(seed, next(digests)))
    assert not many._work((2 * many.TWICE_EVERY, {})).broken
    assert "one and then other" in many._work((many.TWICE_EVERY, {})).broken
    assert not many._work((many.TWICE_EVERY + 1, {})).broken
