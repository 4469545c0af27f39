"""Statements of an open transaction on the calling thread: the same as on a lane, or done again
there from the beginning, with nothing to be seen of it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from raftdb.base.errors import Error, OperationalError
from raftdb.command import Commit, Recorded, decode_reply
from raftdb.machine import Workspace
from tests.machine.support import SQL, Database, ManualClock, stamp, statement
from tests.machine.transactions import committed

MANY = (
    "INSERT INTO t(b) WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 20000)"
    " SELECT x FROM c"
)
BEFORE: list[SQL] = [
    "INSERT INTO t(b) VALUES (random()), (hex(randomblob(4))) RETURNING id, b",
    "SAVEPOINT here",
    "CREATE TABLE made (a DEFAULT CURRENT_TIMESTAMP, n INTEGER PRIMARY KEY AUTOINCREMENT)",
    ("INSERT INTO made(a) VALUES (?)", (1,)),
    "INSERT INTO t VALUES (1, 'twice')",
    "UPDATE t SET b = 'changed' WHERE id = 1",
    "SELECT changes(), total_changes(), last_insert_rowid(), random()",
]
AFTER: list[SQL] = [
    "SELECT changes(), total_changes(), last_insert_rowid(), random()",
    "SELECT n, a IS NOT NULL FROM made",
    "ROLLBACK TO here",
    "INSERT INTO t(b) VALUES (datetime('now')) RETURNING *",
    "SELECT sum(id), count(*), max(b) FROM t",
]
SEED = b"seedseed"


class RacingClock(ManualClock):
    """Each look takes `step_s`."""

    step_s = 0.0

    def monotonic_s(self) -> float:
        self.now_s += self.step_s
        return self.now_s


@pytest.fixture
def timed(tmp_path: Path) -> Database:
    database = Database(tmp_path, clock=ManualClock())
    database.run("CREATE TABLE t (id INTEGER PRIMARY KEY, b)")
    database.run("INSERT INTO t VALUES (1, 'x'), (2, 'y')")
    # One workspace is there from now on.
    database.machine.end_transaction(database.machine.begin_transaction(SEED, True))
    return database


def begin(database: Database) -> Workspace:
    workspace = database.machine.begin_transaction_briefly(SEED, True)
    assert workspace is not None
    return workspace


def run(workspace: Workspace, clock: RacingClock, *given: SQL) -> list[Recorded]:
    """As the node does: each here, if it is short."""
    recorded: list[Recorded] = []
    for number, sql in enumerate(given):
        one, time_ms = statement(sql), stamp(50 + number).time_ms
        executed = workspace.execute_briefly(one, time_ms, clock.monotonic_s)
        if executed is None:
            executed = workspace.execute(one, time_ms, recorded)
        recorded.append(Recorded(executed.time_ms, one, executed.step.digest))
    return recorded


def commit(database: Database, recorded: list[Recorded]) -> bool:
    database.sequence += 1
    number = database.sequence
    made = stamp(100, stamp(60).time_ms)
    request = Commit(
        type(made)(made.time_ms, SEED), database.session, number, number - 1, tuple(recorded), True
    )
    return committed(database.apply(request))


@pytest.mark.parametrize("long", ["write", "read", "no step to stop at"])
def test_one_that_is_given_up_leaves_what_was_before_as_it_was(timed: Database, long: str) -> None:
    sql = {
        "write": MANY,
        "read": MANY.replace("INSERT INTO t(b) ", "").replace(
            "SELECT x FROM", "SELECT sum(x) FROM"
        ),
        "no step to stop at": "SELECT b LIKE '%x%y%' FROM t",
    }[long]
    clock = RacingClock()
    quick = begin(timed)
    plain = [
        quick.execute(statement(one), stamp(50 + number).time_ms).step.digest
        for number, one in enumerate([*BEFORE, sql, *AFTER])
    ]
    assert timed.machine.end_transaction_briefly(quick)
    clock.step_s = 0.002 if long != "no step to stop at" else 0.0
    workspace = begin(timed)
    recorded = run(workspace, clock, *BEFORE, sql, *AFTER)
    assert [one.digest for one in recorded] == plain
    timed.machine.end_transaction(workspace)
    assert commit(timed, recorded)
    timed.check_hash()


def test_what_took_too_long_is_not_tried_again_for_a_while(timed: Database) -> None:
    clock = RacingClock()
    workspace = begin(timed)
    one = statement(MANY)
    clock.step_s = 0.002
    assert workspace.execute_briefly(one, 0, clock.monotonic_s) is None
    workspace.execute(one, 0)
    clock.step_s = 0.0
    assert workspace.execute_briefly(one, 0, clock.monotonic_s) is None
    clock.now_s += 11
    executed = workspace.execute_briefly(one, 0, clock.monotonic_s)
    assert executed is not None
    big = statement(("INSERT INTO t(b) VALUES (?)", ("x" * 20_000,)))
    assert workspace.execute_briefly(big, 0, clock.monotonic_s) is None
    timed.machine.end_transaction(workspace)


def test_a_snapshot_that_would_wait_is_not_taken_here(timed: Database) -> None:
    machine = timed.machine
    with machine._writer_lock:
        assert machine.begin_transaction_briefly(SEED, True) is None
    held = begin(timed)
    assert (held.index, held.applied) == (timed.next_index - 1,) * 2
    # The only one that is there is in use.
    assert machine.begin_transaction_briefly(SEED, True) is None
    wide = statement(MANY.replace("SELECT x FROM", "SELECT zeroblob(400) FROM"))
    held.execute(wide, 0)
    assert not machine.end_transaction_briefly(held), "it has many pages to forget"
    machine.end_transaction(held)
    for number in range(40):
        timed.run(("INSERT INTO t(b) VALUES (?)", ("x" * 9_000 + str(number),)))
    assert machine.begin_transaction_briefly(SEED, True) is None, "a long log to look through"
    machine.end_transaction(machine.begin_transaction(SEED, True))
    machine.end_transaction(begin(timed))


def test_a_stop_while_it_runs_again_ends_it(timed: Database) -> None:
    clock = RacingClock()
    clock.step_s = 0.002
    workspace = begin(timed)
    recorded = run(workspace, clock, "INSERT INTO t(b) VALUES (1)")
    assert workspace.execute_briefly(statement(MANY), 0, clock.monotonic_s) is None
    workspace.stop()
    found: list[Error] = []

    def work() -> None:
        try:
            workspace.execute(statement(MANY.replace("20000", "90000000")), 0, recorded)
        except OperationalError as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert [error.code for error in found] == ["transaction_timeout"]
    timed.machine.end_transaction(workspace)
    assert begin_again(timed) == [(2,)]


def begin_again(database: Database) -> list[tuple[object, ...]]:
    workspace = database.machine.begin_transaction(SEED, True)
    reply = decode_reply(workspace.execute(statement("SELECT count(*) FROM t"), 0).step.reply)
    database.machine.end_transaction(workspace)
    return list(reply.statements[0].rows)  # type: ignore[union-attr]
