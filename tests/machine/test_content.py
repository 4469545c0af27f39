"""The content hash: what it is made of, and what it notices."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgpack
import pytest

from raftdb.base.errors import FatalError
from raftdb.command import Failed, Results
from raftdb.machine.content import ContentHasher
from raftdb.machine.rowhash import RowHasher
from raftdb.machine.sqltext import is_plain_insert
from tests.machine.support import HISTORY, SQL, Database, raw_connection
from tests.machine.transactions import Transaction, committed


def database_path(database: Database) -> str:
    return str(Path(database.directory) / "generation-000001" / "database.sqlite")


def test_the_encoding_of_a_row(database: Database) -> None:
    """The stored format, written out by hand: BLAKE2b-128 over key and MessagePack."""
    database.run(
        "CREATE TABLE t(a, b REAL)",
        ("INSERT INTO t VALUES (?, ?)", ("é", 1)),
        ("INSERT INTO t VALUES (?, ?)", (b"\xff", None)),
        "CREATE TABLE w(k PRIMARY KEY, v) WITHOUT ROWID",
        "INSERT INTO w VALUES (300, -0.0)",
        "CREATE TABLE s(id INTEGER PRIMARY KEY AUTOINCREMENT)",
        "INSERT INTO s VALUES (70000)",
    )
    key = blake2b(HISTORY.encode(), digest_size=16).digest()

    def row(hexadecimal: str) -> int:
        data = key + bytes.fromhex(hexadecimal.replace(" ", ""))
        return int.from_bytes(blake2b(data, digest_size=16).digest(), "little")

    def total(*rows: int) -> bytes:
        return (sum(rows) % (1 << 128)).to_bytes(16, "little")

    content = database.machine.content_hash()
    assert content.tables["t"] == total(
        row("93 01 a2 c3a9 cb 3ff0000000000000"),  # [1, "é", 1.0]
        row("93 02 c4 01 ff c0"),  # [2, b"\xff", nil]
    )
    assert content.tables["w"] == total(row("93 c0 cd 012c cb 8000000000000000"))
    assert content.tables["s"] == total(row("92 ce 00011170 ce 00011170"))
    assert content.sequences == total(row("92 a1 73 ce 00011170"))
    parts = [("table", name, part) for name, part in content.tables.items()]
    parts += [("schema", "", content.schema), ("sequences", "", content.sequences)]
    assert content.total == total(*[row(msgpack.packb(part).hex()) for part in parts])


def test_values_that_look_alike_hash_apart() -> None:
    hasher = RowHasher(b"k" * 16)
    values = [0, 0.0, -0.0, "0", b"0", None, "", b"", 1, 1.0, "1", 1e300, (1 << 63) - 1, 2.0**63]
    assert len({hasher.hash((1, value)) for value in values}) == len(values)
    assert hasher.hash((1, "a", "b")) != hasher.hash((1, "ab", ""))
    assert hasher.hash((None, 1)) != hasher.hash((1, None))


STEPS: list[SQL] = [
    "CREATE TABLE t(id INTEGER PRIMARY KEY, a REAL, b NUMERIC, c TEXT, d, UNIQUE (c))",
    ("INSERT INTO t VALUES (1, 5, 5.0, 5, 5), (2, ?, 1e15, 7, -0.0)", (9007199254740993,)),
    "INSERT OR REPLACE INTO t VALUES (3, 1, 1, 5, 1)",
    "UPDATE t SET id = id + 10, a = 7",
    "REPLACE INTO t VALUES (13, 1, 1, 7, 1)",
    "INSERT INTO t VALUES (9e999 - 9e999, -0.0, '12', '1.5', zeroblob(4))",
    "ALTER TABLE t ADD COLUMN e REAL DEFAULT 5",
    "ALTER TABLE t ADD COLUMN f TEXT DEFAULT 5",
    "ALTER TABLE t ADD COLUMN g DEFAULT '5'",
    "ALTER TABLE t ADD COLUMN h INT DEFAULT '5'",
    "UPDATE t SET d = d || 'x' WHERE id > 11",
    "DELETE FROM t WHERE id = 13",
    "ALTER TABLE t DROP COLUMN b",
    "ALTER TABLE t RENAME COLUMN d TO dd",
    "ALTER TABLE t RENAME TO u",
    "UPDATE u SET a = a + 0.5",
    "CREATE TABLE made AS SELECT * FROM u",
    "CREATE TABLE w1(k TEXT PRIMARY KEY, v REAL, z) WITHOUT ROWID",
    "CREATE TABLE w2(k TEXT PRIMARY KEY, v REAL, z) WITHOUT ROWID",
    "INSERT INTO w1 VALUES ('a', 1, 2), ('b', 2, 3)",
    "INSERT INTO w2 SELECT * FROM w1",
    "REPLACE INTO w2 SELECT * FROM w1",
    "UPDATE w2 SET k = 'zz', v = 9 WHERE k = 'a'",
    "DELETE FROM w1",
    "CREATE TABLE x1(a INTEGER PRIMARY KEY, b REAL)",
    "CREATE TABLE x2(a INTEGER PRIMARY KEY, b REAL)",
    "INSERT INTO x1 VALUES (1, 2), (3, 4)",
    "INSERT INTO x2 SELECT * FROM x1",
    "CREATE TABLE odd(rowid, _rowid_, oid, b AS (rowid + 1))",
    "INSERT INTO odd(rowid, oid) VALUES (5, 6), (7, 8)",
    "UPDATE odd SET oid = 9",
    "CREATE TABLE odder(rowid, _rowid_, oid)",
    "INSERT INTO odder VALUES (5, 6, 7)",
    "CREATE TABLE odd2(rowid INTEGER PRIMARY KEY, v)",
    "INSERT INTO odd2 VALUES (5, 6), (7, 8)",
    "UPDATE odd2 SET rowid = 50 WHERE v = 6",
    'CREATE TABLE "a ""strange"" name"("a ""b", \'c d\', [e f] REAL)',
    'INSERT INTO "a ""strange"" name" VALUES (1, 2, 3)',
    'UPDATE "a ""strange"" name" SET "a ""b" = 9',
    "CREATE TABLE v(a, b AS (a + 1), c AS (a * 2) STORED, d REAL)",
    "INSERT INTO v(a, d) VALUES (1, 2), (3, 4), (5, 6)",
    "UPDATE v SET rowid = rowid + 5 WHERE a > 1",
    "DELETE FROM v WHERE a = 3",
    "ALTER TABLE v RENAME TO vv",
    "UPDATE vv SET d = 7",
    "ALTER TABLE vv DROP COLUMN b",
    "UPDATE vv SET d = 8",
    "ALTER TABLE vv ADD COLUMN b AS (a + 1)",
    "UPDATE vv SET d = 9",
    "ALTER TABLE vv RENAME COLUMN d TO dd",
    "DELETE FROM vv",
    "CREATE TABLE vw(a PRIMARY KEY, b AS (a + 1), c) WITHOUT ROWID",
    "INSERT INTO vw(a, c) VALUES (1, 2), (3, 4)",
    "UPDATE vw SET a = a + 1",
    "CREATE TABLE s(id INTEGER PRIMARY KEY AUTOINCREMENT, a)",
    "INSERT INTO s(a) SELECT 1 WHERE 0",
    "INSERT INTO s(a) VALUES (1), (2)",
    "INSERT OR IGNORE INTO s VALUES (2, 9)",
    "UPDATE sqlite_sequence SET seq = 77",
    "INSERT INTO s(a) VALUES (1)",
    "ALTER TABLE s RENAME TO s2",
    "DELETE FROM s2",
    "DELETE FROM sqlite_sequence",
    "CREATE INDEX i ON x1(b)",
    "ANALYZE",
    "DROP INDEX i",
    "CREATE VIRTUAL TABLE f USING fts5(a, b, prefix='2')",
    "INSERT INTO f VALUES ('hello world', 'x'), ('hello', 'y')",
    "UPDATE f SET a = 'bye' WHERE rowid = 1",
    "INSERT INTO f(f) VALUES ('optimize')",
    "ALTER TABLE f RENAME TO ff",
    "DELETE FROM ff",
    "CREATE VIRTUAL TABLE f3 USING fts3(a)",
    "INSERT INTO f3 VALUES ('hello world')",
    "CREATE VIRTUAL TABLE r USING rtree(id, x0, x1, +extra)",
    "INSERT INTO r VALUES (1, 0.1, 0.2, 'e'), (2, 0.3, 0.4, 'g')",
    "DELETE FROM r WHERE id = 1",
    "CREATE VIRTUAL TABLE g USING geopoly(a)",
    "INSERT INTO g(_shape, a) VALUES ('[[0,0],[1,0],[0,1],[0,0]]', 'tri')",
    "DROP TABLE ff",
    "DROP TABLE r",
    "DROP TABLE s2",
    "DROP TABLE vw",
    "DROP TABLE u",
    "PRAGMA user_version = 5",
    "CREATE VIEW vi AS SELECT 1",
    "DROP VIEW vi",
    "REINDEX",
]


def test_incremental_equals_recomputed_after_every_step(database: Database) -> None:
    seen = {database.machine.content_hash().total}
    for step in STEPS:
        reply = database.apply(database.request(step))
        assert isinstance(reply, Results | Failed)
        if isinstance(reply, Failed):
            assert step == STEPS[5], (step, reply)  # NaN is NULL: no rowid is a datatype mismatch
        database.check_hash()
        seen.add(database.machine.content_hash().total)
    # What changed the content changed the hash: only these steps left it as it was.
    assert len(seen) >= len(STEPS) - 9


def test_the_same_steps_in_one_request_and_undone(database: Database) -> None:
    steps = [step for step in STEPS if step not in ("ANALYZE", STEPS[5])]
    empty = database.machine.content_hash()
    error = database.fail(*steps, "SELECT * FROM nowhere")
    assert error.outcome == "not_applied"
    after = database.machine.content_hash()
    assert (after.total, after.tables) == (empty.total, empty.tables)
    database.check_hash()
    database.run(*steps)
    database.check_hash()
    database.restart()
    database.check_hash()
    database.run("INSERT INTO made(id) VALUES (999)", "UPDATE vv SET dd = 1")
    database.check_hash()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE t SET a = 2 WHERE a = 1",
        "UPDATE t SET a = 1.0 WHERE a = 1",
        "UPDATE t SET rowid = 77 WHERE a = 1",
        "DELETE FROM t WHERE a = 1",
        "INSERT INTO t SELECT * FROM t",
        "UPDATE sqlite_sequence SET seq = 5",
    ],
)
def test_a_change_behind_its_back_is_noticed(database: Database, change: str) -> None:
    database.run(
        "CREATE TABLE t(a)",
        "INSERT INTO t VALUES (1), (5)",
        "CREATE TABLE s(id INTEGER PRIMARY KEY AUTOINCREMENT)",
        "INSERT INTO s VALUES (1)",
    )
    database.close()
    raw = raw_connection(database_path(database))
    raw.execute(change).fetchall()
    raw.close()
    database.machine = database.open()
    kept, recomputed = database.machine.content_hash(), database.machine.recompute_content_hash()
    assert kept.total != recomputed.total
    differing = [name for name in kept.tables if kept.tables[name] != recomputed.tables[name]]
    assert differing == (["t"] if "sequence" not in change else [])


@pytest.mark.parametrize(
    ("change", "undo"),
    [
        ("CREATE INDEX i ON t(a)", "DROP INDEX i"),
        ("PRAGMA user_version = 9", "PRAGMA user_version = 0"),
        ("DROP TABLE t", "CREATE TABLE t(a)"),
        ("CREATE TABLE u(a)", "DROP TABLE u"),
        ("DELETE FROM _raftdb_hash WHERE name = 't'", ""),
    ],
)
def test_a_schema_changed_behind_its_back_stops_the_node(
    database: Database, change: str, undo: str
) -> None:
    database.run("CREATE TABLE t(a)")
    database.close()
    raw = raw_connection(database_path(database))
    raw.execute(change).fetchall()
    with pytest.raises(FatalError, match="does not fit the database"):
        database.open()
    raw.execute(undo or "INSERT INTO _raftdb_hash VALUES (3, 't', 't', zeroblob(16))").fetchall()
    raw.close()
    database.machine = database.open()


def test_tables_that_swap_rows_and_names_differ(database: Database) -> None:
    database.run("CREATE TABLE a(x)", "CREATE TABLE b(x)", "INSERT INTO a VALUES (1)")
    before = database.machine.content_hash()
    database.run("DELETE FROM a", "INSERT INTO b VALUES (1)")
    swapped = database.machine.content_hash()
    assert swapped.total != before.total
    assert swapped.tables["b"] == before.tables["a"]
    database.run(
        "ALTER TABLE a RENAME TO c", "ALTER TABLE b RENAME TO a", "ALTER TABLE c RENAME TO b"
    )
    back = database.machine.content_hash()
    assert back.tables == before.tables
    database.check_hash()
    database.restart()
    database.check_hash()


def test_the_way_does_not_matter(database: Database) -> None:
    database.run("CREATE TABLE t(a)", "INSERT INTO t VALUES (1), (2), (3)")
    first = database.machine.content_hash()
    database.run("DELETE FROM t", "INSERT INTO t(rowid, a) VALUES (3, 3)")
    database.run("INSERT INTO t(rowid, a) VALUES (1, 1), (2, 0)", "UPDATE t SET a = rowid")
    second = database.machine.content_hash()
    assert (first.total, first.tables) == (second.total, second.tables)
    assert first.results != second.results


def test_many_changed_rows_of_a_table_with_virtual_columns(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raftdb.machine.content._TOUCHED_MAX", 50)
    monkeypatch.setattr("raftdb.machine.content._CHUNK_ROWS", 7)
    database.run("CREATE TABLE t(a, b AS (a + 1))", "CREATE INDEX i ON t(b)")
    rows = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
        " INSERT INTO t(a) SELECT i FROM n"
    )
    for count in (10, 49, 200):
        database.run((rows, (count,)))
        database.check_hash()
    database.run("UPDATE t SET rowid = -rowid WHERE rowid % 20 = 0")
    database.check_hash()
    database.batch(
        database.request("DELETE FROM t WHERE rowid < 0"),
        database.request("UPDATE t SET a = NULL WHERE a > 3", "SELECT nothing"),
        database.request("UPDATE t SET a = 9 WHERE a = 5"),
    )
    database.check_hash()


def test_rows_that_change_after_the_sums_are_written_are_noticed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last line of defence: a commit whose sums do not cover it stops the node."""
    database.run("CREATE TABLE t(a)")
    flush = ContentHasher.flush

    def flush_and_write(self: ContentHasher) -> None:
        flush(self)
        database.machine._writer.execute("INSERT INTO t VALUES (1)")

    monkeypatch.setattr(ContentHasher, "flush", flush_and_write)
    with pytest.raises(FatalError, match="between the content hash and the commit"):
        database.machine.apply([database.entry(database.request("SELECT 1"))])


def test_sequences_that_are_emptied_first_after_a_start(database: Database) -> None:
    database.run("CREATE TABLE c(id INTEGER PRIMARY KEY AUTOINCREMENT)", "INSERT INTO c VALUES (3)")
    database.restart()
    database.run("DELETE FROM sqlite_sequence")
    database.check_hash()


LONG_ROWS: list[tuple[Any, ...]] = [
    (1, b"x" * 65_535, "y" * 65_535),
    (1, b"x" * 65_536, "y" * 65_536, 5.5, None, b"", ""),
    (None, b"x" * 70_000, "\xe9" * 40_000, -0.0),
    (-(1 << 63), "\U0001f600" * 65_537, 7),
]


@pytest.mark.parametrize("row", LONG_ROWS, ids=range(len(LONG_ROWS)))
def test_long_values_hash_as_in_one_piece(row: tuple[Any, ...]) -> None:
    hasher = RowHasher(b"k" * 16)
    data = b"k" * 16 + msgpack.packb(row, use_bin_type=True)
    wanted = int.from_bytes(blake2b(data, digest_size=16).digest(), "little")
    assert hasher.hash(row) == wanted


def test_long_values_are_not_copied_to_be_hashed(database: Database) -> None:
    """A copy has the interpreter to itself: of 40 MB, for longer than a heartbeat may be late. And
    the packer would keep a buffer of that length for good."""
    hasher = database.machine._applier._content._hasher
    pack, sizes = hasher.pack, [0]

    def watched(values: Any) -> bytes:
        packed = bytes(pack(values))
        sizes.append(len(packed))
        return packed

    hasher.pack = watched
    database.run("CREATE TABLE long (id INTEGER PRIMARY KEY, a)")
    insert = "INSERT INTO long(id, a) VALUES (?, ?)"
    database.run(
        (insert, (1, b"x" * 2_000_000)),
        (insert, (2, "x" * 2_000_000)),
        "INSERT INTO long VALUES (3, zeroblob(3000000))",
        "INSERT INTO long SELECT 4, a || a FROM long WHERE id = 2",
        "UPDATE long SET id = 10 WHERE id = 1",
        "DELETE FROM long WHERE id = 3",
    )
    database.run((insert, (20, b"x" * 900_000)))
    assert max(sizes) < 1_000_000
    assert sizes[-1] > 900_000, "the quick way, for what is as short as a request of one MiB"
    database.check_hash()
    hasher.hash((b"x" * 60_000,) * 20)
    assert hasher.pack is not watched, "a buffer that grew all the same is let go of"


def test_what_is_written_in_place_is_read_again(database: Database) -> None:
    """FTS5 keeps a cookie in its structure, which it writes by SQLite's blob interface whenever an
    option is set: the hook tells that row's end, and not what it is from then on. The sum went
    wrong on all nodes alike, and the next scrub took each of them for damaged."""
    rank = "INSERT INTO ft(ft, rank) VALUES ('rank', 'bm25(10.0, ?)')"
    database.run("CREATE VIRTUAL TABLE ft USING fts5(a, b)")
    database.run("INSERT INTO ft VALUES ('running', 'x'), ('ran', 'y')")
    number = iter(range(100))

    def configure() -> str:
        return rank.replace("?", str(next(number)))

    database.run(configure())
    database.check_hash()
    # Twice, and with other changes of that row in the same request.
    database.run(
        configure(),
        configure(),
        "INSERT INTO ft VALUES ('more', 'z')",
        "INSERT INTO ft(ft) VALUES ('optimize')",
        configure(),
        "ALTER TABLE ft RENAME TO other",
        "ALTER TABLE other RENAME TO ft",
    )
    database.check_hash()
    # Taken back, and kept by OR FAIL.
    database.run("CREATE TABLE u (a UNIQUE)", "INSERT INTO u VALUES (1)")
    before = database.machine.content_hash().tables
    database.fail(configure(), "INSERT INTO u VALUES (1)")
    database.check_hash()
    assert database.machine.content_hash().tables == before
    database.run(
        "CREATE TRIGGER t AFTER INSERT ON u BEGIN"
        f" {configure()}; SELECT CASE WHEN new.a = 3 THEN RAISE(FAIL, 'no') END; END"
    )
    database.fail("INSERT INTO u VALUES (2), (3), (4)")
    database.check_hash()
    database.run(configure(), "DROP TABLE ft")
    database.check_hash()


def test_what_a_transaction_writes_in_place_is_read_again(database: Database) -> None:
    database.run("CREATE VIRTUAL TABLE ft USING fts5(a)")
    database.run("INSERT INTO ft VALUES ('x')")
    one = Transaction(database)
    one.run("INSERT INTO ft(ft, rank) VALUES ('pgsz', 100)")
    one.run("SAVEPOINT s")
    one.run("INSERT INTO ft(ft, rank) VALUES ('pgsz', 200)")
    one.run("INSERT INTO ft VALUES ('y')")
    one.run("ROLLBACK TO s")
    one.run("INSERT INTO ft(ft, rank) VALUES ('automerge', 3)")
    one.run("INSERT INTO ft VALUES ('z')")
    assert committed(one.commit())
    database.check_hash()
    assert database.rows("SELECT k, v FROM ft_config WHERE k = 'pgsz'") == [("pgsz", 100)]


@pytest.mark.parametrize(
    ("sql", "plain"),
    [
        ("INSERT INTO t VALUES (?)", True),
        (' insert or ignore into main."t" (a, [b c]) values (:a, @b , 5, NULL) ; ', True),
        ("REPLACE INTO t(a) VALUES (?1)", True),
        ("INSERT INTO t VALUES (zeroblob(9))", False),
        ("INSERT INTO t VALUES (? || ?)", False),
        ("INSERT INTO t SELECT ?", False),
        ("INSERT INTO t VALUES (?) ON CONFLICT DO UPDATE SET a = a || a", False),
        ("INSERT INTO t VALUES (?) RETURNING hex(a)", False),
        ("UPDATE t SET a = ?", False),
        ("", False),
    ],
)
def test_what_puts_in_rows_as_they_are_given(sql: str, plain: bool) -> None:
    assert is_plain_insert(sql) is plain
