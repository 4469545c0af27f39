"""Read or write, and where statements end. When in doubt: a write."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftdb.base.errors import ProgrammingError
from raftdb.client.sqltext import BLANK, READ, WRITE, classify, savepoint_of, split
from raftdb.machine import transaction as nodes

READS = [
    "SELECT 1",
    "select 1",
    "  \n\t SELECT 1;",
    "-- a comment\nSELECT 1",
    "/* INSERT */ SELECT 1 /* and",
    ";; SELECT 1",
    "VALUES (1), (2)",
    "EXPLAIN INSERT INTO t VALUES (1)",
    "EXPLAIN QUERY PLAN DELETE FROM t",
    "WITH a AS (SELECT 1) SELECT * FROM a",
    "WITH RECURSIVE a(x) AS (VALUES (1) UNION SELECT x+1 FROM a WHERE x<9)"
    " SELECT replace(x, 1, 2) FROM a",
    "WITH a AS (SELECT 1), b (x, y) AS NOT MATERIALIZED (SELECT 1, ')') VALUES (1)",
    "with replace as (select 1) select * from replace",
    "PRAGMA table_info(t)",
    "PRAGMA main.table_xinfo('t');",
    "PRAGMA user_version",
    "pragma integrity_check",
    "PRAGMA integrity_check(5)",
]
WRITES = [
    "INSERT INTO t VALUES (1)",
    "REPLACE INTO t VALUES (1)",
    "UPDATE t SET a = 1",
    "DELETE FROM t",
    "WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a",
    "WITH a AS (SELECT 1) DELETE FROM t",
    "WITH a(x) AS (SELECT ')SELECT') UPDATE t SET b = 1",
    "WITH",
    "WITH a AS (SELECT 1",
    "CREATE TABLE t (a)",
    "PRAGMA user_version = 5",
    "PRAGMA user_version(5)",
    "PRAGMA foreign_keys = ON",
    "PRAGMA table_info = t",
    "PRAGMA journal_mode",
    "PRAGMA optimize",
    "PRAGMA",
    "BEGIN",
    "ANALYZE",
    "VACUUM",
    "(SELECT 1)",
    "'SELECT'",
    "1",
    "ß SELECT",
    "SELECTED",
]
BLANKS = ["", "  ", ";", " ; ; ", "-- nothing", "/* nothing", "\ufeff;"]


@pytest.mark.parametrize("sql", READS)
def test_reads(sql: str) -> None:
    assert classify(sql).kind == READ


@pytest.mark.parametrize("sql", WRITES)
def test_writes(sql: str) -> None:
    assert classify(sql).kind == WRITE


@pytest.mark.parametrize("sql", BLANKS)
def test_blanks(sql: str) -> None:
    assert classify(sql).kind == BLANK


def test_verbs_that_decide() -> None:
    assert classify("WITH a AS (SELECT 1) INSERT INTO t SELECT 1").inserts
    assert classify("REPLACE INTO t VALUES (1)").inserts
    assert classify("UPDATE t SET a = 1").changes_rows
    assert not classify("UPDATE t SET a = 1").inserts
    assert not classify("CREATE TABLE t (a)").changes_rows


@given(
    st.lists(st.sampled_from([*READS, *WRITES, "'", '"', "(", ")", ",", "--", "/*"])).map(" ".join)
)
def test_what_counts_as_a_read_does_not_write(sql: str) -> None:
    """Against SQLite itself: a statement that would change something is never called a read."""
    if classify(sql).kind != READ:
        return
    raw = sqlite3.connect(":memory:", isolation_level=None)
    raw.executescript("CREATE TABLE t (a, b); CREATE TABLE replace (a)")
    raw.set_progress_handler(lambda: 1, 1_000_000)  # Whatever loops for ever is stopped.
    before = raw.total_changes, raw.execute("PRAGMA user_version").fetchone()
    try:
        raw.execute(sql).fetchall()
    except (sqlite3.Error, sqlite3.Warning):
        pass
    after = raw.total_changes, raw.execute("PRAGMA user_version").fetchone()
    raw.close()
    assert before == after


SCRIPT = """
-- schema; with a semicolon in a comment
CREATE TABLE t (a TEXT DEFAULT ';', "b;" INT); ;
CREATE TRIGGER r AFTER INSERT ON t BEGIN
  UPDATE t SET a = 'x;'; DELETE FROM t WHERE a = ';';
END;
/* ; */ INSERT INTO t VALUES ('it''s; fine', 2);
SELECT 1
"""


def test_a_script_is_split_where_statements_end() -> None:
    statements = split(SCRIPT)
    assert len(statements) == 4
    assert statements[1].startswith("CREATE TRIGGER")
    assert statements[1].endswith("END;")
    assert statements[3] == "SELECT 1"
    raw = sqlite3.connect(":memory:")
    for statement in statements:
        raw.execute(statement)
    raw.close()


def test_a_script_of_nothing() -> None:
    assert split(" ;; -- x\n ; ") == []


def test_a_long_script_is_split_quickly() -> None:
    script = "INSERT INTO t VALUES (';');\n" * 20_000
    assert len(split(script)) == 20_000


@given(
    st.lists(st.sampled_from(["SELECT ';'", "SELECT 1 -- ;\n", "SELECT /* ; */ 2", "VALUES (3)"]))
)
def test_split_finds_each_statement(parts: list[str]) -> None:
    assert split(";".join(parts)) == [f"{part};" for part in parts[:-1]] + [
        part.strip() for part in parts[-1:]
    ]


NAMES = st.one_of(
    st.sampled_from(["a", "A", "savepoint", "to", "transaction", "'a'", '"A"', "[a]", "`a`", '""']),
    st.sampled_from(
        ['"a""b"', '[a"b]', "'`a`'", "É", '"é"', "ß", "\u212a", "a b", "1", "--x\n", ""]
    ),
    st.text("a\"'`[]", max_size=5),
)
SAVEPOINTS = (
    ("SAVEPOINT", ("SAVEPOINT",)),
    ("RELEASE", ("RELEASE", "?SAVEPOINT")),
    ("release SAVEPOINT", ("RELEASE", "?SAVEPOINT")),
    ("ROLLBACK TO", ("ROLLBACK", "?TRANSACTION", "TO", "?SAVEPOINT")),
    ("rollback /**/ transaction to savepoint", ("ROLLBACK", "?TRANSACTION", "TO", "?SAVEPOINT")),
    ("ROLLBACK", ("ROLLBACK", "?TRANSACTION", "TO", "?SAVEPOINT")),
)


@given(st.sampled_from(SAVEPOINTS), NAMES)
def test_names_of_savepoints_are_those_of_the_nodes(
    verb: tuple[str, tuple[str, ...]], name: str
) -> None:
    """Else a client takes a transaction for open that a RELEASE of its was to commit."""
    sql = f"{verb[0]} {name};"
    try:
        expected = nodes._name(sql, verb[1])
    except ProgrammingError:
        expected = None
    assert savepoint_of(sql) == expected
