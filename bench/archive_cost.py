"""What archiving costs: CPU per commit of two clusters, one of them with an archive.

Both clusters live beside each other and take turns under the same load, slice by slice, so that
what else the machine does falls on both. The kernel's own accounting of each thread is read, in
nanoseconds. A slice begins to count when uploads of what was written in it have begun, so that as
much is uploaded in it as in any other time of such a load.

On a machine with other work on it, a pair tells little: whether a node applies in place or hands
over to a thread depends on how long it waits for a core. So the parts that archiving adds are also
taken one by one, in one process, the least of many windows: `parts_us`.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

import raftdb
from bench import host
from bench.apply_cost import Bench
from bench.archive import Archived
from bench.command import guarded, outputs
from bench.command import measure as record
from bench.figures import percentile
from bench.processes import Supervisor
from bench.profile import find_program, thread_cpu_s
from raftdb.archive import ArchiveEntry, Keyring, Sealer, Segment
from raftdb.archive.envelope import digest
from raftdb.archive.hashlog import HashLog, HashReader
from raftdb.archive.records import encode
from raftdb.consensus.port import CommittedEntry
from raftdb.machine.applier import Recorder
from raftdb.runtime.files import RealFiles

GOAL = 0.05
BATCH = 50
WARM_BATCHES = 20
LEAD_S = 0.7
"""Longer than archive.interval_ms."""
EACH = 16
"""Requests in an entry, of the parts: about as many as such a load has."""
WINDOWS = 120
SEGMENT_ENTRIES = 60
INSERT = "INSERT INTO c(x) VALUES (?)"
ROW = ("x" * 100,)
_THREAD = re.compile(r'Thread (\d+) \([^)]*\): "([^"]*)"')


@dataclass
class Side:
    """One of the two clusters, and what was measured on it."""

    cluster: Archived
    connection: raftdb.Connection
    archived: bool
    per_commit_us: list[float] = field(default_factory=list)
    commits_per_s: list[float] = field(default_factory=list)
    batch_ms: list[float] = field(default_factory=list)
    """How long each batch took."""
    commits: int = 0
    spent_s: Counter[tuple[int, int]] = field(default_factory=Counter)
    """By node and thread."""

    def cpu_s(self) -> dict[tuple[int, int], float]:
        """Of every thread so far, by node and thread."""
        return {
            (number, thread): spent_s
            for number, node in enumerate(self.cluster.cluster.nodes)
            for thread, spent_s in thread_cpu_s(node.process.pid).items()
        }

    def write(self) -> None:
        """One batch."""
        with self.connection.pipeline() as pipeline:
            for _ in range(BATCH):
                pipeline.execute(INSERT, ROW)

    def settle(self) -> None:
        """Nothing is left to upload."""
        if self.archived:
            self.cluster.wait_until_archived(self.connection)

    def slice(self, seconds: float) -> None:
        """Write for so long, and note what it cost."""
        start_s = time.monotonic()
        while time.monotonic() < start_s + LEAD_S:
            self.write()
        before, start_s, commits = self.cpu_s(), time.monotonic(), 0
        begun_s = start_s
        while begun_s < start_s + seconds:
            self.write()
            commits += BATCH
            ended_s = time.monotonic()
            self.batch_ms.append((ended_s - begun_s) * 1000)
            begun_s = ended_s
        took_s = time.monotonic() - start_s
        spent = {key: one - before.get(key, 0.0) for key, one in self.cpu_s().items()}
        self.spent_s.update(spent)
        self.commits += commits
        self.per_commit_us.append(sum(spent.values()) * 1e6 / commits)
        self.commits_per_s.append(commits / took_s)

    def threads(self) -> dict[str, float]:
        """Microseconds per commit of all nodes, by the thread's name; without py-spy of all."""
        found: Counter[str] = Counter()
        for number, node in enumerate(self.cluster.cluster.nodes):
            names = thread_names(node.process.pid)
            for (of_node, thread), spent_s in self.spent_s.items():
                if of_node == number:
                    found[names.get(thread, "other threads")] += spent_s
        return {name: round(spent * 1e6 / self.commits, 2) for name, spent in found.most_common()}


def thread_names(pid: int) -> dict[int, str]:
    """By the kernel's id; empty without py-spy."""
    program = find_program("py-spy")
    if program is None:
        return {}
    command = [program, "dump", "--pid", str(pid)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return {int(found[1]): found[2] for found in _THREAD.finditer(done.stdout)}


def measure(
    directory: Path, pairs: int, seconds: float, say: Callable[[str], None]
) -> dict[str, Any]:
    """Both clusters, slice by slice."""
    for name in ("without", "with"):
        (directory / name).mkdir()
    with Supervisor(directory / "without") as one, Supervisor(directory / "with") as other:
        sides = []
        for supervisor, archived in ((one, False), (other, True)):
            cluster = Archived(supervisor.directory, supervisor, archive=archived)
            side = Side(cluster, cluster.connect(), archived)
            side.connection.execute("CREATE TABLE c(id INTEGER PRIMARY KEY, x TEXT)")
            for _ in range(WARM_BATCHES):
                side.write()
            # What a start costs (libraries, the first base) is no commit's cost.
            side.settle()
            sides.append(side)
        for number in range(pairs):
            for side in sides if number % 2 else reversed(sides):
                side.slice(seconds)
            without, with_ = (side.per_commit_us[-1] for side in sides)
            say(f"pair {number + 1}: {without:.0f} us without, {with_:.0f} us with")
        found = _facts(*sides)
        for side in sides:
            side.connection.close()
    return found


def parts(directory: Path) -> dict[str, float]:
    """CPU in microseconds per request of each thing that an archive adds: on every node, and on
    the one that uploads."""
    (directory / "machine").mkdir()
    bench = Bench(directory / "machine")
    log = HashLog(RealFiles(), str(directory / "node"), 1 << 28)
    recorders: dict[str, Recorder | None] = {
        "plain": None,
        "hashed": lambda _time_ms, _items: None,
        "recorded": log.record,
    }
    least = dict.fromkeys(recorders, float("inf"))
    entries: list[CommittedEntry] = []
    for _ in range(WINDOWS):
        for name, recorder in recorders.items():
            bench.machine.record_hashes(recorder)
            [entry] = bench.entries(1, EACH, 1)
            before_ns = time.thread_time_ns()
            bench.machine.apply([entry])
            least[name] = min(least[name], (time.thread_time_ns() - before_ns) / EACH / 1e3)
            if recorder == log.record:
                entries.append(entry)
    bench.machine.close()
    found = {
        "each node: hash after the request": least["hashed"] - least["plain"],
        "each node: its record": least["recorded"] - least["hashed"],
    }
    return {name: round(one, 2) for name, one in (found | _uploading(log, entries)).items()}


def _uploading(log: HashLog, entries: Sequence[CommittedEntry]) -> dict[str, float]:
    """Of what the uploader does with entries, one segment at a time."""
    sealer = Sealer(Keyring({"k1": bytes(32)}), os.urandom)
    numbered = [
        ArchiveEntry(3 + number, 1, b"".join(entry.payloads), b"")
        for number, entry in enumerate(entries)
    ]
    reader = HashReader(RealFiles(), log)
    least = dict.fromkeys(("reading hashes", "encoding", "zstd and AES-GCM", "digest"), 1e9)
    for first in range(0, len(entries) - SEGMENT_ENTRIES + 1, SEGMENT_ENTRIES):
        marks = [time.thread_time_ns()]
        some = entries[first : first + SEGMENT_ENTRIES]
        hashes = reader.take(int(some[0].index), int(some[-1].index)).hashes
        marks.append(time.thread_time_ns())
        held = tuple(
            replace(numbered[first + number], hashes=hashes.get(int(one.index), b""))
            for number, one in enumerate(some)
        )
        segment = Segment(1, 1, bytes(32), "h", 1, 1, bytes(16), bytes(16), held)
        plain = encode(segment)
        marks.append(time.thread_time_ns())
        data = sealer.seal("segment", "a" * 32, "name", plain)
        marks.append(time.thread_time_ns())
        digest(data)
        marks.append(time.thread_time_ns())
        for name, (start, end) in zip(least, itertools.pairwise(marks), strict=True):
            least[name] = min(least[name], (end - start) / SEGMENT_ENTRIES / EACH / 1e3)
    return {f"uploader: {name}": one for name, one in least.items()}


def _facts(without: Side, with_: Side) -> dict[str, Any]:
    shares = [b / a - 1 for a, b in zip(without.per_commit_us, with_.per_commit_us, strict=True)]
    rates = [1 - b / a for a, b in zip(without.commits_per_s, with_.commits_per_s, strict=True)]
    return {
        "without_us": [round(one, 1) for one in without.per_commit_us],
        "with_us": [round(one, 1) for one in with_.per_commit_us],
        "more_median": round(statistics.median(shares), 3),
        "more_of_best": round(min(with_.per_commit_us) / min(without.per_commit_us) - 1, 3),
        "fewer_commits_median": round(statistics.median(rates), 3),
        "p99_without_ms": round(percentile(sorted(without.batch_ms), 99), 2),
        "p99_with_ms": round(percentile(sorted(with_.batch_ms), 99), 2),
        "threads_without_us": without.threads(),
        "threads_with_us": with_.threads(),
        "goal": GOAL,
    }


@click.command("archive-cost")
@click.option("--pairs", default=24, type=click.IntRange(0), show_default=True)
@click.option("--seconds", default=1.0, type=click.FloatRange(0.2), show_default=True)
@outputs("archive-cost")
def command(pairs: int, seconds: float, **wanted: Any) -> None:
    """CPU per commit with and without an archive, in interleaved slices; by thread with py-spy.

    \b
      python -m bench archive-cost
      python -m bench archive-cost --pairs 0    the parts alone, of CPU; nothing is recorded
    """
    if wanted["quick"]:
        pairs, seconds = 1, 0.3
    if not pairs:
        guarded(_parts_alone)
        return

    def run(place: Path, say: Callable[[str], None]) -> dict[str, Any]:
        return {"parts_us": parts(place)} | measure(place, pairs, seconds, say)

    record("archive-cost", {"pairs": pairs, "seconds": seconds}, run, **wanted)


def _parts_alone() -> None:
    place, _disk = host.work_directory(None)
    try:
        click.echo(json.dumps(parts(place), indent=1))
    finally:
        shutil.rmtree(place, ignore_errors=True)
