"""Statements chosen so that replicas which lived otherwise would differ, or all would stop."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from raftdb.base.errors import NotSupportedError
from raftdb.base.limits import Limits
from raftdb.command import (
    Configure,
    Execute,
    Failed,
    OpenSession,
    Reply,
    Results,
    Statement,
    decode_reply,
    encode_request,
)
from raftdb.command.requests import session_number
from raftdb.machine import Machine
from raftdb.machine.format import CRISISMERGE_MAX
from raftdb.machine.indexscan import entries, index_names, lookups
from raftdb.node.admission import Admission
from tests.machine.support import FILES, HISTORY, Database, Entry, MemoryLog, stamp
from tests.machine.transactions import Transaction, committed

Body = str | tuple[str, ...]
NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) "


def log_of(bodies: Sequence[Body], level: int = 2) -> list[Entry]:
    """One request an entry."""
    session = session_number(1, 0)
    payloads = [encode_request(OpenSession(stamp(0), b"t" * 16, ""))]
    payloads.append(encode_request(Configure(stamp(0), {"feature_level": level})))
    for number, body in enumerate(bodies, 1):
        statements = tuple(map(Statement, (body,) if isinstance(body, str) else body))
        payloads.append(encode_request(Execute(stamp(number), session, number, 0, statements)))
    return [Entry(index, 1, (one,)) for index, one in enumerate(payloads, 1)]  # type: ignore[arg-type]


def lives(directory: Path, bodies: Sequence[Body]) -> list[Reply]:
    """Replies to a log, of three replicas that must agree on all: one that does nothing else, one
    that starts anew before each entry, and one that applies all in one call."""
    log = log_of(bodies)
    found = []
    for name, size in (("quiet", 1), ("restarted", 1), ("grouped", len(log))):
        path = str(directory / name)
        Machine.create(path, HISTORY, files=FILES)
        machine = opened(path)
        replies: list[bytes] = []
        for start in range(0, len(log), size):
            if name == "restarted":
                machine.close()
                machine = opened(path)
            for one in machine.apply(log[start : start + size]):
                replies += one
        assert machine.content_hash() == machine.recompute_content_hash()
        found.append((machine.content_hash(), replies))
        machine.close()
    assert found[1] == found[0]
    assert found[2] == found[0]
    return [decode_reply(reply) for reply in found[0][1][2:]]


def opened(path: str) -> Machine:
    return Machine.open(path, history=HISTORY, limits=Limits(), files=FILES, log=MemoryLog())


SECURE = "INSERT INTO f(f, rank) VALUES ('secure-delete', 1)"
RANK = "INSERT INTO f(f, rank) VALUES ('rank', 'bm25(5.0, 9.0)')"
BY_RANK = "SELECT rowid, rank FROM f('b') ORDER BY rank LIMIT 3"
FTS5 = (
    "CREATE VIRTUAL TABLE f USING fts5(x, y)",
    NUMBERS.format(30) + "INSERT INTO f SELECT 'a' || i || ' b', 'b' FROM n",
    "CREATE TABLE u(a UNIQUE)",
    "INSERT INTO u VALUES (1)",
)
UNDONE: list[tuple[Body, ...]] = [
    ((SECURE, "SELECT nothing"), "DELETE FROM f WHERE rowid = 7", "DELETE FROM f WHERE rowid = 9"),
    ((RANK, "SELECT nothing"), BY_RANK),
    ((RANK, "INSERT OR ROLLBACK INTO u VALUES (1)"), BY_RANK),
    (("DROP TABLE u", RANK, "SELECT nothing"), BY_RANK),
    (
        SECURE,
        ("DELETE FROM f WHERE rowid = 9", "DELETE FROM f WHERE rowid = 5", "SELECT nothing"),
        "DELETE FROM f WHERE rowid = 7",
    ),
    (
        "CREATE TRIGGER t AFTER INSERT ON u BEGIN INSERT INTO f(f, rank) VALUES"
        " ('rank', 'bm25(5.0, 9.0)'); SELECT RAISE(ABORT, 'no') WHERE new.a = 3; END",
        "INSERT INTO u VALUES (3)",
        BY_RANK,
        "INSERT INTO u VALUES (4)",
        BY_RANK,
    ),
]


@pytest.mark.parametrize("bodies", UNDONE)
def test_what_fts_remembers_of_what_was_undone(tmp_path: Path, bodies: tuple[Body, ...]) -> None:
    """A rollback takes options of FTS5 back in the file; what the connection remembers decided what
    was written next, until the node started again."""
    replies = lives(tmp_path, (*FTS5, *bodies))
    assert any(isinstance(reply, Failed) for reply in replies)
    assert isinstance(replies[-1], Results)


def test_what_a_transaction_undid_is_forgotten(database: Database) -> None:
    for one in FTS5:
        database.run(one)
    by_rank = database.run(BY_RANK)[0].rows
    for _attempt in range(2):
        first = Transaction(database)
        first.run(RANK)
        assert first.rows(BY_RANK) != by_rank
        first.end()
        # In the workspace of before: another client's, and it only reads.
        second = Transaction(database)
        assert second.rows(BY_RANK) == list(by_rank)
        second.run("INSERT INTO u VALUES (10) ON CONFLICT DO NOTHING")
        assert committed(second.commit())
    # A statement that failed in a transaction that went on.
    third = Transaction(database)
    third.run(
        "CREATE TRIGGER t AFTER INSERT ON u BEGIN INSERT INTO f(f, rank) VALUES"
        " ('rank', 'bm25(5.0, 9.0)'); SELECT RAISE(ABORT, 'no'); END"
    )
    third.fail("INSERT INTO u VALUES (11)")
    assert committed(third.commit())
    assert database.run(BY_RANK)[0].rows == by_rank
    database.check_hash()


def test_comments_do_not_hide_an_index_of_fts5(tmp_path: Path) -> None:
    lives(
        tmp_path,
        (
            "CREATE VIRTUAL TABLE f USING/* by */fts5(x)",
            "INSERT INTO f(rowid, x) VALUES (1, 'x')",
            "INSERT INTO f(f, rank) VALUES ('automerge', 2)",
            "INSERT INTO f(f) VALUES ('rebuild')",
            "INSERT INTO f(f) VALUES ('rebuild')",
        ),
    )


MANY = NUMBERS.format(300) + "INSERT INTO g SELECT 'a' || i || ' b' || (i * 7) || ' c' || i FROM n"


@pytest.mark.parametrize("module", ["fts3", "FTS4"])
def test_automerge_writes_while_sqlite_commits(tmp_path: Path, module: str) -> None:
    """Behind the content hash, which stopped the node, and every other one; at each start again."""
    replies = lives(
        tmp_path,
        (
            f"CREATE VIRTUAL TABLE g USING {module}(x)",
            "INSERT INTO g(g) VALUES ('automerge=2')",
            *[MANY] * 4,
            "INSERT INTO g(g) VALUES ('automerge=0')",
            "INSERT INTO g(g) VALUES ('merge=500,8')",
            "CREATE TABLE g_stats(id, value)",
            "INSERT INTO g_stats VALUES (2, 5)",
        ),
    )
    failed = [reply for reply in replies if isinstance(reply, Failed)]
    assert failed == [replies[1]]
    assert failed[0].error.code == "not_supported"
    assert "automerge" in failed[0].error.message


def test_an_index_that_is_full_stops_no_node(database: Database) -> None:
    """FTS5 says SQLITE_FULL when it has 2,000 segments, which otherwise means a full disk."""
    database.run("CREATE VIRTUAL TABLE f USING fts5(x)")
    option = "INSERT INTO f(f, rank) VALUES (?, ?)"
    for name, value in (("crisismerge", 1999), ("CrisisMerge", CRISISMERGE_MAX + 1)):
        error = database.fail((option, (name, value)))
        assert error.code == "not_supported", error
        assert str(CRISISMERGE_MAX) in error.message
    database.run((option, ("crisismerge", CRISISMERGE_MAX)), (option, ("automerge", 0)))
    # Downwards, each row makes a segment of its own.
    database.run(NUMBERS.format(2_100) + "INSERT INTO f(rowid, x) SELECT 9999 - i, 'a' FROM n")
    assert database.rows("SELECT count(*) FROM f('a')") == [(2_100,)]
    database.check_hash()


def test_explain_is_refused_before_it_is_logged(database: Database) -> None:
    """A node of 0.1.0 beside would take it; from level 2 on the machine refuses it, too."""
    admission = Admission(Limits())
    for body in (("explain SELECT 1",), ("SELECT 1", "/* a */ EXPLAIN SELECT 1")):
        with pytest.raises(NotSupportedError, match="EXPLAIN in a batch"):
            admission.encode(database.request(*body, sequence=1, floor=0))
    fine = ("EXPLAIN QUERY PLAN SELECT 1", "SELECT 'EXPLAIN'")
    admission.encode(database.request(*fine, sequence=1, floor=0))
    database.run("EXPLAIN SELECT 1")
    database.apply(Configure(stamp(1), {"feature_level": 2}))
    assert database.fail("EXPLAIN SELECT 1").code == "not_supported"
    transaction = Transaction(database)
    assert transaction.fail("EXPLAIN SELECT 1").code == "not_supported"
    transaction.end()


NAMES = ("pragma_table_xinfo", "pragma_table_list", "pragma_index_list", "pragma_index_xinfo")


@pytest.mark.parametrize("kind", ["TABLE {}(a REAL)", "VIEW {} AS SELECT 1 AS a"])
def test_names_of_tables_that_sqlite_makes_by_itself(database: Database, kind: str) -> None:
    """A user's table is found before the table-valued function of that name: raftdb's own questions
    failed then, which stopped every node, at each start again."""
    database.run(*[f"CREATE {kind.format(name)}" for name in NAMES])
    database.run("CREATE TABLE dbstat(a)")
    database.run(
        "CREATE TABLE t(a REAL UNIQUE, b)",
        "CREATE TABLE w(a PRIMARY KEY, b AS (a + 1)) WITHOUT ROWID",
        "INSERT INTO t VALUES (1, 2), (3, 4)",
        "INSERT INTO w VALUES (5)",
    )
    database.check_hash()
    run = database.machine._writer.execute
    (index,) = index_names(run, "t")
    assert list(entries(run, index)) == [(2,)]
    assert list(run(lookups(run, "t", index))) == [(1,), (1,)]
    database.restart()
    database.run("ALTER TABLE t ADD COLUMN c REAL DEFAULT 5", "DROP TABLE w")
    database.check_hash()


@pytest.mark.parametrize("declared", ["\ufb02oat", "\u0131nt real", "re\u0430l", "FLOAT \u0131nt"])
def test_affinity_goes_by_a_to_z(database: Database, declared: str) -> None:
    """Python has more letters: what it took for a REAL column hashed otherwise than it was read,
    and the next scrub called every node damaged."""
    database.run(f'CREATE TABLE t(a "{declared}")', "INSERT INTO t VALUES (5), (5.5), ('x')")
    database.run("CREATE TABLE u(a)", "INSERT INTO u VALUES (1)")
    database.run(f'ALTER TABLE u ADD COLUMN b "{declared}" DEFAULT 5', "UPDATE u SET a = 2")
    database.check_hash()


def test_explain_lists_what_is_the_nodes_own(database: Database, tmp_path: Path) -> None:
    """Its counter of schemas, and addresses of virtual tables: no answer to a logged request."""
    replies = lives(
        tmp_path,
        (
            "CREATE TABLE t(a)",
            ("INSERT INTO t VALUES (1)", "EXPLAIN SELECT * FROM t"),
            "explain INSERT INTO t VALUES (1)",
            ("INSERT INTO t VALUES (1)", "EXPLAIN /* as */ QUERY PLAN SELECT * FROM t"),
        ),
    )
    assert [isinstance(reply, Failed) for reply in replies] == [False, True, True, False]
    assert isinstance(replies[1], Failed)
    assert replies[1].error.code == "not_supported"
    database.run("CREATE TABLE t(a)")
    database.apply(Configure(stamp(1), {"feature_level": 2}))
    transaction = Transaction(database)
    transaction.run("INSERT INTO t VALUES (1)")
    assert transaction.fail("EXPLAIN SELECT * FROM t").code == "not_supported"
    transaction.run("EXPLAIN QUERY PLAN SELECT * FROM t")
    assert committed(transaction.commit())
    # By itself it is a read, of a statement that writes too.
    assert len(database.rows("EXPLAIN INSERT INTO t VALUES (1)")) > 5
    assert database.rows("SELECT count(*) FROM t") == [(1,)]


PLAN = "EXPLAIN QUERY PLAN SELECT c FROM t WHERE a = 1 AND b = 1 LIMIT 1"
CHOICE = "INSERT INTO out SELECT c FROM t WHERE a = 1 AND b = 1 LIMIT 1 RETURNING x"


def test_every_connection_goes_by_the_statistics_of_now(database: Database) -> None:
    """ANALYZE tells only its own connection. A transaction that had another plan than its COMMIT
    conflicted with nobody, again and again."""

    def fill(a: int, b: int) -> None:
        fill = f"INSERT INTO t SELECT i % {a}, i % {b}, i FROM n"
        database.run("DELETE FROM t", NUMBERS.format(1_000) + fill)
        database.run("ANALYZE")

    def plans() -> list[str]:
        transaction = Transaction(database)
        [(*_ids, plan)] = transaction.rows(PLAN)
        transaction.run(CHOICE)
        assert committed(transaction.commit())
        single = database.rows(PLAN)
        several = database.machine.query(Statement(PLAN), Statement("SELECT 1")).statements[0]
        logged = database.run(PLAN)[0].rows
        return [plan, *[str(rows[0][-1]) for rows in (single, several.rows, logged)]]

    database.run(
        "CREATE TABLE t(a, b, c)",
        "CREATE INDEX ia ON t(a, c DESC)",
        "CREATE INDEX ib ON t(b, c)",
        "CREATE TABLE out(x)",
    )
    fill(2, 100)
    first = plans()
    assert len(set(first)) == 1
    assert " ib " in first[0]
    fill(100, 2)
    second = plans()
    assert len(set(second)) == 1
    assert " ia " in second[0]


@pytest.fixture
def other_zone() -> Iterator[None]:
    before = os.environ.get("TZ")
    yield
    os.environ["TZ"] = before or "UTC"
    time.tzset()


@pytest.mark.usefixtures("other_zone")
def test_a_zone_that_the_program_sets_later(database: Database) -> None:
    """Django sets its own when it reads its settings, which may be after the node's start."""
    database.run("CREATE TABLE t(a)")
    sql = "SELECT datetime(0, 'unixepoch', 'localtime')"
    for zone in ("America/New_York", "UTC+5"):
        os.environ["TZ"] = zone
        time.tzset()
        assert database.run(sql)[0].rows == (("1970-01-01 00:00:00",),)
        transaction = Transaction(database)
        os.environ["TZ"] = zone
        time.tzset()
        assert transaction.rows(sql) == [("1970-01-01 00:00:00",)]
        transaction.end()
