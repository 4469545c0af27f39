"""Interactive transactions on one machine: what they see, and what their COMMIT does."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from raftdb.base.errors import DataError, Error, IntegrityError, OverloadedError
from raftdb.base.limits import Limits
from raftdb.command import Configure, Failed, Results
from raftdb.machine.format import SAVEPOINTS_MAX
from raftdb.machine.workspace import Workspace
from raftdb.machine.workspaces import WARM_MAX
from tests.machine.support import Database, replay, stamp
from tests.machine.transactions import Transaction, committed


@pytest.fixture(autouse=True)
def tables(database: Database) -> None:
    database.run("CREATE TABLE t (id INTEGER PRIMARY KEY, a UNIQUE, b)")
    database.run("INSERT INTO t VALUES (1, 10, 'x'), (2, 20, 'y')")


def test_it_sees_its_own_writes_and_nobody_elses(database: Database) -> None:
    one, two = Transaction(database), Transaction(database)
    one.run("INSERT INTO t VALUES (3, 30, 'one')")
    two.run("INSERT INTO t VALUES (4, 40, 'two')")
    database.run("INSERT INTO t VALUES (5, 50, 'plain')")
    assert one.rows("SELECT id FROM t") == [(1,), (2,), (3,)]
    assert two.rows("SELECT id FROM t") == [(1,), (2,), (4,)]
    assert database.rows("SELECT id FROM t") == [(1,), (2,), (5,)]
    # Both read the whole table, so neither can be put after the other write.
    assert not committed(one.commit())
    assert not committed(two.commit())
    three, four = Transaction(database), Transaction(database)
    three.run("INSERT INTO t VALUES (3, 30, 'three')")
    four.run("INSERT INTO t VALUES (4, 40, 'four')")
    assert committed(three.commit())
    assert committed(four.commit())
    assert database.rows("SELECT id FROM t") == [(1,), (2,), (3,), (4,), (5,)]
    database.check_hash()


def test_an_idle_transaction_delays_nobody_and_keeps_its_snapshot(database: Database) -> None:
    database.run("CREATE TABLE big (a INTEGER PRIMARY KEY, b)")
    database.run(*(("INSERT INTO big VALUES (?, zeroblob(3000))", (n,)) for n in range(50)))
    idle = Transaction(database)
    assert idle.rows("SELECT count(*) FROM t") == [(2,)]
    idle.run("UPDATE t SET b = 'idle' WHERE id = 1")
    for number in range(100, 200):
        database.run(("INSERT INTO t VALUES (?, ?, randomblob(3000))", (number, number)))
        database.run(("UPDATE big SET b = 'new' WHERE a = ?", (number % 50,)))
        if number % 20 == 0:
            database.machine.checkpoint()
        if number % 30 == 0:
            # Learns where the log has what was committed meanwhile.
            other = Transaction(database)
            assert other.rows("SELECT max(id) FROM t") == [(number,)]
            other.end()
    assert idle.rows("SELECT count(*) FROM big WHERE b = 'new'") == [(0,)]
    assert idle.rows("SELECT count(*), max(id) FROM t") == [(2, 2)]
    assert idle.rows("SELECT b FROM t WHERE id = 1") == [("idle",)]
    idle.end()


def test_the_log_starts_again_under_a_snapshot(database: Database) -> None:
    """What was moved into the file before a transaction began may be overwritten in the log."""
    database.run(*(("INSERT INTO t VALUES (?, ?, 'a')", (n, n)) for n in range(1000, 2000)))
    pages = database.machine.wal_pages
    database.machine.checkpoint()
    one = Transaction(database)
    before = one.rows("SELECT count(*) FROM t")
    database.run("UPDATE t SET b = 'b'")
    assert database.machine.wal_pages < pages, "the log did not start again"
    for number in range(20):
        database.run(("INSERT INTO t VALUES (?, ?, randomblob(9000))", (5000 + number, -number)))
        database.machine.checkpoint()
    assert one.rows("SELECT count(*) FROM t WHERE b <> 'b'") == before
    assert one.rows("SELECT count(*), sum(a), max(id) FROM t") == [
        (1002, sum(range(1000, 2000)) + 30, 1999)
    ]
    one.end()
    two = Transaction(database)
    assert two.rows("SELECT count(*) FROM t") == [(1022,)]
    two.end()


def test_after_a_restart_with_a_log_that_was_not_moved(database: Database) -> None:
    database.restart()
    one = Transaction(database)
    assert one.rows("SELECT a FROM t") == [(10,), (20,)]
    one.run("UPDATE t SET a = 11 WHERE id = 1")
    assert committed(one.commit())
    assert database.rows("SELECT a FROM t") == [(11,), (20,)]


def test_read_then_write_conflicts_when_what_was_read_has_changed(database: Database) -> None:
    one, two = Transaction(database), Transaction(database)
    for transaction in (one, two):
        [(a,)] = transaction.rows("SELECT a FROM t WHERE id = 1")
        transaction.run(("UPDATE t SET a = ? WHERE id = 1", (a + 1,)))
    assert committed(one.commit())
    assert not committed(two.commit())
    assert database.rows("SELECT a FROM t WHERE id = 1") == [(11,)]


def test_a_statement_that_failed_is_part_of_what_was_seen(database: Database) -> None:
    one = Transaction(database)
    assert isinstance(one.fail("INSERT INTO t VALUES (3, 10, '')"), IntegrityError)
    one.run("INSERT INTO t VALUES (3, 30, 'because 10 was taken')")
    assert committed(one.commit())
    two = Transaction(database)
    two.fail("INSERT INTO t VALUES (4, 10, '')")
    two.run("INSERT INTO t VALUES (4, 40, 'because 10 was taken')")
    database.run("DELETE FROM t WHERE a = 10")
    assert not committed(two.commit())
    database.check_hash()


def test_savepoints(database: Database) -> None:
    one = Transaction(database)
    one.run("SAVEPOINT r")
    one.run("INSERT INTO t VALUES (3, 30, '')")
    one.run('SAVEPOINT "Inner one"')
    one.run("DELETE FROM t")
    assert one.rows("SELECT count(*) FROM t") == [(0,)]
    one.run("ROLLBACK TRANSACTION TO SAVEPOINT [inner ONE]")
    assert one.rows("SELECT count(*) FROM t") == [(3,)]
    one.run("UPDATE t SET b = 'kept' WHERE id = 2")
    one.run("release savepoint R")
    assert one.fail("RELEASE r").message == "no such savepoint: r"
    assert one.fail("ROLLBACK TO u0").message == "no such savepoint: u0"
    assert "syntax" in one.fail("SAVEPOINT").message
    assert "syntax" in one.fail("RELEASE a b").message
    for number in range(SAVEPOINTS_MAX):
        one.run(f"SAVEPOINT s{number}")
    assert one.fail("SAVEPOINT s").code == "too_many_savepoints"
    one.run("ROLLBACK TO s5")
    assert committed(one.commit())
    assert database.rows("SELECT * FROM t WHERE id > 1") == [(2, 20, "kept"), (3, 30, "")]
    database.check_hash()


def test_the_schema_too(database: Database) -> None:
    one = Transaction(database)
    one.run("SAVEPOINT a")
    one.run("CREATE TABLE gone (x)")
    one.run("INSERT INTO gone VALUES (1)")
    one.run("ALTER TABLE t ADD COLUMN c REAL DEFAULT 5")
    one.run("INSERT INTO t VALUES (3, 30, '', 7)")
    one.run("ROLLBACK TO a")
    one.run("CREATE TABLE v (x INTEGER PRIMARY KEY, y AS (x * 2) VIRTUAL)")
    one.run("INSERT INTO v VALUES (1), (2)")
    one.run("SAVEPOINT b")
    one.run("ALTER TABLE t RENAME TO u")
    one.run("DELETE FROM v WHERE x = 1")
    one.run("INSERT INTO u VALUES (4, 40, '')")
    one.run("SAVEPOINT c")
    one.run("DROP TABLE v")
    one.run("INSERT INTO u VALUES (5, 50, '')")
    one.run("ROLLBACK TO c")
    assert one.rows("SELECT y FROM v") == [(4,)]
    assert one.fail("INSERT INTO v VALUES (2)").code == "constraint_primary_key"
    assert committed(one.commit())
    assert database.rows("SELECT id FROM u") == [(1,), (2,), (4,)]
    assert database.rows("SELECT y FROM v") == [(4,)]
    database.check_hash()
    two = Transaction(database)
    two.run("INSERT INTO v VALUES (9)")
    database.run("CREATE TABLE other (x)")
    assert committed(two.commit())
    three = Transaction(database)
    three.run("CREATE TABLE other2 (x)")
    database.run("CREATE TABLE other2 (y)")
    assert not committed(three.commit())
    database.check_hash()


def test_full_text_search(database: Database) -> None:
    database.run("CREATE VIRTUAL TABLE f USING fts5 (x)")
    one = Transaction(database)
    one.run("INSERT INTO f VALUES ('alpha beta')")
    one.run("SAVEPOINT a")
    one.run("INSERT INTO f VALUES ('alpha gamma')")
    assert one.rows("SELECT count(*) FROM f WHERE f MATCH 'alpha'") == [(2,)]
    one.run("ROLLBACK TO a")
    one.fail("INSERT INTO f (f, rank) VALUES ('nonsense', 1)")
    one.run("INSERT INTO f VALUES ('alpha delta')")
    assert committed(one.commit())
    assert database.rows("SELECT count(*) FROM f WHERE f MATCH 'alpha'") == [(2,)]
    database.check_hash()


def test_time_and_chance_are_those_of_the_first_run(database: Database) -> None:
    one = Transaction(database)
    seen = one.rows("INSERT INTO t VALUES (random(), 1, CURRENT_TIMESTAMP) RETURNING *")
    seen += one.rows("SELECT randomblob(8), strftime('%f', 'now'), last_insert_rowid()")
    database.tick(one.stamp.time_ms + 60_000)
    assert committed(one.commit())
    assert database.rows("SELECT * FROM t WHERE a = 1") == [seen[0]]
    later = database.run("SELECT unixepoch('now')")[0].rows
    assert later > ((one.stamp.time_ms // 1000 + 59,),)


def test_counters_go_on_within_a_transaction(database: Database) -> None:
    one = Transaction(database)
    assert one.rows("SELECT changes(), total_changes(), last_insert_rowid()") == [(0, 0, 0)]
    one.run("INSERT INTO t VALUES (7, 70, ''), (8, 80, '')")
    assert one.rows("SELECT changes(), total_changes(), last_insert_rowid()") == [(2, 2, 8)]
    one.run("UPDATE t SET b = 1")
    assert one.rows("SELECT changes(), total_changes(), last_insert_rowid()") == [(4, 6, 8)]
    assert committed(one.commit())


def test_deferred_keys_are_due_at_commit(database: Database) -> None:
    database.run("CREATE TABLE p (id PRIMARY KEY)")
    database.run("CREATE TABLE c (p REFERENCES p DEFERRABLE INITIALLY DEFERRED)")
    one = Transaction(database)
    one.run("INSERT INTO c VALUES (1)")
    assert one.workspace.keys_are_due()
    one.run("INSERT INTO p VALUES (1)")
    assert not one.workspace.keys_are_due()
    assert committed(one.commit())
    two = Transaction(database)
    two.run("INSERT INTO c VALUES (1)")
    database.run("PRAGMA defer_foreign_keys = 1", "DELETE FROM c", "DELETE FROM p")
    assert not committed(two.commit())
    off = Transaction(database, foreign_keys=False)
    off.run("INSERT INTO c VALUES (77)")
    assert committed(off.commit())
    assert database.rows("SELECT * FROM c") == [(77,)]
    assert database.fail("INSERT INTO c VALUES (78)").code == "constraint_foreign_key"


CONFLICTS = """
INSERT INTO t VALUES (3, 30, 'before');
INSERT OR {mode} INTO t VALUES (4, 40, ''), (5, 10, ''), (6, 60, '');
SELECT count(*) FROM t;
INSERT INTO t VALUES (9, 90, 'after');
"""


@pytest.mark.parametrize("mode", ["ABORT", "FAIL", "IGNORE", "REPLACE", "ROLLBACK"])
def test_conflict_clauses_as_in_sqlite(database: Database, mode: str) -> None:
    raw = sqlite3.connect(":memory:", isolation_level=None)
    raw.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a UNIQUE, b)")
    raw.execute("INSERT INTO t VALUES (1, 10, 'x'), (2, 20, 'y')")
    raw.execute("BEGIN")
    one = Transaction(database)
    for sql in CONFLICTS.format(mode=mode).strip().split("\n"):
        if one.ended:
            assert not raw.in_transaction
            break
        try:
            expected: object = raw.execute(sql).fetchall()
        except sqlite3.Error as error:
            expected = str(error)
        reply = one.step(sql)
        if isinstance(reply, Failed):
            assert reply.error.message == expected
        else:
            assert isinstance(reply, Results)
            assert list(reply.statements[0].rows) == expected
    if not one.ended:
        raw.execute("COMMIT")
        assert committed(one.commit())
    else:
        one.end()
    assert database.rows("SELECT * FROM t") == raw.execute("SELECT * FROM t").fetchall()
    database.check_hash()
    raw.close()


def test_what_only_then_ends_the_transaction_takes_no_neighbour_along(database: Database) -> None:
    """OR ROLLBACK that did not fail before the COMMIT and does when it is applied."""
    one = Transaction(database)
    one.run("INSERT OR ROLLBACK INTO t VALUES (3, 30, 'one')")
    first = database.request("INSERT INTO t VALUES (4, 30, 'first')")
    commit = one.request()
    last = database.request("INSERT INTO t VALUES (5, 50, 'last')")
    replies = database.batch(first, commit, last)
    assert [type(reply) for reply in replies] == [Results, Failed, Results]
    assert not committed(replies[1])
    assert database.rows("SELECT id FROM t") == [(1,), (2,), (4,), (5,)]
    database.check_hash()


def test_what_cannot_be_stored_is_said_at_commit(database: Database) -> None:
    one = Transaction(database)
    one.run("INSERT INTO t VALUES (9223372036854775807, 0, 0)")
    reply = one.commit()
    assert isinstance(reply, Failed)
    assert reply.error.code == "rowid_max"


@pytest.mark.parametrize(
    "sql", ["BEGIN", "COMMIT", "ANALYZE", "VACUUM", "ATTACH 'x' AS y", "SELECT sqlite_version()"]
)
def test_refusals_leave_it_open(database: Database, sql: str) -> None:
    one = Transaction(database)
    one.fail(sql)
    one.run("INSERT INTO t VALUES (3, 30, '')")
    assert committed(one.commit())
    assert database.rows("SELECT count(*) FROM t") == [(3,)]


def test_bounds(tmp_path: Path) -> None:
    limits = Limits(transactions_open_max=2, transaction_pages_bytes_max=400 * 4096)
    database = Database(tmp_path / "small", limits=limits)
    database.run("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
    one, two = Transaction(database), Transaction(database)
    with pytest.raises(OverloadedError) as full:
        Transaction(database)
    assert full.value.code == "transactions_full"
    with pytest.raises(DataError) as large:
        one.run("INSERT INTO t VALUES (9, randomblob(9000000))")
    assert large.value.code == "transaction_too_large"
    one.end()
    three = Transaction(database)
    three.run("INSERT INTO t VALUES (3, 0)")
    two.run("INSERT INTO t VALUES (2, 0)")
    assert committed(three.commit())
    assert committed(two.commit())
    four = Transaction(database)
    four.workspace.stop()
    with pytest.raises(Error) as slow:
        four.run(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
        )
    assert slow.value.code == "transaction_timeout"
    four.end()
    assert database.rows("SELECT a FROM t") == [(2,), (3,)]
    database.close()


def test_replicas_agree(database: Database, tmp_path: Path) -> None:
    one, two = Transaction(database), Transaction(database)
    one.run("CREATE TABLE n AS SELECT id, random() AS r FROM t")
    one.fail("INSERT INTO n VALUES (1)")
    two.rows("SELECT * FROM t")
    two.run("INSERT INTO t VALUES (3, random(), '')")
    assert committed(one.commit())
    assert committed(two.commit())
    three = Transaction(database)
    three.rows("SELECT * FROM t")
    three.run("INSERT INTO t VALUES (8, 8, '')")
    database.run("DELETE FROM t WHERE id = 1")
    assert not committed(three.commit())
    other = replay(tmp_path / "other", database.entries)
    assert other.content_hash() == database.machine.content_hash()
    other.close()


def test_recursive_triggers_within_a_transaction(database: Database) -> None:
    """The PRAGMA is undone with what it stands in, first in the workspace and then at COMMIT."""
    database.run(
        "CREATE TABLE falls(n)",
        "CREATE TRIGGER down AFTER INSERT ON falls WHEN new.n > 0 BEGIN"
        " INSERT INTO falls VALUES (new.n - 1); END",
    )
    one = Transaction(database)
    one.run("SAVEPOINT a")
    one.run("PRAGMA recursive_triggers = ON")
    one.run("INSERT INTO falls VALUES (3)")
    assert one.rows("SELECT count(*) FROM falls") == [(4,)]
    one.run("ROLLBACK TO a")
    one.run("INSERT INTO falls VALUES (3)")
    assert one.rows("SELECT count(*) FROM falls") == [(2,)]
    assert committed(one.commit())
    assert database.run("PRAGMA recursive_triggers")[0].rows == ((0,),)
    two = Transaction(database)
    two.run("PRAGMA recursive_triggers = ON")
    two.run("INSERT INTO falls VALUES (3)")
    three = Transaction(database)
    three.run("INSERT INTO falls VALUES (3)")
    assert three.rows("SELECT count(*) FROM falls") == [(4,)]
    assert committed(two.commit())
    database.check_hash()
    # What three saw is not what it would see now, and one that begins now sees that.
    assert not committed(three.commit())
    four = Transaction(database)
    four.run("DELETE FROM falls")
    four.run("INSERT INTO falls VALUES (3)")
    assert four.rows("SELECT count(*) FROM falls") == [(4,)]
    assert committed(four.commit())
    assert database.rows("SELECT count(*) FROM falls") == [(4,)]
    database.check_hash()


def test_the_pages_of_all_are_bounded_together(tmp_path: Path) -> None:
    limits = Limits(transactions_bytes_max=2_000 * 4096, transaction_pages_bytes_max=5_000 * 4096)
    database = Database(tmp_path, limits=limits)
    database.run("CREATE TABLE t(a)")
    # Four MiB stay in SQLite's cache.
    many = "INSERT INTO t VALUES (zeroblob(9000000))"
    first, second = Transaction(database), Transaction(database)
    first.run(many)
    with pytest.raises(OverloadedError) as caught:
        second.run(many)
    assert (caught.value.code, caught.value.retryable) == ("transactions_full", True)
    second.end()
    first.run("SELECT count(*) FROM t")
    first.end()
    third = Transaction(database)
    third.run(many)
    third.end()
    assert database.machine._workspaces._budget.free == 2_000, "all of it is given back"
    database.close()


@pytest.mark.parametrize("room", [1, Limits().transactions_idle_bytes_max])
def test_as_many_are_kept_for_the_next_as_there_is_room_for(tmp_path: Path, room: int) -> None:
    database = Database(tmp_path, limits=Limits(transactions_idle_bytes_max=room))
    database.run("CREATE TABLE t(a)")
    database.run("INSERT INTO t VALUES (zeroblob(2000000))")
    workspaces = database.machine._workspaces

    def use() -> set[Workspace]:
        many = [Transaction(database) for _ in range(12)]
        for one in many:
            assert one.rows("SELECT length(hex(a)) FROM t") == [(4_000_000,)]
        for one in many:
            one.end()
        # Two megabytes are in the cache of one that is kept as it is.
        sizes = [size for _one, size in workspaces._lean]
        assert all(size < 1_000_000 for size in sizes)
        assert sum(sizes) == workspaces._lean_bytes <= room
        return {*workspaces._warm, *(one for one, _size in workspaces._lean)}

    first = use()
    assert len(first) == (WARM_MAX if room == 1 else 12)
    if room > 1:
        assert use() == first, "none was opened"
    database.close()


def test_what_raftdb_writes_for_itself_is_not_counted(database: Database) -> None:
    """Of tables with VIRTUAL columns rows' hashes are kept. changes() told of them at the COMMIT
    and not before, so the transaction conflicted for ever."""
    database.apply(Configure(stamp(2), {"feature_level": 2}))
    database.run("CREATE TABLE v (x INTEGER PRIMARY KEY, y AS (x * 2) VIRTUAL)")
    database.run("INSERT INTO v VALUES (1), (2), (3)")
    counts = "SELECT changes(), total_changes()"
    raw = sqlite3.connect(":memory:")
    raw.execute("CREATE TABLE v (x INTEGER PRIMARY KEY, y AS (x * 2) VIRTUAL)")
    raw.execute("INSERT INTO v VALUES (1), (2), (3)")
    before = raw.total_changes
    for sql in ("UPDATE v SET x = x + 10 WHERE x < 3", "ALTER TABLE v ADD COLUMN z DEFAULT 7"):
        raw.execute(sql)
    changed, total = raw.execute(counts).fetchone()
    raw.close()
    batch = [
        "UPDATE v SET x = x + 10 WHERE x < 3",
        "ALTER TABLE v ADD COLUMN z DEFAULT 7",
        counts,
        "DELETE FROM v WHERE x = 3",
        "ALTER TABLE v ADD COLUMN w AS (z + 1) VIRTUAL",
        "SELECT x, w FROM v",
    ]
    one = Transaction(database)
    assert one.rows("SELECT changes()") == [(0,)]
    for sql in batch[:2]:
        one.run(sql)
    assert one.rows(counts) == [(changed, total - before)]
    for sql in batch[3:]:
        one.run(sql)
    assert committed(one.commit())
    database.check_hash()
    database.run("DROP TABLE v")
    database.run("CREATE TABLE v (x INTEGER PRIMARY KEY, y AS (x * 2) VIRTUAL)")
    database.run("INSERT INTO v VALUES (1), (2), (3)")
    results = database.run(*batch)
    assert results[2].rows == ((changed, total - before),)
    assert results[5].rows == ((11, 8), (12, 8))
    database.check_hash()
    # A savepoint that is rolled back to, and a request that fails, leave nothing half-read.
    two = Transaction(database)
    two.run("SAVEPOINT a")
    two.fail("ALTER TABLE v DROP COLUMN z")
    two.run("ALTER TABLE v ADD COLUMN u")
    two.run("INSERT INTO v (x) VALUES (4)")
    two.run("ROLLBACK TO a")
    two.run("INSERT INTO v (x) VALUES (5)")
    assert committed(two.commit())
    database.check_hash()
    database.fail("ALTER TABLE v ADD COLUMN u", "INSERT INTO v (x) VALUES (6)", "nonsense")
    database.check_hash()
    other = replay(Path(database.directory).parent / "other", database.entries)
    assert other.content_hash() == database.machine.content_hash()
    other.close()
