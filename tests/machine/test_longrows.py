"""Long rows that go are read in pieces, never at once, and hash as ever; the widest are refused."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raftdb.machine import longrows
from raftdb.machine.layout import CHUNK_BYTES
from raftdb.machine.rowhash import RowHasher
from tests.machine.support import Database, ManualClock, replay

LONG = 4 * longrows.PIECE_BYTES + 12_345
ROOM = 5 * longrows.PIECE_BYTES // 2
"""What may be made of a long row at a time."""


def peak_bytes(work: Callable[[], Any]) -> int:
    """The most that Python held at a time beyond what it held before."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


TABLES = {
    "blob": ("CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)", f"zeroblob({LONG})", "1.5"),
    "text": (
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b REAL)",
        f"replace(hex(zeroblob({LONG // 6})), '0', 'é€')",
        "7",
    ),
    "no key": ("CREATE TABLE t(a, b TEXT)", f"zeroblob({LONG})", "NULL"),
    "two of them": ("CREATE TABLE t(a, b)", f"zeroblob({LONG})", f"zeroblob({LONG})"),
}


@pytest.mark.parametrize("what", list(TABLES))
@pytest.mark.parametrize("restarted", [False, True], ids=["known", "after a restart"])
def test_a_long_row_that_goes_is_never_one_value(
    database: Database, what: str, restarted: bool
) -> None:
    create, long, other = TABLES[what]
    database.run(create)
    database.run(f"INSERT INTO t(rowid, a, b) VALUES (7, {long}, {other}), (8, 'short', {other})")
    if restarted:
        database.restart()
    sizes = database.rows("SELECT octet_length(a) FROM t WHERE rowid = 7")
    assert sizes[0][0] > ROOM
    assert peak_bytes(lambda: database.run("UPDATE t SET a = 'now short' WHERE rowid = 7")) < (
        ROOM if what != "two of them" else LONG + ROOM  # b comes as a new value
    )
    database.check_hash()
    database.run(f"INSERT INTO t(rowid, a, b) VALUES (9, {long}, {other})")
    assert peak_bytes(lambda: database.run("DELETE FROM t WHERE rowid > 6")) < ROOM
    database.check_hash()
    assert database.rows("SELECT count(*) FROM t") == [(0,)]


WAYS = {
    "replace": "REPLACE INTO t(id, a) VALUES (1, 'x')",
    "upsert": "INSERT INTO t(id, a) VALUES (1, 'x') ON CONFLICT DO UPDATE SET a = excluded.a",
    "rowid": "UPDATE t SET id = id + 10",
    "cascade": "DELETE FROM parent",
    "trigger": "INSERT INTO clearing VALUES (1)",
    "or fail": "UPDATE OR FAIL t SET a = id, u = id / 2",
    "abort": "UPDATE t SET a = id, u = id / 2",
}


@pytest.mark.parametrize("way", list(WAYS))
def test_ways_that_a_row_goes(database: Database, tmp_path: Path, way: str) -> None:
    database.run(
        "CREATE TABLE parent(p INTEGER PRIMARY KEY)",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a, r REAL, u UNIQUE,"
        " p REFERENCES parent ON DELETE CASCADE)",
        "CREATE TABLE clearing(x)",
        "CREATE TRIGGER clears AFTER INSERT ON clearing BEGIN DELETE FROM t; END",
        "INSERT INTO parent VALUES (1)",
    )
    for number in range(1, 4):
        database.run(f"INSERT INTO t VALUES ({number}, zeroblob({LONG}), 3, {number * 10}, 1)")
    database.run("ALTER TABLE t ADD COLUMN e REAL DEFAULT 5")
    database.check_hash()
    database.apply(database.request(WAYS[way]))
    database.check_hash()
    other = replay(tmp_path / "other", database.entries)
    assert other.content_hash() == database.machine.content_hash()
    other.close()


@pytest.mark.parametrize(
    "create",
    [
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a, g AS (length(a)) STORED)",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a) WITHOUT ROWID",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a, g AS (length(a)))",
        "CREATE TABLE t(id, rowid, _rowid_, oid, a)",
        "CREATE VIRTUAL TABLE t USING fts5(id, a)",
    ],
)
def test_tables_without_incremental_reading(database: Database, create: str) -> None:
    database.run(create)
    for value in (f"zeroblob({LONG})", "'x'", f"printf('%.*c', {LONG}, 'x')"):
        database.run(f"INSERT INTO t(id, a) VALUES (1, {value}), (2, 'short')")
        database.check_hash()
        database.run("UPDATE t SET a = a || 'x' WHERE id = 1")
        database.run("UPDATE t SET a = 5 WHERE id = 1")
        database.check_hash()
        database.run("DELETE FROM t")
        database.check_hash()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rowids of rows that were asked for their lengths."""
    rowids: list[int] = []
    lengths = longrows.LongRows._lengths

    def count(self: longrows.LongRows, table: Any, rowid: int) -> list[int]:
        rowids.append(rowid)
        return lengths(self, table, rowid)

    monkeypatch.setattr(longrows.LongRows, "_lengths", count)
    return rowids


def test_nothing_is_done_in_passing_with_a_table_of_long_rows(
    tmp_path: Path, asked: list[int]
) -> None:
    """For the clock it takes no time at all."""
    database = Database(tmp_path, clock=ManualClock())
    database.run("CREATE TABLE t(id INTEGER PRIMARY KEY, a)", "CREATE TABLE u(id, a)")
    database.run(f"INSERT INTO t VALUES (1, zeroblob({LONG})), (2, zeroblob({LONG})), (3, 'x')")
    database.run("INSERT INTO u VALUES (1, 'x')")
    database.restart()
    kept = database.machine.content_hash()
    deleting = database.entry(database.request("DELETE FROM t WHERE id = 1"))
    for _ in range(2):
        assert database.machine.apply_briefly([deleting]) is None
        assert database.machine.content_hash() == kept
        assert asked == [1], "it is noticed in the midst, then known"
    database.apply_entries(deleting)
    for sql in ("DELETE FROM t WHERE id = 2", "INSERT INTO u SELECT * FROM t"):
        assert database.machine.apply_briefly([database.entry(database.request(sql))]) is None
        database.sequence -= 1
    brief = database.entry(database.request("DELETE FROM u"))
    assert database.machine.apply_briefly([brief]) is not None
    assert database.rows("SELECT id FROM t") == [(2,), (3,)]
    database.check_hash()
    database.close()


def test_many_long_rows_are_not_held_at_once(database: Database) -> None:
    """Tables with VIRTUAL columns keep a hash of each row, and are read some rows at a time."""
    database.run("CREATE TABLE t(id INTEGER PRIMARY KEY, a)")
    rows = 12
    database.run(
        f"WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {rows})"
        " INSERT INTO t SELECT i, zeroblob(2000000) FROM n"
    )
    alter = "ALTER TABLE t ADD COLUMN v AS (length(a))"
    assert peak_bytes(lambda: database.run(alter)) < CHUNK_BYTES + 3 * 2_000_000
    database.check_hash()
    assert database.rows("SELECT sum(v) FROM t") == [(rows * 2_000_000,)]


def test_short_rows_are_asked_a_few_times_only(database: Database, asked: list[int]) -> None:
    database.run("CREATE TABLE t(id INTEGER PRIMARY KEY, a)")
    database.run(
        "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 500)"
        " INSERT INTO t SELECT i, 'x' FROM n"
    )
    database.run("UPDATE t SET a = 'y'")
    assert len(asked) == longrows.LOOKS
    database.run(f"INSERT INTO t VALUES (501, zeroblob({LONG}))")
    database.run("UPDATE t SET a = 'z'")
    assert len(asked) == longrows.LOOKS + 501, "one row was long"
    database.check_hash()


def test_a_value_in_pieces_hashes_as_one() -> None:
    hasher = RowHasher(b"k" * 16)
    text, blob = "é€" * 40_000, bytes(range(256)) * 300
    for size in (1, 7, 65_536, 1 << 20):
        values = [
            longrows.LongValue(is_text, len(data), pieces(data, size))
            for is_text, data in ((True, text.encode()), (False, blob))
        ]
        assert hasher.hash_long((5, *values, 1.5)) == hasher.hash((5, text, blob, 1.5))


def pieces(data: bytes, size: int) -> list[memoryview]:
    view = memoryview(data)
    return [view[start : start + size] for start in range(0, len(data), size)]


WIDE = ",".join(f"c{number}" for number in range(2_000))
WIDEST = [
    (f"CREATE TABLE w({WIDE})",),
    (f"CREATE TABLE w({WIDE}, PRIMARY KEY (c0)) WITHOUT ROWID",),
    (f"CREATE TABLE w({WIDE.removesuffix(',c1999')})", "ALTER TABLE w ADD COLUMN one_more"),
]


@pytest.mark.parametrize("sql", WIDEST)
def test_a_table_too_wide_to_be_read_with_its_rowid_stops_no_node(
    database: Database, sql: tuple[str, ...]
) -> None:
    """SQLite takes 2,000 columns in a table, and no more in a result: each node that applied one
    of these had a table that it could not sum, stopped, and stopped again after each restart."""
    error = database.fail(*sql)
    assert (error.code, error.outcome) == ("too_many_columns", "not_applied")
    assert database.rows("SELECT count(*) FROM sqlite_schema WHERE name LIKE 'w%'") == [(0,)]
    # One less is as good as any, and a VIRTUAL column is not read.
    database.run(f"CREATE TABLE w({WIDE.removesuffix(',c1999')}, v AS (c0 + 1))")
    database.run("INSERT INTO w(c0, c1998) VALUES (1, 2)")
    assert database.rows("SELECT v, c1998 FROM w") == [(2, 2)]
    database.check_hash()
