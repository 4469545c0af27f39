"""What applying one single-row request costs, and its parts: `python -m bench apply`.

No cluster and no network: one machine (SQLite, sessions, hashes) is handed entries as the engine
hands them over. CPU time of the process, so other load matters little; the best of some rounds,
since whatever disturbs only adds. The parts are told by samples of where the interpreter is.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import apsw
from rich.console import Console
from rich.table import Table

from raftdb.base.ids import HistoryId, Index, Term
from raftdb.base.limits import Limits
from raftdb.command import (
    Execute,
    Failed,
    Opened,
    OpenSession,
    Statement,
    decode_reply,
    encode_request,
)
from raftdb.command.requests import Stamp
from raftdb.consensus.port import CommittedEntry
from raftdb.machine import Machine
from raftdb.runtime import RealClock, RealFiles

SCHEMA = "CREATE TABLE bench (id INTEGER PRIMARY KEY, k TEXT NOT NULL, v BLOB NOT NULL)"
INSERT = "INSERT INTO bench (k, v) VALUES (?, ?)"
VALUE = b"x" * 100
GOAL_US = 25.0
SAMPLE_S = 0.001
PARTS = {
    "content hash": ("rowhash.py", "content.py", "samples.py"),
    "session and reply": ("sessions.py", "keys.py", "results.py"),
    "determinism (time, random, policy)": ("determinism.py", "policy.py", "switches.py"),
    "SQL: compile, bind, step": ("statements.py",),
    "reading the request, writing the reply": ("codec.py", "packing.py", "requests.py"),
    "counting steps": ("patience.py",),
}
"""By the innermost file of raftdb's that runs."""
HISTORY = HistoryId("ab" * 16)


class Quiet:
    """A log that keeps nothing."""

    def info(self, event: str, **fields: Any) -> None: ...

    warning = error = info


class Bench:
    """One machine in a directory of its own, one session, one table."""

    def __init__(self, directory: Path) -> None:
        files, clock = RealFiles(), RealClock()
        Machine.create(str(directory), HISTORY, files=files)
        self.machine = Machine.open(
            str(directory), history=HISTORY, limits=Limits(), files=files, log=Quiet(), clock=clock
        )
        self.sequence = 0
        [[reply]] = self.machine.apply(
            [self._entry(1, [OpenSession(self._stamp(), b"t" * 16, "")])]
        )
        opened = decode_reply(reply)
        assert isinstance(opened, Opened)
        self.session = opened.session.number
        self.machine.apply([self._entry(2, [self._request(Statement(SCHEMA))])])

    def _stamp(self) -> Stamp:
        return Stamp(1_700_000_000_000 + self.sequence, self.sequence.to_bytes(8, "big"))

    def _request(self, statement: Statement) -> Execute:
        self.sequence += 1
        return Execute(self._stamp(), self.session, self.sequence, self.sequence - 1, (statement,))

    def _entry(self, index: int, requests: list[Any]) -> CommittedEntry:
        payloads = tuple(encode_request(request) for request in requests)
        return CommittedEntry(Index(index), Term(1), payloads)

    def entries(self, count: int, each: int, rows: int) -> Iterator[CommittedEntry]:
        """The next entries: each of so many requests of so many rows."""
        index = int(self.machine.applied()[0])
        for number in range(1, count + 1):
            sets = tuple((f"key-{number:06d}-{row:06d}", VALUE) for row in range(rows))
            requests = [self._request(Statement(INSERT, sets)) for _ in range(each)]
            yield self._entry(index + number, requests)

    def apply(self, entries: list[CommittedEntry]) -> float:
        """CPU seconds."""
        before = time.process_time()
        for entry in entries:
            [replies] = self.machine.apply([entry])
        took_s = time.process_time() - before
        assert not isinstance(decode_reply(replies[-1]), Failed)
        return took_s


class Sampler:
    """Where the interpreter is, each SAMPLE_S of CPU time."""

    def __init__(self) -> None:
        self.parts: Counter[str] = Counter()
        self._files = {name: part for part, names in PARTS.items() for name in names}

    def __enter__(self) -> Sampler:
        signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, SAMPLE_S, SAMPLE_S)
        return self

    def __exit__(self, *_error: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, signal.SIG_DFL)

    def _sample(self, _signal: int, frame: FrameType | None) -> None:
        while frame is not None and "/raftdb/" not in frame.f_code.co_filename:
            frame = frame.f_back
        name = Path(frame.f_code.co_filename).name if frame is not None else ""
        self.parts[self._files.get(name, "transaction, savepoints, progress")] += 1


def raw(directory: Path, count: int, each: int) -> float:
    """CPU seconds of apsw alone: the same rows, a transaction for each entry and a savepoint for
    each request."""
    connection = apsw.Connection(str(directory / "raw.db"))
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", 1)
    connection.execute(SCHEMA)
    execute = connection.cursor().execute
    before = time.process_time()
    for number in range(count):
        execute("BEGIN IMMEDIATE")
        for row in range(each):
            execute("SAVEPOINT r")
            execute(INSERT, (f"key-{number:06d}-{row:06d}", VALUE))
            execute("RELEASE r")
        execute("COMMIT")
    took_s = time.process_time() - before
    connection.close()
    return took_s


def run(rounds: int, directory: Path) -> dict[str, Any]:
    """CPU in microseconds: of a request by how many share an entry, of a row of a batch, and of
    the parts of a request when 64 share one."""
    each_us: dict[int, list[float]] = {1: [], 10: [], 64: []}
    raw_us: dict[int, list[float]] = {1: [], 10: [], 64: []}
    batch_us: list[float] = []
    sampler = Sampler()
    for number in range(rounds):
        for each in each_us:
            place = directory / f"{number}-{each}"
            place.mkdir()
            bench = Bench(place)
            count = max(20, 2_000 // each)
            each_us[each].append(
                bench.apply(list(bench.entries(count, each, 1))) / count / each * 1e6
            )
            raw_us[each].append(raw(place, count, each) / count / each * 1e6)
            if each == 64:
                entries = list(bench.entries(100, each, 1))
                with sampler:
                    bench.apply(entries)
                batch_us.append(bench.apply(list(bench.entries(5, 1, 1_000))) / 5_000 * 1e6)
            bench.machine.close()
    total = max(sum(sampler.parts.values()), 1)
    best = min(each_us[64])
    return {
        "request_us": {str(each): min(values) for each, values in each_us.items()},
        "raw_us": {str(each): min(values) for each, values in raw_us.items()},
        "batch_row_us": min(batch_us),
        "parts_us": {part: best * n / total for part, n in sampler.parts.most_common()},
        "goal_us": GOAL_US,
    }


def show(found: dict[str, Any], console: Console) -> None:
    """Print the figures."""
    drawn = Table(title="CPU of applying a single-row INSERT, us (best round)")
    for title in ("requests in one entry", "raftdb", "apsw alone, with savepoints"):
        drawn.add_column(title, justify="right")
    for each, request_us in found["request_us"].items():
        drawn.add_row(each, f"{request_us:.1f}", f"{found['raw_us'][each]:.1f}")
    console.print(drawn)
    parts = Table(title="Its parts, with 64 in one entry")
    parts.add_column("part")
    parts.add_column("us", justify="right")
    for part, part_us in found["parts_us"].items():
        parts.add_row(part, f"{part_us:.1f}")
    console.print(parts)
    word = "met" if found["request_us"]["10"] <= GOAL_US else "missed"
    console.print(
        f"a row of a batch of 1,000: {found['batch_row_us']:.1f} us; goal for ten or more requests"
        f" in an entry <= {GOAL_US:g} us: {word}",
        highlight=False,
    )
