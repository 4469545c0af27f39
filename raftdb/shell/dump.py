"""A database as SQL that makes it again: `.dump`.

All of it comes from one query, each table an arm of it, so that it is one state of the database
however long that takes, and a page of rows at a time, so that memory is bounded. The query is made
for the schema that a query before it read; its own first arm says which schema it really saw, and
when that is another one it is made anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from raftdb.shell.literals import literal, name_of, text_literal

Query = Callable[[str], Iterable[Sequence[Any]]]
"""Runs a query, and gives its rows as they come."""
ATTEMPTS = 5
"""How often the schema may change under way."""
GROUP_ROWS, GROUP_BYTES = 500, 64 << 10
"""Rows of one INSERT: one that is this long ends."""
LITERAL_BYTES = 384 << 10
"""A longer literal comes in pieces: a statement has at most 1 MiB."""
ARMS_MAX = 400
"""SQLite takes 500 arms."""
_SCHEMA, _NUMBERS, _SEQUENCE, _ROWS = "schema", "numbers", "sequence", "rows"
_FULL_TEXT = ("fts3", "fts4", "fts5")
_OWN = "'\\_raftdb\\_%' ESCAPE '\\'"
_SQLITE = "name LIKE 'sqlite\\_%' ESCAPE '\\'"
_OBJECTS = (
    "SELECT type, name, tbl_name, sql FROM sqlite_schema"
    f" WHERE tbl_name NOT LIKE {_OWN} AND (sql IS NOT NULL OR {_SQLITE})"
)


class SchemaMoved(Exception):
    """The schema was changed again and again."""


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    declared: str
    is_rowid: int
    """INTEGER PRIMARY KEY: no index stands for the key."""
    hidden: int


@dataclass(frozen=True, slots=True)
class _Table:
    name: str
    columns: tuple[str, ...]
    """Those that can be written."""
    rowid: str
    """The name by which its rowid is read and written; `` when a column is it, or it has none."""
    key: str
    """By what one row is found again: the rowid or the column that is it; `` without one."""
    virtual: bool
    growing: frozenset[str]
    """Columns, as identifiers, whose values can be put together: their affinity changes no text."""


def dump(query: Query, patterns: Sequence[str], *, transaction: bool) -> Iterator[str]:
    """Pieces of text: the whole database, or what belongs to tables LIKE one of the patterns.
    Raises SchemaMoved, and what `query` raises."""
    for _ in range(ATTEMPTS):
        plan = _Plan(query, patterns)
        rows = iter(query(plan.sql()))
        if plan.saw_the_same(rows):
            yield from plan.text(rows, transaction)
            return
    raise SchemaMoved("the schema changes all the time: try again when it does not")


class _Plan:
    """What there is, and the query for it."""

    def __init__(self, query: Query, patterns: Sequence[str]) -> None:
        wanted = " OR ".join(f"tbl_name LIKE {text_literal(one)}" for one in patterns)
        # Sequences and statistics are no objects to make, but it matters that they are there.
        self._filter = f" AND ({wanted} OR {_SQLITE})" if patterns else ""
        self._partial = bool(patterns)
        self._objects = [tuple(row) for row in query(f"{_OBJECTS}{self._filter} ORDER BY rowid")]
        self._describe(query)
        self._has = {row[1] for row in self._objects}
        self._numbers: Sequence[Any] = (0, 0)

    def _describe(self, query: Query) -> None:
        """Columns of each table, and which tables are virtual or belong to one."""
        kinds: dict[str, tuple[str, bool]] = {}
        columns: dict[str, list[_Column]] = {}
        for name, kind, without_rowid, column, declared, key, hidden in query(
            "SELECT l.name, l.type, l.wr, x.name, x.type, x.pk"
            " AND NOT EXISTS (SELECT 1 FROM pragma_index_list(l.name) WHERE origin = 'pk'),"
            " x.hidden FROM pragma_table_list AS l JOIN pragma_table_xinfo(l.name) AS x"
            f" WHERE l.schema = 'main' AND l.name NOT LIKE {_OWN} AND l.type <> 'view'"
        ):
            kinds[name] = (kind, bool(without_rowid))
            columns.setdefault(name, []).append(_Column(column, declared, key, hidden))
        self._shadows = {name for name, (kind, _wr) in kinds.items() if kind == "shadow"}
        self._tables = [
            _table(name, columns[name], *kinds[name], _module(sql or "") in _FULL_TEXT)
            for kind, name, _owner, sql in self._objects
            if kind == "table" and name in kinds and not _left_out(name, sql, self._shadows)
        ]

    def sql(self) -> str:
        """One query for all: (what, number of the table, values …), as many as the widest has."""
        width = max([4, *(len(table.columns) + 1 for table in self._tables)])

        def arm(what: str, number: int, values: Sequence[str], source: str) -> str:
            padded = [*values, *["NULL"] * (width - len(values))]
            return f"SELECT '{what}', {number}, {', '.join(padded)} FROM {source}"

        found = _OBJECTS + self._filter
        arms = [arm(_SCHEMA, 0, ("type", "name", "tbl_name", "sql"), f"({found})")]
        numbers = "pragma_user_version AS u, pragma_application_id AS a"
        arms.append(arm(_NUMBERS, 0, ("u.user_version", "a.application_id"), numbers))
        for number, table in enumerate(self._tables):
            values = [table.rowid or "NULL", *(name_of(one) for one in table.columns)]
            source = f"main.{name_of(table.name)}" + ("" if table.virtual else " NOT INDEXED")
            arms.append(arm(_ROWS, number, values, source))
        if "sqlite_sequence" in self._has:
            arms.append(arm(_SEQUENCE, 0, ("name", "seq"), "sqlite_sequence"))
        while len(arms) > ARMS_MAX:
            arms = [
                f"SELECT * FROM ({' UNION ALL '.join(arms[at : at + ARMS_MAX])})"
                for at in range(0, len(arms), ARMS_MAX)
            ]
        return " UNION ALL ".join(arms)

    def saw_the_same(self, rows: Iterator[Sequence[Any]]) -> bool:
        """Whether the schema is the one that the query was made for."""
        seen = []
        for what, _number, *values in rows:
            if what != _SCHEMA:
                self._numbers = values[:2]
                break
            seen.append(tuple(values[:4]))
        return sorted(seen, key=repr) == sorted(self._objects, key=repr)

    # ---- text

    def text(self, rows: Iterator[Sequence[Any]], transaction: bool) -> Iterator[str]:
        """The script."""
        yield "PRAGMA foreign_keys=OFF;\n"
        if transaction:
            yield "BEGIN TRANSACTION;\n"
        yield from self._made(("table",))
        yield from self._contents(rows)
        for _kind, name, _owner, sql in self._objects:
            if name not in self._shadows and _is_external(sql or ""):
                yield f"INSERT INTO {name_of(name)}({name_of(name)}) VALUES('rebuild');\n"
        yield from self._made(("index",))
        yield from self._made(("trigger", "view"))
        if transaction:
            yield "COMMIT;\n"
        if not self._partial:
            names = ("user_version", "application_id")
            for pragma, value in zip(names, self._numbers, strict=True):
                if value:
                    yield f"PRAGMA {pragma}={value};\n"
            if "sqlite_stat1" in self._has:
                yield "ANALYZE;\n"
        yield "PRAGMA foreign_keys=ON;\n"

    def _made(self, kinds: Sequence[str]) -> Iterator[str]:
        for kind, name, owner, sql in self._objects:
            if kind not in kinds or not sql or name.lower().startswith("sqlite_"):
                continue
            if owner not in self._shadows:
                # A remark at its end must not swallow the semicolon.
                yield f"{sql}\n;\n" if "--" in sql.rsplit("\n", 1)[-1] else f"{sql};\n"

    def _contents(self, rows: Iterator[Sequence[Any]]) -> Iterator[str]:
        current, group = -1, _Group()
        sequences: list[tuple[str, int]] = []
        for what, number, *values in rows:
            if what == _SEQUENCE:
                sequences.append((values[0], values[1]))
                continue
            if number != current:
                yield from group.end()
                current, group = number, _Group(self._tables[number])
            yield from group.add(values)
        yield from group.end()
        names = {table.name for table in self._tables}
        for name, value in sequences:
            if name in names:
                yield f"DELETE FROM sqlite_sequence WHERE name={text_literal(name)};\n"
                yield f"INSERT INTO sqlite_sequence VALUES({text_literal(name)},{value});\n"


class _Group:
    """Rows of one INSERT."""

    def __init__(self, table: _Table | None = None) -> None:
        self._table = table
        self._rows: list[str] = []
        self._bytes = 0

    def add(self, values: Sequence[Any]) -> Iterator[str]:
        """One row; what is complete."""
        table = self._table
        assert table is not None
        count = len(table.columns)
        row = list(values[: count + 1]) if table.rowid else list(values[1 : count + 1])
        later = list(_too_long(table, row)) if table.key else []
        for column, _value in later:
            row[column] = b"" if isinstance(row[column], bytes) else ""
        text = "(" + ",".join([literal(value) for value in row]) + ")"
        if self._rows and (
            len(self._rows) >= GROUP_ROWS or self._bytes + len(text) > GROUP_BYTES or later
        ):
            yield from self.end()
        self._rows.append(text)
        self._bytes += len(text)
        if later:
            yield from self.end()
            yield from _in_pieces(table, row, later)

    def end(self) -> Iterator[str]:
        """The INSERT."""
        if not self._rows:
            return
        assert self._table is not None
        names = ",".join(_written(self._table))
        yield f"INSERT INTO {name_of(self._table.name)}({names}) VALUES\n"
        yield ",\n".join(self._rows) + ";\n"
        self._rows, self._bytes = [], 0


def _written(table: _Table) -> list[str]:
    names = [name_of(column) for column in table.columns]
    return [table.rowid, *names] if table.rowid else names


def _too_long(table: _Table, row: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """Values whose literals together would be too long for a statement."""
    sizes = [_literal_bytes(value) for value in row]
    if sum(sizes) <= LITERAL_BYTES:
        return
    for column, size in enumerate(sizes):
        if size > LITERAL_BYTES // (2 * len(row)) and _written(table)[column] in table.growing:
            yield column, row[column]


def _literal_bytes(value: Any) -> int:
    if isinstance(value, bytes):
        return 2 * len(value) + 3
    return 4 * len(value) if isinstance(value, str) else 24


def _in_pieces(
    table: _Table, row: Sequence[Any], later: Sequence[tuple[int, Any]]
) -> Iterator[str]:
    """UPDATEs that put long values together."""
    names = _written(table)
    where = f"WHERE {table.key}={literal(row[names.index(table.key)])}"
    for column, value in later:
        name = names[column]
        step = LITERAL_BYTES // (2 if isinstance(value, bytes) else 4)
        for at in range(0, len(value), step):
            more = f"{name}||{literal(value[at : at + step])}"
            if isinstance(value, bytes):
                more = f"CAST({more} AS BLOB)"
            yield f"UPDATE {name_of(table.name)} SET {name}={more} {where};\n"


def _table(
    name: str, columns: Sequence[_Column], kind: str, without_rowid: bool, full_text: bool
) -> _Table:
    plain = tuple(column.name for column in columns if not column.hidden)
    growing = frozenset(name_of(column.name) for column in columns if _keeps_text(column.declared))
    if kind == "virtual":
        return _Table(name, plain, "rowid" if full_text else "", "", True, growing)
    if without_rowid:
        return _Table(name, plain, "", "", False, growing)
    for column in columns:
        if column.is_rowid:
            return _Table(name, plain, "", name_of(column.name), False, growing)
    taken = {column.name.lower() for column in columns}
    free = [one for one in ("rowid", "_rowid_", "oid") if one not in taken]
    rowid = free[0] if free else ""
    return _Table(name, plain, rowid, rowid, False, growing)


def _keeps_text(declared: str) -> bool:
    """Affinity TEXT or BLOB (https://www.sqlite.org/datatype3.html#determination_of_column_affinity)"""
    upper = declared.upper()
    if "INT" in upper:
        return False
    return not upper or any(word in upper for word in ("CHAR", "CLOB", "TEXT", "BLOB"))


def _left_out(name: str, sql: str | None, shadows: set[str]) -> bool:
    """A table whose rows are not written: SQLite's own, and what others bring with them."""
    if name.lower().startswith("sqlite_") or name in shadows:
        return True
    return _is_external(sql or "") or is_contentless(sql or "") or _module(sql or "") in _EMPTY


_EMPTY = ("fts5vocab", "fts4aux", "dbstat")


_VIRTUAL = re.compile(
    r"""CREATE\s+VIRTUAL\s+TABLE\s+(?:"(?:[^"]|"")*"|`[^`]*`|\[[^\]]*\]|'[^']*'|\S+)\s+"""
    r"""USING\s+(\w+)""",
    re.IGNORECASE,
)


def _module(sql: str) -> str:
    """Of CREATE VIRTUAL TABLE … USING module(…); `` for other tables."""
    found = _VIRTUAL.match(sql)
    return found.group(1).lower() if found else ""


def _content(sql: str) -> str | None:
    compact = "".join(sql.split()).lower()
    if _module(sql) not in _FULL_TEXT or "content=" not in compact:
        return None
    return compact.split("content=", 1)[1]


def _is_external(sql: str) -> bool:
    """A full-text index over another table, from which it is built again."""
    content = _content(sql)
    return content is not None and not content.startswith(("''", '""'))


def is_contentless(sql: str) -> bool:
    """A full-text index that keeps no text: nobody can read it back."""
    content = _content(sql)
    return content is not None and content.startswith(("''", '""'))
