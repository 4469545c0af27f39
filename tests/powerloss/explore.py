"""From a record to crash states, and from each state to a verdict.

A state is named WORKLOAD:EVENT:WAY: the crash comes after that event of the record, and WAY says
which of the pending changes reach the disk. Ways 0 to 8 are systematic (none, all, only names, only
content, …), the others are drawn. Equal states are opened once, and have to satisfy the promises of
every moment at which they can arise.
"""

from __future__ import annotations

import random
import shutil
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raftdb.base.config import NodeConfig
from tests.powerloss.bench import scratch
from tests.powerloss.check import Checker, Looked, Reference, ViolationError
from tests.powerloss.disk import DROP, KEEP, TORN, ZERO, Disk, State, write_state
from tests.powerloss.record import Event
from tests.powerloss.story import Required, Story

SYSTEMATIC = 9
WAYS_MAX = 64
MOMENTS_MIN = 60
"""Where few states are asked for, not every moment is looked at."""

Prepare = Callable[[Path], None]
"""Does something to the files before they are opened; for planted bugs."""


@dataclass(frozen=True)
class Recorded:
    """One record, and what belongs to it."""

    name: str
    root: str
    events: Sequence[Event]
    config: NodeConfig
    seed: int
    initial: State | None = None
    story: Callable[[], Story] = Story


@dataclass
class Candidate:
    """One distinct state: where it arises first, and what it must hold."""

    event: int
    way: int
    required: Required


@dataclass(frozen=True)
class Failure:
    """A state that breaks a promise."""

    name: str
    text: str
    detail: str


@dataclass
class Result:
    """What came of one record."""

    name: str
    events: int = 0
    built: int = 0
    """States that were built, equal ones included."""
    distinct: int = 0
    opened: int = 0
    cut: int = 0
    replayed: int = 0
    unfounded: int = 0
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: Result) -> None:
        """Of a part."""
        for name in ("built", "distinct", "opened", "cut", "replayed", "unfounded"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.failures += other.failures

    def count(self, looked: Looked) -> None:
        self.opened += 1
        self.cut += looked.cut
        self.replayed += looked.replayed > 0
        self.unfounded += not looked.founded


def fates_of(disk: Disk, way: int, draw: random.Random) -> dict[int, str]:
    """Which pending changes reach the disk; see the module."""
    content = [change.number for _inode, change in disk.pending()]
    names = [change.number for change in disk.name_changes]
    everything = sorted(content + names)
    newest = everything[-1:] or [0]
    if way == 0:
        return {}
    if way == 1:
        return dict.fromkeys(everything, KEEP)
    if way == 2:
        return dict.fromkeys(names, KEEP)
    if way == 3:
        return dict.fromkeys(content, KEEP)
    if way == 4:
        return {**dict.fromkeys(everything, KEEP), newest[0]: TORN}
    if way == 5:
        return dict.fromkeys(newest, KEEP)
    if way == 6:
        return dict.fromkeys(everything[:-1], KEEP)
    if way in (7, 8):
        sides = _by_room(disk)
        return {**dict.fromkeys(names, KEEP), **dict.fromkeys(sides[way == 7], KEEP)}
    rooms = [side[-1] for side in _by_room(disk).values() if side]
    return _drawn(content, names, rooms, draw)


def _by_room(disk: Disk) -> dict[bool, list[int]]:
    """Pending content by whether it is the database's."""
    paths = {number: path for path, number in disk.names.items()}
    sides: dict[bool, list[int]] = {True: [], False: []}
    for inode, change in disk.pending():
        sides["sqlite" in paths.get(inode.number, "")].append(change.number)
    return sides


def _drawn(
    content: list[int], names: list[int], newest_of_rooms: list[int], draw: random.Random
) -> dict[int, str]:
    """Any subset: mostly a prefix or a thin or thick one, with some of the writes torn."""
    fates: dict[int, str] = {}
    for group in (content, names):
        chance = draw.choice((0.1, 0.5, 0.9))
        edge = draw.randint(0, len(group))
        in_order = draw.random() < 0.4
        for position, number in enumerate(group):
            there = position < edge if in_order else draw.random() < chance
            fates[number] = KEEP if there else DROP
    torn = draw.choice((0.0, 0.1, 0.5))
    for number in content:
        if draw.random() < torn:
            fates[number] = draw.choice((TORN, TORN, ZERO))
    # What is written last, in each room, is what is torn most often.
    for newest in newest_of_rooms:
        if draw.random() < 0.5:
            fates[newest] = draw.choice((TORN, TORN, TORN, ZERO, KEEP))
    return fates


def ways_at(recorded: Recorded, disk: Disk, event: int, way: int) -> Any:
    """(fates, draw) of a way; `disk` stands behind the event."""
    draw = random.Random(f"{recorded.name} {recorded.seed} {event} {way}")
    return fates_of(disk, way, draw), draw


def moments(recorded: Recorded, story: Story) -> dict[int, Required]:
    """By event that changes what a crash may leave: what is required from it up to the next one.
    Feeds the story."""
    found: dict[int, Required] = {}
    newest = None
    for number, event in enumerate(recorded.events):
        required = story.feed(event)
        if event[0] in ("note", "sync_begin", "names_begin"):
            if newest is not None:
                found[newest] = found[newest].and_also(required)
        else:
            newest = number
            found[number] = required
    return found


def walk(recorded: Recorded) -> Iterator[tuple[int, Disk]]:
    """Event by event: its number, and the disk behind it."""
    disk = Disk(recorded.root, recorded.initial)
    for number, event in enumerate(recorded.events):
        disk.feed(number, event)
        yield number, disk


def candidates(
    recorded: Recorded, required: dict[int, Required], states: int, result: Result
) -> list[Candidate]:
    """Up to `states` distinct ones, the systematic ways first."""
    ways = min(WAYS_MAX, SYSTEMATIC + 1 + (2 * states) // max(len(required), 1))
    draw = random.Random(f"{recorded.name} {recorded.seed}")
    visited = set(draw.sample(sorted(required), min(len(required), MOMENTS_MIN + states // 4)))
    found: dict[bytes, Candidate] = {}
    for number, disk in walk(recorded):
        if number not in visited:
            continue
        # Where the journal's own bytes are in doubt there is most to be seen.
        more = 4 if _by_room(disk)[False] else 1
        for way in range(min(WAYS_MAX, more * ways)):
            key = disk.key(*ways_at(recorded, disk, number, way))
            result.built += 1
            old = found.get(key)
            if old is None:
                found[key] = Candidate(number, way, required[number])
            else:
                old.required = old.required.and_also(required[number])
    result.distinct = len(found)
    chosen = _taken(list(found.values()), states, draw)
    return sorted(chosen, key=lambda one: (one.event, one.way))


def _taken(found: list[Candidate], states: int, draw: random.Random) -> list[Candidate]:
    """Half of them systematic, half drawn, as far as there are enough."""
    draw.shuffle(found)
    systematic = [one for one in found if one.way < SYSTEMATIC]
    drawn = [one for one in found if one.way >= SYSTEMATIC]
    half = max(states // 2, states - len(drawn))
    return systematic[:half] + drawn[: states - min(half, len(systematic))]


@dataclass
class Explorer:
    """Opens crash states of one record."""

    recorded: Recorded
    prepare: Prepare | None = None
    failures_max: int = 3
    keep: Path | None = None
    """Where failing states go."""
    reference: Reference | None = None

    def __post_init__(self) -> None:
        self.result = Result(self.recorded.name, len(self.recorded.events))
        self.story = self.recorded.story()
        self.required = moments(self.recorded, self.story)
        self._checker: Checker | None = None

    def run(self, states: int) -> Result:
        """Open up to `states` distinct ones."""
        for candidate, state in self.states(states):
            self._try(candidate, state)
            if len(self.result.failures) >= self.failures_max:
                break
        return self.result

    def run_one(self, event: int, way: int) -> Result:
        """Open one, by its name."""
        for number, disk in walk(self.recorded):
            if number == event:
                candidate = Candidate(event, way, self.required[event])
                state = disk.state(*ways_at(self.recorded, disk, event, way))
                self._try(candidate, state)
        return self.result

    def states(self, count: int) -> Iterator[tuple[Candidate, State]]:
        """Distinct ones, each made only when it is asked for."""
        waiting = iter(candidates(self.recorded, self.required, count, self.result))
        candidate = next(waiting, None)
        for number, disk in walk(self.recorded):
            while candidate is not None and candidate.event == number:
                way = ways_at(self.recorded, disk, number, candidate.way)
                yield candidate, disk.state(*way)
                candidate = next(waiting, None)

    @property
    def checker(self) -> Checker:
        """Made when it is needed first: it replays the whole workload."""
        if self._checker is None:
            self._checker = Checker(self.story, self.recorded.config, self.reference)
        return self._checker

    def name(self, candidate: Candidate) -> str:
        """Of one state."""
        return f"{self.recorded.name}:{candidate.event}:{candidate.way}"

    def _try(self, candidate: Candidate, state: State) -> None:
        name, result = self.name(candidate), self.result
        checker = self.checker
        home = scratch()
        directory = home / "data"
        write_state(state, directory)
        try:
            if self.prepare is not None:
                self.prepare(directory)
            result.count(checker.check(directory, candidate.required))
        except ViolationError as error:
            result.failures.append(Failure(name, str(error), ""))
        except Exception as error:
            result.failures.append(Failure(name, repr(error), traceback.format_exc()))
        finally:
            shutil.rmtree(home, ignore_errors=True)
        if self.keep is not None and result.failures and result.failures[-1].name == name:
            kept = self.keep / name.replace(":", "-").replace("/", "_")
            write_state(state, kept / "data")
            (kept / "failure.txt").write_text(f"{result.failures[-1]}\n")
