"""What would make replicas differ, or stop them all, if nothing stood in the way."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from raftdb.base.errors import FatalError
from raftdb.command import Configure, Failed, Reply, Results, Statement, decode_reply
from raftdb.machine.content import ContentHasher
from raftdb.machine.format import MARK
from tests.machine.support import Database, replay, stamp
from tests.machine.transactions import Transaction

ROLLBACKS = [
    "INSERT OR ROLLBACK INTO t VALUES (1)",
    "INSERT INTO v VALUES (1)",
    "UPDATE t SET a = -1",
]


def prepare_rollbacks(database: Database) -> None:
    database.run(
        "CREATE TABLE t(a UNIQUE, CHECK (a > 0) ON CONFLICT ROLLBACK)",
        "CREATE TABLE v(a)",
        "CREATE TRIGGER tr BEFORE INSERT ON v BEGIN SELECT RAISE(ROLLBACK, 'no'); END",
        "INSERT INTO t VALUES (1)",
    )


@pytest.mark.parametrize("sql", ROLLBACKS)
@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_rollback_takes_no_neighbour_along(database: Database, sql: str, place: int) -> None:
    prepare_rollbacks(database)
    others = ["INSERT INTO t VALUES (10)", "INSERT INTO t VALUES (11)", "INSERT INTO t VALUES (12)"]
    others.insert(place, sql)
    requests = [database.request(one, floor=0) for one in others]
    [encoded] = database.apply_entries(database.entry(*requests))
    replies = [decode_reply(reply) for reply in encoded]
    assert [isinstance(reply, Failed) for reply in replies] == [n == place for n in range(4)]
    failed = replies[place]
    assert isinstance(failed, Failed)
    assert (failed.error.outcome, failed.statement) == ("not_applied", 0)
    assert database.rows("SELECT a FROM t ORDER BY a") == [(1,), (10,), (11,), (12,)]
    database.check_hash()
    # Each reply is kept, that of the request which ended the transaction too.
    assert database.apply_entries(database.entry(*requests)) == [encoded]
    assert database.rows("SELECT count(*) FROM t") == [(4,)]


def test_many_rollbacks_in_one_batch_and_replicas_agree(database: Database, tmp_path: Path) -> None:
    prepare_rollbacks(database)
    sql = [ROLLBACKS[n % 3] if n % 2 else f"INSERT INTO t VALUES ({n + 10})" for n in range(12)]
    multi = database.request("INSERT INTO t VALUES (99)", ROLLBACKS[0], "INSERT INTO t VALUES (98)")
    replies = database.batch(multi, *[database.request(one) for one in sql])
    assert [isinstance(reply, Failed) for reply in replies] == [True] + [False, True] * 6
    assert isinstance(replies[0], Failed)
    assert replies[0].statement == 1
    assert database.rows("SELECT count(*) FROM t") == [(7,)]
    database.check_hash()
    other = replay(tmp_path / "other", database.entries)
    assert other.content_hash() == database.machine.content_hash()
    other.close()


def test_a_stop_between_the_transactions_of_one_entry(database: Database, tmp_path: Path) -> None:
    """A rollback splits an entry into several transactions; the process may end in between."""
    prepare_rollbacks(database)
    sql = ["INSERT INTO t VALUES (10)", ROLLBACKS[0], "INSERT INTO t VALUES (11)"]
    entry = database.entry(*[database.request(one) for one in sql])
    index, term = database.machine.applied()
    stop = RuntimeError("the power is cut")
    commits = 0

    def cut() -> bool:
        nonlocal commits
        commits += 1
        if commits == 3:
            raise stop
        return False

    database.machine._writer.set_commit_hook(cut)
    with pytest.raises(FatalError, match="the power is cut"):
        database.machine.apply([entry])
    database.restart()
    assert database.machine.applied() == (index, term)
    assert database.rows("SELECT a FROM t ORDER BY a") == [(1,), (10,)]
    assert database.machine.content_hash().position == 2
    database.check_hash()
    [replies] = database.apply_entries(entry)
    assert len(replies) == 3
    assert database.machine.applied() == (index + 1, 1)
    assert database.rows("SELECT a FROM t ORDER BY a") == [(1,), (10,), (11,)]
    database.check_hash()
    other = replay(tmp_path / "other", database.entries)
    assert other.content_hash() == database.machine.content_hash()
    other.close()


def test_deferred_keys_are_due_with_their_own_request(database: Database) -> None:
    database.run(
        "CREATE TABLE parent(id INTEGER PRIMARY KEY)",
        "CREATE TABLE child(p REFERENCES parent DEFERRABLE INITIALLY DEFERRED)",
    )
    replies = database.batch(
        database.request("INSERT INTO parent VALUES (1)"),
        database.request("INSERT INTO child VALUES (7)"),
        database.request("INSERT INTO child VALUES (8)", "INSERT INTO parent VALUES (8)"),
        database.request("INSERT INTO parent VALUES (7)"),
    )
    assert [type(reply) for reply in replies] == [Results, Failed, Results, Results]
    assert isinstance(replies[1], Failed)
    assert replies[1].error.code == "constraint_foreign_key"
    assert replies[1].error.message == "FOREIGN KEY constraint failed"
    assert database.rows("SELECT p FROM child") == [(8,)]
    database.check_hash()


def test_defer_foreign_keys_ends_with_its_request(database: Database) -> None:
    database.run(
        "CREATE TABLE parent(id INTEGER PRIMARY KEY)",
        "CREATE TABLE child(p REFERENCES parent)",
    )
    replies = database.batch(
        database.request(
            "PRAGMA defer_foreign_keys = ON",
            "INSERT INTO child VALUES (1)",
            "INSERT INTO parent VALUES (1)",
        ),
        database.request("INSERT INTO child VALUES (2)", "INSERT INTO parent VALUES (2)"),
    )
    assert [type(reply) for reply in replies] == [Results, Failed]


def test_foreign_keys_off_goes_alone(database: Database) -> None:
    database.run(
        "CREATE TABLE parent(id INTEGER PRIMARY KEY)",
        "CREATE TABLE child(p REFERENCES parent)",
    )
    child = "INSERT INTO child VALUES (?)"
    replies = database.batch(
        database.request((child, (1,))),
        database.request((child, (2,)), foreign_keys=False),
        database.request("INSERT OR ROLLBACK INTO parent VALUES ('x')", foreign_keys=False),
        database.request((child, (3,))),
        database.request("PRAGMA foreign_keys"),
    )
    assert [type(reply) for reply in replies] == [Failed, Results, Failed, Failed, Results]
    assert isinstance(replies[4], Results)
    assert replies[4].statements[0].rows == ((1,),)
    assert database.rows("SELECT p FROM child") == [(2,)]
    database.check_hash()


def test_the_last_rowid_is_refused(database: Database) -> None:
    last = (1 << 63) - 1
    database.run(
        "CREATE TABLE t(a)",
        "CREATE TABLE i(id INTEGER PRIMARY KEY, a)",
        "CREATE TABLE s(id INTEGER PRIMARY KEY AUTOINCREMENT, a)",
        "CREATE TABLE g(a, b AS (a + 1))",
        "CREATE TABLE w(a PRIMARY KEY) WITHOUT ROWID",
        "CREATE VIRTUAL TABLE f USING fts5(x)",
    )
    for table, column in (("t", "rowid"), ("i", "id"), ("s", "id"), ("g", "rowid"), ("f", "rowid")):
        name = "x" if table == "f" else "a"
        error = database.fail(f"INSERT INTO {table}({column}, {name}) VALUES ({last}, 1)")
        assert error.code == "rowid_max", table
        # The one before is fine; what comes after it would be the last.
        database.run(f"INSERT INTO {table}({column}, {name}) VALUES ({last - 1}, 1)")
        error = database.fail(f"INSERT INTO {table}({name}) VALUES (1), (2)")
        assert error.code == "rowid_max", table
        error = database.fail(f"UPDATE {table} SET {column} = {last}")
        assert error.code == "rowid_max", table
    database.run(
        ("INSERT INTO w VALUES (?)", (last,)), ("INSERT INTO t(rowid, a) VALUES (5, ?)", (last,))
    )
    database.check_hash()


HIDDEN = [
    ("CREATE TABLE t(rowid INTEGER PRIMARY KEY, _rowid_, oid)", "INSERT INTO t(rowid) VALUES (?)"),
    (
        "CREATE TABLE t(rowid INTEGER PRIMARY KEY, _rowid_, oid, v AS (oid))",
        "INSERT INTO t(rowid) VALUES (?)",
    ),
    (
        "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT)",
        "INSERT INTO sqlite_sequence(rowid, name, seq) VALUES (?, 'x', 1)",
    ),
]


@pytest.mark.parametrize(("table", "insert"), HIDDEN)
def test_the_last_rowid_is_refused_where_no_name_reads_it(
    database: Database, table: str, insert: str
) -> None:
    """The next row gets a rowid at random: another one on each replica. Release 0.1.0 let it pass,
    and a request does the same on all nodes."""
    last = (1 << 63) - 1
    database.run(table)
    database.run((insert, (last,)), "DELETE FROM t WHERE true")
    database.run("DELETE FROM sqlite_sequence WHERE rowid > 1" if "AUTO" in table else "SELECT 1")
    database.apply(Configure(stamp(5), {"feature_level": 2}))
    for _life in range(2):
        assert database.fail((insert, (last,))).code == "rowid_max"
        database.restart()
    database.run((insert, (last - 1,)))
    name = insert.split("INTO ")[1].split("(")[0]
    assert database.fail((f"UPDATE {name} SET rowid = ?", (last,))).code == "rowid_max"
    database.check_hash()


GENERATED = [
    "CREATE TABLE g(k UNIQUE, a, v AS (k) VIRTUAL)",
    "CREATE TABLE g(k PRIMARY KEY, a, v AS (k) VIRTUAL) WITHOUT ROWID",
]


@pytest.mark.parametrize("table", GENERATED)
@pytest.mark.parametrize("bad", ["CAST(x'ff' AS TEXT)", "char(55296)"])
def test_text_that_the_hook_does_not_see_stops_no_node(
    database: Database, table: str, bad: str
) -> None:
    """Rows of tables with VIRTUAL columns are read when all is about to be committed: what cannot
    be read then stopped every node, at each start again."""
    database.run(table, "INSERT INTO g VALUES (1, 'a')")
    replies = replies_of(
        database,
        "INSERT INTO g VALUES (2, 'b')",
        f"INSERT INTO g VALUES (3, {bad})",
        f"INSERT OR FAIL INTO g VALUES (4, {bad}), (1, 'again')",
        "INSERT OR FAIL INTO g VALUES (5, 'c'), (1, 'again')",
    )
    assert isinstance(replies[0], Results)
    failures = [reply.error for reply in replies[1:] if isinstance(reply, Failed)]
    assert [(error.code, error.outcome) for error in failures[::2]] == [
        ("utf8", "not_applied"),
        (failures[1].code, "applied"),
    ]
    assert failures[1].outcome == "not_applied"
    assert database.fail(f"UPDATE g SET a = {bad}", "ALTER TABLE g RENAME TO h").code == "utf8"
    database.run(f"INSERT INTO g VALUES (6, {bad})", "DELETE FROM g WHERE k = 6")
    assert database.rows("SELECT k FROM g ORDER BY k") == [(1,), (2,), (5,)]
    database.check_hash()
    transaction = Transaction(database)
    transaction.run(f"INSERT INTO g VALUES (7, {bad})")
    reply = transaction.commit()
    assert isinstance(reply, Failed)
    assert (reply.error.code, reply.error.outcome) == ("utf8", "not_applied")
    database.restart()
    assert database.rows("SELECT count(*) FROM g") == [(3,)]
    database.check_hash()


@pytest.mark.parametrize(
    "value", [(1 << 63) - 1, 9.3e18, "9223372036854775807", b"9223372036854775807"]
)
def test_a_sequence_that_is_used_up_stops_no_node(database: Database, value: object) -> None:
    """AUTOINCREMENT then fails with SQLITE_FULL, which otherwise means a full disk."""
    database.run(
        "CREATE TABLE s(id INTEGER PRIMARY KEY AUTOINCREMENT, a)",
        "INSERT INTO s(a) VALUES (1)",
    )
    error = database.fail(
        ("UPDATE sqlite_sequence SET seq = ?", (value,)),
        "INSERT INTO s(a) VALUES (2)",
    )
    assert error.code == "data"
    database.run(
        "CREATE TABLE t(a)",
        "CREATE TRIGGER tr AFTER INSERT ON t BEGIN"
        " UPDATE sqlite_sequence SET seq = new.a; INSERT INTO s(a) VALUES (3); END",
    )
    assert database.fail(("INSERT INTO t VALUES (?)", (value,))).code == "data"  # type: ignore[arg-type]
    database.run("INSERT INTO t VALUES (40)")
    assert database.fail("INSERT INTO sqlite_sequence VALUES ('s', 9223372036854775807)")
    database.check_hash()


def planner(database: Database) -> None:
    """Two indexes of which statistics prefer one; LIMIT 1 tells which was used."""
    database.run(
        "CREATE TABLE t(a, b, c)",
        "CREATE INDEX ia ON t(a, c DESC)",
        "CREATE INDEX ib ON t(b, c)",
        "CREATE TABLE out(x)",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)"
        " INSERT INTO t SELECT i % 10, i % 7, i FROM n",
    )


CHOICE = "INSERT INTO out SELECT c FROM t WHERE a = 1 AND b = 1 LIMIT 1 RETURNING x"
OTHER_STATISTICS = (
    "DELETE FROM t",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)"
    " INSERT INTO t SELECT 1, i, i FROM n",
)


def test_analyze_stands_alone(database: Database) -> None:
    planner(database)
    error = database.fail(*OTHER_STATISTICS, "ANALYZE")
    assert error.code == "not_supported"
    assert "ANALYZE" in error.message
    database.run("ANALYZE")
    database.check_hash()
    database.run("ANALYZE t")
    database.run("DROP INDEX ia")
    database.check_hash()
    database.run("DROP TABLE t")
    database.check_hash()


def test_the_planner_knows_only_what_is_stored(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ANALYZE that fails leaves its statistics in the connection's memory; a replica that
    restarts has none of them."""
    planner(database)
    database.run("ANALYZE")
    expected = database.run(CHOICE)[0].rows
    # Let ANALYZE be undone after it ran, in a request that changed the rows first.
    monkeypatch.setattr("raftdb.machine.applier.check_alone", lambda _request: None)
    assert database.fail(*OTHER_STATISTICS, "ANALYZE", "SELECT nothing")
    assert database.run(CHOICE)[0].rows == expected
    database.restart()
    assert database.run(CHOICE)[0].rows == expected


def test_plans_do_not_depend_on_bound_values_or_on_a_restart(database: Database) -> None:
    planner(database)
    database.run("ANALYZE")
    sql = "EXPLAIN QUERY PLAN SELECT c FROM t WHERE a = ? AND b = ?"
    plans = {database.run((sql, (a, b)))[0].rows for a, b in ((1, 1), (99, 1), (1, 99))}
    database.restart()
    plans.add(database.run((sql, (5, 5)))[0].rows)
    assert len(plans) == 1


def test_statistics_cannot_be_written(database: Database) -> None:
    planner(database)
    database.run("ANALYZE")
    for sql in (
        "UPDATE sqlite_stat1 SET stat = '1000 1 1' WHERE idx = 'ib'",
        "DELETE FROM sqlite_stat4",
        "INSERT INTO sqlite_stat1 VALUES ('t', 'ia', '1')",
        "WITH x AS (SELECT 1) DELETE FROM sqlite_stat1",
    ):
        assert database.fail(sql).code == "not_supported"
    database.run(
        "CREATE TRIGGER tr AFTER INSERT ON out BEGIN DELETE FROM sqlite_stat1; END",
    )
    assert database.fail("INSERT INTO out VALUES (1)").code == "not_supported"


@pytest.mark.parametrize(
    "sql",
    [
        f"COMMIT {MARK}",
        f"BEGIN IMMEDIATE {MARK}",
        f"RELEASE r {MARK}",
        f"ROLLBACK TO r {MARK}",
        f"SAVEPOINT r {MARK}",
        f"ROLLBACK {MARK}",
        f"UPDATE _raftdb_applied SET idx = ?, term = ?, position = ?, time_ms = ?,"
        f" session_ms = ?, results = ? WHERE id = 1 {MARK}",
        f"DELETE FROM _raftdb_reply WHERE session = -1 {MARK}",
    ],
)
def test_raftdbs_own_statements_are_not_a_users(database: Database, sql: str) -> None:
    """They are in the statement cache, where the authorizer is not asked again."""
    database.run("CREATE TABLE t(a)")
    parameters = (*range(5), b"") if "?" in sql else ()
    for _attempt in range(2):
        reply = database.batch(
            database.request("INSERT INTO t VALUES (1)"),
            database.request((sql, parameters)),
        )[1]
        assert isinstance(reply, Failed)
        assert reply.error.code == "not_supported"
    assert database.rows("SELECT count(*) FROM t") == [(2,)]
    database.check_hash()


def test_the_texts_above_are_raftdbs_own() -> None:
    from raftdb.machine import applier, statements

    own = {value for value in vars(applier).values() if isinstance(value, str) and MARK in value}
    own |= {value for value in vars(statements).values() if isinstance(value, str)}
    for mark in test_raftdbs_own_statements_are_not_a_users.pytestmark:
        assert set(mark.args[1]) <= own


FAIL_SCHEMA = (
    "CREATE TABLE o(a UNIQUE)",
    "INSERT INTO o VALUES (9)",
    "CREATE TABLE log(x)",
    "CREATE TABLE c(a UNIQUE ON CONFLICT FAIL, b AS (a + 1))",
    "CREATE TRIGGER tr BEFORE INSERT ON o WHEN new.a = 3 BEGIN"
    " INSERT INTO log VALUES (new.a); SELECT RAISE(FAIL, 'three'); END",
)


@pytest.mark.parametrize(
    ("sql", "outcome", "rows", "logged"),
    [
        ("INSERT OR FAIL INTO o VALUES (1), (2), (1), (4)", "applied", [1, 2, 9], 0),
        ("INSERT INTO o VALUES (1), (2), (1), (4)", "not_applied", [9], 0),
        ("INSERT OR FAIL INTO o VALUES (9), (1)", "not_applied", [9], 0),
        ("INSERT INTO o VALUES (3)", "applied", [9], 1),
        ("INSERT INTO o VALUES (1), (3), (4)", "applied", [1, 9], 1),
        ("INSERT OR IGNORE INTO o VALUES (1), (1), (2)", None, [1, 2, 9], 0),
        ("INSERT OR REPLACE INTO o VALUES (9), (9), (2)", None, [2, 9], 0),
    ],
)
def test_what_fail_leaves_behind_stays(
    database: Database, sql: str, outcome: str | None, rows: list[int], logged: int
) -> None:
    database.run(*FAIL_SCHEMA)
    reply = database.apply(database.request(sql))
    assert (reply.error.outcome if isinstance(reply, Failed) else None) == outcome
    assert [a for (a,) in database.rows("SELECT a FROM o ORDER BY a")] == rows
    assert database.rows("SELECT count(*) FROM log") == [(logged,)]
    database.check_hash()


def test_fail_in_a_table_that_is_read_afterwards(database: Database) -> None:
    database.run(*FAIL_SCHEMA)
    reply = database.apply(database.request("INSERT INTO c(a) VALUES (1), (2), (1), (4)"))
    assert isinstance(reply, Failed)
    assert reply.error.outcome == "applied"
    database.check_hash()
    first, second = database.batch(
        database.request("INSERT INTO c(a) VALUES (5)"),
        database.request("INSERT OR ABORT INTO c(a) VALUES (6), (1)"),
    )
    assert isinstance(first, Results)
    assert isinstance(second, Failed)
    assert second.error.outcome == "not_applied"
    assert database.rows("SELECT a FROM c ORDER BY a") == [(1,), (2,), (5,)]
    database.check_hash()


def test_a_batch_is_all_or_nothing_even_with_fail(database: Database) -> None:
    database.run(*FAIL_SCHEMA)
    fail = "INSERT OR FAIL INTO o VALUES (1), (2), (1)"
    assert database.fail("INSERT INTO o VALUES (8)", fail).outcome == "not_applied"
    assert database.rows("SELECT a FROM o") == [(9,)]
    database.check_hash()


def test_a_virtual_table_at_odds_with_itself_stops_no_node(database: Database) -> None:
    """SQLite says CORRUPT when an FTS5 index does not fit the table it was made from."""
    database.run(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, x)",
        "CREATE VIRTUAL TABLE f USING fts5(x, content='t', content_rowid='id')",
        "INSERT INTO t VALUES (1, 'one')",
        "INSERT INTO f(rowid, x) VALUES (1, 'one'), (2, 'two')",
    )
    error = database.fail("INSERT INTO f(f, rank) VALUES ('integrity-check', 1)")
    assert error.code == "virtual_table_corrupt"
    database.run("INSERT INTO t VALUES (2, 'two')")
    database.check_hash()


class FailingFile(apsw.VFSFile):
    """A database file whose reads or writes fail once told to."""

    error: type[Exception] | None = None
    read_error: type[Exception] | None = None

    def __init__(self, name: str, flags: list[int]) -> None:
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        if FailingFile.error is not None:
            raise FailingFile.error("injected")
        super().xWrite(data, offset)

    def xRead(self, amount: int, offset: int) -> bytes:
        if FailingFile.read_error is not None:
            raise FailingFile.read_error("injected")
        return super().xRead(amount, offset)


class FailingVfs(apsw.VFS):
    def __init__(self) -> None:
        super().__init__("failing", "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> FailingFile:
        return FailingFile(name, flags)  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [apsw.FullError, apsw.IOError, apsw.NoMemError])
def test_what_is_wrong_with_the_disk_is_fatal_and_never_a_reply(
    tmp_path: Path, error: type[Exception]
) -> None:
    vfs = FailingVfs()
    database = Database(tmp_path / "database", vfs_base="failing")
    try:
        database.run("CREATE TABLE t(a)")
        index, _term = database.machine.applied()
        FailingFile.error = error
        with pytest.raises(FatalError) as raised:
            database.machine.apply([database.entry(database.request("INSERT INTO t VALUES (1)"))])
        assert raised.value.outcome == "unknown"
        FailingFile.error = None
        with pytest.raises(FatalError):
            database.machine.apply([database.entry(database.request("SELECT 1"))])
        assert database.machine.applied()[0] == index
        database.restart()
        assert database.machine.applied()[0] == index
        assert database.rows("SELECT * FROM t") == []
        database.check_hash()
    finally:
        FailingFile.error = None
        database.close()
        vfs.unregister()


@pytest.mark.parametrize("error", [apsw.IOError, apsw.CorruptError, apsw.NoMemError])
def test_a_page_that_does_not_read_is_fatal_and_never_a_reply(
    tmp_path: Path, error: type[Exception]
) -> None:
    vfs = FailingVfs()
    database = Database(tmp_path / "database", vfs_base="failing")
    try:
        big = Statement("INSERT INTO t VALUES (zeroblob(?))", tuple((4000,) for _ in range(100)))
        database.run("CREATE TABLE t(a)", big)
        database.restart()
        database.run("SELECT 1")
        FailingFile.read_error = error
        with pytest.raises(FatalError, match="executing a statement"):
            database.machine.apply(
                [database.entry(database.request("SELECT sum(length(a)) FROM t"))]
            )
    finally:
        FailingFile.read_error = None
        database.close()
        vfs.unregister()


def replies_of(database: Database, *sql: str) -> list[Reply]:
    return database.batch(*[database.request(one) for one in sql])


def test_fts_writes_before_the_sums_do(database: Database) -> None:
    """FTS keeps rows in memory until a savepoint opens or the transaction ends."""
    database.run("CREATE VIRTUAL TABLE f USING fts5(x)", "CREATE VIRTUAL TABLE g USING fts4(x)")
    replies_of(database, "INSERT INTO f VALUES ('one two')", "INSERT INTO g VALUES ('three')")
    database.check_hash()
    replies = replies_of(
        database,
        "INSERT INTO f VALUES ('four')",
        "INSERT INTO f(nothing) VALUES (1)",
        "INSERT INTO g VALUES ('five')",
        "SELECT 1 / json('x')",
    )
    assert [isinstance(reply, Failed) for reply in replies] == [False, True, False, True]
    database.check_hash()
    assert database.rows("SELECT count(*) FROM f('four')") == [(1,)]


def test_what_fts_keeps_in_memory_is_written_within_its_request(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a request's hash is its own, and its failure too."""
    database.run("CREATE VIRTUAL TABLE f USING fts5(x)")
    begin = ContentHasher.begin_request
    left: list[int] = []

    def begin_request(self: ContentHasher) -> None:
        left.append(len(self._delta))
        begin(self)

    monkeypatch.setattr(ContentHasher, "begin_request", begin_request)
    replies_of(database, "INSERT INTO f VALUES ('one')", "INSERT INTO f VALUES ('two')", "SELECT 1")
    assert left == [0, 0, 0]
    database.check_hash()


def test_a_table_that_a_statement_makes_by_the_way(database: Database) -> None:
    """FTS3 makes its statistics table in the middle of an INSERT."""
    database.run("CREATE VIRTUAL TABLE g USING fts3(x)")
    before = set(database.machine.content_hash().tables)
    failed, made = replies_of(
        database,
        "INSERT INTO g(g) VALUES ('nonsense')",
        "INSERT INTO g(g) VALUES ('automerge=0')",
    )
    assert isinstance(failed, Failed)
    assert isinstance(made, Results)
    assert set(database.machine.content_hash().tables) - before == {"g_stat"}
    database.check_hash()
    replies_of(database, "INSERT INTO g VALUES ('x')", "INSERT INTO g VALUES ('y')")
    database.check_hash()
