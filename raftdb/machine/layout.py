"""Which columns of a table are stored, and how one row is read as the hash sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from raftdb.machine.format import MARK

Run = Callable[..., Any]
"""Executes SQL of raftdb's own: (sql, parameters=()) -> iterable of rows."""

TouchedRows = set[int] | None
"""Rowids of changed rows; None: any of the table."""
TouchedNow = dict[int, TouchedRows]
"""By raftdb's number of the table."""

CHUNK_BYTES = 4 << 20
_VIRTUAL, _HIDDEN = 2, 1
_ROWID_NAMES = ("rowid", "_rowid_", "oid")


@dataclass(frozen=True, slots=True)
class Layout:
    """What the hash of a table's rows depends on, besides the rows."""

    columns: tuple[str, ...]
    """Stored columns in the table's order; not part of equality between layouts, see `shape`."""
    reals: tuple[int, ...]
    """Positions among `columns` of those with REAL affinity."""
    has_virtual: bool
    """It has VIRTUAL generated columns: the preupdate hook cannot give its values."""
    rowid: str
    """The name by which the rowid is read; `` without one (or when columns hide all three)."""
    by_table: str
    """SQL that has the table read, and not an index that holds all of its columns."""

    @property
    def shape(self) -> tuple[Any, ...]:
        """Layouts of equal shape give equal sums for equal rows: a column's name is not in it."""
        return (len(self.columns), self.reals, self.has_virtual, bool(self.rowid))


def read_layout(run: Run, table: str) -> Layout:
    """The layout of a table of the main database."""
    columns: list[str] = []
    reals: list[int] = []
    has_virtual = False
    names: set[str] = set()
    for _cid, name, declared, *_rest, hidden in run_pragma(run, "table_xinfo", table):
        names.add(name.lower())
        if hidden == _VIRTUAL:
            has_virtual = True
        elif hidden != _HIDDEN:
            if _is_real(declared):
                reals.append(len(columns))
            columns.append(name)
    [without_rowid] = [row[4] for row in run_pragma(run, "table_list", table) if row[0] == "main"]
    free = [name for name in _ROWID_NAMES if name not in names]
    rowid = "" if without_rowid or not free else free[0]
    by_table = _by_primary_key(run, table) if without_rowid else "NOT INDEXED"
    return Layout(tuple(columns), tuple(reals), has_virtual, rowid, by_table)


def _by_primary_key(run: Run, table: str) -> str:
    """NOT INDEXED does not keep SQLite from other indexes where the table is one itself."""
    [name] = [row[1] for row in run_pragma(run, "index_list", table) if row[3] == "pk"]
    return f"INDEXED BY {quote(name)}"


def run_pragma(run: Run, pragma: str, name: str) -> list[tuple[Any, ...]]:
    """What PRAGMA tells of a table or an index of the main database. Not by the table-valued
    functions (pragma_table_xinfo ...): a user's table may have such a name, and is found first."""
    return list(run(f"PRAGMA main.{pragma}({quote(name)}) {MARK}"))


def read_images(run: Run, table: str, layout: Layout, rowid: int | None = None) -> Iterator[Any]:
    """Rows as the hash sees them: (rowid or None, stored values …). All of them, or one."""
    sql = _select(table, layout)
    if rowid is None:
        return iter(run(f"{sql} {MARK}"))
    return iter(run(f"{sql} WHERE {layout.rowid} = ? {MARK}", (rowid,)))


def read_all(run: Run, table: str, layout: Layout, rowids: TouchedRows) -> None:
    """Read rows (None: all of the table) to see that they can be. Raises UnicodeError."""
    for rowid in rowids if rowids is not None and layout.rowid else (None,):
        for _image in read_images(run, table, layout, rowid):
            pass


def read_chunk(run: Run, table: str, layout: Layout, after: int | None, limit: int) -> list[Any]:
    """Up to `limit` rows as the hash sees them, by rowid, above `after` (None: from the first), and
    no more of them than make up CHUNK_BYTES."""
    where = "" if after is None else f"WHERE {layout.rowid} > {after}"
    order = f"ORDER BY {layout.rowid} LIMIT {limit}"
    cursor = run(f"{_select(table, layout)} {where} {order} {MARK}")
    chunk: list[Any] = []
    room = CHUNK_BYTES
    for image in cursor:
        chunk.append(image)
        room -= sum(len(value) for value in image if type(value) is str or type(value) is bytes)
        if room < 0:
            break
    cursor.close()
    return chunk


def _select(table: str, layout: Layout) -> str:
    names = ", ".join(quote(column) for column in layout.columns)
    return f"SELECT {layout.rowid or 'NULL'}, {names} FROM main.{quote(table)} {layout.by_table}"


def quote(name: str) -> str:
    """As an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


def _is_real(declared: str) -> bool:
    """REAL affinity by the rules of https://www.sqlite.org/datatype3.html#determination_of_column_affinity"""
    # A to Z alone, as SQLite does: to Python, a dotless i is an I in upper case too.
    upper = declared.encode().upper().decode()
    if any(word in upper for word in ("INT", "CHAR", "CLOB", "TEXT", "BLOB")):
        return False
    return any(word in upper for word in ("REAL", "FLOA", "DOUB"))


def with_reals(values: tuple[Any, ...], reals: tuple[int, ...]) -> tuple[Any, ...]:
    """Integers of REAL columns as the reals that a SELECT reads: the hook gives the default of a
    column that was added later as it was written."""
    for position in reals:
        if type(values[position]) is int:
            changed = list(values)
            for place in reals:
                if type(changed[place]) is int:
                    changed[place] = float(changed[place])
            return tuple(changed)
    return values
