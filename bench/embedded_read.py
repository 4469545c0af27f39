"""Reads by primary key: an embedded node, in the reader's own process, beside raw apsw.

Both read the same rows, one statement and one row at a time, each in a process of its own. The
embedded node is a full member of a cluster of three (the other two are processes), so that its
heartbeats and threads take from the reader what they would take in a user's program.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.errors import BenchError
from bench.figures import Spread, paired_ratio, percentile, spread
from bench.processes import Supervisor, die_with_parent
from bench.targets.raftdb import RAFTDB, REPOSITORY

SCHEMA = "CREATE TABLE bench (id INTEGER PRIMARY KEY, k TEXT NOT NULL, v BLOB NOT NULL)"
INSERT = "INSERT INTO bench (id, k, v) VALUES (?, ?, ?)"
SELECT = "SELECT k, v FROM bench WHERE id = ?"
ROWS = 10_000
BATCH = 1_000
VALUE_BYTES = 100
WARMUP_READS = 1_000
WORKER_S = 120.0
GOAL = 2.0
SYSTEMS = ("apsw", "raftdb")


@dataclass(frozen=True)
class Reads:
    """One round of one system."""

    round: int
    system: str
    p50_us: float
    p99_us: float
    mean_us: float
    reads_per_s: float


# ---- in the worker's process

Read = Callable[[int], Any]


def rows() -> list[tuple[int, str, bytes]]:
    """What is read."""
    value = bytes(range(97, 97 + 26)) * (VALUE_BYTES // 26 + 1)
    return [(i, f"key-{i:08d}", value[:VALUE_BYTES]) for i in range(1, ROWS + 1)]


def measure(read: Read, seconds: float) -> dict[str, Any]:
    """Read random rows for `seconds`, one after the other; the figures of Reads."""
    chooser = random.Random(7)
    ids = [chooser.randint(1, ROWS) for _ in range(65_536)]
    for number in ids[:WARMUP_READS]:
        found = read(number)
        if found[0] != f"key-{number:08d}" or len(found[1]) != VALUE_BYTES:
            raise BenchError(f"row {number} came back as {found!r}")
    samples: list[int] = []
    started = before = time.perf_counter_ns()
    end = started + int(seconds * 1e9)
    while before < end:
        for number in ids:
            read(number)
            now = time.perf_counter_ns()
            samples.append(now - before)
            before = now
            if now >= end:
                break
    ordered = sorted(samples)
    return {
        "p50_us": percentile(ordered, 50) / 1000,
        "p99_us": percentile(ordered, 99) / 1000,
        "mean_us": sum(ordered) / len(ordered) / 1000,
        "reads_per_s": len(ordered) * 1e9 / (before - started),
    }


def read_raw(specification: dict[str, Any]) -> dict[str, Any]:
    """apsw by itself: one connection, WAL, its own statement cache."""
    import apsw

    connection = apsw.Connection(specification["database"])
    connection.execute("PRAGMA journal_mode = WAL")
    with connection:
        connection.execute(SCHEMA)
        connection.executemany(INSERT, rows())
    cursor = connection.cursor()

    def read(number: int) -> Any:
        return cursor.execute(SELECT, (number,)).fetchone()

    try:
        return measure(read, specification["seconds"])
    finally:
        connection.close()


def read_embedded(specification: dict[str, Any]) -> dict[str, Any]:
    """The same through `raftdb.Node` and the client, at read level `local`."""
    import raftdb

    with raftdb.Node(specification["config"]) as node, node.connect(read="local") as connection:
        cursor = connection.cursor()
        cursor.execute(SCHEMA, timeout=30)
        everything = rows()
        for start in range(0, ROWS, BATCH):
            cursor.executemany(INSERT, everything[start : start + BATCH])
        _wait_for_rows(connection)

        def read(number: int) -> Any:
            return cursor.execute(SELECT, (number,)).fetchone()

        return measure(read, specification["seconds"])


def _wait_for_rows(connection: Any) -> None:
    """Local reads may lag behind the leader: until all rows are here."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        [count] = connection.cursor().execute("SELECT count(*) FROM bench").fetchone()
        if count == ROWS:
            return
        time.sleep(0.02)
    raise BenchError(f"{count} of {ROWS} rows arrived at the embedded node in 20 s")


def main() -> None:
    """The worker: a specification on standard input, the figures on standard output."""
    worker = {"apsw": read_raw, "raftdb": read_embedded}[sys.argv[1]]
    print(json.dumps(worker(json.load(sys.stdin))))


# ---- in the harness


def _worker(system: str, specification: dict[str, Any]) -> dict[str, Any]:
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.embedded_read", system],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=REPOSITORY,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )
    try:
        output, errors = process.communicate(json.dumps(specification).encode(), WORKER_S)
    except subprocess.TimeoutExpired:
        raise BenchError(f"the {system} reader did not end in {WORKER_S:g} s") from None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode != 0:
        raise BenchError(
            f"the {system} reader ended with {process.returncode}:\n{errors.decode()[-3000:]}"
        )
    found: dict[str, Any] = json.loads(output)
    return found


def _round(system: str, directory: Path, seconds: float) -> dict[str, Any]:
    """One reader, with the cluster that it needs."""
    directory.mkdir()
    if system == "apsw":
        return _worker(system, {"database": str(directory / "raw.db"), "seconds": seconds})
    command = [*RAFTDB, "init", str(directory / "cluster"), "--local", "3", "--json"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise BenchError(f"raftdb init ended with {made.returncode}:\n{made.stderr}")
    configs = [node["config"] for node in json.loads(made.stdout)["nodes"]]
    with Supervisor(directory) as supervisor:
        for i, config in enumerate(configs[1:], 2):
            supervisor.start(f"n{i}", [*RAFTDB, "start", "--config", config])
        return _worker(system, {"config": configs[0], "seconds": seconds})


def run(
    rounds: int, seconds: float, directory: Path, progress: Callable[[str], None]
) -> list[Reads]:
    """Interleaved rounds; who goes first alternates."""
    found: list[Reads] = []
    for number in range(rounds):
        for system in SYSTEMS if number % 2 == 0 else SYSTEMS[::-1]:
            figures = _round(system, directory / f"{number}-{system}", seconds)
            reads = Reads(number, system, **figures)
            found.append(reads)
            progress(
                f"round {number + 1}/{rounds}: {system} p50 {reads.p50_us:.2f} us, "
                f"{reads.reads_per_s:,.0f} reads/s"
            )
    return found


def ratio(found: list[Reads]) -> Spread:
    """p50 of the embedded node over that of raw apsw, round by round."""
    p50 = {
        system: [reads.p50_us for reads in found if reads.system == system] for system in SYSTEMS
    }
    return paired_ratio(p50["raftdb"], p50["apsw"])


def show(found: list[Reads], console: Console) -> None:
    """Print the figures."""
    drawn = Table(title="Reads by primary key, one after the other, in the reader's own process")
    drawn.add_column("system")
    for title in ("p50 us", "p99 us", "reads/s"):
        drawn.add_column(title, justify="right")
    for system in SYSTEMS:
        mine = [reads for reads in found if reads.system == system]
        p50 = spread([reads.p50_us for reads in mine])
        p99 = spread([reads.p99_us for reads in mine])
        rate = spread([reads.reads_per_s for reads in mine])
        drawn.add_row(
            system,
            f"{p50.median:.2f} ({p50.low:.2f}-{p50.high:.2f})",
            f"{p99.median:.2f} ({p99.low:.2f}-{p99.high:.2f})",
            f"{rate.median:,.0f}",
        )
    console.print(drawn)
    times = ratio(found)
    word = "goal" if times.median <= GOAL else "missed"
    console.print(
        f"p50 of the embedded node: {times.median:.2f} x raw apsw "
        f"({times.low:.2f}-{times.high:.2f}); goal <= {GOAL:g}: {word}",
        highlight=False,
    )


if __name__ == "__main__":
    main()
