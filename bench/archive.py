"""Restores: points in time against the hashes recorded live, and the time to restore.

One node of three archives a workload to a directory; then `raftdb` has only that directory. Every
restore is done anew, into an empty place, and its content hash is computed from all rows.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

import raftdb
from bench.command import measure, outputs
from bench.errors import BenchError
from bench.processes import Supervisor
from bench.targets import Options
from bench.targets.base import Cluster
from bench.targets.raftdb import Raftdb
from raftdb.archive import ArchiveEntry, Point, Sources
from raftdb.base.errors import Error
from raftdb.consensus.entry import decode_payloads
from raftdb.ops.archive import keys_of, open_destinations
from raftdb.ops.restore import restore_copy
from raftdb.runtime.files import RealFiles
from raftdb.runtime.log import StreamLog

ROW_BYTES = 1_000
ROWS_PER_REQUEST = 200
ARCHIVED_S = 120.0
DESTINATIONS = "RAFTDB_ARCHIVE__DESTINATIONS"
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Settings:
    """What is measured."""

    points: int
    requests: int
    """Small requests, of the part that is restored point by point."""
    megabytes: int
    """Of the database that is restored as a whole."""
    seed: int


QUICK = Settings(points=5, requests=60, megabytes=2, seed=1)


class Archived:
    """A cluster with an archive in a directory, and connections to it."""

    def __init__(self, directory: Path, supervisor: Supervisor, *, archive: bool = True) -> None:
        self.url = f"file://{directory}/archive"
        before = os.environ.get(DESTINATIONS)
        if archive:
            os.environ[DESTINATIONS] = self.url
        try:
            self.cluster: Cluster = Raftdb(Options(insecure=True)).start(
                directory / "cluster", supervisor
            )
        finally:
            os.environ.pop(DESTINATIONS, None)
            if before is not None:
                os.environ[DESTINATIONS] = before

    def connect(self) -> raftdb.Connection:
        """A connection of its own."""
        addresses = ",".join(self.cluster.addresses)
        return raftdb.connect(f"raftdb://{addresses}/", insecure=True, timeout=60.0)

    def wait_until_archived(self, connection: raftdb.Connection) -> None:
        """Everything written so far."""
        connection.await_durable(durability="archive", timeout=ARCHIVED_S)


def small_requests(connection: raftdb.Connection, count: int, drawn: random.Random) -> None:
    """Inserts, updates, deletes, a column now and then: one request each."""
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x TEXT, n INTEGER DEFAULT 0)")
    connection.execute("CREATE INDEX t_n ON t(n)")
    for number in range(count):
        kind = drawn.random()
        if kind < 0.6:
            connection.execute("INSERT INTO t(x) VALUES (?)", (drawn.randbytes(30).hex(),))
        elif kind < 0.9:
            connection.execute(
                "UPDATE t SET n = n + ?, x = x || 'y' WHERE id % 97 = ?",
                (drawn.randrange(9), drawn.randrange(97)),
            )
        else:
            connection.execute("DELETE FROM t WHERE id % 211 = ?", (drawn.randrange(211),))
        if number % 500 == 499:
            connection.execute(f"ALTER TABLE t ADD COLUMN c{number} REAL DEFAULT 1")


def fill(connection: raftdb.Connection, megabytes: int, drawn: random.Random) -> None:
    """A database of that size, by rows of text that hardly compresses."""
    connection.execute("CREATE TABLE big(id INTEGER PRIMARY KEY, x TEXT)")
    for _ in range(megabytes * MIB // (ROW_BYTES * ROWS_PER_REQUEST)):
        rows = [(drawn.randbytes(ROW_BYTES // 2).hex(),) for _ in range(ROWS_PER_REQUEST)]
        connection.executemany("INSERT INTO big(x) VALUES (?)", rows)


def _sources(url: str) -> Any:
    return open_destinations([url], keys_of(None, {}, RealFiles()))


def recorded(sources: Sources) -> dict[Point, bytes]:
    """Every moment of the archive that has a hash, as the nodes recorded it when it was applied."""
    first = min(link.manifest.last for line in sources.timelines for link in line.links("base"))
    found: dict[Point, bytes] = {}
    for entry in sources.entries(first + 1, sources.last().index):
        found |= _recorded_of(entry)
    return found


def _recorded_of(entry: ArchiveEntry) -> dict[Point, bytes]:
    count = len(entry.hashes) // 16
    return {
        Point(entry.index) if place == count - 1 else Point(entry.index - 1, place + 1): one
        for place in range(count)
        if (one := entry.hash_at(place))
    }


def restore_points(url: str, work: Path, settings: Settings, say: Callable[[str], None]) -> Any:
    """Restore random moments, each anew; how many gave the hash that was recorded."""
    found = _sources(url)
    moments = recorded(found.sources)
    drawn = random.Random(settings.seed)
    chosen = drawn.sample(sorted(moments), min(settings.points, len(moments)))
    log, equal, spent = StreamLog(level="error"), 0, []
    for number, point in enumerate(chosen, start=1):
        place = work / f"point-{number}"
        start_s = time.monotonic()
        try:
            done = restore_copy(
                found, point, place, files=RealFiles(), log=log, decode=decode_payloads
            )
            if done.content == moments[point]:
                equal += 1
            else:
                say(f"{point}: {done.content.hex()} instead of {moments[point].hex()}")
        except Error as error:
            say(f"{point}: {error}")
        spent.append(time.monotonic() - start_s)
        shutil.rmtree(place, ignore_errors=True)
    return {
        "moments": len(moments),
        "restored": len(chosen),
        "equal": equal,
        "median_s": round(statistics.median(spent), 3),
    }


def restore_all(url: str, work: Path) -> dict[str, Any]:
    """Restore the newest moment: seconds per GB, and how fast the log is replayed."""
    start_s, cpu_s = time.monotonic(), time.process_time()
    found = _sources(url)
    point = found.sources.last()
    plan = found.sources.plan(point)
    marks: dict[str, float] = {}

    def progress(what: str, _done: int, _of: int) -> None:
        marks[what] = time.monotonic()

    done = restore_copy(
        found,
        point,
        work / "all",
        files=RealFiles(),
        log=StreamLog(level="error"),
        decode=decode_payloads,
        progress=progress,
    )
    seconds = time.monotonic() - start_s
    size = os.path.getsize(Path(done.copy) / "database.sqlite")
    base_s = marks.get("base", start_s)
    replay_s = max(marks.get("log", base_s) - base_s, 1e-9)
    shutil.rmtree(work / "all")
    return {
        "database_bytes": size,
        "fetched_bytes": plan.fetch_bytes,
        "proven": done.proven,
        "seconds": round(seconds, 2),
        "cpu_s": round(time.process_time() - cpu_s, 2),
        "seconds_per_gb": round(seconds * 1e9 / size, 1),
        "requests_replayed": done.requests,
        "replay_s": round(replay_s, 2),
    }


def run(directory: Path, settings: Settings, say: Callable[[str], None]) -> dict[str, Any]:
    """All of it. Raises BenchError when a moment does not restore to its hash."""
    results: dict[str, Any] = {}
    drawn = random.Random(settings.seed)
    for name in ("points", "whole"):
        place = directory / name
        place.mkdir()
        with Supervisor(place) as supervisor:
            one = Archived(place, supervisor)
            with one.connect() as connection:
                # The first base is made now, not in the midst of what follows.
                connection.execute("CREATE TABLE begun(id INTEGER PRIMARY KEY)")
                one.wait_until_archived(connection)
                if name == "points":
                    small_requests(connection, settings.requests, drawn)
                else:
                    fill(connection, settings.megabytes, drawn)
                one.wait_until_archived(connection)
        shutil.rmtree(place / "cluster")
        say(f"{name}: archived")
        if name == "points":
            results[name] = restore_points(one.url, place, settings, say)
        else:
            results[name] = restore_all(one.url, place)
        say(f"{name}: {results[name]}")
        shutil.rmtree(place)
    if results["points"]["equal"] != results["points"]["restored"]:
        raise BenchError("a moment did not restore to the hash that was recorded live")
    return results


@click.command("archive")
@click.option("--points", default=200, type=click.IntRange(1), help="Moments to restore.")
@click.option(
    "--requests", default=2_000, type=click.IntRange(10), help="Requests to choose them from."
)
@click.option(
    "--megabytes", default=256, type=click.IntRange(1), help="Size of the database restored whole."
)
@click.option("--seed", default=1, help="Of the workload and the moments.")
@outputs("archive")
def archive(points: int, requests: int, megabytes: int, seed: int, **wanted: Any) -> None:
    """Restores to random moments against the hashes recorded live, and seconds per GB.

    \b
      python -m bench archive
    """
    settings = QUICK if wanted["quick"] else Settings(points, requests, megabytes, seed)
    measure("archive", asdict(settings), lambda place, say: run(place, settings, say), **wanted)
