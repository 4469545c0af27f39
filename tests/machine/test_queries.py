"""Reading beside the writer."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import apsw
import pytest

from raftdb.base.errors import (
    DataError,
    Error,
    FatalError,
    NotSupportedError,
    OperationalError,
    OverloadedError,
    ProgrammingError,
)
from raftdb.base.limits import Limits
from raftdb.command import Statement, encode_reply
from raftdb.command.requests import Parameters
from raftdb.machine import QueryStop, readers
from raftdb.machine import reader as reader_module
from raftdb.machine.reader import Reader
from tests.machine.support import CpuClock, Database
from tests.machine.transactions import Transaction


@pytest.fixture
def filled(database: Database) -> Database:
    database.run(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)",
        Statement("INSERT INTO t(a, b) VALUES (?, ?)", tuple((n, f"b{n}") for n in range(100))),
    )
    return database


def error_of(database: Database, sql: str, parameters: Parameters = ()) -> Error:
    with pytest.raises(Error) as raised:
        database.machine.query(Statement(sql, (parameters,)))
    return raised.value


def test_rows_columns_and_parameters(filled: Database) -> None:
    [result] = filled.machine.query(
        Statement("SELECT id, a AS n FROM t WHERE id = :i", ({"i": 3},))
    ).statements
    assert (result.columns, result.rows) == (("id", "n"), ((3, 2),))
    [none] = filled.machine.query(Statement("SELECT b FROM t WHERE id = ?", ((-1,),))).statements
    assert (none.columns, none.rows) == (("b",), ())
    [several] = filled.machine.query(
        Statement("SELECT a FROM t WHERE id = ?", ((1,), (-1,), (2,)))
    ).statements
    assert several.rows == ((0,), (1,))
    filled.run("ALTER TABLE t ADD COLUMN c DEFAULT 7")
    for _life in range(2):
        [wider] = filled.machine.query(Statement("SELECT * FROM t WHERE id = 0")).statements
        assert wider.columns == ("id", "a", "b", "c")
        [wider] = filled.machine.query(Statement("SELECT * FROM t WHERE id = 1")).statements
        assert wider.columns == ("id", "a", "b", "c")
        filled.run("ALTER TABLE t RENAME COLUMN b TO bb", "ALTER TABLE t RENAME COLUMN bb TO b")


def test_columns_follow_the_schema(filled: Database) -> None:
    """A reader remembers a statement's columns, until the schema changes."""
    machine = filled.machine
    sql = "SELECT * FROM t WHERE id = ?"

    def columns() -> tuple[str, ...]:
        found = {machine.query_rows(sql, (key,))[0] for key in (1, 1, -1, -1)}
        found |= {machine.query(Statement(sql, ((key,),))).statements[0].columns for key in (1, -1)}
        [one] = found
        return one

    assert columns() == ("id", "a", "b")
    filled.run("ALTER TABLE t ADD COLUMN c")
    assert columns() == ("id", "a", "b", "c")
    filled.run("ALTER TABLE t RENAME COLUMN c TO d", "INSERT INTO t(a) VALUES (1)")
    assert columns() == ("id", "a", "b", "d")
    filled.fail("ALTER TABLE t DROP COLUMN d", "SELECT nothing")
    assert columns() == ("id", "a", "b", "d")
    filled.run("DROP TABLE t", "CREATE TABLE t(id, x)", "INSERT INTO t VALUES (1, 2)")
    assert columns() == ("id", "x")
    assert machine.query_rows(sql, (1,)) == (("id", "x"), [(1, 2)], machine.applied()[0])


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t(a) VALUES (1)",
        "UPDATE t SET a = 1 RETURNING a",
        "WITH x AS (SELECT 1) DELETE FROM t",
        "CREATE TABLE u(a)",
        "DROP TABLE t",
        "ALTER TABLE t ADD COLUMN c",
        "REINDEX",
    ],
)
def test_what_writes_is_sent_to_execute(filled: Database, sql: str) -> None:
    before = filled.machine.content_hash()
    for _attempt in range(2):
        error = error_of(filled, sql)
        assert isinstance(error, ProgrammingError)
        assert (error.code, error.hint) == ("not_a_read", "use execute")
    assert filled.machine.content_hash() == before


@pytest.mark.parametrize(
    "sql",
    [
        "BEGIN",
        "COMMIT",
        "SAVEPOINT x",
        "ATTACH ':memory:' AS x",
        "CREATE TEMP TABLE x(a)",
        "PRAGMA user_version = 5",
        "PRAGMA query_only = OFF",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA wal_checkpoint",
        "PRAGMA cache_size = 1000000",
        "SELECT load_extension('x')",
        "SELECT token FROM _raftdb_session",
        "SELECT * FROM sqlite_dbpage",
        "VACUUM INTO '/tmp/raftdb-test-never-written'",
    ],
)
def test_what_is_refused(filled: Database, sql: str) -> None:
    assert isinstance(error_of(filled, sql), NotSupportedError | ProgrammingError)
    assert filled.rows("SELECT 1") == [(1,)]


@pytest.mark.parametrize(
    ("sql", "parameters", "code"),
    [
        ("SELEC 1", (), "sql"),
        ("SELECT 1; SELECT 2", (), "several_statements"),
        ("SELECT 1; DELETE FROM t", (), "several_statements"),
        ("", (), "empty_statement"),
        ("SELECT ?", (), "parameters"),
        ("SELECT ?", (1, 2), "parameters"),
        ("SELECT :a", {"b": 1}, "parameters"),
        ("SELECT CAST(x'ff' AS TEXT)", (), "utf8"),
        ("SELECT zeroblob(100000000)", (), "too_big"),
        ("SELECT \0", (), "sql"),
        ("SELECT json('{') FROM t", (), "sql"),
    ],
)
def test_errors(filled: Database, sql: str, parameters: Parameters, code: str) -> None:
    for _attempt in range(2):
        assert error_of(filled, sql, parameters).code == code
    assert filled.rows("SELECT count(*) FROM t") == [(100,)]


def test_bounds_of_bytes_and_rows(filled: Database) -> None:
    machine = filled.machine
    everything = Statement("SELECT b FROM t")
    assert len(machine.query(everything, rows_max=100).statements[0].rows) == 100
    for bounds in ({"rows_max": 99}, {"rows_bytes_max": 500}):
        with pytest.raises(DataError) as raised:
            machine.query(everything, **bounds)
        assert raised.value.code == "result_too_large"
    with pytest.raises(DataError):
        machine.query(everything, everything, rows_max=150)
    with pytest.raises(DataError):
        machine.query(
            Statement("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
                      " SELECT zeroblob(100000) FROM n")
        )  # fmt: skip
    assert filled.rows("SELECT 1") == [(1,)]


def test_several_statements_see_one_snapshot(filled: Database) -> None:
    def write() -> None:
        filled.run("DELETE FROM t")

    count = Statement("SELECT count(*) FROM t")
    machine = filled.machine
    reader = Reader(machine._readers._connect(), machine._applier.epoch, None)
    seen = []
    original = reader.rows

    def rows(*arguments: Any, **options: Any) -> Any:
        result = original(*arguments, **options)
        if not seen:
            write()
        seen.append(result)
        return result

    reader.rows = rows  # type: ignore[method-assign]
    first, second = reader.query([count, count], 1 << 20, 1000).statements
    assert (first.rows, second.rows) == (((100,),), ((100,),))
    reader.connection.close()
    assert filled.rows("SELECT count(*) FROM t") == [(0,)]
    # After an error in the middle the connection is fit for the next one.
    with pytest.raises(ProgrammingError):
        filled.machine.query(count, Statement("SELECT nothing"))
    filled.run("INSERT INTO t(a) VALUES (1)")
    assert filled.rows("SELECT count(*) FROM t") == [(1,)]


def test_reads_see_their_own_time_and_randomness(filled: Database) -> None:
    [(year, a, b)] = filled.rows("SELECT strftime('%Y'), random(), random()")
    assert int(year) >= 2024
    assert a != b


def test_readers_are_bounded_and_wait_for_each_other(tmp_path: Path) -> None:
    database = Database(tmp_path / "database", limits=Limits(readers_max=2))
    database.run("CREATE TABLE t(a)", "INSERT INTO t VALUES (1)")
    machine = database.machine
    failures: list[BaseException] = []

    def read() -> None:
        try:
            for _ in range(100):
                assert database.rows("SELECT a FROM t") == [(1,)]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failures
    assert len(machine._readers._all) <= 2
    database.close()


def test_all_readers_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "_WAIT_S", 0.05)
    database = Database(tmp_path / "database", limits=Limits(readers_max=1))
    pool = database.machine._readers
    taken = pool._take(10.0)
    with pytest.raises(OverloadedError) as raised:
        database.rows("SELECT 1")
    assert raised.value.retryable
    pool._give_back(taken)
    assert database.rows("SELECT 1") == [(1,)]
    database.close()


def test_after_closing(filled: Database) -> None:
    machine = filled.machine
    filled.rows("SELECT 1")
    machine.close()
    with pytest.raises(OperationalError, match="closed"):
        machine.query(Statement("SELECT 1"))
    with pytest.raises(FatalError, match="closed"):
        machine.apply([filled.entry()])
    machine.close()
    filled.machine = filled.open()


def test_closing_stops_a_query_that_runs(filled: Database) -> None:
    machine = filled.machine
    codes: list[str] = []

    def read() -> None:
        try:
            machine.query(
                Statement(
                    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
                    " SELECT count(*) FROM n"
                )
            )
        except OperationalError as error:
            codes.append(error.code)

    thread = threading.Thread(target=read)
    thread.start()
    while not machine._readers._all or machine._readers._idle:
        assert thread.is_alive()
    while not codes and thread.is_alive():
        machine.close()
        thread.join(0.05)
    thread.join(10)
    assert codes == ["query_too_long"]
    filled.machine = filled.open()


def test_a_stop_that_comes_before_the_query_begins(
    filled: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the snapshot is taken: it is the same stop, and the reader is as good as before."""
    stopped = []

    def stop_in_between(run: Any) -> Any:
        if not stopped:
            stopped.append(True)
            raise apsw.InterruptError("interrupted")
        return read_progress(run)

    read_progress = reader_module.read_progress
    monkeypatch.setattr(reader_module, "read_progress", stop_in_between)
    with pytest.raises(OperationalError) as raised:
        filled.machine.query(Statement("SELECT a FROM t WHERE id = 1"))
    assert raised.value.code == "query_too_long"
    assert filled.rows("SELECT count(*) FROM t") == [(100,)]


def test_a_stop_that_comes_when_the_query_is_over(filled: Database) -> None:
    """It may hit the end of the snapshot, which must end all the same."""
    machine = filled.machine
    machine.query(Statement("SELECT a FROM t"))
    [reader] = machine._readers._all
    real = reader.connection

    class Connection:
        stops = 2

        def execute(self, sql: str) -> Any:
            if sql.startswith("ROLLBACK") and self.stops:
                self.stops -= 1
                raise apsw.InterruptError("interrupted")
            return real.execute(sql)

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    reader.connection = Connection()
    filled.machine.query(Statement("SELECT a FROM t"))
    reader.connection = real
    assert not real.in_transaction


def test_a_damaged_page_is_fatal_and_never_an_answer(filled: Database) -> None:
    filled.run("CREATE TABLE big(a)", ("INSERT INTO big VALUES (zeroblob(?))", (200_000,)))
    filled.machine.checkpoint()
    filled.machine.close()
    path = Path(filled.directory) / "generation-000001" / "database.sqlite"
    path.with_name("database.sqlite-wal").unlink()  # all of it is in the file
    data = bytearray(path.read_bytes())
    for page in range(12, len(data) // 4096):
        data[page * 4096 : page * 4096 + 100] = b"\xa5" * 100
    path.write_bytes(data)
    filled.machine = filled.open()
    with pytest.raises(FatalError):
        filled.machine.query(
            Statement("SELECT sum(length(hex(a))) FROM big"), Statement("SELECT * FROM t")
        )


def test_an_error_is_never_due_to_a_schema_of_old(database: Database) -> None:
    """SQLite compiles by the schema that a connection remembers, and finds out only where a name is
    missing: a table that has fewer columns now must not be told to have too many."""
    asked = "SELECT 1 IN s"
    for columns, found in (("a, b", None), ("a", [(0,)]), ("a, b", None), ("a", [(0,)])):
        transaction = Transaction(database)
        transaction.run("SELECT count(*) FROM sqlite_schema")
        transaction.end()
        database.run("DROP TABLE IF EXISTS s", f"CREATE TABLE s({columns})")
        transaction = Transaction(database)
        if found is None:
            for _time in range(2):
                with pytest.raises(ProgrammingError, match="2 columns"):
                    database.rows(asked)
            assert "2 columns" in transaction.fail(asked).message
        else:
            assert database.rows(asked) == found
            assert transaction.rows(asked) == found
        transaction.end()


def test_an_encoded_reply_is_the_same_row_by_row(filled: Database) -> None:
    many = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < ?)"
    values = "SELECT x, x / 7.0, NULL, 'é' || x, zeroblob(x % 300), -x FROM c"
    statements = (
        Statement(f"{many} {values}", ((2_000,), (1,))),
        Statement("SELECT 1 WHERE 0"),
        Statement("SELECT ? AS a", (("x" * 100_000,),)),
    )
    stop = QueryStop()
    machine = filled.machine
    reply, index = machine.query_reply(statements, None, stop)
    assert index == machine.applied()[0]
    assert reply == encode_reply(machine.query(*statements))
    machine.query_reply(statements, 2_002, stop)
    large = (Statement(f"{many} SELECT zeroblob(1000000) FROM c", ((50,),)),)
    for asked, rows_max, what in ((statements, 2_001, "rows"), (large, None, "bytes")):
        with pytest.raises(DataError, match=what) as caught:
            machine.query_reply(asked, rows_max, stop)
        assert caught.value.code == "result_too_large"
    assert machine.query_reply((Statement("SELECT 1"),), None, stop), "the reader serves the next"


def test_an_answer_says_the_index_of_its_snapshot(tmp_path: Path) -> None:
    filled = Database(tmp_path, clock=CpuClock())
    filled.run("CREATE TABLE t(id INTEGER PRIMARY KEY, a)", "INSERT INTO t(a) VALUES (0)")
    machine = filled.machine
    count = (Statement("SELECT count(*) FROM t"),)
    before = int(machine.applied()[0])
    filled.run("INSERT INTO t(a) VALUES (1)")
    after = int(machine.applied()[0])
    assert machine.query_briefly(count, None, before) is None, "it would show something newer"
    results, index = machine.query_at(count)
    assert (results.statements[0].rows, index) == (((2,),), after)
    assert machine.query_rows(count[0].sql) == (("count(*)",), [(2,)], after)
    stream = machine.open_stream()
    stream.begin("SELECT id FROM t", (), 5.0, QueryStop())
    filled.run("INSERT INTO t(a) VALUES (2)")
    assert stream.index == after
    stream.close()
    filled.close()


def test_half_an_entry_counts_as_that_entry(tmp_path: Path) -> None:
    """What a client saw of it, another node must have before it is asked next."""
    database = Database(tmp_path)
    database.run("CREATE TABLE t(a)")
    machine = database.machine
    shown: list[int] = []
    transaction = machine._applier._transaction

    def watched(units: Any, failed: bytes | None = None) -> int:
        count = transaction(units, failed)
        shown.append(machine.query_at((Statement("SELECT count(*) FROM t"),))[1])
        return count

    machine._applier._transaction = watched  # type: ignore[method-assign]
    index = database.next_index
    requests = [
        database.request("INSERT INTO t VALUES (1)"),
        database.request("PRAGMA user_version = 3", foreign_keys=False),
    ]
    machine.apply([database.entry(*requests)])
    assert shown == [index, index]
    database.close()


def test_a_long_value_is_not_gathered_in_passing_and_short_ones_of_that_statement_are(
    tmp_path: Path,
) -> None:
    database = Database(tmp_path, clock=CpuClock())
    database.run("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    database.run("INSERT INTO t VALUES (1, zeroblob(5000000)), (2, 'short')")
    machine, index = database.machine, int(database.machine.applied()[0])

    def read(row: int) -> tuple[Statement, ...]:
        return (Statement("SELECT v FROM t WHERE id = ?", ((row,),)),)

    assert machine.query_briefly(read(1), None, index) is None
    assert machine.query_briefly(read(2), None, index) is not None, "the statement is no long one"
    [result] = machine.query(read(1)[0]).statements
    assert result.rows == ((bytes(5_000_000),),)
    size = Statement("SELECT length(v) FROM t WHERE id = 1")
    assert machine.query_briefly((size,), None, index) is not None, "no value is gathered for it"
    # A text that long is refused everywhere; this one is not.
    wide = "SELECT '" + "x" * 900_000 + "' AS x"
    assert machine.query(Statement(wide)).statements[0].rows == (("x" * 900_000,),)
    database.close()
