"""`raftdb load`: files into tables."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from raftdb.cli.output import json_option, print_json
from raftdb.cli.target import open_connection, target_of, target_options

if TYPE_CHECKING:
    from raftdb.ops.load import LoadOptions, TableReport

Start = Callable[[str, int | None], Callable[[int], None]]


@click.command(
    epilog="""\b
Example:
  raftdb load people.csv --dir cluster --table people --create --pk id
  raftdb load app.db --dir cluster --create
  raftdb load events.jsonl raftdb://h1:7002/ --table events"""
)
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@target_options
@click.option(
    "--table",
    "tables",
    multiple=True,
    help="Where to: one table; of a SQLite file those to load (default: all).",
)
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["csv", "tsv", "json", "jsonl", "sqlite"]),
    default=None,
    help="What the file is. Default: as it looks.",
)
@click.option("--create", is_flag=True, help="Make a missing table: by the file's columns.")
@click.option("--pk", "key", multiple=True, help="Primary key of a table that is made. Repeatable.")
@click.option("--text", "as_text", is_flag=True, help="All columns of a made table are TEXT.")
@click.option("--delimiter", default=None, help="Between the fields of a CSV file.")
@click.option("--empty-null", is_flag=True, help="Empty text of a CSV file is NULL.")
@click.option(
    "--on-conflict",
    type=click.Choice(["abort", "ignore", "replace"]),
    default="abort",
    show_default=True,
    help="When a row breaks a unique key: stop, leave it out, or take the place of the old one.",
)
@click.option(
    "--batch-rows",
    type=int,
    default=2000,
    show_default=True,
    help="Rows of one request: each is all or nothing, and applied exactly once.",
)
@click.option("--skip", type=click.IntRange(0), default=0, help="Rows that are in already.")
@click.option("--progress/--no-progress", default=None, help="A progress bar (on a terminal).")
@json_option
def load(
    file: Path,
    url: str | None,
    directory: Path | None,
    timeout: float,
    tables: tuple[str, ...],
    format_name: str | None,
    create: bool,
    key: tuple[str, ...],
    as_text: bool,
    delimiter: str | None,
    empty_null: bool,
    on_conflict: str,
    batch_rows: int,
    skip: int,
    progress: bool | None,
    as_json: bool,
) -> None:
    """Load a CSV, TSV, JSON, JSON-lines or SQLite file.

    A CSV file names its columns in the first line; a JSON file is an array of objects. A row that
    cannot be loaded stops it all and is named with its line; the rows before it are in, and
    --skip goes on from there.
    """
    from raftdb.ops.load import LoadOptions
    from raftdb.ops.rows import guess_format

    format_name = format_name or guess_format(file)
    if format_name != "sqlite" and len(tables) != 1:
        raise click.UsageError("Give --table, once.")
    if delimiter is not None and len(delimiter) != 1:
        raise click.UsageError("--delimiter is one character.")
    options = LoadOptions(
        create=create,
        key=key,
        detect_types=not as_text,
        delimiter=delimiter,
        empty_null=empty_null,
        on_conflict=on_conflict,
        batch_rows=batch_rows,
        skip=skip,
    )
    target = target_of(url, directory)
    shown = sys.stderr.isatty() and not as_json if progress is None else progress
    with open_connection(target, timeout) as connection, _bar(shown) as start:
        reports = _load(connection, file, format_name, tables, options, start)
    _report(reports, as_json)


def _load(
    connection: Any,
    file: Path,
    format_name: str,
    tables: tuple[str, ...],
    options: LoadOptions,
    start: Start,
) -> list[TableReport]:
    from raftdb.ops.load import load_text
    from raftdb.ops.load_sqlite import load_sqlite
    from raftdb.runtime.clock import RealClock

    clock = RealClock()
    if format_name == "sqlite":
        return load_sqlite(connection, file, tables, options, clock, start)
    report = load_text(
        connection, file, tables[0], format_name, options, clock, start(tables[0], None)
    )
    return [report]


@contextmanager
def _bar(shown: bool) -> Iterator[Start]:
    """Progress on the standard error: rows, rate, time left where the total is known."""
    if not shown:
        yield lambda table, rows: lambda done: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(show_speed=True),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    ) as progress:

        def start(table: str, rows: int | None) -> Callable[[int], None]:
            task = progress.add_task(table, total=rows)
            return lambda done: progress.advance(task, done)

        yield start


def _report(reports: list[TableReport], as_json: bool) -> None:
    if as_json:
        print_json(
            [
                {
                    "table": one.table,
                    "rows": one.rows,
                    "created": one.created,
                    "seconds": round(one.seconds, 3),
                    "notes": one.notes,
                }
                for one in reports
            ]
        )
        return
    for one in reports:
        rate = f", {one.rows / one.seconds:,.0f} rows/s" if one.seconds > 0 and one.rows else ""
        made = " (made)" if one.created else ""
        click.echo(f"{one.table}{made}: {one.rows:,} rows in {one.seconds:.1f} s{rate}")
        for note in one.notes:
            click.echo(f"  note: {note}", err=True)
