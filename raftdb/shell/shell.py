"""The shell's core: pieces in, rows out, errors told apart from data.

Data goes to `output`, everything else to `messages`, so that a pipe gets data alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from raftdb.base.errors import Error, InterfaceError, ProgrammingError
from raftdb.base.exits import ExitCode, exit_code
from raftdb.base.limits import DEFAULT_LIMITS
from raftdb.base.ports import Clock
from raftdb.shell.commands import CommandError, run_command
from raftdb.shell.formats import STREAMED, Style, table_width, write_rows
from raftdb.shell.port import Connection, Cursor, Import
from raftdb.shell.statements import (
    Piece,
    leading_words,
    parameters_of,
    read_pieces,
    verb_of,
)

SCRIPT_DEPTH_MAX = 16
_BEGINS = (("BEGIN",), ("COMMIT",), ("END",), ("ROLLBACK",), ("SAVEPOINT",), ("RELEASE",))
_QUERIES = frozenset({"SELECT", "VALUES"})
_PLANNED = _QUERIES | {"INSERT", "REPLACE", "UPDATE", "DELETE"}
_DEFINING = frozenset({"CREATE", "DROP", "ALTER"})


@dataclass(slots=True)
class Settings:
    """What the user can set, by options and by dot commands."""

    style: Style = field(default_factory=Style)
    level: str = "linearizable"
    timer: bool = False
    bail: bool = True
    echo: bool = False
    changes: bool = False
    """Say after each write how many rows it changed."""
    width: int | None = None
    """A table wider than this many columns is shown as lines; None: never."""
    plans: bool = False
    """Show the plan of each statement before its result."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Values for the parameters in statements, by their names as they are written."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the composition root lends to the shell, since rooms beside it are out of its reach."""

    import_file: Callable[[Connection, Import, TextIO], None] | None = None
    """Loads (connection, file, table, messages)."""
    status: Callable[[TextIO], None] | None = None
    """Writes the cluster's state."""
    leader: Callable[[], str] | None = None
    """Node id of the leader."""
    describe: Callable[[Error, Piece | None, str], list[str]] | None = None
    """Writes errors otherwise than `describe`: as JSON, say."""


class Shell:
    """One session at one connection."""

    def __init__(
        self,
        connection: Connection,
        output: TextIO,
        messages: TextIO,
        clock: Clock,
        settings: Settings | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        self.connection = connection
        self.output = output
        self.messages = messages
        self.clock = clock
        self.settings = settings or Settings()
        self.hooks = hooks or Hooks()
        self.exit = ExitCode.OK
        """Of the first failure."""
        self.failures = 0
        self.quitting = False
        self.schema_version = 0
        """Grows whenever a statement may have changed the schema (completion looks at it)."""
        self._depth = 0
        self._opened: TextIO | None = None
        self._once = False
        """It is for the next piece alone."""
        self._standard_output = output

    def run(self, lines: Iterable[str], source: str) -> ExitCode:
        """Run a whole script; stops at the first error when `bail` is on."""
        try:
            for piece in read_pieces(lines):
                if not self.run_piece(piece, source) and self.settings.bail:
                    break
                if self.quitting:
                    break
        except UnicodeDecodeError as error:
            self._fail(InterfaceError(f"not UTF-8: {error}"), None, source)
        except Error as error:
            self._fail(error, None, source)
        try:
            self._end_of_script()
        except Error as error:
            self._fail(error, None, source)
        return self.exit

    def run_piece(self, piece: Piece, source: str) -> bool:
        """Run one piece. False when it failed (what failed is written to `messages`)."""
        failures = self.failures
        ends, opened = self._once, self._opened
        try:
            if self.settings.echo:
                self.output.write(piece.text + "\n")
            try:
                if piece.is_command:
                    run_command(self, piece.text)
                else:
                    self.run_statement(piece)
            finally:
                if ends:
                    self.redirect(None)
        except CommandError as error:
            self._fail(InterfaceError(str(error), hint=error.hint), piece, source)
        except Error as error:
            self._fail(error, piece, source)
        except OSError as error:
            name = error.filename or (opened.name if opened is not None else None)
            if name is None:
                # The standard output: nothing that follows could be shown, and whoever reads a
                # pipe may just have enough.
                raise
            self._fail(InterfaceError(f"{error.strerror}: {name}"), piece, source)
        return self.failures == failures

    def query(self, sql: str, parameters: Any = ()) -> tuple[list[str], list[Any]]:
        """Column names and rows of one statement, at the chosen read level (or as the open
        transaction sees it)."""
        cursor = self._execute(sql, parameters)
        columns = [column[0] for column in cursor.description or ()]
        return columns, list(cursor.fetchall()) if columns else []

    def stream(self, sql: str, parameters: Any = ()) -> Cursor:
        """The rows of one query, a page at a time. Not within a transaction."""
        return self.connection.execute(sql, parameters, read=self.settings.level, stream=True)

    def show(self, columns: list[str], rows: Sequence[Any] | Cursor) -> None:
        """Write rows in the chosen format, tables that are too wide as lines."""
        style = self.settings.style
        width = self.settings.width
        if width is not None and style.format == "table" and isinstance(rows, list) and rows:
            fits = table_width(columns, rows, style) <= width
            style = style if fits else Style("line", style.headers, style.null)
        write_rows(columns, rows, style, self.output)
        self.output.flush()

    def _execute(self, sql: str, parameters: Any = ()) -> Cursor:
        if self.connection.in_transaction or leading_words(sql)[:1] in _BEGINS:
            return self.connection.execute(sql, parameters)
        return self.connection.execute(sql, parameters, read=self.settings.level)

    def run_statement(self, piece: Piece) -> None:
        """Execute SQL and show what it returns."""
        words = leading_words(piece.text)
        parameters = self._bound(piece.text)
        verb = verb_of(piece.text)
        if self.settings.plans and verb in _PLANNED:
            plan = self.query(f"EXPLAIN QUERY PLAN {piece.text}", parameters)[1]
            self.output.write(drawn_plan(plan))
        started = self.clock.monotonic_s()
        if self._streams(verb):
            cursor = self.stream(piece.text, parameters)
            self.show([column[0] for column in cursor.description or ()], cursor)
            self._show_time(started)
            return
        cursor = self._execute(piece.text, parameters)
        if words and words[0] in _DEFINING:
            self.schema_version += 1
        columns = [column[0] for column in cursor.description or ()]
        self._show_result(columns, cursor.fetchall() if columns else [], cursor.rowcount)
        self._show_time(started)

    def _bound(self, sql: str) -> Any:
        """What `.parameter` has for the parameters in a statement; NULL for others, as soon as it
        has any at all."""
        known = self.settings.parameters
        names = parameters_of(sql) if known else []
        if not any(name.startswith("?") for name in names):
            return {name[1:]: known.get(name) for name in names} or ()
        numbers: list[int] = []
        for name in names:
            last = max(numbers, default=0)
            numbers.append(int(name[1:]) if name[1:].isdigit() else last + 1)
            if not name.startswith("?"):
                raise CommandError(
                    f"{name} beside ? in one statement", hint="give all parameters a name"
                )
        if max(numbers) > DEFAULT_LIMITS.parameters_max:
            raise CommandError(f"there is no parameter ?{max(numbers)}")
        return tuple([known.get(f"?{number}") for number in range(1, max(numbers) + 1)])

    def _streams(self, verb: str) -> bool:
        """Whether rows can be written as they come: any number of them then."""
        return (
            verb in _QUERIES
            and self.settings.style.format in STREAMED
            and not self.connection.in_transaction
        )

    def _show_result(self, columns: Sequence[str], rows: Sequence[Any], rowcount: int) -> None:
        if columns:
            self.show(list(columns), list(rows))
        elif self.settings.changes and rowcount >= 0:
            self.say(f"{rowcount} {'row' if rowcount == 1 else 'rows'} changed")

    def _show_time(self, started_s: float) -> None:
        if self.settings.timer:
            self.say(f"Time: {(self.clock.monotonic_s() - started_s) * 1000:.1f} ms")

    def _end_of_script(self) -> None:
        if self.connection.in_transaction and not self._depth and not self.quitting:
            self.connection.rollback()
            raise ProgrammingError(
                "BEGIN without COMMIT: nothing of it was applied", code="sql_incomplete"
            )

    def run_file(self, path: str) -> None:
        """Run a script in place (`.read`)."""
        if self._depth >= SCRIPT_DEPTH_MAX:
            raise CommandError(f"scripts nest deeper than {SCRIPT_DEPTH_MAX}", hint="a loop?")
        self._depth += 1
        try:
            with Path(path).open(encoding="utf-8-sig", newline="\n") as lines:
                self.run(lines, path)
        finally:
            self._depth -= 1

    def say(self, text: str) -> None:
        """A message: never mixed with data."""
        try:
            self.output.flush()
        except OSError:
            # A file that takes no more has failed its statement already.
            if self._opened is None:
                raise
        self.messages.write(text + "\n")
        self.messages.flush()

    def redirect(self, path: str | None, once: bool = False) -> None:
        """Send data to a file (`once`: that of one more piece), or back to where it went at
        first."""
        opened, self._opened = self._opened, None
        self.output = self._standard_output
        self._once = once
        if opened is not None:
            try:
                opened.close()
            except OSError as error:
                error.filename = opened.name
                raise
        if path is not None:
            self._opened = Path(path).open("w", encoding="utf-8", newline="")  # noqa: SIM115
            self.output = self._opened

    @contextmanager
    def closing(self) -> Iterator[Shell]:
        """Closes a file that `.output` left open."""
        try:
            yield self
        finally:
            self.redirect(None)

    def report(self, error: Error) -> None:
        """Say what went wrong outside of any statement."""
        self._fail(error, None, "")

    def _fail(self, error: Error, piece: Piece | None, source: str) -> None:
        self.failures += 1
        self.exit = self.exit or exit_code(error)
        for line in (self.hooks.describe or describe)(error, piece, source):
            self.say(line)


def drawn_plan(rows: Sequence[Sequence[Any]]) -> str:
    """What EXPLAIN QUERY PLAN tells (id, parent, unused, text), as a tree."""
    below: dict[Any, list[Sequence[Any]]] = {}
    for row in rows:
        below.setdefault(row[1], []).append(row)
    lines = ["QUERY PLAN"]
    waiting = [(row, "", row is below[0][-1]) for row in reversed(below.get(0, []))]
    while waiting:
        row, margin, is_last = waiting.pop()
        lines.append(f"{margin}{'`' if is_last else '|'}--{row[3]}")
        children = below.get(row[0], [])
        margin += "   " if is_last else "|  "
        waiting += [(child, margin, child is children[-1]) for child in reversed(children)]
    return "\n".join(lines) + "\n"


def describe(error: Error, piece: Piece | None, source: str) -> list[str]:
    """An error as lines: where, what, the place in the statement, what to do."""
    where = source
    if piece is not None and source:
        where = f"{source}:{piece.line}"
    prefix = f"{where}: " if where else ""
    lines = [f"{prefix}error [{error.code}]: {error.message}"]
    offset = error.detail.get("offset")
    if piece is not None and isinstance(error, ProgrammingError) and isinstance(offset, int):
        lines.extend(_point_at(piece.text, offset))
    if error.outcome != "not_applied":
        lines.append(f"  outcome: {error.outcome}")
    if error.hint:
        lines.append(f"  hint: {error.hint}")
    return lines


def _point_at(sql: str, offset: int) -> list[str]:
    """The line of the statement that is wrong, and a mark below. `offset` counts UTF-8 bytes."""
    data = sql.encode()
    if not 0 <= offset <= len(data):
        return []
    before = data[:offset].decode(errors="replace")
    line_start = before.rfind("\n") + 1
    line_end = sql.find("\n", line_start)
    line = sql[line_start : len(sql) if line_end < 0 else line_end]
    column = len(before) - line_start
    cut = max(0, column - 60)
    return [f"  {line[cut : cut + 78]}", "  " + " " * (column - cut) + "^"]
