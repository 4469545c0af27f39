"""An interactive transaction of three statements beside a single write, on one cluster.

Both alternate on one connection, so that what else the machine does falls on both alike. Besides
latency it counts what does not depend on a quiet machine: log entries, and the CPU time of the
nodes' processes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.errors import BenchError
from bench.figures import paired_ratio, percentile, spread

SCHEMA = "CREATE TABLE bench (id INTEGER PRIMARY KEY, n INTEGER NOT NULL, v TEXT NOT NULL)"
ROWS = 1_000
PIECE = 50
"""Of one kind before the other has its turn."""
GOAL = 2.0
KINDS = ("write", "transaction")


@dataclass(frozen=True)
class Piece:
    """One round of one kind."""

    round: int
    kind: str
    count: int
    p50_ms: float
    p99_ms: float
    entries: float
    """Log entries for each."""
    cpu_us: float
    """CPU of all three nodes for each."""


def write(db: Any, number: int) -> None:
    """One statement, committed by itself."""
    db.execute("UPDATE bench SET n = n + 1 WHERE id = ?", (number % ROWS,))


def transaction(db: Any, number: int) -> None:
    """Read, change, read again, commit."""
    with db.transaction():
        [found] = db.execute("SELECT n FROM bench WHERE id = ?", (number % ROWS,)).fetchone()
        db.execute("UPDATE bench SET n = ? WHERE id = ?", (found + 1, number % ROWS))
        [now] = db.execute("SELECT n FROM bench WHERE id = ?", (number % ROWS,)).fetchone()
        if now != found + 1:
            raise BenchError("a transaction does not see its own write")


def _cpu_s(pids: Sequence[int]) -> float:
    """Of processes, user and system (proc(5), fields 14 and 15 of stat)."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def run(
    rounds: int, seconds: float, directory: Path, progress: Callable[[str], None]
) -> list[Piece]:
    """Interleaved rounds on one cluster of three processes, with TLS."""
    import raftdb
    from raftdb.demo.processes import ProcessCluster
    from raftdb.ops.found import found_local

    founded = found_local(directory / "cluster")
    cluster = ProcessCluster(directory / "cluster")
    found: list[Piece] = []
    try:
        cluster.start()
        pids = [node.pid for node in cluster.nodes.values() if node.pid is not None]
        with raftdb.connect(founded.url, timeout=30) as db:
            db.execute(SCHEMA)
            db.executemany(
                "INSERT INTO bench VALUES (?, 0, ?)", [(n, "x" * 100) for n in range(ROWS)]
            )
            for number in range(rounds):
                found += _round(number, db, pids, seconds)
                for piece in found[-2:]:
                    progress(
                        f"round {number + 1}/{rounds}: {piece.kind} p50 {piece.p50_ms:.2f} ms, "
                        f"{piece.entries:.2f} entries, {piece.cpu_us:,.0f} us of CPU"
                    )
    finally:
        cluster.kill()
    return found


def _round(number: int, db: Any, pids: Sequence[int], seconds: float) -> list[Piece]:
    work = {"write": write, "transaction": transaction}
    samples: dict[str, list[int]] = {kind: [] for kind in KINDS}
    entries = dict.fromkeys(KINDS, 0)
    cpu_s = dict.fromkeys(KINDS, 0.0)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for kind in KINDS:
            index, used_s = db.status()["last_index"], _cpu_s(pids)
            for turn in range(PIECE):
                before = time.perf_counter_ns()
                work[kind](db, number + turn * 17)
                samples[kind].append(time.perf_counter_ns() - before)
            entries[kind] += db.status()["last_index"] - index
            cpu_s[kind] += _cpu_s(pids) - used_s
    pieces = []
    for kind in KINDS:
        ordered = sorted(samples[kind])
        pieces.append(
            Piece(
                number,
                kind,
                len(ordered),
                percentile(ordered, 50) / 1e6,
                percentile(ordered, 99) / 1e6,
                entries[kind] / len(ordered),
                cpu_s[kind] / len(ordered) * 1e6,
            )
        )
    return pieces


def show(found: list[Piece], console: Console) -> None:
    """Print the figures."""
    drawn = Table(title="One connection; a transaction reads, changes, reads and commits")
    drawn.add_column("what")
    for title in ("p50 ms", "p99 ms", "log entries", "CPU us 3 nodes"):
        drawn.add_column(title, justify="right")
    for kind in KINDS:
        mine = [piece for piece in found if piece.kind == kind]
        drawn.add_row(
            kind,
            *(
                f"{spread(values).median:,.2f}"
                for values in (
                    [piece.p50_ms for piece in mine],
                    [piece.p99_ms for piece in mine],
                    [piece.entries for piece in mine],
                    [piece.cpu_us for piece in mine],
                )
            ),
        )
    console.print(drawn)
    p50 = {kind: [piece.p50_ms for piece in found if piece.kind == kind] for kind in KINDS}
    times = paired_ratio(p50["transaction"], p50["write"])
    word = "goal" if times.median <= GOAL else "missed"
    console.print(
        f"p50 of a transaction: {times.median:.2f} x a write ({times.low:.2f}-{times.high:.2f});"
        f" goal <= {GOAL:g}: {word}",
        highlight=False,
    )
