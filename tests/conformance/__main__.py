"""python -m tests.conformance [--url URL] FILE...

Runs sqllogictest files against one machine, or against the cluster at URL (an empty database), and
compares every result with the bundled SQLite's. Exit code 1 when any differs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tests.conformance.run import run
from tests.conformance.targets import Cluster, OneMachine, Plain


@click.command(help=__doc__)
@click.option("--url", help="Of a cluster with an empty database. Default: one machine.")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
def main(url: str | None, files: tuple[Path, ...]) -> None:
    different = 0
    for path in files:
        plain, target = Plain(), Cluster(url) if url else OneMachine(check_every=2_000)
        try:
            tally = run(path.read_text(encoding="utf-8"), plain, target)
        finally:
            plain.close()
            target.close()
        click.echo(
            f"{path.name}: {tally.statements} statements, {tally.queries} queries, "
            f"{len(tally.differences)} differences (SQLite itself is not as the file says in "
            f"{tally.stale})"
        )
        for text in tally.differences:
            click.echo(f"  {text}")
        different += len(tally.differences)
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
