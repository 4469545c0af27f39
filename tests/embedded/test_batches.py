"""Batches in open transactions, and what ends those: at a cluster of embedded nodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import raftdb
from raftdb.client import Connection
from raftdb.client.actions import Await, LinkError, Transmit
from tests.embedded.conftest import Members


@pytest.fixture(scope="module")
def db(members: Members) -> Iterator[Connection]:
    """A connection to the cluster."""
    with raftdb.connect(members.founded.url) as connection:
        connection.execute("CREATE TABLE holder (id INTEGER PRIMARY KEY, owner UNIQUE, money)")
        connection.execute("CREATE TABLE item (holder REFERENCES holder, what)")
        yield connection


@pytest.fixture(autouse=True)
def rows(db: Connection) -> None:
    db.rollback()  # Of a test that failed: the others stand by themselves.
    db.execute("DELETE FROM item")
    db.execute("DELETE FROM holder")
    db.executemany("INSERT INTO holder VALUES (?, ?, 100)", [(1, "ada"), (2, "bob")])


def money_of(db: Connection, id: int = 1) -> Any:
    return db.execute("SELECT money FROM holder WHERE id = ?", (id,)).fetchone()[0]


class Trips:
    """Counts how often a connection waits for an answer."""

    def __init__(self, db: Connection) -> None:
        self._do = db._driver._do
        self._transmit = self._do[Transmit]
        self.count = 0

    def __enter__(self) -> Trips:
        self._do[Transmit] = self._counted
        return self

    def _counted(self, action: Any) -> Any:
        self.count += 1
        return self._transmit(action)

    def __exit__(self, *_: object) -> None:
        self._do[Transmit] = self._transmit


INSERT_ITEM = "INSERT INTO item VALUES (1, ?)"


def test_a_batch_in_a_transaction_is_one_round_trip(db: Connection) -> None:
    with Trips(db) as trips:
        db.begin()
        results = db.batch([(INSERT_ITEM, (n,)) for n in range(50)])
        assert trips.count == 1, "BEGIN and the batch"
        assert [result.rowcount for result in results] == [1] * 50
        db.batch(["SELECT count(*) FROM item", "DELETE FROM item WHERE what < 10"])
        assert trips.count == 2
        assert db.execute("SELECT count(*) FROM item").fetchone() == (40,)
        assert trips.count == 3, "its savepoint is released together with the next statement"
        with pytest.raises(raftdb.ProgrammingError, match="no such savepoint: raftdb_batch"):
            db.execute("RELEASE raftdb_batch")
        db.batch([(INSERT_ITEM, (n,)) for n in range(100, 170)])
        assert trips.count == 6, "in two pieces"
        db.commit()
        assert trips.count == 7
    assert db.execute("SELECT count(*) FROM item").fetchone() == (110,)


def test_a_batch_that_fails_is_taken_back_by_a_second_trip(db: Connection) -> None:
    bad: list[Any] = [
        "DELETE FROM item",
        "INSERT INTO holder VALUES (1, 'eve', 0)",
        (INSERT_ITEM, ("y",)),
    ]
    db.begin()
    db.execute(INSERT_ITEM, ("x",))
    for _ in range(2):
        with Trips(db) as trips, pytest.raises(raftdb.IntegrityError) as failed:
            db.batch(bad)
        assert (trips.count, failed.value.detail["statement"]) == (2, 1)
        assert db.execute("SELECT what FROM item").fetchall() == [("x",)]
    db.commit()
    assert db.execute("SELECT what FROM item").fetchall() == [("x",)]
    # As the first thing of a transaction, too.
    db.begin()
    with pytest.raises(raftdb.IntegrityError):
        db.batch(bad)
    db.execute(INSERT_ITEM, ("z",))
    db.commit()
    assert db.execute("SELECT what FROM item").fetchall() == [("x",), ("z",)]


def test_references_of_a_batch_wait_for_what_they_refer_to(db: Connection) -> None:
    owner = "INSERT INTO holder (owner) VALUES (?) RETURNING id"
    with db.transaction(), Trips(db) as trips:
        db.batch(
            [
                (owner, ("x",)),
                (owner, ("y",)),
                ("INSERT INTO item VALUES (?, 'x')", (raftdb.returned(0, "id"),)),
                ("INSERT INTO item VALUES (?, 'y')", (raftdb.lastrowid(1),)),
            ]
        )
        assert trips.count == 2
        with pytest.raises(raftdb.ProgrammingError, match="refers to"):
            db.batch([(owner, ("z",)), (INSERT_ITEM, (raftdb.returned(0, "nothing"),))])
    found = "SELECT owner, what FROM item JOIN holder ON holder = id ORDER BY owner"
    assert db.execute(found).fetchall() == [("x", "x"), ("y", "y")]
    assert db.execute("SELECT count(*) FROM holder").fetchone() == (4,)


def test_a_batch_whose_end_it_is_leaves_nothing_committed(db: Connection) -> None:
    """OR ROLLBACK ends the transaction, also where it stands behind what failed already."""
    end = "INSERT OR ROLLBACK INTO holder VALUES (1, 'eve', 0)"
    batches: list[tuple[list[Any], int, bool]] = [
        ([(INSERT_ITEM, ("x",)), end], 1, False),
        ([(INSERT_ITEM, ("x",)), "nonsense", end], 1, True),
    ]
    for batch, place, is_open in batches:
        db.begin()
        db.execute(INSERT_ITEM, ("before",))
        with pytest.raises(raftdb.Error) as failed:
            db.batch(batch)
        assert (failed.value.detail["statement"], failed.value.outcome) == (place, "not_applied")
        assert db.in_transaction == is_open
        if is_open:
            with pytest.raises(raftdb.ProgrammingError, match="the transaction is over"):
                db.execute(INSERT_ITEM, ("not by itself",))
        db.rollback()
        assert db.execute("SELECT count(*) FROM item").fetchone() == (0,)


def test_a_batch_behind_many_savepoints(db: Connection) -> None:
    with db.transaction():
        for number in range(100):
            db.execute(f"SAVEPOINT s{number}")
        with pytest.raises(raftdb.DataError, match="savepoints are open"):
            db.batch([(INSERT_ITEM, ("x",)), (INSERT_ITEM, ("y",))])
        assert db.execute("SELECT count(*) FROM item").fetchone() == (0,)
        db.execute("RELEASE s50")
        db.batch([(INSERT_ITEM, ("x",)), (INSERT_ITEM, ("y",))])
    assert db.execute("SELECT count(*) FROM item").fetchone() == (2,)


@pytest.mark.parametrize("begin", ["BEGIN", "SAVEPOINT a"])
def test_a_batch_cannot_end_its_transaction(db: Connection, begin: str) -> None:
    db.execute(begin)
    for end in ("COMMIT", "end transaction;", "ROLLBACK", "/* */ Rollback Transaction"):
        with pytest.raises(raftdb.ProgrammingError, match="cannot end the transaction") as wrong:
            db.batch([(INSERT_ITEM, ("x",)), end])
        assert wrong.value.detail["statement"] == 1
    for script in ("BEGIN; DELETE FROM holder; COMMIT;", "BEGIN IMMEDIATE; DELETE FROM holder"):
        with pytest.raises(raftdb.ProgrammingError, match="within a transaction"):
            db.executescript(script)
    with pytest.raises(raftdb.ProgrammingError, match=r"COMMIT \[TRANSACTION\] stands"):
        db.execute("COMMIT; SELECT 1")
    db.executescript("DELETE FROM item; INSERT INTO item VALUES (1, 'kept');")
    assert db.in_transaction
    db.commit()
    assert db.execute("SELECT what FROM item").fetchall() == [("kept",)]
    db.autocommit = False
    try:
        with pytest.raises(raftdb.ProgrammingError, match="within a transaction"):
            db.executescript("BEGIN; DELETE FROM item; COMMIT;")
        db.rollback()
    finally:
        db.autocommit = True
    db.executescript("BEGIN; DELETE FROM item; COMMIT;")
    assert db.execute("SELECT count(*) FROM item").fetchone() == (0,)


def test_the_outermost_savepoint_stays_where_its_release_cannot_commit(db: Connection) -> None:
    """As in SQLite: RELEASE of it is a COMMIT, and deferred keys stand in its way."""
    db.execute("SAVEPOINT a")
    db.execute("PRAGMA defer_foreign_keys = ON")
    db.execute("INSERT INTO item VALUES (9, 'x')")
    db.execute("SAVEPOINT b")
    with pytest.raises(raftdb.IntegrityError, match="FOREIGN KEY"):
        db.execute("RELEASE a")
    assert db.in_transaction
    db.execute("ROLLBACK TO b")
    db.execute("INSERT INTO holder VALUES (9, 'ida', 0)")
    db.execute("RELEASE b")
    assert db.in_transaction
    db.execute("RELEASE a")
    assert not db.in_transaction
    assert money_of(db, 9) == 0


def test_names_of_savepoints_are_quoted_in_four_ways(db: Connection) -> None:
    for begin, others, end in (
        ("SAVEPOINT a", ["SAVEPOINT '`a`'", 'SAVEPOINT ["a"]'], "RELEASE A"),
        ('SAVEPOINT "x""y"', ["SAVEPOINT x"], 'RELEASE [X"Y]'),
        ("SAVEPOINT savepoint", ['SAVEPOINT "release"'], "RELEASE 'savepoint'"),
    ):
        db.execute(begin)
        for sql in others:
            db.execute(sql)
        db.execute(INSERT_ITEM, (end,))
        assert db.in_transaction
        db.execute(end)
        assert not db.in_transaction, end
    assert db.execute("SELECT count(*) FROM item").fetchone() == (3,)


@pytest.mark.parametrize(
    ("call", "changes"),
    [
        (lambda db: db.ask("members", change="promote", node="n9"), True),
        (lambda db: db.ask("settings", changes={"survive": "zone"}), True),
        (lambda db: db.transfer_leadership("n9"), True),
        (lambda db: db.execute("UPDATE holder SET money = 1"), True),
        (lambda db: db.outcome(idempotency_key="of nobody"), True),
        (lambda db: db.ask("members"), False),
        (lambda db: db.execute("SELECT 1"), False),
    ],
)
def test_what_was_cancelled_may_be_done_if_it_was_sent(
    members: Members, call: Any, changes: bool
) -> None:
    with raftdb.connect(members.founded.url) as db:
        db.execute("DELETE FROM item")
        do = db._driver._do
        carry_out = do[Await]

        def cancel(_action: Any) -> Any:
            do[Await] = carry_out
            db.cancel()
            return ()

        do[Await] = cancel
        with pytest.raises(raftdb.OperationalError) as cancelled:
            call(db)
        outcome = "unknown" if changes else "not_applied"
        assert (cancelled.value.code, cancelled.value.outcome) == ("cancelled", outcome)


def test_a_session_that_is_not_taken_is_replaced_before_it_begins(db: Connection) -> None:
    """As after a restore to before it was opened. The transaction went on, and its COMMIT found no
    session; so did that of every later one."""
    core = db._core
    assert core.session is not None
    core.session.session_id = core.session.session_id[:24] + bytes(16)
    with db.transaction():
        db.execute("UPDATE holder SET money = 6")
    assert money_of(db) == 6


def _program(db: Connection) -> None:
    db.begin()
    db.execute(INSERT_ITEM, (1,))
    db.batch([(INSERT_ITEM, (2,)), (INSERT_ITEM, (3,))])
    with pytest.raises(raftdb.ProgrammingError, match="syntax error"):
        db.batch([(INSERT_ITEM, (4,)), "nonsense", (INSERT_ITEM, (5,))])
    db.execute("SAVEPOINT s")
    db.batch([(INSERT_ITEM, (6,)), "DELETE FROM item"])
    db.execute("ROLLBACK TO s")
    db.batch([(INSERT_ITEM, (7,)), "SELECT count(*) FROM item"])
    db.commit()


def _cut(db: Connection, place: int, arrives: bool) -> list[Any]:
    """Its connection is gone at what it sends as number `place`: what that was, once it was."""
    do = db._driver._do
    transmit = do[Transmit]
    sent: list[Any] = []
    lost: list[Any] = []

    def cut(action: Any) -> Any:
        sent.append(action)
        if len(sent) != place + 1:
            return transmit(action)
        lost.append(action)
        if arrives:
            transmit(action)
        raise LinkError("is gone", unsent=not arrives)

    do[Transmit] = cut
    return lost


@pytest.mark.parametrize("arrives", [True, False])
def test_a_connection_that_is_cut_at_every_step(
    members: Members, db: Connection, arrives: bool
) -> None:
    """All of the transaction or nothing, and what was told is true."""
    for place in range(20):
        db.execute("DELETE FROM item")
        with raftdb.connect(members.founded.url) as other:
            other.execute("DELETE FROM item")
            lost = _cut(other, place, arrives)
            told = "applied"
            try:
                _program(other)
            except raftdb.Error as error:
                told = error.outcome
            other.rollback()
            assert not other.unsettled
        found = [what for (what,) in db.execute("SELECT what FROM item ORDER BY what")]
        assert found == ([] if told == "not_applied" else [1, 2, 3, 7]), (place, told)
        if not lost:
            break
    assert place == 10, "nine for the program, and a farewell"
