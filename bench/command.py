"""What the measuring commands share: a place to work, errors as exit codes, recorded results."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import click
from rich.console import Console

from bench import host, rows
from bench.errors import BenchError
from bench.targets import ALL, Options
from raftdb.base.errors import Error

RESULTS = Path(__file__).resolve().parent / "results"
BROKEN = 4
Say = Callable[[str], None]
Measure = Callable[[Path, Say], dict[str, Any]]
"""Takes a directory to work in; returns what goes into the record."""


def console_for(as_json: bool = False) -> Console:
    """As wide as the terminal; wide enough for a table when there is none. JSON has the standard
    output to itself."""
    if as_json:
        return Console(stderr=True)
    return Console() if sys.stdout.isatty() else Console(width=140)


def _on_sigterm(_signal: int, _frame: FrameType | None) -> None:
    """End as Ctrl-C does, so that everything is stopped and removed."""
    raise KeyboardInterrupt


def guarded(work: Callable[[], None]) -> None:
    """Run `work`; errors become a message and an exit code."""
    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        work()
    except BenchError as error:
        click.echo(f"bench: {error}", err=True)
        sys.exit(error.exit_code)
    except Error as error:
        click.echo(f"bench: {error}", err=True)
        sys.exit(BROKEN)
    except KeyboardInterrupt:
        click.echo("bench: interrupted; everything is stopped and removed", err=True)
        sys.exit(130)


def save(results: dict[str, Any], path: Path) -> None:
    """Write the results."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")


def outputs(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options that every measuring command has."""

    def add(function: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(
            (
                click.option(
                    "--quick",
                    is_flag=True,
                    help="Only see that it runs, in seconds: proves nothing, and is not recorded.",
                ),
                click.option(
                    "--directory", help="Where data goes, on a real disk.  [default: /var/tmp]"
                ),
                click.option("--json", "as_json", is_flag=True, help="Print the results as JSON."),
                click.option(
                    "--output",
                    type=click.Path(dir_okay=False, path_type=Path),
                    help=f"The JSON file of results.  [default: bench/results/{name}-DATE.json]",
                ),
            )
        ):
            function = option(function)
        return function

    return add


def measure(
    name: str,
    settings: dict[str, Any],
    work: Measure,
    *,
    quick: bool,
    directory: str | None,
    as_json: bool,
    output: Path | None,
) -> None:
    """Run one measurement, record it, and print what it says of its goals."""
    console = console_for(as_json)

    def run() -> None:
        place, disk = host.work_directory(directory)
        begun = host.record(name, disk)
        try:
            found = work(place, lambda line: console.print(line, highlight=False, markup=False))
        finally:
            shutil.rmtree(place, ignore_errors=True)
        results = {
            **begun,
            "quick": quick,
            "versions": ALL["raftdb"](Options()).prepare(),
            "settings": settings,
            **found,
        }
        if output is not None or not quick:
            path = output or RESULTS / host.file_name(results)
            save(results, path)
            console.print(f"results in {path}", highlight=False)
        if as_json:
            click.echo(json.dumps(results))
        else:
            console.print(rows.table(results))

    guarded(run)


def as_settings(settings: Any) -> dict[str, Any]:
    """A dataclass, for the record."""
    return asdict(settings)
