"""Loading a SQLite file: everything that it holds, in an order that works."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from raftdb.base.errors import ConfigError
from raftdb.ops.load import LoadError, LoadOptions, TableReport
from raftdb.ops.load_sqlite import load_sqlite
from raftdb.runtime import RealClock
from tests.shell.fake import FakeConnection

SCHEMA = """
CREATE TABLE child (id INTEGER PRIMARY KEY, parent REFERENCES parent (id));
CREATE TABLE parent (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, up AS (upper(name)));
CREATE TABLE plain (a, "b c" BLOB, rowid TEXT);
CREATE TABLE pairs (a TEXT, b INTEGER, PRIMARY KEY (a, b)) WITHOUT ROWID, STRICT;
CREATE INDEX by_a ON plain (a) WHERE a IS NOT NULL;
CREATE VIEW names AS SELECT name FROM parent;
CREATE TRIGGER grow AFTER INSERT ON parent BEGIN INSERT INTO plain (a) VALUES (NEW.name); END;
CREATE VIRTUAL TABLE words USING fts5(text);
CREATE VIRTUAL TABLE over USING fts5(name, content='parent', content_rowid='id');
CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1);
"""


@pytest.fixture
def connection() -> Iterator[FakeConnection]:
    made = FakeConnection()
    made.raw.execute("PRAGMA foreign_keys = ON")
    yield made
    made.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.db"
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.executescript(SCHEMA)
        raw.execute("DROP TRIGGER grow")
        raw.executemany("INSERT INTO parent VALUES (?, ?)", [(5, "five"), (9, "nine"), (20, "x")])
        raw.execute("DELETE FROM parent WHERE id = 20")
        raw.executemany("INSERT INTO child VALUES (?, ?)", [(1, 9), (2, None)])
        raw.executemany(
            'INSERT INTO plain (_rowid_, a, "b c", rowid) VALUES (?, ?, ?, ?)',
            [(7, 1, b"\x00\xff", "r"), (3, 2.5, None, ""), (99, "é", "t", None)],
        )
        raw.executemany("INSERT INTO pairs VALUES (?, ?)", [("b", 2), ("a", 1)])
        raw.executemany(
            "INSERT INTO words (rowid, text) VALUES (?, ?)", [(4, "hello world"), (8, "bye")]
        )
        raw.execute("INSERT INTO over (over) VALUES ('rebuild')")
        raw.execute("INSERT INTO boxes VALUES (1, 0.5, 2.5)")
        raw.execute(
            "CREATE TRIGGER grow AFTER INSERT ON parent BEGIN "
            "INSERT INTO plain (a) VALUES (NEW.name); END"
        )
    return path


def load(
    connection: FakeConnection, path: Path, *tables: str, **options: Any
) -> dict[str, TableReport]:
    made = LoadOptions(**{"create": True, **options})
    reports = load_sqlite(connection, path, tables, made, RealClock())
    return {report.table: report for report in reports}


def content(raw: sqlite3.Connection, query: str) -> list[Any]:
    return raw.execute(query).fetchall()


QUERIES = [
    "SELECT * FROM parent ORDER BY id",
    "SELECT * FROM child ORDER BY id",
    'SELECT _rowid_, a, typeof(a), "b c", rowid FROM plain ORDER BY _rowid_',
    "SELECT * FROM pairs ORDER BY a",
    "SELECT rowid, text FROM words ORDER BY rowid",
    "SELECT rowid FROM words WHERE words MATCH 'hello'",
    "SELECT rowid FROM over WHERE over MATCH 'nine'",
    "SELECT * FROM boxes",
    "SELECT seq FROM sqlite_sequence WHERE name = 'parent'",
    "SELECT * FROM names ORDER BY 1",
    "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name",
]


def test_everything_arrives(connection: FakeConnection, source: Path) -> None:
    reports = load(connection, source)
    with closing(sqlite3.connect(source)) as raw:
        for query in QUERIES:
            assert content(connection.raw, query) == content(raw, query), query
    assert reports["plain"].rows == 3
    assert reports["over"].notes == ["rebuilt from the table that it indexes"]
    order = list(reports)
    assert order.index("parent") < order.index("child")
    assert {order.index("words"), order.index("over"), order.index("boxes")} == {4, 5, 6}


def test_one_table_with_its_indexes_and_triggers(connection: FakeConnection, source: Path) -> None:
    reports = load(connection, source, "PLAIN")
    assert list(reports) == ["plain"]
    names = content(connection.raw, "SELECT name FROM sqlite_schema ORDER BY name")
    assert names == [("by_a",), ("plain",)]


def test_an_existing_table_takes_rows_and_nothing_is_made_twice(
    connection: FakeConnection, source: Path
) -> None:
    load(connection, source, "pairs")
    reports = load(connection, source, "pairs", on_conflict="ignore")
    assert not reports["pairs"].created
    assert content(connection.raw, "SELECT count(*) FROM pairs") == [(2,)]
    with pytest.raises(LoadError, match=r"pairs, line 1: UNIQUE"):
        load(connection, source, "pairs")


def test_nothing_is_made_unasked(connection: FakeConnection, source: Path) -> None:
    with pytest.raises(ConfigError, match="--create"):
        load(connection, source, create=False)
    assert content(connection.raw, "SELECT count(*) FROM sqlite_schema") == [(0,)]


def test_skip_goes_on_where_it_stopped(connection: FakeConnection, source: Path) -> None:
    load(connection, source, "plain")
    connection.raw.execute("DELETE FROM plain WHERE _rowid_ > 3")
    load(connection, source, "plain", skip=1)
    assert content(connection.raw, "SELECT _rowid_ FROM plain ORDER BY 1") == [(3,), (7,), (99,)]
    with pytest.raises(ConfigError, match="--skip needs"):
        load(connection, source, skip=1)


def test_what_an_interrupted_load_did_not_make_is_said(
    connection: FakeConnection, source: Path
) -> None:
    connection.raw.execute(
        "CREATE TABLE parent (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, "
        "up AS (upper(name)))"
    )
    connection.raw.execute('CREATE TABLE plain (a, "b c" BLOB, rowid TEXT)')
    connection.raw.execute("CREATE INDEX by_a ON plain (a)")
    reports = load(connection, source, "parent", "plain")
    assert reports["plain"].notes == []
    [note] = reports["parent"].notes
    assert note.startswith("trigger grow is not made, since the table was there: CREATE TRIGGER")


def test_unknown_tables_and_files_that_are_no_database(
    connection: FakeConnection, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"no table 'nope' .*parent"):
        load(connection, source, "nope")
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"SQLite format 3\x00" + b"\xff" * 5000)
    with pytest.raises(ConfigError, match="cannot read"):
        load(connection, broken)


def test_text_that_is_no_utf8_is_named_with_its_row(
    connection: FakeConnection, tmp_path: Path
) -> None:
    path = tmp_path / "bad.db"
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("CREATE TABLE t (a TEXT)")
        raw.execute("INSERT INTO t VALUES ('fine'), (CAST(x'ff' AS TEXT))")
    with pytest.raises(LoadError, match="line 2: cannot be read"):
        load(connection, path)
    assert content(connection.raw, "SELECT a FROM t") == [("fine",)]


def test_a_contentless_index_is_made_and_said_to_be_empty(
    connection: FakeConnection, tmp_path: Path
) -> None:
    path = tmp_path / "less.db"
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("CREATE VIRTUAL TABLE less USING fts5(a, content='')")
        raw.execute("INSERT INTO less (rowid, a) VALUES (1, 'x')")
    assert "cannot be read back" in load(connection, path)["less"].notes[0]


def test_rows_may_come_before_what_they_refer_to(
    connection: FakeConnection, tmp_path: Path
) -> None:
    path = tmp_path / "circle.db"
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.executescript(
            "CREATE TABLE a (id INTEGER PRIMARY KEY, b REFERENCES b (id));"
            "CREATE TABLE b (id INTEGER PRIMARY KEY, a REFERENCES a (id));"
            "CREATE TABLE staff (id INTEGER PRIMARY KEY, boss REFERENCES staff (id));"
            "INSERT INTO a VALUES (1, 1); INSERT INTO b VALUES (1, 1);"
            "INSERT INTO staff VALUES (1, 2), (2, NULL);"
        )
    reports = load(connection, path)
    assert {name: (one.rows, one.notes) for name, one in reports.items()} == {
        "a": (1, []),
        "b": (1, []),
        "staff": (2, []),
    }
    assert connection.foreign_keys is True


def test_broken_references_are_noted(connection: FakeConnection, tmp_path: Path) -> None:
    path = tmp_path / "broken.db"
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.executescript(
            "CREATE TABLE a (id INTEGER PRIMARY KEY, a REFERENCES a (id));"
            "INSERT INTO a VALUES (1, 7);"
        )
    assert load(connection, path)["a"].notes == ["1 rows refer to rows that are not there"]
