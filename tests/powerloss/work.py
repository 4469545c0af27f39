"""Records of whole workloads, and of recoveries; what is run on them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from raftdb.base.errors import Error
from raftdb.embedded.assembly import Assembly
from tests.powerloss.bench import scratch
from tests.powerloss.check import start
from tests.powerloss.disk import Disk, State, read_state, write_state
from tests.powerloss.explore import Candidate, Explorer, Recorded, Result
from tests.powerloss.record import Event, RecordingFiles, RecordingVfs
from tests.powerloss.script import SHAPES, MortalRecorder, Script, Shape
from tests.powerloss.story import NotedJournal

CLUSTER = "cluster"
"""The name of the workload of real processes."""
AGAIN_STATES = 25
"""Crash states of one recovery, at most."""
AGAIN_STATES_MEAN = 10


@dataclass(frozen=True)
class Task:
    """One piece of work for one process."""

    shape: str
    seed: int
    states: int
    again: bool = False
    """Crash states of the recoveries from crash states, and not those of the workload itself."""
    keep: str = ""


def run_task(task: Task) -> Result:
    """Record, and open."""
    keep = Path(task.keep) if task.keep else None
    if task.shape == CLUSTER:
        return explore_cluster(task.states, keep)
    recorded = record_script(SHAPES[task.shape], task.seed)
    if task.again:
        return explore_recoveries(recorded, task.states, keep)
    return Explorer(recorded, keep=keep).run(task.states)


def explore_cluster(states: int, keep: Path | None) -> Result:
    """Crash states of a node of a real cluster; its processes make another record every time."""
    from tests.powerloss.cluster import record_cluster

    with _home() as home:
        recorded = record_cluster(home)
        result = Explorer(recorded, keep=keep).run(states)
        if keep is not None and result.failures:
            shutil.copytree(home, keep / CLUSTER, ignore=shutil.ignore_patterns("*.sock"))
        return result


def record_script(shape: Shape, seed: int) -> Recorded:
    """Run a scripted workload. Its record must lead to exactly the files that it left."""
    with _home() as home:
        root = home / "data"
        script = Script(root, shape, seed)
        events = script.run()
        recorded = Recorded(f"{shape.name}/{seed}", str(root), events, script.config, seed)
        check_record(recorded, read_state(root))
        return recorded


@contextmanager
def _home() -> Iterator[Path]:
    home = scratch()
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def check_record(recorded: Recorded, found: dict[str, bytes | None]) -> None:
    """Nothing changed the files without being recorded. Raises AssertionError."""
    disk = Disk(recorded.root, recorded.initial)
    for number, event in enumerate(recorded.events):
        disk.feed(number, event)
    wanted = disk.cached()
    wrong = sorted(
        path
        for path in {*wanted, *found}
        if path not in wanted or path not in found or wanted[path] != found[path]
    )
    assert not wrong, f"the record does not explain these files: {wrong}"


def record_recovery(explorer: Explorer, candidate: Candidate, state: State) -> Recorded | None:
    """What a start does on a crash state; None when there is no node yet."""
    recorded = explorer.recorded
    events: list[Event] = []
    with _home() as home:
        root = home / "data"
        write_state(state, root)
        recorder = MortalRecorder(events)
        vfs = RecordingVfs(recorder)
        NotedJournal.recorder = recorder
        try:
            with patch.object(Assembly, "journal_class", NotedJournal):
                opened = start(root, recorded.config, RecordingFiles(recorder), vfs.name)
        except Error:
            if candidate.required.founded:
                raise
            return None
        finally:
            vfs.unregister()
        recorder.die_after(0)
        opened.close()
        assert any(event[:2] == ("note", "told") for event in events)
        again = Recorded(
            f"{explorer.name(candidate)}+",
            str(root),
            events,
            recorded.config,
            recorded.seed,
            state,
            lambda: explorer.story.from_here(candidate.required),
        )
        check_record(again, read_state(root))
        return again


def explore_recoveries(recorded: Recorded, states: int, keep: Path | None) -> Result:
    """Crash states of starts that were made on crash states."""
    first = Explorer(recorded)
    result = Result(f"{recorded.name}+", len(recorded.events))
    for candidate, state in first.states(max(2, states // AGAIN_STATES_MEAN)):
        again = record_recovery(first, candidate, state)
        if again is not None:
            part = Explorer(again, keep=keep, reference=first.checker.reference)
            result.add(part.run(AGAIN_STATES))
        if result.failures:
            break
    return result


def run_named(name: str, keep: Path | None) -> Result:
    """One state by its name: SHAPE/SEED:EVENT:WAY, and +:EVENT:WAY for one of its recovery."""
    first, _, second = name.partition("+:")
    workload, event, way = first.split(":")
    if workload == CLUSTER:
        raise ValueError("real processes do nothing twice alike: look at the files that were kept")
    shape, seed = workload.split("/")
    explorer = Explorer(record_script(SHAPES[shape], int(seed)), keep=keep)
    if not second:
        return explorer.run_one(int(event), int(way))
    for number, disk in _walk_to(explorer.recorded, int(event)):
        candidate = Candidate(number, int(way), explorer.required[number])
        again = record_recovery(explorer, candidate, disk_state(explorer, disk, candidate))
        if again is not None:
            event, way = second.split(":")
            part = Explorer(again, keep=keep, reference=explorer.checker.reference)
            return part.run_one(int(event), int(way))
    raise ValueError(f"there is no state {name}")


def _walk_to(recorded: Recorded, event: int) -> Iterator[tuple[int, Disk]]:
    from tests.powerloss.explore import walk

    return (one for one in walk(recorded) if one[0] == event)


def disk_state(explorer: Explorer, disk: Disk, candidate: Candidate) -> State:
    """The state of a candidate; `disk` stands behind its event."""
    from tests.powerloss.explore import ways_at

    way = ways_at(explorer.recorded, disk, candidate.event, candidate.way)
    return disk.state(*way)
