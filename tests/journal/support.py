"""A hand-driven executor and helpers: a test decides when the disk works and when time passes."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from raftdb.base.ids import Index, NodeId, Term
from raftdb.base.limits import Limits
from raftdb.base.ports import Done, Files
from raftdb.journal import HardState, Journal, LogEntry, RetentionBounds, Salvage
from tests.sim.disk import SimFiles

DIRECTORY = "/data/journal"


class HandTimer:
    def __init__(self, at_s: float, call: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self.at_s = at_s
        self.call = call
        self.arguments = arguments
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class HandExecutor:
    """Nothing runs by itself: `turn` runs what is due on the loop, `work` one piece of lane work,
    `advance` moves time, `settle` does all of it but time."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.soon: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self.lane: deque[tuple[Callable[[], Any], Done]] = deque()
        self.timers: list[HandTimer] = []

    def call_soon(self, call: Callable[..., None], *arguments: Any) -> None:
        self.soon.append((call, arguments))

    call_threadsafe = call_soon

    def call_later(self, delay_s: float, call: Callable[..., None], *arguments: Any) -> HandTimer:
        timer = HandTimer(self.now_s + delay_s, call, arguments)
        self.timers.append(timer)
        return timer

    def submit(self, lane: str, work: Callable[[], Any], done: Done) -> None:
        assert lane == "journal"
        self.lane.append((work, done))

    def turn(self) -> None:
        for _ in range(len(self.soon)):
            call, arguments = self.soon.popleft()
            call(*arguments)

    def work(self) -> None:
        work, done = self.lane.popleft()
        try:
            result, error = work(), None
        except Exception as failure:
            result, error = None, failure
        self.soon.append((done, (result, error)))

    def settle(self) -> None:
        while self.soon or self.lane:
            self.turn()
            if self.lane:
                self.work()

    def advance(self, seconds: float) -> None:
        self.now_s += seconds
        due = [timer for timer in self.timers if timer.at_s <= self.now_s]
        self.timers = [timer for timer in self.timers if timer.at_s > self.now_s]
        for timer in sorted(due, key=lambda timer: timer.at_s):
            if not timer.cancelled:
                timer.call(*timer.arguments)


@dataclass
class ListLog:
    """Keeps what was logged."""

    lines: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append(("info", event, fields))

    def warning(self, event: str, **fields: Any) -> None:
        self.lines.append(("warning", event, fields))

    def error(self, event: str, **fields: Any) -> None:
        self.lines.append(("error", event, fields))

    def events(self) -> list[str]:
        return [event for _, event, _ in self.lines]


class SeededRandom:
    def __init__(self, seed: int = 0) -> None:
        self._draw = random.Random(seed)

    def random(self) -> float:
        return self._draw.random()

    def randbytes(self, count: int) -> bytes:
        return self._draw.randbytes(count)


@dataclass
class Bench:
    """A journal with everything around it."""

    files: Files
    limits: Limits = field(default_factory=Limits)
    directory: str = DIRECTORY
    executor: HandExecutor = field(default_factory=HandExecutor)
    log: ListLog = field(default_factory=ListLog)
    retention: RetentionBounds | None = None
    salvage: Salvage | None = None
    durable_calls: int = 0
    fatal: list[BaseException] = field(default_factory=list)

    def create(self) -> Bench:
        Journal.create(self.files, self.directory, SeededRandom())
        return self

    def open(self) -> Journal:
        """A new life: new loop, new journal."""
        self.executor = HandExecutor()
        self.fatal = []
        journal = Journal.open(
            self.files,
            self.directory,
            self.executor,
            self.limits,
            self.log,
            self.retention,
            self.salvage,
        )

        def on_durable() -> None:
            self.durable_calls += 1

        journal.wake(on_durable, self.fatal.append)
        return journal

    def close(self, journal: Journal) -> BaseException | None:
        results: list[BaseException | None] = []
        journal.close(results.append)
        self.executor.settle()
        assert len(results) == 1
        return results[0]


def sim_bench(seed: int = 0, **limits: int) -> Bench:
    return Bench(SimFiles(random.Random(seed)), Limits(**limits)).create()


def entry(index: int, term: int = 1, data: bytes | None = None) -> LogEntry:
    body = b"entry %d of term %d" % (index, term) if data is None else data
    return LogEntry(Index(index), Term(term), body)


def vote(term: int, node: str | None) -> HardState:
    return HardState(Term(term), None if node is None else NodeId(node))


def run_of(first: int, last: int, term: int = 1, size: int | None = None) -> list[LogEntry]:
    data = None if size is None else bytes(size)
    return [entry(index, term, data) for index in range(first, last + 1)]


def contents(journal: Journal) -> list[LogEntry]:
    return journal.entries(journal.first_index, journal.last_index, 1 << 40)


def indexes(entries: Iterable[LogEntry]) -> list[int]:
    return [one.index for one in entries]
