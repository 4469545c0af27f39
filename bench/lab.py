"""A cluster of real processes that is filled, loaded, killed and watched.

The processes are those of `raftdb drill` (and of `chaos`, where paths run through toxiproxy); the
load is that of `python -m bench commits`: a process of its own, closed loops.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.errors import BenchError, NotMeasured
from bench.load import Measurement, Specification, run
from bench.targets.raftdb import REPOSITORY
from raftdb.base.errors import Error
from raftdb.client import Connection
from raftdb.drill.cluster import DrillCluster
from raftdb.runtime.clock import RealClock

Say = Callable[[str], None]
TABLE = "big"
SCHEMA = (
    f"CREATE TABLE {TABLE} (id INTEGER PRIMARY KEY, k TEXT NOT NULL, v BLOB NOT NULL)",
    f"CREATE INDEX {TABLE}_k ON {TABLE} (k)",
)
ROW_BYTES = 4_000
MADE_ROWS = 1_000
"""Of one statement that makes rows: 4 MB."""
SENT_ROWS = 250
LOADS_MAX = 6
MADE = (
    "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < ?)"
    f" INSERT INTO {TABLE} (k, v)"
    f" SELECT lower(hex(randomblob(8))), randomblob({ROW_BYTES}) FROM c"
)
SENT = f"INSERT INTO {TABLE} (k, v) VALUES (lower(hex(randomblob(8))), ?)"
MB = 1_000_000
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Usage:
    """What one process takes, by the kernel's accounting."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def cpu_s(self) -> float:
        """User and system time so far, in seconds, to 10 ms."""
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S

    def memory_mb(self) -> tuple[float, float]:
        """Resident set now, and at its highest, in 10^6 bytes."""
        found = {}
        for line in Path(f"/proc/{self._pid}/status").read_text().splitlines():
            key, _, value = line.partition(":")
            if key in ("VmRSS", "VmHWM"):
                found[key] = int(value.split()[0]) * 1024 / 1e6
        return found["VmRSS"], found["VmHWM"]


class Lab:
    """One running cluster. `directory` is the working place of its load processes."""

    def __init__(self, cluster: DrillCluster, directory: Path) -> None:
        self.cluster = cluster
        self.directory = directory
        self.rss_mb = 0.0
        """The most that any node has held so far; nodes that were killed included."""
        self._loads = 0
        self.repeated = 0
        """Loads that came to no figure, and were run again."""
        self._rest = threading.Event()

    # ---- nodes

    def usage(self) -> list[Usage]:
        """Of every node that runs."""
        pids = [self.cluster.node(name).pid for name in self.cluster.running()]
        return [Usage(pid) for pid in pids if pid is not None]

    def check(self) -> None:
        """Raise BenchError when a node ended by itself."""
        try:
            self.cluster.processes.require_running()
        except Error as error:
            raise BenchError(str(error)) from error

    def look(self) -> float:
        """Take the nodes' highest memory into account; returns the highest so far."""
        peaks = [one.memory_mb()[1] for one in self.usage()]
        self.rss_mb = max([self.rss_mb, *peaks])
        return self.rss_mb

    def kill(self, *node_ids: str) -> None:
        """SIGKILL."""
        self.look()
        self.cluster.kill(*node_ids)

    def rest(self, seconds: float) -> None:
        """Let time pass."""
        self._rest.wait(seconds)

    def database_bytes(self) -> int:
        """Of the first node's database file, and of what is in the write-ahead log for it."""
        data = self.cluster.node(self.cluster.node_ids[0]).directory / "data"
        return max(
            sum(_size(path) for path in file.parent.glob("database.sqlite*"))
            for file in data.rglob("database.sqlite")
        )

    # ---- content

    def create(self) -> None:
        """The table that is filled."""
        with self.cluster.connect(timeout=30.0) as connection:
            for statement in SCHEMA:
                connection.execute(statement)

    def fill(self, megabytes: float, *, sent_megabytes: float = 0.0) -> None:
        """Grow the database to that size, through the cluster, hashes included. Most rows are made
        by statements that each node computes, so that the log stays short; the last
        `sent_megabytes` go through the log as values."""
        with self.cluster.connect(timeout=60.0) as connection:
            self._grow(connection, megabytes - sent_megabytes, self._make)
            self._grow(connection, megabytes, self._send)
        self.cluster.wait_for("every node has it", self.cluster.whole, 600.0)
        self.look()

    def _grow(
        self, connection: Connection, megabytes: float, step: Callable[[Connection, int], None]
    ) -> None:
        counted = connection.execute(f"SELECT coalesce(max(id), 0) FROM {TABLE}").fetchone()
        assert counted is not None
        left = int(megabytes * MB / (ROW_BYTES + 96)) - int(counted[0])
        while left > 0:
            rows = min(left, MADE_ROWS)
            step(connection, rows)
            left -= rows

    def _make(self, connection: Connection, rows: int) -> None:
        connection.execute(MADE, (rows,))

    def _send(self, connection: Connection, rows: int) -> None:
        for first in range(0, rows, SENT_ROWS):
            count = min(SENT_ROWS, rows - first)
            connection.executemany(SENT, [(os.urandom(ROW_BYTES),) for _ in range(count)])

    # ---- load

    def load(
        self,
        connections: int,
        seconds: float,
        *,
        warmup_s: float = 0.5,
        grow: bool = False,
        idle: int = 0,
        rate_per_s: float = 0.0,
    ) -> tuple[Measurement, Path]:
        """Single-row inserts of one load process, and the file of its latencies. `grow`: into the
        table that is filled, at random places of its index; `idle`: connections that are open and
        say nothing; `rate_per_s`: of all connections together, latencies count from when a request
        was due; 0: closed loops."""
        problem: NotMeasured | None = None
        for _ in range(LOADS_MAX):
            try:
                return self._load(
                    connections, seconds, warmup_s, grow=grow, idle=idle, rate_per_s=rate_per_s
                )
            except NotMeasured as error:
                # On a busy machine a leader is replaced in the midst of it, or too little ends.
                problem = error
                self.check()
                self.repeated += 1
                begin(self.cluster)
                seconds *= 2
        raise BenchError(f"{LOADS_MAX} loads came to no figure; the last one: {problem}")

    def _load(
        self, connections: int, seconds: float, warmup_s: float, **extra: Any
    ) -> tuple[Measurement, Path]:
        self._loads += 1
        samples = self.directory / f"samples-{self._loads}"
        client = self.cluster.directory / "client"
        specification = Specification(
            addresses=[str(self.cluster.address(name)) for name in self.cluster.running()],
            connections=connections,
            seconds=seconds,
            warmup_s=warmup_s,
            prefix=f"load{self._loads}",
            samples_path=str(samples),
            ca=str(client / "ca.crt"),
            certificate=str(client / "client.crt"),
            key=str(client / "client.key"),
            extra=extra,
        )
        command = [sys.executable, "-m", "bench.raftdb_load", "events"]
        found = run(command, specification, self.usage(), self, REPOSITORY)
        self.look()
        return found, samples


@contextmanager
def lab(place: Path, nodes: int = 3, settings: Sequence[str] = ()) -> Iterator[Lab]:
    """A new cluster in `place`, running; killed at the end."""
    place.mkdir(parents=True, exist_ok=True)
    cluster = DrillCluster.found(place / "cluster", RealClock(), nodes, settings=settings)
    try:
        cluster.start()
        begin(cluster)
        yield Lab(cluster, place)
    finally:
        cluster.kill()


def begin(cluster: DrillCluster) -> None:
    """Wait until it is whole."""
    cluster.wait_for_leader()
    cluster.wait_for("an answer of every node", cluster.whole)


def per_commit_us(found: Measurement) -> float:
    """CPU of all nodes for each commit of the measured time, in microseconds."""
    return sum(found.node_cpu_s) * 1e6 / found.latency.count


def summary(found: Measurement) -> dict[str, Any]:
    """What is recorded of one load."""
    return {
        "cpu_us": round(per_commit_us(found), 1),
        "commits_per_s": round(found.commits_per_s, 1),
        "p50_ms": found.latency.p50_ms,
        "p99_ms": found.latency.p99_ms,
    }


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        # A file of a moment's.
        return 0
