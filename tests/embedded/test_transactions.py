"""Transactions over many calls, batches that refer to earlier results, and outcomes, at a cluster
of embedded nodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import raftdb
from raftdb.client import Connection
from raftdb.client.actions import Await, LinkError, Transmit
from raftdb.command import ReadToken
from tests.embedded.conftest import Members


@pytest.fixture(scope="module")
def db(members: Members) -> Iterator[Connection]:
    """A connection to the cluster."""
    with raftdb.connect(members.founded.url) as connection:
        connection.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, owner UNIQUE, money)")
        connection.execute("CREATE TABLE line (account REFERENCES account, what)")
        yield connection


@pytest.fixture(autouse=True)
def rows(db: Connection) -> None:
    db.rollback()  # Of a test that failed: the others stand by themselves.
    db.execute("DELETE FROM line")
    db.execute("DELETE FROM account")
    db.executemany("INSERT INTO account VALUES (?, ?, 100)", [(1, "ada"), (2, "bob")])


def money(db: Connection, id: int = 1) -> Any:
    return db.execute("SELECT money FROM account WHERE id = ?", (id,)).fetchone()[0]


def test_it_sees_its_own_writes_and_commits_them_as_one(members: Members, db: Connection) -> None:
    with raftdb.connect(members.founded.url) as other:
        db.begin()
        assert db.in_transaction
        db.execute("UPDATE account SET money = money - 30 WHERE id = 1")
        db.execute("UPDATE account SET money = money + 30 WHERE id = 2")
        assert (money(db, 1), money(db, 2)) == (70, 130)
        assert (money(other, 1), money(other, 2)) == (100, 100)
        before = other.last_index
        db.commit()
        assert not db.in_transaction
        assert (money(other, 1), money(other, 2)) == (70, 130)
        assert other.last_index == before + 1, "one entry"
        db.commit()
        db.rollback()


def test_its_commit_is_among_what_its_connection_has_seen(members: Members, db: Connection) -> None:
    """Session reads, tokens and await_durable go by that, at other nodes and for others."""
    with raftdb.connect(members.founded.url) as other:
        other.execute("INSERT INTO account VALUES (3, 'eve', 100)")
        with db.transaction():
            assert money(db, 3) == 100
            assert ReadToken.from_text(db.token).index >= other.last_index, "what it was shown"
            db.execute("UPDATE account SET money = 0 WHERE id = 3")
        assert db.last_index > other.last_index
        assert ReadToken.from_text(db.token).index == db.last_index


def test_rollback_and_reading_alone_log_nothing(db: Connection) -> None:
    money(db)
    before = db.last_index

    def give_up() -> None:
        with db.transaction():
            db.execute("DELETE FROM account")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        give_up()
    with db.transaction("immediate"):
        assert money(db) == 100
    money(db)
    assert db.last_index == before


def test_typed_as_sql(db: Connection) -> None:
    db.execute("BEGIN IMMEDIATE TRANSACTION")
    db.execute("UPDATE account SET money = 1 WHERE id = 1")
    db.execute("SAVEPOINT one")
    db.execute("UPDATE account SET money = 2 WHERE id = 1")
    db.execute("ROLLBACK TO one")
    assert money(db) == 1
    with pytest.raises(raftdb.ProgrammingError, match="within a transaction"):
        db.execute("BEGIN")
    db.execute("-- the end\nEND;")
    assert money(db) == 1
    db.execute("begin")
    db.execute("UPDATE account SET money = 5")
    db.execute("rollback transaction")
    assert money(db) == 1
    for sql in ("COMMIT", "ROLLBACK"):
        with pytest.raises(raftdb.ProgrammingError, match="no transaction is active"):
            db.execute(sql)


def test_a_savepoint_alone_is_a_transaction(db: Connection) -> None:
    db.execute("SAVEPOINT outer_one")
    db.execute("UPDATE account SET money = 7")
    db.execute("SAVEPOINT inner_one")
    db.execute("RELEASE inner_one")
    assert db.in_transaction
    db.execute("RELEASE SAVEPOINT Outer_One")
    assert not db.in_transaction
    assert money(db) == 7


def test_savepoints_of_one_name_nest(db: Connection) -> None:
    """RELEASE is of the innermost one of that name: the transaction is not committed by it."""
    db.execute("SAVEPOINT a -- the outer one")
    db.execute("UPDATE account SET money = 7")
    db.execute("savepoint A")
    db.execute("UPDATE account SET money = 8")
    db.execute("RELEASE a")
    assert db.in_transaction
    db.execute("ROLLBACK TO a")
    assert money(db) == 100
    db.execute("SAVEPOINT b")
    db.execute("RELEASE a /* and all within */")
    assert not db.in_transaction
    assert money(db) == 100


@pytest.mark.parametrize("begin", ["SAVEPOINT outer_one", "BEGIN"])
def test_a_batch_ends_no_savepoint_but_its_own(db: Connection, begin: str) -> None:
    """Its own would be gone with that: it failed, and what it had done stayed."""
    update = "UPDATE account SET money = 7"
    db.execute(begin)
    db.execute("SAVEPOINT a")
    for end in ("RELEASE a", "ROLLBACK TO SAVEPOINT A", "RELEASE raftdb_batch"):
        with pytest.raises(raftdb.ProgrammingError, match="did not open") as caught:
            db.batch([update, "SAVEPOINT b", "RELEASE b", end])
        assert caught.value.detail["statement"] == 3
        assert money(db) == 100
    db.batch(["SAVEPOINT A", update, "ROLLBACK TO a", "RELEASE a"])
    assert (db.in_transaction, money(db)) == (True, 100)
    db.execute("RELEASE a")
    db.commit()


def test_whoever_asks_what_became_of_a_refused_write_goes_on_writing(db: Connection) -> None:
    """The question takes the number that the write had not taken."""
    with pytest.raises(raftdb.InterfaceError, match="cannot be met"):
        db.execute("UPDATE account SET money = 1", durability="locations=9")
    assert db.last_write is not None
    session, sequence = db.last_write
    assert db.outcome(session=session, sequence=sequence).state == "not_applied"
    db.execute("UPDATE account SET money = 2")
    assert money(db) == 2


def test_what_is_read_in_this_process_is_among_what_was_seen(
    db: Connection, members: Members
) -> None:
    """The next session read may be another node's, or another connection's with the token."""
    node = members.running()[0]
    for read in (
        lambda here: here.execute("SELECT 1", read="local").index,
        lambda here: here.batch(["SELECT 1", "SELECT 2"]) and here.last_index,
    ):
        with node.connect(read="local") as here:
            index = read(here)
            assert ReadToken.from_text(here.token).index == index
        db.see(ReadToken(bytes.fromhex(node.status()["history"]), 0, index).to_text())


def test_a_failure_within_a_transaction_is_among_what_was_seen(
    db: Connection, members: Members
) -> None:
    """It tells that the row is there; the next session read must not deny it."""
    with raftdb.connect(members.founded.url) as other:
        other.execute("BEGIN")
        with pytest.raises(raftdb.IntegrityError):
            other.execute("INSERT INTO account VALUES (1, 'eve', 5)")
        assert other.token
        other.rollback()


def test_autocommit_off_is_pep_249(db: Connection) -> None:
    db.autocommit = False
    try:
        db.execute("UPDATE account SET money = 8")
        assert db.in_transaction
        db.rollback()
        assert money(db) == 100
        db.execute("UPDATE account SET money = 9")
        db.commit()
    finally:
        db.autocommit = True
    assert not db.in_transaction
    assert money(db) == 9


def test_a_failed_statement_leaves_it_open_and_or_rollback_ends_it(db: Connection) -> None:
    with db.transaction():
        db.execute("INSERT INTO account VALUES (3, 'eve', 1)")
        with pytest.raises(raftdb.IntegrityError):
            db.execute("INSERT INTO account VALUES (4, 'eve', 1)")
        with pytest.raises(raftdb.ProgrammingError):
            db.execute("nonsense")
    assert money(db, 3) == 1
    db.begin()
    db.execute("DELETE FROM account WHERE id = 3")
    with pytest.raises(raftdb.IntegrityError):
        db.execute("INSERT OR ROLLBACK INTO account VALUES (4, 'ada', 1)")
    assert not db.in_transaction
    assert money(db, 3) == 1


def test_deferred_keys_leave_it_open_at_commit(db: Connection) -> None:
    db.begin()
    db.execute("PRAGMA defer_foreign_keys = ON")
    db.execute("INSERT INTO line VALUES (9, 'x')")
    with pytest.raises(raftdb.IntegrityError, match="FOREIGN KEY"):
        db.commit()
    assert db.in_transaction
    db.execute("INSERT INTO account VALUES (9, 'ida', 0)")
    db.commit()
    assert db.execute("SELECT what FROM line").fetchall() == [("x",)]


def test_conflicts_are_retried(members: Members, db: Connection) -> None:
    with raftdb.connect(members.founded.url) as other:
        db.begin()
        seen = money(db)
        other.execute("UPDATE account SET money = 1 WHERE id = 1")
        db.execute("UPDATE account SET money = ? WHERE id = 1", (seen + 10,))
        with pytest.raises(raftdb.OperationalError) as conflict:
            db.commit()
        assert (conflict.value.code, conflict.value.outcome) == (
            "transaction_conflict",
            "not_applied",
        )
        assert not db.in_transaction
        calls: list[int] = []

        def add(connection: Connection) -> int:
            calls.append(1)
            now = int(money(connection))
            if len(calls) == 1:
                other.execute("UPDATE account SET money = 50 WHERE id = 1")
            connection.execute("UPDATE account SET money = ? WHERE id = 1", (now + 10,))
            return now + 10

        assert db.run_transaction(add) == 60
        assert (len(calls), money(db)) == (2, 60)


def test_a_lost_transaction_stays_in_the_way_until_it_is_rolled_back(
    members: Members, db: Connection
) -> None:
    db.begin()
    db.execute("UPDATE account SET money = 0")
    with members.leader().connect() as other:
        other.transfer_leadership()
    members.leader()
    for _ in range(2):
        with pytest.raises(raftdb.Error) as lost:
            db.execute("UPDATE account SET money = 1")
        assert lost.value.outcome == "not_applied"
    assert db.in_transaction
    with pytest.raises(raftdb.OperationalError, match="is lost"):
        db.commit()
    assert not db.in_transaction
    assert money(db) == 100


def test_a_batch_inside_and_many_rows(db: Connection) -> None:
    with db.transaction():
        db.batch(
            [
                "INSERT INTO account VALUES (10, 'j', 0)",
                ("INSERT INTO line VALUES (?, 'b')", (raftdb.lastrowid(0),)),
            ]
        )
        with pytest.raises(raftdb.IntegrityError) as failed:
            db.batch(["DELETE FROM line", "INSERT INTO account VALUES (10, 'k', 0)"])
        assert failed.value.detail["statement"] == 1
        db.executemany("INSERT INTO line VALUES (10, ?)", [("c",), ("d",)])
        with pytest.raises(raftdb.InterfaceError, match="own snapshot"):
            db.execute("SELECT 1", read="local")
    assert db.execute("SELECT what FROM line").fetchall() == [("b",), ("c",), ("d",)]


def test_a_batch_refers_to_its_own_results(db: Connection) -> None:
    results = db.batch(
        [
            "INSERT INTO account (owner, money) VALUES ('x', 5), ('y', 6) RETURNING id AS n, money",
            raftdb.Statement(
                "INSERT INTO line VALUES (?, ?)",
                ((raftdb.lastrowid(0), "last"), (raftdb.returned(0, "N", 0), "first")),
            ),
            (
                "SELECT :a + :b",
                {"a": raftdb.returned(0, 1, 1), "b": raftdb.returned(0, "money")},
            ),
        ]
    )
    ids = [row[0] for row in results[0].rows]
    assert results[2].rows == ((11,),)
    assert db.execute("SELECT account, what FROM line ORDER BY what").fetchall() == [
        (ids[0], "first"),
        (ids[1], "last"),
    ]
    for parameter in (raftdb.returned(0, "nothing"), raftdb.returned(0, 7), raftdb.lastrowid(1)):
        with pytest.raises(raftdb.Error) as wrong:
            db.batch(["DELETE FROM line RETURNING what", ("SELECT ?", (parameter,))])
        assert wrong.value.outcome == "not_applied"
    assert db.execute("SELECT count(*) FROM line").fetchone() == (2,)
    with pytest.raises(raftdb.InterfaceError):
        raftdb.lastrowid(-1)
    with pytest.raises(raftdb.DataError, match="not stored"):
        db.execute("SELECT ?", (raftdb.lastrowid(0),))


def test_an_idempotency_key_takes_effect_once(members: Members, db: Connection) -> None:
    sql = "UPDATE account SET money = money - 1 WHERE id = 1 RETURNING money"
    with raftdb.connect(members.founded.url) as other:
        for connection in (db, other):
            rows = connection.execute(sql, idempotency_key="order-42").fetchall()
            assert rows == [(99,)]
    assert money(db) == 99
    with pytest.raises(raftdb.ProgrammingError) as reused:
        db.execute("DELETE FROM account", idempotency_key="order-42")
    assert reused.value.code == "key_reused"
    found = db.outcome(idempotency_key="order-42")
    assert (found.state, found.results[0].rows) == ("applied", ((99,),))
    assert db.outcome(idempotency_key="order-43").state == "not_applied"
    with pytest.raises(raftdb.OperationalError) as burned:
        db.execute(sql, idempotency_key="order-43")
    assert (burned.value.code, burned.value.outcome) == ("burned", "not_applied")
    # A failure leaves the key free.
    with pytest.raises(raftdb.IntegrityError):
        db.execute("INSERT INTO account VALUES (1, 'z', 0)", idempotency_key="order-44")
    db.execute("INSERT INTO account VALUES (5, 'z', 0)", idempotency_key="order-44")
    db.begin()
    db.execute("UPDATE account SET money = 3")
    with pytest.raises(raftdb.InterfaceError, match="commit"):
        db.execute("SELECT 1", idempotency_key="inside")
    db.commit(idempotency_key="order-45", horizon=db.horizon())
    db.run_transaction(
        lambda c: c.execute("UPDATE account SET money = 3"), idempotency_key="order-45"
    )
    assert db.outcome(idempotency_key="order-45").state == "applied"
    assert money(db) == 3


def test_what_became_of_a_request(members: Members, db: Connection) -> None:
    db.execute("UPDATE account SET money = 4 RETURNING id")
    assert db.last_write is not None
    session, sequence = db.last_write
    with raftdb.connect(members.founded.url) as other:
        found = other.outcome(session=session, sequence=sequence)
        assert (found.state, found.results[0].rows) == ("applied", ((1,), (2,)))
        with pytest.raises(raftdb.IntegrityError):
            db.execute("INSERT INTO account VALUES (1, 'z', 0)")
        failed = other.outcome(session=session, sequence=sequence + 1)
        assert failed.state == "not_applied"
        assert isinstance(failed.error, raftdb.IntegrityError)
        # Asked for too early: it never takes effect.
        assert other.outcome(session=session, sequence=sequence + 2).state == "not_applied"
        with pytest.raises(raftdb.OperationalError) as burned:
            db.execute("DELETE FROM account")
        assert burned.value.code == "burned"
        assert money(db) == 4
        db.execute("UPDATE account SET money = 5")
        number = int.from_bytes(bytes.fromhex(session)[16:24], "big") + (1 << 40)
        unknown = bytes.fromhex(session)[:16] + number.to_bytes(8, "big") + bytes(16)
        assert other.outcome(session=unknown.hex(), sequence=1).state == "unknown"
    with pytest.raises(raftdb.InterfaceError):
        db.outcome(session=session)


@pytest.mark.parametrize("arrives", [True, False])
def test_a_commit_whose_reply_is_lost_is_asked_for(members: Members, arrives: bool) -> None:
    with raftdb.connect(members.founded.url) as db:
        db.begin()
        db.execute("UPDATE account SET money = money - 1 WHERE id = 1")
        do = db._driver._do
        kind = Await if arrives else Transmit
        carry_out = do[kind]

        def lose(action: Any) -> Any:
            do[kind] = carry_out
            if arrives:
                carry_out(action)
            raise LinkError("was reset")

        do[kind] = lose
        if arrives:
            db.commit()
        else:
            with pytest.raises(raftdb.OperationalError) as lost:
                db.commit()
            assert (lost.value.code, lost.value.outcome) == ("transaction_lost", "not_applied")
        assert not db.unsettled
        assert not db.in_transaction
        assert money(db) == (99 if arrives else 100)
        db.execute("UPDATE account SET money = 5")
        assert money(db) == 5
