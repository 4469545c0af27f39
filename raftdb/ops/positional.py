"""Loading as the sqlite3 shell's `.import` does: fields by their place, as text, a header only when
the table is made (https://www.sqlite.org/cli.html#importing_csv_files).

Otherwise than there, a row that cannot be inserted stops it, as in all loading here.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from raftdb.base.errors import ConfigError
from raftdb.base.limits import DEFAULT_LIMITS
from raftdb.base.ports import Clock
from raftdb.command import Value
from raftdb.ops.columns import quote
from raftdb.ops.load import (
    Connection,
    LoadOptions,
    Numbered,
    TableReport,
    insert_rows,
    insert_statement,
    table_columns,
)
from raftdb.ops.rows import RowError, check_names, not_utf8, open_text

STYLES = ("csv", "ascii")
_UNIT, _RECORD = "\x1f", "\x1e"
_CHUNK = 1 << 16
Fields = tuple[int, list[str]]
"""Line (or row number), and what stands there."""


def load_positional(
    connection: Connection,
    path: Path,
    table: str,
    style: str,
    skip: int,
    clock: Clock,
    note: Callable[[str], None],
) -> TableReport:
    """Load a file of that style into one table, made of TEXT columns if it is missing; the first
    `skip` rows are left out. `note` hears of rows with too few or too many fields.

    Raises ConfigError, LoadError, and the connection's errors.
    """
    started = clock.monotonic_s()
    report = TableReport(table)
    names = [name for name, _kind in table_columns(connection, table)]
    with open_text(path) as file:
        rows = _read(file, style)
        try:
            for _ in range(skip):
                next(rows, None)
            if not names:
                names = _make_table(connection, path, table, rows)
                report.created = True
        except RowError as error:
            raise ConfigError(f"{path}, {error}", hint="nothing was loaded") from error
        sql = insert_statement(table, names)
        fitted = _fitted(rows, len(names), path, note)
        options = LoadOptions(skip=skip + report.created)
        insert_rows(connection, sql, fitted, options, report, _ignore)
    report.seconds = clock.monotonic_s() - started
    return report


def _make_table(
    connection: Connection, path: Path, table: str, rows: Iterator[Fields]
) -> list[str]:
    line, names = next(rows, (0, []))
    if not names:
        raise ConfigError(f"{path} has no rows: there is nothing to make a table from")
    check_names(names, line)
    columns = ", ".join(f"{quote(name)} TEXT" for name in names)
    connection.execute(f"CREATE TABLE {quote(table)} ({columns})")
    return names


def _read(file: TextIO, style: str) -> Iterator[Fields]:
    line = 1
    try:
        for row in _read_style(file, style):
            line = row[0] + 1
            yield row
    except UnicodeDecodeError as error:
        raise not_utf8(line, error) from error


def _read_style(file: TextIO, style: str) -> Iterator[Fields]:
    if style == "ascii":
        for number, row in enumerate(_records(file), start=1):
            yield number, row.split(_UNIT)
        return
    csv.field_size_limit(DEFAULT_LIMITS.value_bytes_max)
    reader = csv.reader(file, strict=True)
    line = 1
    try:
        for fields in reader:
            yield line, fields or [""]
            line = reader.line_num + 1
    except csv.Error as error:
        raise RowError(reader.line_num, f"not CSV: {error}") from error


def _records(file: TextIO) -> Iterator[str]:
    rest = ""
    while chunk := file.read(_CHUNK):
        *whole, rest = (rest + chunk).split(_RECORD)
        yield from whole
        if len(rest) > DEFAULT_LIMITS.request_bytes_max:
            raise ConfigError(
                f"a row has more than {DEFAULT_LIMITS.request_bytes_max} characters",
                hint="rows end with the character 0x1e, fields with 0x1f",
            )
    if rest.strip("\n"):
        yield rest


def _fitted(
    rows: Iterator[Fields], count: int, path: Path, note: Callable[[str], None]
) -> Iterator[Numbered]:
    for line, fields in rows:
        values: list[Value] = [*fields[:count]]
        if len(fields) != count:
            what = "filling the rest with NULL" if len(fields) < count else "extras ignored"
            note(f"{path}:{line}: expected {count} columns but found {len(fields)} - {what}")
            values += [None] * (count - len(values))
        yield line, tuple(values)


def _ignore(_rows: int) -> None:
    pass
