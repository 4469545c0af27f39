"""Loading rows: batches as requests, each all or nothing and exactly once, with honest reports.

A batch that a row spoils changed nothing; it is halved until the bad row stands alone. So at the
end all rows before the bad one are in, none after it, and `resume_skip` says how to go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from raftdb.base.errors import (
    UNKNOWN,
    ConfigError,
    DatabaseError,
    DataError,
    Error,
    IntegrityError,
    ProgrammingError,
)
from raftdb.base.limits import MIB
from raftdb.base.ports import Clock
from raftdb.command import Value
from raftdb.ops.columns import Converter, create_table, quote, survey
from raftdb.ops.rows import RowError, SourceRow, open_text, read_rows

BATCH_ROWS = 2_000
BATCH_ROWS_MAX = 100_000
BATCH_BYTES = 2 * MIB
CONFLICTS = {"abort": "INSERT", "ignore": "INSERT OR IGNORE", "replace": "INSERT OR REPLACE"}

Numbered = tuple[int, tuple[Value, ...]]
"""Line (or row number) in the source, and values."""


class Connection(Protocol):
    """What loading needs of a connection."""

    foreign_keys: bool
    """Whether its writes enforce foreign keys."""

    def execute(self, sql: str, parameters: Any = (), /) -> Any:
        """Run one statement; returns a cursor."""

    def executemany(self, sql: str, parameter_sets: Sequence[Any], /) -> Any:
        """Run one statement for many rows, as one request."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to load."""

    create: bool = False
    """Make the table when it is missing."""
    key: tuple[str, ...] = ()
    """Primary key of a table that is made."""
    detect_types: bool = True
    delimiter: str | None = None
    empty_null: bool = False
    on_conflict: str = "abort"
    batch_rows: int = BATCH_ROWS
    batch_bytes: int = BATCH_BYTES
    skip: int = 0
    """Rows of the file that are in already."""

    def __post_init__(self) -> None:
        if not 1 <= self.batch_rows <= BATCH_ROWS_MAX:
            raise ConfigError(
                f"a batch of {self.batch_rows} rows", hint=f"give 1 to {BATCH_ROWS_MAX} rows"
            )
        if self.on_conflict not in CONFLICTS:
            raise ConfigError(
                f"{self.on_conflict!r} is no way to meet a conflict",
                hint="one of " + ", ".join(CONFLICTS),
            )


@dataclass(slots=True)
class TableReport:
    """What happened to one table."""

    table: str
    rows: int = 0
    created: bool = False
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


class LoadError(DatabaseError):
    """Loading stopped. `detail` has `table`, `line`, `rows_loaded` and `resume_skip`."""

    default_code = "load"


Progress = Callable[[int], None]
"""Called with the number of rows that became durable."""


def batches(rows: Iterable[Numbered], options: LoadOptions) -> Iterator[list[Numbered]]:
    """Cut rows into batches bounded by rows and bytes."""
    batch: list[Numbered] = []
    size = 0
    stream = iter(rows)
    while True:
        try:
            row = next(stream, None)
        except RowError:
            if batch:
                yield batch
            raise
        if row is None:
            break
        row_size = sum(_size(value) for value in row[1])
        if batch and (len(batch) >= options.batch_rows or size + row_size > options.batch_bytes):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += row_size
    if batch:
        yield batch


def _size(value: Value) -> int:
    return 9 + len(value) if isinstance(value, str | bytes) else 9


def insert_rows(
    connection: Connection,
    sql: str,
    rows: Iterable[Numbered],
    options: LoadOptions,
    report: TableReport,
    progress: Progress,
) -> None:
    """Insert all rows; raises LoadError at the first that cannot be."""
    stream = iter(batches(rows, options))
    while True:
        try:
            batch = next(stream, None)
        except RowError as error:
            raise _stopped(report, options, error.line, DataError(error.message)) from error
        if batch is None:
            return
        _insert_batch(connection, sql, batch, options, report, progress)


def _insert_batch(
    connection: Connection,
    sql: str,
    batch: list[Numbered],
    options: LoadOptions,
    report: TableReport,
    progress: Progress,
) -> None:
    """Insert one batch, or find the row that spoils it."""
    waiting = [batch]
    while waiting:
        part = waiting.pop()
        try:
            connection.executemany(sql, [values for _line, values in part])
        except (IntegrityError, DataError, ProgrammingError) as error:
            if len(part) == 1 or error.outcome == UNKNOWN:
                raise _stopped(report, options, part[0][0], error) from error
            middle = len(part) // 2
            waiting += [part[middle:], part[:middle]]
            continue
        except Error as error:
            raise _stopped(report, options, part[0][0], error) from error
        report.rows += len(part)
        progress(len(part))


def _stopped(report: TableReport, options: LoadOptions, line: int, error: Error) -> LoadError:
    done = options.skip + report.rows
    hint = f"{error.hint}; " if error.hint else ""
    if error.outcome == UNKNOWN:
        hint += f"what follows row {done} may be in or not: look before you go on"
    elif done:
        hint += f"rows up to number {done} are in: mend the file and go on with --skip {done}"
    else:
        hint += "nothing was loaded"
    return LoadError(
        f"{report.table}, line {line}: {error.message}",
        code=error.code,
        retryable=error.retryable,
        outcome=error.outcome,
        hint=hint,
        detail={
            "table": report.table,
            "line": line,
            "rows_loaded": report.rows,
            "resume_skip": done,
        },
    )


def table_columns(connection: Connection, table: str) -> list[tuple[str, str]]:
    """(name, declared type in upper case) of a table's columns; empty when there is none."""
    cursor = connection.execute(
        "SELECT name, type FROM pragma_table_xinfo(?) WHERE hidden = 0", (table,)
    )
    return [(str(name), str(kind).upper()) for name, kind in cursor.fetchall()]


def load_text(
    connection: Connection,
    path: Path,
    table: str,
    format_name: str,
    options: LoadOptions,
    clock: Clock,
    progress: Progress = lambda rows: None,
) -> TableReport:
    """Load a CSV, TSV, JSON or JSON-lines file into one table.

    Reads the file twice when the table is to be made: once for its columns and their types.
    Raises ConfigError, LoadError, and the connection's errors.
    """
    started = clock.monotonic_s()
    report = TableReport(table)
    typed_text = format_name in ("csv", "tsv")
    existing = table_columns(connection, table)
    if not existing:
        existing = _make_table(connection, path, table, format_name, options)
        report.created = True
    with open_text(path) as file:
        rows = read_rows(file, format_name, options.delimiter)
        first = _first(rows)
        if first is not None:
            names = _match_columns(first[0], existing, table, typed_text)
            converter = _converter(first[0], names, dict(existing), typed_text, options)
            insert_rows(
                connection,
                insert_statement(table, names, options.on_conflict),
                _convert(first[1], converter, options.skip),
                options,
                report,
                progress,
            )
    report.seconds = clock.monotonic_s() - started
    return report


def insert_statement(table: str, names: Sequence[str], on_conflict: str = "abort") -> str:
    """The INSERT for one row."""
    columns = ", ".join(quote(name) for name in names)
    marks = ", ".join("?" * len(names))
    return f"{CONFLICTS[on_conflict]} INTO {quote(table)} ({columns}) VALUES ({marks})"


def _make_table(
    connection: Connection, path: Path, table: str, format_name: str, options: LoadOptions
) -> list[tuple[str, str]]:
    if not options.create:
        raise ConfigError(
            f"there is no table {table!r}", hint="give --create to make it from the file's columns"
        )
    with open_text(path) as file:
        try:
            found = survey(
                read_rows(file, format_name, options.delimiter),
                typed_text=format_name in ("csv", "tsv"),
                types=options.detect_types,
            )
        except RowError as error:
            raise ConfigError(f"{path}, {error}", hint="nothing was loaded") from error
    if not found.columns:
        raise ConfigError(f"{path} has no rows: there is nothing to make a table from")
    connection.execute(create_table(table, list(found.columns.values()), options.key))
    return [(column.name, column.type) for column in found.columns.values()]


def _first(rows: Iterator[SourceRow]) -> tuple[SourceRow, Iterator[SourceRow]] | None:
    try:
        row = next(rows, None)
    except RowError as error:
        raise ConfigError(str(error), hint="nothing was loaded") from error
    if row is None:
        return None

    def chain() -> Iterator[SourceRow]:
        yield row
        yield from rows

    return row, chain()


def _match_columns(
    first: SourceRow, existing: list[tuple[str, str]], table: str, typed_text: bool
) -> tuple[str, ...]:
    """The table's columns that the file fills: for CSV those in its first line, else all."""
    known = {name.casefold(): name for name, _kind in existing}
    unknown = [name for name in first.values if name.casefold() not in known]
    if unknown:
        raise ConfigError(
            f"the table {table!r} has no column " + ", ".join(repr(name) for name in unknown),
            hint="it has " + ", ".join(name for name, _kind in existing),
        )
    if typed_text:
        return tuple(known[name.casefold()] for name in first.values)
    return tuple(name for name, _kind in existing)


def _converter(
    first: SourceRow,
    names: tuple[str, ...],
    kinds: dict[str, str],
    typed_text: bool,
    options: LoadOptions,
) -> Converter:
    """The file's own spelling of each column comes from its first row."""
    spelled = {name.casefold(): name for name in first.values}
    keys = tuple(spelled.get(name.casefold(), name) for name in names)
    return Converter(keys, tuple(kinds[name] for name in names), typed_text, options.empty_null)


def _convert(rows: Iterable[SourceRow], converter: Converter, skip: int) -> Iterator[Numbered]:
    known = frozenset(converter.keys)
    for number, row in enumerate(rows):
        if number < skip:
            continue
        for name in row.values:
            if name not in known:
                raise RowError(row.line, f"the table has no column {name!r}")
        try:
            yield row.line, converter.convert(row)
        except DataError as error:
            raise RowError(row.line, str(error)) from error
