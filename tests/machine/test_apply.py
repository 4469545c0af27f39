"""What a request does, and what it gets."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from raftdb.base.errors import FatalError
from raftdb.base.ids import Index, Term
from raftdb.command import CodecError, Failed, Results, Statement
from raftdb.machine import format
from tests.machine.support import SQL, START_MS, Database, Entry, stamp


def test_results_of_each_statement(database: Database) -> None:
    database.run("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT)")
    first, second, third = database.run(
        ("INSERT INTO t(a) VALUES (?), (:b)", ("x", "y")),
        ("UPDATE t SET a = a || :s WHERE id < @n RETURNING id, a", {"s": "!", "n": 10}),
        "SELECT count(*) AS n FROM t",
    )
    assert (first.columns, first.rows, first.changes, first.last_insert_rowid) == ((), (), 2, 2)
    assert second.columns == ("id", "a")
    assert second.rows == ((1, "x!"), (2, "y!"))
    assert second.changes == 2
    assert (third.columns, third.rows, third.changes) == (("n",), ((2,),), 0)


def test_columns_of_an_empty_result(database: Database) -> None:
    database.run("CREATE TABLE t(a, b)")
    [result] = database.run("SELECT a, b AS c FROM t")
    assert (result.columns, result.rows) == (("a", "c"), ())
    database.run("ALTER TABLE t ADD COLUMN d")
    [result] = database.run("SELECT * FROM t")
    assert result.columns == ("a", "b", "d")


def test_a_statement_with_many_parameter_sets(database: Database) -> None:
    database.run("CREATE TABLE t(id INTEGER PRIMARY KEY, a)")
    many = Statement("INSERT INTO t(a) VALUES (?) RETURNING id", tuple((n,) for n in range(5)))
    [result] = database.run(many)
    assert result.rows == ((1,), (2,), (3,), (4,), (5,))
    assert (result.changes, result.last_insert_rowid) == (5, 5)
    broken = Statement("INSERT INTO t(id) VALUES (?)", ((9,), (1,)))
    assert database.fail(broken).code == "constraint_primary_key"
    assert database.rows("SELECT count(*) FROM t") == [(5,)]


def test_values_come_back_as_they_went_in(database: Database) -> None:
    database.run("CREATE TABLE t(a)")
    values = [None, 0, -1, (1 << 63) - 1, -(1 << 63), 1.5, -0.0, 1e308, "", "é\0x", b"", b"\xff\0"]
    for value in values:
        [result] = database.run(("INSERT INTO t VALUES (?) RETURNING a, typeof(a)", (value,)))
        [(back, _kind)] = result.rows
        assert back == value
        assert type(back) is type(value)
    database.check_hash()


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("SELEC 1", "sql"),
        ("SELECT * FROM nowhere", "sql"),
        ("", "empty_statement"),
        (" -- nothing\n ;", "empty_statement"),
        ("SELECT 1; SELECT 2", "several_statements"),
        ("SELECT 1; -- and\n DELETE FROM t", "several_statements"),
        ("SELECT 1 \0 junk", "sql"),
        ("SELECT " + "1," * 3000 + "1", "sql"),
        ("SELECT '" + "x" * format.SQL_BYTES_MAX + "'", "too_big"),
        (("SELECT ?", ()), "parameters"),
        (("SELECT ?", (1, 2)), "parameters"),
        (("SELECT :a", {"b": 1}), "parameters"),
        (("SELECT :a", {"a": 1, "b": 1}), "parameters"),
        (("SELECT ?, :a", {"a": 1}), "parameters"),
        (("SELECT ?", ({"a": 1},)), "parameters"),
        (("SELECT ?", (1 << 63,)), "data"),
        (("SELECT ?40000", (1,)), "sql"),
        ("SELECT CAST(x'ff41' AS TEXT)", "utf8"),
        ("SELECT zeroblob(100000000)", "too_big"),
        ("INSERT INTO t VALUES (zeroblob(100000000))", "too_big"),
        ("INSERT INTO t VALUES (randomblob(100000000))", "too_big"),
        ("INSERT INTO t VALUES (CAST(x'ff41' AS TEXT))", "utf8"),
        ("CREATE TABLE u AS SELECT CAST(x'ff41' AS TEXT) AS a", "utf8"),
        ("INSERT INTO u2 SELECT * FROM t", "sql"),
        ("INSERT INTO t(a) VALUES (NULL)", "constraint_not_null"),
        ("INSERT INTO t(a) VALUES (0)", "constraint_check"),
        ("INSERT INTO t(a) VALUES (7)", "constraint_unique"),
        ("INSERT INTO s VALUES ('x')", "constraint_datatype"),
        ("INSERT INTO i(id) VALUES ('x')", "mismatch"),
        ("SELECT abs(-9223372036854775807 - 1)", "sql"),
        ("SELECT json('{')", "sql"),
    ],
)
def test_errors_are_replies(database: Database, sql: SQL, code: str) -> None:
    database.run(
        "CREATE TABLE t(a NOT NULL UNIQUE CHECK (a <> 0))",
        "INSERT INTO t VALUES (7)",
        "CREATE TABLE s(a INT) STRICT",
        "CREATE TABLE i(id INTEGER PRIMARY KEY)",
    )
    before = database.machine.content_hash()
    error = database.fail(sql)
    assert (error.code, error.outcome, error.retryable) == (code, "not_applied", False)
    assert len(error.message) <= format.MESSAGE_CHARACTERS_MAX + 2
    after = database.machine.content_hash()
    assert (after.total, after.tables) == (before.total, before.tables)
    database.check_hash()
    database.run("SELECT 1")


def test_too_many_parameters_and_values(database: Database) -> None:
    [result] = database.run(
        ("SELECT " + "+".join(["?"] * 900), tuple(range(900))),
    )
    assert result.rows == ((sum(range(900)),),)
    marks = ",".join(["(?)"] * 32_767)
    error = database.fail((f"VALUES {marks}", tuple(range(32_767))))
    assert error.code == "sql"
    assert "too many SQL variables" in error.message


def test_the_position_of_the_statement_that_failed(database: Database) -> None:
    reply = database.apply(database.request("CREATE TABLE t(a)", "INSERT INTO t VALUES (1)", "x"))
    assert isinstance(reply, Failed)
    assert reply.statement == 2
    assert database.rows("SELECT name FROM sqlite_schema WHERE name = 't'") == []


def test_a_result_over_the_bound(database: Database) -> None:
    database.run("CREATE TABLE t(a)")
    error = database.fail(
        "INSERT INTO t VALUES (1)",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 40)"
        " SELECT i, zeroblob(1000000) FROM n",
    )
    assert (error.code, error.outcome) == ("result_too_large", "not_applied")
    assert database.rows("SELECT * FROM t") == []
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
    assert database.fail(f"{endless} SELECT zeroblob(1000000) FROM n").code == "result_too_large"


def test_time_is_the_requests(database: Database) -> None:
    database.run("CREATE TABLE t(a DEFAULT CURRENT_TIMESTAMP, b DEFAULT (unixepoch('now')))")
    at_ms = START_MS + 3_600_123
    [made, now] = database.run(
        "INSERT INTO t DEFAULT VALUES RETURNING a, b",
        "SELECT strftime('%s %f'), datetime('now', 'localtime'), unixepoch('subsec'),"
        " CURRENT_DATE, julianday() = julianday('now'), timediff('now', '2023-11-14 23:13:20')",
        stamp=stamp(2, at_ms),
    )
    assert made.rows == (("2023-11-14 23:13:20", START_MS // 1000 + 3600),)
    assert now.rows == (
        (
            f"{START_MS // 1000 + 3600} 20.123",
            "2023-11-14 23:13:20",
            START_MS / 1000 + 3600.123,
            "2023-11-14",
            1,
            "+0000-00-00 00:00:00.123",
        ),
    )


def test_time_never_runs_backwards(database: Database) -> None:
    database.run("SELECT 1", stamp=stamp(1, START_MS + 50_000))
    [result] = database.run("SELECT unixepoch()", stamp=stamp(1, START_MS - 10**9))
    assert result.rows == ((START_MS // 1000 + 50,),)
    database.restart()
    [result] = database.run("SELECT unixepoch()", stamp=stamp(1, 5))
    assert result.rows == ((START_MS // 1000 + 50,),)
    assert database.machine.time_ms() == START_MS + 50_000
    database.run("SELECT 1", stamp=stamp(1, 1 << 62))
    assert database.machine.time_ms() == format.TIME_MS_MAX
    [result] = database.run("SELECT date()")
    assert result.rows == (("9999-12-31",),)


def test_localtime_is_utc_whatever_the_process_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        database = Database(tmp_path / "database")
        [(event, fields)] = database.log.events
        assert (event, fields["before"], fields["now"]) == ("time_zone_set", "EST", "UTC")
        [local] = database.run("SELECT datetime('now', 'localtime') = datetime('now')")
        assert local.rows == ((1,),)
        database.close()
    finally:
        monkeypatch.setenv("TZ", "UTC")
        time.tzset()


def test_random_comes_from_the_seed_and_the_place(database: Database) -> None:
    sql = "SELECT random(), hex(randomblob(4)), random()"
    [a, b] = database.run(sql, sql, stamp=stamp(7))
    [c, d] = database.run(sql, sql, stamp=stamp(7))
    [e] = database.run(sql, stamp=stamp(8))
    assert (a.rows, b.rows) == (c.rows, d.rows)
    assert len({a.rows, b.rows, e.rows}) == 3
    [[one, _blob, two]] = a.rows
    assert one != two
    # The stored format of randomness: SHAKE-256 over seed, statement, parameter set, draw.
    import hashlib

    seed = stamp(7).seed
    drawn = hashlib.shake_256(seed + bytes(12)).digest(8)
    value = int.from_bytes(drawn, "little", signed=True)
    assert one == (value if value >= 0 else -(value & 0x7FFFFFFFFFFFFFFF))
    [sizes] = database.run(
        "SELECT length(randomblob(0)), length(randomblob('3x')), length(randomblob(2.9)),"
        " length(randomblob(NULL)), length(randomblob(-5))"
    )
    assert sizes.rows == ((1, 3, 2, 1, 1),)


def test_random_values_differ_between_parameter_sets_and_rows(database: Database) -> None:
    database.run("CREATE TABLE t(a, b DEFAULT (random()))")
    database.run(Statement("INSERT INTO t(a) VALUES (?), (?)", ((1, 2), (3, 4))))
    assert database.rows("SELECT count(DISTINCT b) FROM t") == [(4,)]


def test_counters_start_at_zero_in_each_request(database: Database) -> None:
    sql = "SELECT changes(), total_changes(), last_insert_rowid()"
    database.run("CREATE TABLE t(a)")
    database.run("INSERT INTO t VALUES (1), (2), (3)")
    [before, _insert, after] = database.run(sql, "INSERT INTO t VALUES (4), (5)", sql)
    assert before.rows == ((0, 0, 0),)
    assert after.rows == ((2, 2, 5),)
    database.run(
        "CREATE TABLE log(a, b)",
        "CREATE TRIGGER tr AFTER INSERT ON t BEGIN"
        " INSERT INTO log VALUES (changes(), total_changes()); END",
    )
    database.run("INSERT INTO t VALUES (1), (2), (3)")
    database.run("INSERT INTO t VALUES (1)")
    rows = database.rows("SELECT a FROM log")
    assert rows[0] == rows[3] == (0,)


def test_an_entry_without_requests_and_several_in_one_call(database: Database) -> None:
    index = database.next_index
    database.run("CREATE TABLE t(a)")
    replies = database.apply_entries(
        Entry(Index(index + 1), Term(2), ()),
        database.entry(
            database.request("INSERT INTO t VALUES (1)"),
            database.request("INSERT INTO t VALUES (2)"),
            index=index + 2,
            term=2,
        ),
        Entry(Index(index + 3), Term(3), ()),
    )
    assert [len(one) for one in replies] == [0, 2, 0]
    assert database.machine.applied() == (index + 3, 3)
    assert database.rows("SELECT * FROM t") == [(1,), (2,)]


@pytest.mark.parametrize("shift", [-1, 1])
def test_an_entry_twice_and_a_gap_are_fatal(database: Database, shift: int) -> None:
    database.run("CREATE TABLE t(a)")
    entry = database.entry(
        database.request("INSERT INTO t VALUES (1)"), index=database.next_index + shift
    )
    with pytest.raises(FatalError, match="was handed to the database"):
        database.machine.apply([entry])
    with pytest.raises(FatalError):
        database.machine.apply([database.entry(database.request("SELECT 1"))])
    assert database.rows("SELECT * FROM t") == []


def test_bytes_that_are_no_request_are_fatal(database: Database) -> None:
    with pytest.raises(CodecError):
        database.machine.apply([Entry(Index(database.next_index), Term(1), (b"\x93\x01\x02",))])


def test_a_defect_of_raftdb_is_never_a_reply(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object) -> bytes:
        raise AttributeError("a defect")

    monkeypatch.setattr("raftdb.machine.statements.check_single", broken)
    with pytest.raises(FatalError, match="a defect"):
        database.machine.apply([database.entry(database.request("SELECT 1"))])
    monkeypatch.undo()
    with pytest.raises(FatalError):
        database.machine.apply([database.entry(database.request("SELECT 1"))])


def test_results_of_an_empty_request(database: Database) -> None:
    assert database.apply(database.request()) == Results(())
