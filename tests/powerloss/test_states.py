"""A small part of what `python -m tests.powerloss` opens, and the model of the disk itself."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.powerloss.disk import DROP, KEEP, TORN, ZERO, Disk, read_state, write_state
from tests.powerloss.explore import SYSTEMATIC, Explorer, Recorded
from tests.powerloss.planted import PLANTED, in_force
from tests.powerloss.record import Event, RecordingFiles, RecordingVfs
from tests.powerloss.script import SHAPES, KilledError, MortalRecorder, Script
from tests.powerloss.work import (
    CLUSTER,
    Task,
    explore_recoveries,
    record_script,
    run_named,
    run_task,
)

ROOT = Path(__file__).parents[2]
STATES = 24


@pytest.mark.parametrize("shape", SHAPES)
def test_crash_states_of_a_workload(shape: str) -> None:
    result = run_task(Task(shape, 11, STATES))
    assert result.failures == []
    assert result.opened == STATES
    assert result.distinct > 4 * STATES
    assert result.replayed > 0


def test_crash_states_of_a_node_of_a_real_cluster() -> None:
    result = run_task(Task(CLUSTER, 1, 2 * STATES))
    assert result.failures == []
    assert result.opened == 2 * STATES
    assert result.replayed > 0


def test_crash_states_of_recoveries() -> None:
    result = explore_recoveries(record_script(SHAPES["rolls"], 11), 20, None)
    assert result.failures == []
    assert result.opened > 10


def test_a_broken_state_is_kept_and_found_again_by_its_name(tmp_path: Path) -> None:
    """The promise is made too great: then a state that lost a batch must be broken."""
    explorer = Explorer(record_script(SHAPES["clients"], 1), keep=tmp_path, failures_max=1)
    high = len(explorer.story.states) - 1
    for event, required in explorer.required.items():
        ranges = tuple((life, high, high) for life, _low, _high in required.ranges)
        explorer.required[event] = type(required)(required.founded, ranges)
    [failure] = explorer.run(STATES).failures
    assert "promised" in failure.text or "forgotten" in failure.text
    [kept] = tmp_path.iterdir()
    assert (kept / "data" / "journal").is_dir()
    assert failure.name in (kept / "failure.txt").read_text()
    again = run_named(failure.name, None)
    assert again.opened == 1
    assert again.failures == []


def test_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.powerloss", "--only", "clients/1:97:1", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["opened"] == 1


class DiesInRoll(MortalRecorder):
    """Ends its process between a new segment's rename and the sync of its directory."""

    armed = False

    def sync_names(self, path: str, syncing: Callable[[], None]) -> None:
        if self.armed and path.endswith("/journal"):
            self.armed = False
            self.die_after(0)
        super().sync_names(path, syncing)


def _fill(script: Script) -> None:
    for _ in range(100):
        script._write()
        script.executor.settle()


def test_a_start_seals_no_segment_before_its_successor_has_a_durable_name(tmp_path: Path) -> None:
    """The next start finished the seal, and its rename could reach the disk before the one of the
    successor: a segment that is sealed and has no successor is taken for a loss."""
    script = Script(tmp_path / "data", SHAPES["rolls"], 1)
    recorder = script.recorder = DiesInRoll(script.events)
    script.files, script.vfs = RecordingFiles(recorder), RecordingVfs(recorder)
    script.found()
    script.open()
    script._begin()
    recorder.armed = True
    with pytest.raises(KilledError):
        _fill(script)
    script.abandon()
    killed = len(script.events)
    script.open()
    script.abandon()
    recorded = Recorded("roll", str(script.root), script.events, script.config, 1)
    explorer = Explorer(recorded)
    renames = [n for n, event in enumerate(script.events) if n >= killed and event[0] == "rename"]
    assert len(renames) >= 2
    for event in renames:
        for way in range(SYSTEMATIC):
            assert explorer.run_one(event, way).failures == []


# -- the disk ------------------------------------------------------------------------------------


def disk_after(*events: Event) -> Disk:
    disk = Disk("/r", {"old": b"o" * 1000})
    for number, event in enumerate(events):
        disk.feed(number, event)
    return disk


def left(disk: Disk, **fates: str) -> dict[str, bytes | None]:
    chosen = {int(name[1:]): fate for name, fate in fates.items()}
    draw = random.Random(1)
    state = disk.state(chosen, draw)
    assert disk.key(chosen, random.Random(1)) == disk.key(chosen, random.Random(1))
    return state


def test_what_is_not_synced_is_there_or_not() -> None:
    disk = disk_after(("open", "h", "/r/old", False), ("write", "h", 990, b"n" * 20))
    assert left(disk) == {"old": b"o" * 1000}
    assert left(disk, e1=KEEP) == {"old": b"o" * 990 + b"n" * 20}
    assert left(disk, e1=ZERO) == {"old": b"o" * 1000 + bytes(10)}
    assert left(disk, e1=DROP) == left(disk)
    torn = {left_of(disk, seed) for seed in range(60)}
    # The write lies in one sector: it is whole or absent, but the size may come alone.
    assert torn == {
        b"o" * 1000,
        b"o" * 1000 + bytes(10),
        b"o" * 990 + b"n" * 20,
    }


def left_of(disk: Disk, seed: int) -> bytes:
    content = disk.state({1: TORN}, random.Random(seed))["old"]
    assert content is not None
    return content


def test_a_sync_covers_what_was_written_before_it_began() -> None:
    disk = disk_after(
        ("open", "h", "/r/old", False),
        ("write", "h", 0, b"1"),
        ("sync_begin", "t", "h"),
        ("write", "h", 1, b"2"),
        ("sync_end", "t"),
    )
    assert left(disk) == {"old": b"1" + b"o" * 999}
    assert left(disk, e3=KEEP) == {"old": b"12" + b"o" * 998}


def test_later_writes_may_arrive_before_earlier_ones() -> None:
    disk = disk_after(
        ("open", "h", "/r/new", True), ("write", "h", 0, b"one"), ("write", "h", 3, b"two")
    )
    assert left(disk, e1=KEEP) == {"old": b"o" * 1000}, "a file without a name is not there"
    assert left(disk, e0=KEEP, e2=KEEP)["new"] == b"\0\0\0two"


def test_names_are_durable_by_their_directory_alone() -> None:
    events: list[Event] = [
        ("directory", "/r/d"),
        ("open", "h", "/r/d/a", True),
        ("write", "h", 0, b"a"),
        ("sync_begin", "t", "h"),
        ("sync_end", "t"),
    ]
    assert left(disk_after(*events)) == {"old": b"o" * 1000}
    events += [("names_begin", "n", "/r/d"), ("names_end", "n")]
    assert left(disk_after(*events)) == {"old": b"o" * 1000}, "its directory has no name"
    events += [("names_begin", "m", "/r"), ("names_end", "m")]
    assert left(disk_after(*events)) == {"old": b"o" * 1000, "d": None, "d/a": b"a"}
    events += [("rename", "/r/d/a", "/r/d/b")]
    assert set(left(disk_after(*events))) == {"old", "d", "d/a"}
    assert set(left(disk_after(*events), e9=KEEP)) == {"old", "d", "d/b"}


def test_a_state_is_written_as_it_is(tmp_path: Path) -> None:
    state = {"d": None, "d/a": b"a", "empty": b""}
    write_state(state, tmp_path)
    assert read_state(tmp_path) == state


# -- planted bugs --------------------------------------------------------------------------------


def test_planted_bugs_are_switched_off_again() -> None:
    record = record_script(SHAPES["rolls"], 3)
    for bug in PLANTED:
        with in_force(bug):
            pass
    kinds = [event[0] for event in record.events]
    assert [event[0] for event in record_script(SHAPES["rolls"], 3).events] == kinds
