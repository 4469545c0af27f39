"""`raftdb sql`: the SQL shell, for people and for scripts."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from raftdb.base.errors import ConfigError, Error
from raftdb.base.exits import ExitCode, exit_code
from raftdb.cli.output import error_facts, json_option
from raftdb.cli.target import open_connection, target_of, target_options
from raftdb.runtime.clock import RealClock
from raftdb.shell import (
    FORMATS,
    READ_LEVELS,
    Hooks,
    Import,
    Piece,
    Settings,
    Shell,
    Style,
    is_level,
)

if TYPE_CHECKING:
    from raftdb.ops.target import Target


def _level(_context: click.Context, _parameter: click.Parameter, text: str) -> str:
    if not is_level(text):
        raise click.BadParameter(f"{text!r} is not one of {', '.join(READ_LEVELS)}")
    return text


@click.command(
    epilog="""\b
Example:
  raftdb sql --dir cluster
  raftdb sql --dir cluster -c "SELECT count(*) FROM t" --format csv
  raftdb sql raftdb://h1:7002,h2:7002/ -f schema.sql
  echo "SELECT * FROM t;" | RAFTDB_DIR=cluster raftdb sql --json"""
)
@target_options
@click.option(
    "-c", "--command", "commands", multiple=True, help="Run this SQL and end. Repeatable."
)
@click.option(
    "-f",
    "--file",
    "files",
    multiple=True,
    type=click.Path(path_type=Path, allow_dash=True),
    help="Run this file and end; - is the standard input. Repeatable, after all -c.",
)
@click.option(
    "--format",
    "format_name",
    type=click.Choice(sorted(FORMATS)),
    default="table",
    show_default=True,
    help="How rows are written.",
)
@click.option("--headers/--no-headers", default=True, help="Column names in table and csv.")
@click.option("--null", default=None, help="What stands for NULL (csv: nothing, table: NULL).")
@click.option(
    "--read",
    "level",
    metavar="LEVEL",
    callback=_level,
    default=READ_LEVELS[0],
    show_default=True,
    help="linearizable sees every acknowledged write, session the own ones, bounded(SECONDS) what "
    "was so then; local is what the node at hand has.",
)
@click.option("--bail/--no-bail", default=None, help="Stop at the first error (scripts do).")
@click.option("--timer", is_flag=True, help="Say how long each statement took.")
@json_option
def sql(
    url: str | None,
    directory: Path | None,
    timeout: float,
    commands: tuple[str, ...],
    files: tuple[Path, ...],
    format_name: str,
    headers: bool,
    null: str | None,
    level: str,
    bail: bool | None,
    timer: bool,
    as_json: bool,
) -> int:
    """Run SQL: at a prompt, from -c, from files, or from the standard input.

    A statement ends at its semicolon. Rows go to the standard output, messages and errors to the
    standard error. --json is --format json: each result is an array of objects, integers are
    exact, a blob is {"base64": ".."}. The exit code is that of the first failure.
    """
    target = target_of(url, directory)
    interactive = not commands and not files and sys.stdin.isatty()
    settings = Settings(
        style=Style("json" if as_json else format_name, headers, null),
        level=level,
        timer=timer,
        bail=not interactive if bail is None else bail,
        changes=interactive,
        width=shutil.get_terminal_size().columns if interactive else None,
    )
    output = _exact_output()
    with open_connection(target, timeout) as connection:
        shell = Shell(
            connection,
            output,
            sys.stderr,
            RealClock(),
            settings,
            _hooks(connection, target, as_json),
        )
        with shell.closing():
            if interactive:
                _converse(shell, connection)
                return int(ExitCode.OK)
            _run_all(shell, commands, files)
    output.flush()
    return int(shell.exit)


def _run_all(shell: Shell, commands: Iterable[str], files: Iterable[Path]) -> None:
    sources: list[tuple[str, Iterable[str]]] = [
        ("-c", io.StringIO(text, newline="\n")) for text in commands
    ]
    names = list(files)
    if not sources and not names:
        names = [Path("-")]
    sources += [("stdin" if str(path) == "-" else str(path), _lines(path)) for path in names]
    for source, lines in sources:
        shell.run(lines, source)
        if shell.quitting or (shell.exit and shell.settings.bail):
            return


def _lines(path: Path) -> Iterator[str]:
    """Lines of a file, opened when its turn comes."""
    if str(path) == "-":
        yield from io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", newline="\n")
        return
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        yield from file


def _exact_output() -> TextIO:
    """The standard output, always UTF-8, with line ends as they are written."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape", newline="")
    return sys.stdout


def _converse(shell: Shell, connection: Any) -> None:
    from raftdb._version import __version__
    from raftdb.shell.prompt import run_prompt

    status = connection.status()
    shell.say(
        f"raftdb {__version__}, cluster {str(status.get('cluster_id', ''))[:8]}, "
        f"at node {status.get('node_id')}. Statements end with ; and .help helps."
    )
    run_prompt(shell, "raftdb")


def _hooks(connection: Any, target: Target, as_json: bool) -> Hooks:
    def import_file(_: Any, wanted: Import, messages: TextIO) -> None:
        from raftdb.ops.load import LoadOptions, load_text
        from raftdb.ops.positional import load_positional

        path, table, clock = Path(wanted.file), wanted.table, RealClock()
        if wanted.style:

            def note(text: str) -> None:
                messages.write(text + "\n")

            report = load_positional(
                connection, path, table, wanted.style, wanted.skip, clock, note
            )
            if not wanted.verbose:
                return
        else:
            form = _import_format(path)
            report = load_text(connection, path, table, form, LoadOptions(create=True), clock)
        messages.write(f"{report.rows} rows loaded into {table}\n")

    def status(output: TextIO) -> None:
        from raftdb.cli.status import status_lines
        from raftdb.ops.status import cluster_status

        found = cluster_status(target)
        output.write("\n".join(status_lines(found)) + "\n")

    def leader() -> str:
        return str(connection.status().get("leader") or "none is known")

    return Hooks(import_file, status, leader, _describe_json if as_json else None)


def _import_format(path: Path) -> str:
    """What `.import` takes a file for. Raises ConfigError."""
    from raftdb.ops.rows import guess_format

    try:
        form = guess_format(path)
    except ConfigError as error:
        if path.is_file():
            error.hint = ".import --csv FILE TABLE reads any name, as sqlite3 does"
        raise
    if form == "sqlite":
        raise ConfigError(
            f"{path} is a SQLite database",
            hint=f"outside of the shell: raftdb load {path} --create",
        )
    return form


def _describe_json(error: Error, piece: Piece | None, source: str) -> list[str]:
    """An error as one JSON line, as all commands have it, and where it was."""
    facts = error_facts(
        error.message, error.code, int(exit_code(error)), error.hint, error.outcome, error.retryable
    )
    facts["source"] = source
    facts["line"] = None if piece is None else piece.line
    return [json.dumps({"error": facts}, ensure_ascii=False)]
