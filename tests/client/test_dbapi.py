"""DB-API 2.0 (PEP 249), point by point, against a node that runs SQLite. Where the standard
library's sqlite3 is more lenient than the text of PEP 249, we are as lenient."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from typing import Any

import pytest

import raftdb
from raftdb.wire import Execute, Query
from tests.client.server import FakeNode

Db = raftdb.Connection
DRINKS = ["Cooper's", "Boag's", "Victoria Bitter", "Pilsner", "Märzen"]


@pytest.fixture
def drinks(db: Db) -> Db:
    """A table of five names."""
    db.execute("CREATE TABLE drinks (id INTEGER PRIMARY KEY, name TEXT UNIQUE)")
    db.executemany("INSERT INTO drinks (name) VALUES (?)", [(name,) for name in DRINKS])
    return db


def requests(node: FakeNode, kind: type) -> list[Any]:
    return [message for message in node.requests if isinstance(message, kind)]


# ---- the module


def test_module_globals() -> None:
    assert raftdb.apilevel == "2.0"
    assert raftdb.threadsafety == 1
    assert raftdb.paramstyle == "qmark"


def test_exceptions_have_the_inheritance_of_the_standard() -> None:
    assert issubclass(raftdb.Warning, Exception)
    assert issubclass(raftdb.Error, Exception)
    assert issubclass(raftdb.InterfaceError, raftdb.Error)
    assert issubclass(raftdb.DatabaseError, raftdb.Error)
    for name in ("Data", "Operational", "Integrity", "Internal", "Programming", "NotSupported"):
        assert issubclass(getattr(raftdb, f"{name}Error"), raftdb.DatabaseError)


def test_exceptions_are_attributes_of_connections(db: Db) -> None:
    kinds = "Interface Database Data Operational Integrity Internal Programming NotSupported"
    for name in ("Warning", "Error", *(f"{kind}Error" for kind in kinds.split())):
        assert getattr(db, name) is getattr(raftdb, name)


def test_constructors_and_type_objects() -> None:
    assert raftdb.Date(2024, 5, 6).isoformat() == "2024-05-06"
    assert raftdb.Time(7, 8, 9).isoformat() == "07:08:09"
    assert raftdb.Timestamp(2024, 5, 6, 7, 8, 9).isoformat(" ") == "2024-05-06 07:08:09"
    assert raftdb.DateFromTicks(86_400 * 365).year == 1971
    assert raftdb.TimestampFromTicks(86_400 * 365).year == 1971
    assert raftdb.TimeFromTicks(0.0).second == 0
    assert raftdb.Binary(b"x") == b"x"
    same: list[tuple[Any, Any]] = [
        (raftdb.STRING, str),
        (raftdb.BINARY, bytes),
        (raftdb.NUMBER, float),
    ]
    for type_object, kind in same:
        assert type_object == kind
    assert raftdb.STRING != 5
    assert raftdb.DATETIME != raftdb.ROWID
    assert len({raftdb.STRING, raftdb.BINARY, raftdb.NUMBER, raftdb.DATETIME, raftdb.ROWID}) == 5


def test_everything_public_is_there() -> None:
    for name in raftdb.__all__:
        assert getattr(raftdb, name) is not None
        assert name in dir(raftdb)
    with pytest.raises(AttributeError):
        raftdb.nonsense  # noqa: B018


# ---- connections


def test_nothing_is_dialled_before_the_first_request(
    node: FakeNode, connect: Callable[..., Db]
) -> None:
    db = connect()
    assert node.accepted == 0
    assert db.ping() == "n1"
    assert node.accepted == 1


def test_commit_and_rollback_with_nothing_open_are_harmless(drinks: Db) -> None:
    drinks.commit()
    drinks.rollback()
    assert drinks.execute("SELECT count(*) FROM drinks").fetchone() == (5,)
    assert drinks.in_transaction is False
    assert drinks.autocommit is True
    drinks.autocommit = True
    with pytest.raises(raftdb.InterfaceError):
        drinks.autocommit = 1


def test_close(connect: Callable[..., Db]) -> None:
    db = connect()
    cursor = db.cursor()
    db.close()
    db.close()
    for call in (
        db.cursor,
        db.commit,
        db.rollback,
        db.status,
        db.__enter__,
        lambda: db.execute("SELECT 1"),
        lambda: db.batch(["SELECT 1"]),
        lambda: cursor.execute("SELECT 1"),
        cursor.fetchone,
        cursor.fetchall,
        cursor.fetchmany,
        lambda: next(cursor),
    ):
        with pytest.raises(raftdb.InterfaceError, match="closed"):
            call()


def test_with_closes(connect: Callable[..., Db]) -> None:
    with connect() as db:
        db.execute("SELECT 1")
    with pytest.raises(raftdb.InterfaceError):
        db.execute("SELECT 1")
    assert "closed" in repr(db)


def test_two_connections_see_the_same(connect: Callable[..., Db]) -> None:
    first, second = connect(), connect()
    first.execute("CREATE TABLE t (a)")
    first.execute("INSERT INTO t VALUES (1)")
    assert second.execute("SELECT * FROM t").fetchall() == [(1,)]


def test_cursors_of_one_connection_are_apart(drinks: Db) -> None:
    first, second = drinks.cursor(), drinks.cursor()
    assert first.connection is second.connection is drinks
    first.execute("SELECT name FROM drinks ORDER BY id")
    second.execute("SELECT id FROM drinks ORDER BY id DESC")
    assert first.fetchone() == (DRINKS[0],)
    assert second.fetchone() == (5,)
    assert first.fetchone() == (DRINKS[1],)


def test_two_threads_at_once_are_told(node: FakeNode, db: Db) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def before(message: object) -> str:
        if isinstance(message, Query):
            inside.set()
            go_on.wait(10)
        return ""

    node.before = before
    thread = threading.Thread(target=lambda: db.execute("SELECT 1"))
    thread.start()
    assert inside.wait(10)
    with pytest.raises(raftdb.InterfaceError, match="another thread"):
        db.execute("SELECT 1")
    go_on.set()
    thread.join(10)
    assert db.execute("SELECT 2").fetchone() == (2,)


# ---- execute


def test_description(drinks: Db) -> None:
    cursor = drinks.cursor()
    assert cursor.description is None
    cursor.execute("SELECT id, name AS n FROM drinks WHERE 0")
    assert [column[0] for column in cursor.description or ()] == ["id", "n"]
    assert all(len(column) == 7 for column in cursor.description or ())
    cursor.execute("DELETE FROM drinks WHERE 0")
    assert cursor.description is None
    cursor.execute("CREATE TABLE other (a)")
    assert cursor.description is None


def test_rowcount(drinks: Db) -> None:
    cursor = drinks.cursor()
    assert cursor.rowcount == -1
    assert cursor.execute("UPDATE drinks SET name = name || '!' WHERE id < 3").rowcount == 2
    assert cursor.execute("SELECT * FROM drinks").rowcount == -1
    assert cursor.execute("CREATE TABLE other (a)").rowcount == -1
    assert cursor.execute("DELETE FROM drinks WHERE 0").rowcount == 0
    assert cursor.execute("DELETE FROM drinks").rowcount == 5
    many = cursor.executemany("INSERT INTO other VALUES (?)", [(n,) for n in range(7)])
    assert many.rowcount == 7
    assert cursor.execute("WITH n AS (SELECT 8) INSERT INTO other SELECT * FROM n").rowcount == 1


def test_lastrowid(drinks: Db) -> None:
    cursor = drinks.cursor()
    assert cursor.lastrowid is None
    cursor.execute("INSERT INTO drinks (name) VALUES ('Kölsch')")
    assert cursor.lastrowid == 6
    cursor.execute("UPDATE drinks SET name = 'Alt' WHERE id = 6")
    cursor.execute("SELECT 1")
    assert cursor.lastrowid == 6, "as sqlite3: only INSERT and REPLACE move it"
    cursor.execute("REPLACE INTO drinks VALUES (99, 'Stout')")
    assert cursor.lastrowid == 99


def test_parameters_by_place_and_by_name(drinks: Db) -> None:
    sql = "SELECT id FROM drinks WHERE name = ? AND id > ?"
    assert drinks.execute(sql, ("Pilsner", 0)).fetchall() == [(4,)]
    assert drinks.execute(sql, ["Pilsner", 4]).fetchall() == []
    sql = "SELECT id FROM drinks WHERE name = :name"
    assert drinks.execute(sql, {"name": "Märzen", "more": 1}).fetchall() == [(5,)]


@pytest.mark.parametrize(
    "value",
    [None, 0, -1, (1 << 63) - 1, -(1 << 63), 1.5, "", "it's ü 😀", b"", b"\0\xff", "a\0b"],
)
def test_values_come_back_as_they_went(db: Db, value: Any) -> None:
    assert db.execute("SELECT ?", (value,)).fetchone() == (value,)
    db.execute("CREATE TABLE t (a)")
    db.execute("INSERT INTO t VALUES (?)", (value,))
    ((stored,),) = db.execute("SELECT a FROM t").fetchall()
    assert stored == value
    assert type(stored) is type(value)


def test_errors_of_statements(drinks: Db) -> None:
    with pytest.raises(raftdb.IntegrityError, match="UNIQUE") as caught:
        drinks.execute("INSERT INTO drinks (name) VALUES (?)", (DRINKS[0],))
    assert caught.value.outcome == "not_applied"
    with pytest.raises(raftdb.ProgrammingError):
        drinks.execute("SELECT nonsense FROM drinks")
    with pytest.raises(raftdb.ProgrammingError):
        drinks.execute("SELEKT 1")
    with pytest.raises(raftdb.ProgrammingError):
        drinks.execute("SELECT ?", ())
    with pytest.raises(raftdb.DataError):
        drinks.execute("SELECT ?", (1 << 64,))
    assert drinks.execute("SELECT count(*) FROM drinks").fetchone() == (5,), "still of use"


@pytest.mark.parametrize("sql", [None, 5, b"SELECT 1"])
def test_sql_is_text(db: Db, sql: Any) -> None:
    for call in (db.execute, db.executescript):
        with pytest.raises(raftdb.InterfaceError):
            call(sql)
    with pytest.raises(raftdb.InterfaceError):
        db.executemany(sql, [])


def test_an_empty_statement_does_nothing(node: FakeNode, db: Db) -> None:
    cursor = db.execute(" -- nothing")
    assert (cursor.description, cursor.fetchall()) == (None, [])
    assert node.accepted == 0


def test_returning(drinks: Db) -> None:
    cursor = drinks.execute("INSERT INTO drinks (name) VALUES ('Bock') RETURNING id, name")
    assert [column[0] for column in cursor.description or ()] == ["id", "name"]
    assert cursor.fetchall() == [(6, "Bock")]
    cursor = drinks.executemany(
        "INSERT INTO drinks (name) VALUES (?) RETURNING id", [("a",), ("b",)]
    )
    assert cursor.fetchall() == [(7,), (8,)]


# ---- executemany, executescript, batch: one request each


def test_executemany_is_one_request(node: FakeNode, drinks: Db) -> None:
    before = len(requests(node, Execute))
    drinks.executemany("INSERT INTO drinks (name) VALUES (:n)", ({"n": str(n)} for n in range(100)))
    assert len(requests(node, Execute)) == before + 1
    assert drinks.execute("SELECT count(*) FROM drinks").fetchone() == (105,)


def test_executemany_is_all_or_nothing(drinks: Db) -> None:
    with pytest.raises(raftdb.IntegrityError):
        drinks.executemany("INSERT INTO drinks (name) VALUES (?)", [("new",), (DRINKS[0],)])
    assert drinks.execute("SELECT count(*) FROM drinks").fetchone() == (5,)


def test_executemany_of_nothing(node: FakeNode, drinks: Db) -> None:
    before = len(node.requests)
    assert drinks.executemany("INSERT INTO drinks (name) VALUES (?)", []).rowcount == 0
    assert len(node.requests) == before


def test_executemany_is_not_for_queries(drinks: Db) -> None:
    with pytest.raises(raftdb.ProgrammingError):
        drinks.executemany("SELECT ?", [(1,)])


def test_executescript_is_one_request(node: FakeNode, db: Db) -> None:
    script = """
        PRAGMA user_version;
        BEGIN TRANSACTION;
        CREATE TABLE t (a); -- ;
        CREATE TRIGGER r AFTER INSERT ON t BEGIN DELETE FROM t WHERE a > 5; SELECT 1; END;
        INSERT INTO t VALUES (1), (9);
        COMMIT;
    """
    db.executescript(script)
    assert len(requests(node, Execute)) == 1
    assert db.execute("SELECT a FROM t").fetchall() == [(1,)]
    with pytest.raises(raftdb.ProgrammingError):
        db.executescript("INSERT INTO t VALUES (2); SELEKT;")
    assert db.execute("SELECT a FROM t").fetchall() == [(1,)]
    db.executescript(" -- nothing")


def test_a_dump_of_sqlite_is_a_script(db: Db) -> None:
    source = sqlite3.connect(":memory:")
    source.executescript("CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 'x;y'), (2, NULL)")
    db.executescript("\n".join(source.iterdump()))
    source.close()
    assert db.execute("SELECT * FROM t ORDER BY a").fetchall() == [(1, "x;y"), (2, None)]


def test_batch(node: FakeNode, drinks: Db) -> None:
    before = len(requests(node, Execute))
    results = drinks.batch(
        [
            "INSERT INTO drinks (name) VALUES ('Bock')",
            ("UPDATE drinks SET name = ? WHERE id = ?", ("Weizen", 1)),
            raftdb.Statement("INSERT INTO drinks (name) VALUES (?)", (("x",), ("y",))),
            ("SELECT count(*) AS n FROM drinks WHERE id > :id", {"id": 0}),
        ]
    )
    assert len(requests(node, Execute)) == before + 1
    assert [result.rowcount for result in results] == [1, 1, 2, -1]
    assert [result.lastrowid for result in results] == [6, None, 8, None]
    assert results[3].columns == ("n",)
    assert results[3].rows == ((8,),)


def test_batch_is_all_or_nothing_and_says_where(drinks: Db) -> None:
    with pytest.raises(raftdb.IntegrityError) as caught:
        drinks.batch(["DELETE FROM drinks", ("INSERT INTO drinks VALUES (1, NULL), (1, 'x')")])
    assert caught.value.detail["statement"] == 1
    assert drinks.execute("SELECT count(*) FROM drinks").fetchone() == (5,)


def test_batch_of_reads_is_one_read(node: FakeNode, drinks: Db) -> None:
    before = len(requests(node, Execute))
    first, second = drinks.batch(["SELECT 1", "SELECT count(*) FROM drinks"])
    assert (first.rows, second.rows) == (((1,),), ((5,),))
    assert len(requests(node, Execute)) == before
    assert len(requests(node, Query)[-1].statements) == 2


@pytest.mark.parametrize(
    "item", [5, None, ("SELECT 1",), ("SELECT 1", 5), (5, ()), ("SELECT ?", {1})]
)
def test_bad_items_of_a_batch(db: Db, item: Any) -> None:
    with pytest.raises(raftdb.InterfaceError, match="of the batch"):
        db.batch([item])
    assert db.batch([]) == []


def test_a_batch_that_is_too_long(db: Db) -> None:
    with pytest.raises(raftdb.DataError) as caught:
        db.batch(["SELECT 1"] * 10_001)
    assert caught.value.code == "too_many_statements"


# ---- fetching


def test_fetchone(drinks: Db) -> None:
    cursor = drinks.cursor()
    assert cursor.fetchone() is None
    cursor.execute("SELECT name FROM drinks WHERE id = 1")
    assert cursor.fetchone() == ("Cooper's",)
    assert cursor.fetchone() is None
    cursor.execute("CREATE TABLE other (a)")
    assert cursor.fetchone() is None


def test_fetchmany(drinks: Db) -> None:
    cursor = drinks.cursor()
    assert cursor.fetchmany() == []
    cursor.execute("SELECT name FROM drinks ORDER BY id")
    assert cursor.arraysize == 1
    assert len(cursor.fetchmany()) == 1
    assert [name for (name,) in cursor.fetchmany(2)] == DRINKS[1:3]
    cursor.arraysize = 4
    assert len(cursor.fetchmany()) == 2
    assert cursor.fetchmany(9) == []
    assert cursor.fetchmany(0) == []
    with pytest.raises(raftdb.InterfaceError):
        cursor.fetchmany(-1)


def test_fetchall_and_mixed(drinks: Db) -> None:
    cursor = drinks.execute("SELECT name FROM drinks ORDER BY id")
    first = cursor.fetchone()
    two = cursor.fetchmany(2)
    rest = cursor.fetchall()
    assert [name for (name,) in [first, *two, *rest]] == DRINKS
    assert cursor.fetchall() == []


def test_iteration(drinks: Db) -> None:
    assert [name for (name,) in drinks.execute("SELECT name FROM drinks ORDER BY id")] == DRINKS
    cursor = drinks.execute("SELECT id FROM drinks ORDER BY id")
    assert next(cursor) == (1,)
    assert list(cursor) == [(2,), (3,), (4,), (5,)]


def test_a_new_execute_forgets_the_old_rows(drinks: Db) -> None:
    cursor = drinks.execute("SELECT * FROM drinks")
    cursor.execute("SELECT 1")
    assert cursor.fetchall() == [(1,)]
    with pytest.raises(raftdb.ProgrammingError):
        cursor.execute("SELEKT")
    assert cursor.fetchall() == []


def test_a_closed_cursor(drinks: Db) -> None:
    with drinks.execute("SELECT 1") as cursor:
        pass
    for call in (cursor.fetchone, cursor.fetchall, lambda: cursor.execute("SELECT 1")):
        with pytest.raises(raftdb.InterfaceError, match="cursor is closed"):
            call()
    cursor.close()


def test_sizes_are_accepted(db: Db) -> None:
    cursor = db.cursor()
    cursor.setinputsizes((25,))
    cursor.setoutputsize(1000)
    cursor.setoutputsize(2000, 0)


def test_large_results_come_in_pieces(db: Db) -> None:
    cursor = db.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)"
        " SELECT i, printf('%020d', i) FROM n"
    )
    rows = cursor.fetchall()
    assert len(rows) == 20_000
    assert rows[-1] == (20_000, "0" * 15 + "20000")


# ---- rows by name


def test_rows_by_name(drinks: Db) -> None:
    drinks.row_factory = raftdb.Row
    row = drinks.execute("SELECT id, name AS Label FROM drinks WHERE id = 4").fetchone()
    assert (row["id"], row["label"], row[1], row[-2]) == (4, "Pilsner", "Pilsner", 4)
    assert row[0:1] == (4,)
    assert row.keys() == ["id", "Label"]
    assert dict(zip(row.keys(), row, strict=True)) == {"id": 4, "Label": "Pilsner"}
    assert row == (4, "Pilsner")
    assert repr(row) == "Row(id=4, Label='Pilsner')"
    with pytest.raises(IndexError):
        row["nonsense"]
    rows = drinks.execute("SELECT name FROM drinks ORDER BY id").fetchall()
    assert [one["name"] for one in rows] == DRINKS
    assert [one["id"] for one in drinks.execute("SELECT id FROM drinks ORDER BY id")] == [
        1,
        2,
        3,
        4,
        5,
    ]


def test_rows_by_ones_own_function(drinks: Db) -> None:
    drinks.row_factory = lambda cursor, row: dict(
        zip((column[0] for column in cursor.description or ()), row, strict=True)
    )
    assert drinks.execute("SELECT 1 AS a, 2 AS b").fetchone() == {"a": 1, "b": 2}


# ---- read levels, foreign keys, the cluster


def test_read_levels(node: FakeNode, connect: Callable[..., Db]) -> None:
    db = connect(read="local")
    db.execute("SELECT 1")
    db.execute("SELECT 1", read="linearizable")
    assert [query.level for query in requests(node, Query)] == ["local", "linearizable"]
    with pytest.raises(raftdb.InterfaceError, match="read level"):
        db.execute("SELECT 1", read="dirty")


def test_a_function_that_writes_goes_through_the_log(node: FakeNode, db: Db) -> None:
    """Sent as a read by its text, refused as one by the node, and executed then."""
    db.execute("CREATE TABLE t (a)")
    node.requests.clear()
    db.execute("EXPLAIN SELECT 1")
    assert len(requests(node, Query)) == 1
    db.execute("PRAGMA integrity_check(1)")
    assert not requests(node, Execute)


def test_foreign_keys(db: Db) -> None:
    db.executescript(
        "CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE c (p REFERENCES p (id))"
    )
    with pytest.raises(raftdb.IntegrityError, match="FOREIGN KEY"):
        db.execute("INSERT INTO c VALUES (1)")
    db.foreign_keys = False
    db.execute("INSERT INTO c VALUES (1)")


def test_questions_about_the_cluster(db: Db) -> None:
    assert db.ping() == "n1"
    assert db.status()["role"] == "leader"
    assert db.last_index == 0
    db.execute("CREATE TABLE t (a)")
    assert db.last_index == 2
    assert db.content_hash()["index"] == 2
    db.transfer_leadership()


def test_nothing_to_resume(db: Db) -> None:
    assert not db.unsettled
    with pytest.raises(raftdb.InterfaceError):
        db.resume()


def test_the_pragma_of_foreign_keys_is_the_connections_own(
    node: FakeNode, db: raftdb.Connection
) -> None:
    """As every program sets it when it connects; each write carries it then."""
    assert db.execute("PRAGMA foreign_keys").fetchall() == [(1,)]
    for text, on in (
        ("PRAGMA foreign_keys = OFF", False),
        ("pragma main.foreign_keys(ON);", True),
        ("PRAGMA foreign_keys=0 -- as in a dump", False),
        ("PRAGMA foreign_keys = 'yes'", True),
        ("PRAGMA foreign_keys = maybe", False),
    ):
        cursor = db.execute(text)
        assert (cursor.fetchall(), cursor.description) == ([], None)
        assert db.foreign_keys is on
    cursor = db.execute("PRAGMA foreign_keys")
    assert cursor.fetchone() == (0,)
    assert cursor.description[0][0] == "foreign_keys"  # type: ignore[index]
    db.execute("CREATE TABLE t (a)")
    db.executescript("PRAGMA foreign_keys=ON; BEGIN; INSERT INTO t VALUES (1); COMMIT;")
    sent = [message.foreign_keys for message in node.requests if isinstance(message, Execute)]
    assert sent == [False, True]
    assert db.execute("SELECT count(*) FROM t").fetchone() == (1,)
