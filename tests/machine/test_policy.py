"""What SQL may not do, and what it may."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from raftdb.base.errors import Error, NotSupportedError
from raftdb.command import Statement
from raftdb.machine import sqltext
from raftdb.machine.policy import ASSIGNED_PRAGMAS, LOGGED_PRAGMAS, READ_PRAGMAS
from tests.machine.support import Database

REFUSED = [
    ("ATTACH ':memory:' AS x", "ATTACH"),
    ("DETACH main", "ATTACH"),
    ("CREATE TEMP TABLE x(a)", "temporary"),
    ("CREATE TABLE temp.x(a)", "temporary"),
    ("CREATE TEMP VIEW x AS SELECT 1", "temporary"),
    ("CREATE TEMP TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END", "temporary"),
    ("CREATE VIRTUAL TABLE temp.x USING fts5(a)", "temporary"),
    ("BEGIN", "batch"),
    ("BEGIN IMMEDIATE", "batch"),
    ("/* x */ begin", "batch"),
    ("COMMIT", "batch"),
    ("END", "batch"),
    ("ROLLBACK", "batch"),
    ("SAVEPOINT r", "batch"),
    ("RELEASE r", "batch"),
    ("ROLLBACK TO r", "batch"),
    ("VACUUM", "VACUUM"),
    ("VACUUM INTO '/tmp/raftdb-test-never-written'", "VACUUM"),
    ("SELECT load_extension('x')", "load_extension"),
    ("SELECT fts3_tokenizer('simple')", "fts3_tokenizer"),
    ("SELECT sqlite_version()", "sqlite_version"),
    ("SELECT sqlite_source_id()", "sqlite_source_id"),
    ("SELECT sqlite_compileoption_used('x')", "sqlite_compileoption_used"),
    ("SELECT sqlite_compileoption_get(1)", "sqlite_compileoption_get"),
    ("SELECT fts5_source_id()", "fts5_source_id"),
    ("SELECT sqlite_log(1, 'x')", "sqlite_log"),
    ("SELECT * FROM dbstat", "dbstat"),
    ("CREATE VIRTUAL TABLE x USING dbstat", "dbstat"),
    ("PRAGMA journal_mode = DELETE", "leave it out"),
    ("PRAGMA busy_timeout = 5000", "timeout"),
    ("PRAGMA incremental_vacuum(5)", "raftdb vacuum"),
    ("PRAGMA synchronous = OFF", "synchronous"),
    ("PRAGMA writable_schema = ON", "writable_schema"),
    ("PRAGMA foreign_keys = OFF", "foreign_keys"),
    ("PRAGMA foreign_keys(0)", "foreign_keys"),
    ("PRAGMA case_sensitive_like = ON", "case_sensitive_like"),
    ("PRAGMA optimize", "ANALYZE"),
    ("PRAGMA wal_checkpoint", "wal_checkpoint"),
    ("PRAGMA query_only = ON", "query_only"),
    ("PRAGMA database_list", "database_list"),
    ("PRAGMA schema_version", "schema_version"),
    ("PRAGMA main.max_page_count = 10", "max_page_count"),
    ("SELECT * FROM pragma_database_list", "database_list"),
    ("SELECT * FROM pragma_compile_options", "compile_options"),
    ("SELECT * FROM _raftdb_session", "_raftdb_"),
    ("SELECT token FROM _RAFTDB_SESSION", "_raftdb_"),
    ("INSERT INTO _raftdb_row VALUES (1, 1, x'')", "_raftdb_"),
    ("UPDATE _raftdb_applied SET idx = 0", "_raftdb_"),
    ("DELETE FROM _raftdb_hash", "_raftdb_"),
    ("DROP TABLE _raftdb_hash", "_raftdb_"),
    ("ALTER TABLE _raftdb_hash RENAME TO x", "_raftdb_"),
    ("ALTER TABLE t RENAME TO _raftdb_x", "_raftdb_"),
    ("ALTER TABLE t RENAME TO _RaftDB_x", "_raftdb_"),
    ("CREATE TABLE _RaftDB_x(a)", "_raftdb_"),
    ("CREATE INDEX x ON _raftdb_hash(name)", "_raftdb_"),
    ("CREATE INDEX _raftdb_x ON t(a)", "_raftdb_"),
    ("CREATE VIEW _raftdb_x AS SELECT 1", "_raftdb_"),
    ("CREATE TRIGGER x AFTER INSERT ON _raftdb_hash BEGIN SELECT 1; END", "_raftdb_"),
    ("CREATE VIRTUAL TABLE _raftdb_x USING fts5(a)", "_raftdb_"),
]


@pytest.mark.parametrize(("sql", "word"), REFUSED)
def test_refused_with_a_reason(database: Database, sql: str, word: str) -> None:
    database.run("CREATE TABLE t(a)")
    before = database.machine.content_hash()
    for _attempt in range(2):
        error = database.fail(sql)
        assert isinstance(error, NotSupportedError), error
        assert word in error.message
        assert (error.outcome, error.retryable) == ("not_applied", False)
    assert database.machine.content_hash().total == before.total
    database.run("INSERT INTO t VALUES (1)")
    database.check_hash()


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE sqlite_schema SET sql = sql",
        "INSERT INTO f_content VALUES (9, 'x')",
        "DELETE FROM f_data",
        "DROP TABLE f_data",
        "SELECT * FROM sqlite_dbpage",
        "SELECT * FROM generate_series(1, 2)",
        "REINDEX nothing",
    ],
)
def test_refused_by_sqlite_itself(database: Database, sql: str) -> None:
    database.run("CREATE VIRTUAL TABLE f USING fts5(x)", "INSERT INTO f VALUES ('a')")
    error = database.fail(sql)
    assert isinstance(error, Error)
    assert error.outcome == "not_applied"
    database.check_hash()


def test_a_view_or_trigger_cannot_hide_it(database: Database) -> None:
    database.run("CREATE TABLE t(a)", "CREATE TABLE u(a)")
    database.run("CREATE VIEW v AS SELECT sqlite_version() AS a")
    database.run("CREATE TRIGGER tr AFTER INSERT ON t BEGIN DELETE FROM _raftdb_reply; END")
    assert "sqlite_version" in database.fail("INSERT INTO u SELECT * FROM v").message
    assert "_raftdb_" in database.fail("INSERT INTO t VALUES (1)").message
    assert (
        "sqlite_source_id"
        in database.fail("CREATE TABLE d(a DEFAULT (sqlite_source_id()))").message
    )
    assert database.rows("SELECT count(*) FROM t") == [(0,)]


def test_sqlites_own_rules_of_purity_stay(database: Database) -> None:
    """The clock and random() are the request's, and still no part of an index."""
    for sql in (
        "CREATE INDEX i ON t(random())",
        "CREATE TABLE g(a, b AS (random()))",
        "CREATE INDEX i ON t(date('now'))",
        "CREATE TABLE g(a, b AS (CURRENT_TIMESTAMP))",
    ):
        database.run("DROP TABLE IF EXISTS t", "CREATE TABLE t(a)", "INSERT INTO t VALUES (1)")
        assert database.fail(sql).code == "sql"
    database.run(
        "DELETE FROM t", "CREATE INDEX i ON t(date(a))", "INSERT INTO t VALUES ('2020-01-01')"
    )
    assert "non-deterministic" in database.fail("INSERT INTO t VALUES ('now')").message


def test_allowed(database: Database) -> None:
    database.run(
        "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, a)",
        "INSERT INTO t(a) VALUES (1), (2)",
        "UPDATE sqlite_sequence SET seq = 100 WHERE name = 't'",
        "INSERT INTO t(a) VALUES (3)",
        "PRAGMA user_version = 7",
        "PRAGMA application_id = 8",
        "CREATE VIRTUAL TABLE r USING rtree(id, x0, x1)",
        "INSERT INTO r VALUES (1, 0.5, 1.5)",
        "CREATE VIRTUAL TABLE v USING fts5vocab('f', 'row')",
        "REINDEX",
        "EXPLAIN QUERY PLAN SELECT * FROM t",
        "SELECT * FROM json_each('[1]')",
    )
    assert database.rows("SELECT max(id) FROM t") == [(101,)]
    [version, info, listed] = database.run(
        "PRAGMA user_version", "PRAGMA table_info(t)", "SELECT name FROM pragma_table_list"
    )
    assert version.rows == ((7,),)
    assert [row[1] for row in info.rows] == ["id", "a"]
    assert ("t",) in listed.rows
    database.restart()
    assert database.rows("PRAGMA user_version") == [(7,)]
    assert database.rows("PRAGMA application_id") == [(8,)]
    database.check_hash()


def test_the_lists_of_pragmas_fit_together() -> None:
    assert ASSIGNED_PRAGMAS <= LOGGED_PRAGMAS
    assert {"defer_foreign_keys", "recursive_triggers"} == LOGGED_PRAGMAS - READ_PRAGMAS


@pytest.mark.parametrize("name", sorted(READ_PRAGMAS))
def test_every_readable_pragma_reads(database: Database, name: str) -> None:
    assert database.machine.is_read_only(f"PRAGMA {name}")
    assert database.machine.is_read_only(f"pragma main . {name}(t)")
    assert not database.machine.is_read_only(f"PRAGMA {name} = 1")
    database.machine.query(Statement(f"PRAGMA {name}"))


@pytest.mark.parametrize(
    ("sql", "reads"),
    [
        ("SELECT 1", True),
        ("  -- c\n/* d */ select 1", True),
        (";SELECT 1", True),
        ("VALUES (1)", True),
        ("EXPLAIN INSERT INTO t VALUES (1)", True),
        ("WITH a AS (SELECT 1) SELECT * FROM a", True),
        (
            "WITH RECURSIVE a(i, j) AS (SELECT 1, 2), b AS NOT MATERIALIZED (SELECT 3) SELECT 4",
            True,
        ),
        ("WITH replace AS (SELECT ')') VALUES (1)", True),
        ('WITH "a ) insert" AS (SELECT 1) SELECT 2', True),
        ("WITH a AS (SELECT (1)) INSERT INTO t SELECT * FROM a", False),
        ("WITH a AS (SELECT ')'), b(x) AS (SELECT 1) DELETE FROM t", False),
        ("with a as (select 1) update t set a = 1", False),
        ("WITH a AS (SELECT 1) REPLACE INTO t SELECT 1", False),
        ("WITH a AS (SELECT 1)", False),
        ("INSERT INTO t VALUES (1)", False),
        ("ATTACH 'x' AS y", False),
        ("COMMIT", False),
        ("BEGIN", False),
        ("SAVEPOINT x", False),
        ("PRAGMA user_version = 1", False),
        ("PRAGMA user_version=1", False),
        ("PRAGMA user_version", True),
        ("PRAGMA main.table_info('t')", True),
        ("PRAGMA journal_mode = WAL", False),
        ("PRAGMA optimize", False),
        ("PRAGMA", False),
        ("CREATE TABLE t(a)", False),
        ("ANALYZE", False),
        ("", False),
        ("'SELECT'", False),
        ("(SELECT 1)", False),
        ("/* SELECT", False),
    ],
)
def test_reads_told_by_their_text(database: Database, sql: str, reads: bool) -> None:
    assert database.machine.is_read_only(sql) is reads
    assert database.machine.is_read_only(sql + " " * 5000) is reads


@pytest.mark.parametrize(
    ("text", "blank"),
    [
        ("", True),
        (" ; -- x\n /* y */ ;\t", True),
        ("-- x", True),
        ("/* open", True),
        ("-- x\n 1", False),
        ("'", False),
        ("/", False),
    ],
)
def test_what_may_follow_a_statement(text: str, blank: bool) -> None:
    assert sqltext.is_blank(text) is blank


def test_every_pragma_of_the_lists_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "sql.md").read_text()
    rows: dict[str, list[str]] = {}
    for line in text.partition("## PRAGMA")[2].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        for name in re.findall(r"`(\w+)`", cells[0]) if len(cells) == 4 else []:
            rows[name] = cells
    none = chr(0x2013)
    assert rows.keys() == READ_PRAGMAS | LOGGED_PRAGMAS
    for name, (_names, in_request, in_read, _effect) in rows.items():
        assert (in_request != none) == (name in LOGGED_PRAGMAS), name
        assert (in_read != none) == (name in READ_PRAGMAS), name
        assert ("sets" in in_request) == (name in ASSIGNED_PRAGMAS), name


# ---- PRAGMA recursive_triggers

FALLING = (
    "CREATE TABLE t(id INTEGER PRIMARY KEY, n UNIQUE)",
    "CREATE TABLE log(what, n)",
    "CREATE TRIGGER down AFTER INSERT ON t WHEN new.n > 0 BEGIN"
    " INSERT INTO t(n) VALUES (new.n - 1); END",
    "CREATE TRIGGER gone AFTER DELETE ON t BEGIN INSERT INTO log VALUES ('gone', old.n); END",
)


def test_recursive_triggers_are_a_property_of_the_database(database: Database) -> None:
    database.run(*FALLING)
    database.run("INSERT INTO t(n) VALUES (5)", "INSERT OR REPLACE INTO t(n) VALUES (5)")
    assert database.rows("SELECT count(*), (SELECT count(*) FROM log) FROM t") == [(2, 0)]
    off = database.machine.content_hash()
    database.run("PRAGMA recursive_triggers = ON", "DELETE FROM t", "DELETE FROM log")
    assert database.machine.content_hash().schema != off.schema
    database.check_hash()
    for _life in range(2):
        [on] = database.run("PRAGMA recursive_triggers")
        assert on.rows == ((1,),)
        database.run("DELETE FROM t", "DELETE FROM log", "INSERT INTO t(n) VALUES (5)")
        # REPLACE fires delete triggers now; the trigger's own REPLACE goes on down.
        database.run("INSERT OR REPLACE INTO t(n) VALUES (5)")
        assert database.rows("SELECT count(*) FROM t") == [(6,)]
        assert database.rows("SELECT n FROM log ORDER BY n") == [(n,) for n in range(6)]
        database.check_hash()
        database.restart()
    assert "too deep" in database.fail("INSERT INTO t(n) VALUES (5000)").message
    # What fails leaves it as it was, and so does what is undone.
    database.fail("PRAGMA recursive_triggers = OFF", "INSERT INTO nowhere VALUES (1)")
    assert database.run("PRAGMA recursive_triggers")[0].rows == ((1,),)
    database.run("PRAGMA recursive_triggers = 0", "PRAGMA recursive_triggers = no")
    assert database.machine.content_hash().schema == off.schema
    database.check_hash()
