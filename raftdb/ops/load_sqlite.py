"""Loading a SQLite file: tables, indexes, rows, then full-text indexes, triggers and views.

The file is read in one read transaction. Rowids are kept, since others may refer to them. Triggers
come last: their effects are in the rows already.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlite_utils

from raftdb.base.errors import ConfigError, DatabaseError
from raftdb.base.ports import Clock
from raftdb.ops.columns import quote, text
from raftdb.ops.load import (
    Connection,
    LoadOptions,
    Numbered,
    Progress,
    TableReport,
    insert_rows,
    insert_statement,
    table_columns,
)
from raftdb.ops.rows import RowError

_ROWID_NAMES = ("rowid", "_rowid_", "oid")
_FULL_TEXT = ("fts3", "fts4", "fts5")


@dataclass(frozen=True, slots=True)
class SourceTable:
    """One table of the file."""

    name: str
    sql: str
    columns: tuple[str, ...]
    """Those that can be written (generated ones are not)."""
    rowid: str | None
    """The name by which its hidden rowid goes, if it has one."""
    module: str | None
    """Of a virtual table."""
    parents: frozenset[str]
    """Other tables that its foreign keys refer to, names folded."""
    refers: bool
    """It has foreign keys, to itself perhaps."""

    @property
    def selected(self) -> tuple[str, ...]:
        """What is copied of each row."""
        return (self.rowid, *self.columns) if self.rowid else self.columns


class SourceDatabase:
    """The file, opened read-only in one snapshot. Close it."""

    def __init__(self, path: Path) -> None:
        uri = f"{path.resolve().as_uri()}?mode=ro"
        raw: sqlite3.Connection | None = None
        try:
            raw = sqlite3.connect(uri, uri=True, isolation_level=None)
            raw.execute("BEGIN")
            raw.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.Error as error:
            if raw is not None:
                raw.close()
            raise ConfigError(
                f"cannot read {path}: {error}", hint="check it: sqlite3 FILE 'PRAGMA quick_check'"
            ) from error
        self._raw = raw
        self._database = sqlite_utils.Database(self._raw, execute_plugins=False)
        self.path = path

    def close(self) -> None:
        """Close the file."""
        self._raw.close()

    def objects(self, kind: str) -> list[tuple[str, str, str]]:
        """(name, table, SQL) of all objects of a kind that were made by a statement."""
        return self._raw.execute(
            "SELECT name, tbl_name, sql FROM sqlite_master WHERE type = ? AND sql IS NOT NULL "
            "AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid",
            (kind,),
        ).fetchall()

    def tables(self, wanted: Sequence[str]) -> list[SourceTable]:
        """The tables asked for (all when none is named), parents before children.

        Tables that belong to a virtual table come with it and are left out here.
        """
        shadows = {
            name
            for (name,) in self._raw.execute(
                "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'shadow'"
            )
        }
        all_tables = {
            name: sql for name, _table, sql in self.objects("table") if name not in shadows
        }
        folded = {name.casefold(): name for name in all_tables}
        for name in wanted:
            if name.casefold() not in folded:
                raise ConfigError(
                    f"{self.path} has no table {name!r}",
                    hint="it has " + ", ".join(all_tables) if all_tables else "it has none",
                )
        chosen = [folded[name.casefold()] for name in wanted] or list(all_tables)
        return _parents_first([self._describe(name, all_tables[name]) for name in chosen])

    def _describe(self, name: str, sql: str) -> SourceTable:
        table = self._database[name]
        module = getattr(table, "virtual_table_using", None)
        info = self._raw.execute(
            "SELECT name, type, pk, hidden FROM pragma_table_xinfo(?)", (name,)
        ).fetchall()
        columns = tuple(row[0] for row in info if row[3] == 0)
        parents = self._raw.execute(
            'SELECT "table" FROM pragma_foreign_key_list(?)', (name,)
        ).fetchall()
        module = module.lower() if module else None
        hidden = not self._has_visible_rowid(name, info) and module in (None, *_FULL_TEXT)
        return SourceTable(
            name,
            sql,
            columns,
            _free_rowid_name(columns) if hidden else None,
            module,
            frozenset(row[0].casefold() for row in parents) - {name.casefold()},
            bool(parents),
        )

    def _has_visible_rowid(self, name: str, info: list[tuple[str, str, int, int]]) -> bool:
        """The rowid is one of the columns, or there is none."""
        (without,) = self._raw.execute(
            "SELECT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?", (name,)
        ).fetchone()
        key = [row for row in info if row[2]]
        return bool(without) or (len(key) == 1 and key[0][1].upper() == "INTEGER")

    def count(self, table: SourceTable) -> int:
        """Its number of rows."""
        (rows,) = self._raw.execute(f"SELECT count(*) FROM {quote(table.name)}").fetchone()
        return int(rows)

    def sequence(self, table: SourceTable) -> int:
        """Its AUTOINCREMENT counter; 0 when it has none."""
        try:
            row = self._raw.execute(
                "SELECT seq FROM sqlite_sequence WHERE name = ?", (table.name,)
            ).fetchone()
        except sqlite3.OperationalError:
            return 0
        return int(row[0]) if row and row[0] else 0

    def rows(self, table: SourceTable, skip: int) -> Iterator[Numbered]:
        """Its rows, numbered from 1. Raises RowError."""
        names = ", ".join(quote(name) for name in table.columns)
        selected = f"{table.rowid}, {names}" if table.rowid else names
        number = skip
        try:
            cursor = self._raw.execute(
                f"SELECT {selected} FROM {quote(table.name)} LIMIT -1 OFFSET ?", (skip,)
            )
            for number, row in enumerate(cursor, start=skip + 1):
                yield number, row
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise RowError(number + 1, f"cannot be read: {error}") from error


def _free_rowid_name(columns: Sequence[str]) -> str | None:
    taken = {name.casefold() for name in columns}
    return next((name for name in _ROWID_NAMES if name not in taken), None)


def _parents_first(tables: list[SourceTable]) -> list[SourceTable]:
    """In an order in which foreign keys find their parents, as far as there is one; virtual tables
    last, since they may index others."""
    left = [table for table in tables if table.module is None]
    ordered: list[SourceTable] = []
    while left:
        names = {table.name.casefold() for table in left}
        ready = [table for table in left if not table.parents & names] or left[:1]
        ordered += ready
        left = [table for table in left if table not in ready]
    return ordered + [table for table in tables if table.module is not None]


def load_sqlite(
    connection: Connection,
    path: Path,
    wanted: Sequence[str],
    options: LoadOptions,
    clock: Clock,
    progress: Callable[[str, int], Progress] = lambda table, rows: lambda done: None,
) -> list[TableReport]:
    """Load tables of a SQLite file. Raises ConfigError, LoadError, and the connection's errors.

    `options.skip` counts rows of the one table that is named.
    """
    with closing(SourceDatabase(path)) as source:
        tables = source.tables(wanted)
        if options.skip and len(wanted) != 1:
            raise ConfigError("--skip needs the one --table that it counts rows of")
        reports = {table.name: TableReport(table.name) for table in tables}
        for table in tables:
            reports[table.name].created = _create(connection, source, table, options)
        with _foreign_keys_off(connection):
            for table in tables:
                started = clock.monotonic_s()
                report = reports[table.name]
                _copy(connection, source, table, options, report, progress)
                report.seconds = clock.monotonic_s() - started
        _check_references(connection, tables, reports)
        made = [table.name for table in tables if reports[table.name].created]
        _finish(connection, source, made, reports, every_table=not wanted)
        _note_missing(connection, source, reports)
    return list(reports.values())


@contextmanager
def _foreign_keys_off(connection: Connection) -> Iterator[None]:
    """Rows may come before what they refer to: within a table, or in a circle of tables."""
    before, connection.foreign_keys = connection.foreign_keys, False
    try:
        yield
    finally:
        connection.foreign_keys = before


def _check_references(
    connection: Connection, tables: Sequence[SourceTable], reports: dict[str, TableReport]
) -> None:
    for table in tables:
        if not table.refers:
            continue
        cursor = connection.execute(
            "SELECT count(*) FROM pragma_foreign_key_check(?)", (table.name,)
        )
        [(broken,)] = cursor.fetchall()
        if broken:
            reports[table.name].notes.append(f"{broken} rows refer to rows that are not there")


def _create(
    connection: Connection, source: SourceDatabase, table: SourceTable, options: LoadOptions
) -> bool:
    if table_columns(connection, table.name):
        return False
    if not options.create:
        raise ConfigError(
            f"there is no table {table.name!r}",
            hint="give --create to make it as it is in the file",
        )
    connection.execute(table.sql)
    for _name, owner, sql in source.objects("index"):
        if owner == table.name:
            connection.execute(sql)
    return True


def _copy(
    connection: Connection,
    source: SourceDatabase,
    table: SourceTable,
    options: LoadOptions,
    report: TableReport,
    progress: Callable[[str, int], Progress],
) -> None:
    if _is_contentless(table):
        report.notes.append("made, but empty: a contentless index cannot be read back")
        return
    if _is_external(table):
        name = quote(table.name)
        connection.execute(f"INSERT INTO {name} ({name}) VALUES ('rebuild')")
        report.notes.append("rebuilt from the table that it indexes")
        return
    insert_rows(
        connection,
        insert_statement(table.name, table.selected, options.on_conflict),
        source.rows(table, options.skip),
        options,
        report,
        progress(table.name, source.count(table)),
    )
    sequence = source.sequence(table)
    if sequence and report.created:
        sql = f"UPDATE sqlite_sequence SET seq = {sequence} WHERE name = {text(table.name)}"
        _try(connection, sql, "the AUTOINCREMENT counter", report)


def _is_external(table: SourceTable) -> bool:
    """A full-text index over another table: its content is there, and it is built again."""
    compact = "".join(table.sql.split()).casefold()
    return table.module in _FULL_TEXT and "content=" in compact


def _is_contentless(table: SourceTable) -> bool:
    """A full-text index that keeps no text: it cannot be read back."""
    compact = "".join(table.sql.split()).casefold()
    return table.module in _FULL_TEXT and ("content=''" in compact or 'content=""' in compact)


def _finish(
    connection: Connection,
    source: SourceDatabase,
    made: Sequence[str],
    reports: dict[str, TableReport],
    every_table: bool,
) -> None:
    """Triggers of new tables, and the views when everything is loaded."""
    for name, owner, sql in source.objects("trigger"):
        if owner in made:
            _try(connection, sql, f"trigger {name}", reports[owner])
    if every_table and reports:
        last = next(reversed(reports.values()))
        for name, _table, sql in source.objects("view"):
            _try(connection, sql, f"view {name}", last)


def _note_missing(
    connection: Connection, source: SourceDatabase, reports: dict[str, TableReport]
) -> None:
    """What the file has beside the rows of a table that was there already, and the cluster has not:
    a load that was interrupted leaves it so."""
    cursor = connection.execute("SELECT name FROM sqlite_schema WHERE type IN ('index', 'trigger')")
    there = {str(name).casefold() for (name,) in cursor.fetchall()}
    for kind in ("index", "trigger"):
        for name, owner, sql in source.objects(kind):
            report = reports.get(owner)
            if report is not None and not report.created and name.casefold() not in there:
                report.notes.append(
                    f"{kind} {name} is not made, since the table was there: {' '.join(sql.split())}"
                )


def _try(connection: Connection, sql: str, what: str, report: TableReport) -> None:
    """Do what is not rows: what the cluster refuses becomes a note, since the rows are in."""
    try:
        connection.execute(sql)
    except DatabaseError as error:
        if error.retryable:
            raise
        report.notes.append(f"{what} was left out: {error}")
