"""python -m tests.conformance [--url URL | --cluster] FILE...

Runs sqllogictest files (and all *.test in directories) against one machine, or against a cluster
(an empty database): the one at URL, or (--cluster) three nodes that are started for it. Every
result is compared with the bundled SQLite's. --dbapi runs CPython's own tests of sqlite3 against
raftdb's DB-API instead.
Exit code 1 when anything differs.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from tests.conformance import dbapi
from tests.conformance.run import run
from tests.conformance.targets import Cluster, OneMachine, Plain
from tests.e2e.cluster import running_cluster


@click.command(help=__doc__)
@click.option("--url", help="Of a cluster with an empty database.")
@click.option("--cluster", is_flag=True, help="Start three nodes, and run against them.")
@click.option("--dbapi", "as_dbapi", is_flag=True, help="CPython's tests of sqlite3.")
@click.option(
    "--suite",
    type=click.Path(exists=True, path_type=Path),
    help="With --dbapi: the library of another Python (…/lib/python3.13), whose tests are taken.",
)
@click.option("--verbose", is_flag=True, help="With --dbapi: all that did not pass, in full.")
@click.argument("files", nargs=-1, type=click.Path(exists=True, path_type=Path))
def main(
    url: str | None,
    cluster: bool,
    as_dbapi: bool,
    suite: Path | None,
    verbose: bool,
    files: tuple[Path, ...],
) -> None:
    if bool(files) == as_dbapi or (url and cluster):
        raise click.UsageError("give files, or --dbapi; --url or --cluster")
    with _target(url, cluster or (as_dbapi and not url)) as address:
        if as_dbapi:
            assert address is not None
            if suite is not None:
                dbapi.take_from(suite)
            failed = _dbapi(address, verbose)
        else:
            failed = sum(_script(path, address, sweep=cluster) for path in _all(files))
    sys.exit(1 if failed else 0)


@contextmanager
def _target(url: str | None, start: bool) -> Iterator[str | None]:
    if not start:
        yield url
        return
    with (
        tempfile.TemporaryDirectory(prefix="raftdb-conformance-") as directory,
        running_cluster(Path(directory) / "cluster", 3) as made,
    ):
        yield made.url


def _all(given: tuple[Path, ...]) -> Iterator[Path]:
    for path in given:
        yield from sorted(path.rglob("*.test")) if path.is_dir() else [path]


def _script(path: Path, url: str | None, *, sweep: bool) -> int:
    plain, target = Plain(), Cluster(url) if url else OneMachine(check_every=2_000)
    try:
        if sweep and isinstance(target, Cluster):
            target.sweep()
        tally = run(path.read_text(encoding="utf-8"), plain, target)
    finally:
        plain.close()
        target.close()
    click.echo(
        f"{path}: {tally.statements} statements, {tally.queries} queries, "
        f"{len(tally.differences)} differences, {tally.refused} refused by design "
        f"(SQLite itself is not as the file says in {tally.stale})"
    )
    for text in tally.differences:
        click.echo(f"  {text}")
    return len(tally.differences)


def _dbapi(url: str, verbose: bool) -> int:
    report = dbapi.run(url, click.echo if verbose else lambda _text: None)
    click.echo(
        f"{len(report.passed)} passed, {len(report.otherwise)} otherwise by design,"
        f" {len(report.failed)} failed, {len(report.skipped)} skipped"
    )
    for reason, count in Counter(report.otherwise.values()).most_common():
        click.echo(f"  {count:4}  {reason}")
    for name, problem in report.failed.items():
        click.echo(f"  failed: {name}: {problem}")
    for name, problem in report.skipped.items():
        click.echo(f"  skipped: {name}: {problem}")
    for pattern in report.unused:
        click.echo(f"  no test needs this row of the table: {pattern}")
    return len(report.failed)


if __name__ == "__main__":
    main()
