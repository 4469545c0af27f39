"""What may run for long is tried out before it enters the log; a session keeps its order."""

from __future__ import annotations

from typing import Any

import pytest

from raftdb.base.errors import DataError, Error, OperationalError, OverloadedError
from raftdb.base.limits import Limits
from raftdb.command import Results, SessionId, Statement, decode_request, encode_reply
from raftdb.machine import Executed
from raftdb.machine.transaction import Step
from raftdb.node import trials
from raftdb.node.congestion import FLOOR
from raftdb.node.risks import JOINS, PLAIN, RECURSES, SQUARES, risk
from tests.node.fakes import HISTORY, SESSION, Bench

ENDLESS = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) INSERT INTO t SELECT i FROM n"
)
COPY = "INSERT INTO t SELECT a FROM u"
OTHER = SessionId(bytes.fromhex(HISTORY), 9 << 16, b"t" * 16)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("INSERT INTO t VALUES (?)", PLAIN),
        ("DELETE FROM t WHERE id = ?", PLAIN),
        ("UPDATE t SET a = 1 WHERE id = ?", PLAIN),
        ("INSERT OR REPLACE INTO t VALUES (1)", PLAIN),
        ("CREATE TABLE t (a) WITHOUT ROWID", PLAIN),
        ("CREATE VIEW v AS SELECT * FROM a, b", PLAIN),
        ("PRAGMA user_version = 1", PLAIN),
        (COPY, JOINS),
        ("SELECT 1", JOINS),
        ("UPDATE t SET a = u.a FROM u", JOINS),
        ("DELETE FROM t WHERE a IN (SELECT a FROM u)", JOINS),
        ("CREATE TABLE c AS SELECT * FROM t", JOINS),
        ("INSERT INTO t VALUES (replace(?, ?, ?))", SQUARES),
        ("DELETE FROM t WHERE a LIKE ?", SQUARES),
        (ENDLESS, RECURSES),
        ("INSERT INTO t WITH c(a) AS (SELECT 1 UNION SELECT a FROM c) SELECT a FROM c", RECURSES),
        ("/* x */ with c AS (VALUES (1)) SELECT * FROM c", RECURSES),
    ],
)
def test_how_long_a_statement_may_run_is_told_from_its_text(sql: str, expected: int) -> None:
    assert risk(sql) == expected
    if not sql.startswith(("PRAGMA", "CREATE", "DELETE", "INSERT OR")):
        # Of a long one too much is found: words within words.
        assert risk(sql + " -- " + "x" * 5_000) == expected


def test_a_long_text_is_looked_through_quickly() -> None:
    """On the loop: a megabyte of short words."""
    sql = f"INSERT INTO t VALUES ({'NOT ' * 250_000}1)"
    assert risk(sql) == PLAIN
    assert risk(sql.replace("1)", "zeroblob(5))")) == SQUARES


class Workspace:
    """Takes as long as it is told, or until it is stopped."""

    def __init__(self, bench: Tried) -> None:
        self.bench = bench
        self.stopped = False

    def execute(self, statement: Statement, time_ms: int) -> Executed:
        self.bench.executed.append(statement.sql)
        self.bench.loop.pass_time(self.bench.takes_s)
        if self.stopped and not self.bench.deaf:
            raise OperationalError("stopped", code="transaction_timeout")
        if self.bench.fails is not None:
            raise self.bench.fails
        return Executed(Step(encode_reply(Results(())), b"d" * 16, False), time_ms)

    def stop(self) -> None:
        self.stopped = True


class Tried(Bench):
    """A replica whose machine has workspaces."""

    def __init__(self) -> None:
        super().__init__(Limits(write_ms_max=2_000))
        self.takes_s = 0.0
        self.fails: Error | None = None
        self.deaf = False
        """What runs is one long step, which nothing stops."""
        self.executed: list[str] = []
        self.given_back = 0
        machine: Any = self.machine
        machine.begin_transaction = lambda _seed, _keys: Workspace(self)
        machine.end_transaction = self._ended
        machine.was_applied = lambda _session, sequence: sequence == 99

    def _ended(self, _workspace: Any) -> None:
        self.given_back += 1

    def logged(self) -> list[str]:
        return [decode_request(payload).statements[0].sql for payload, _ in self.engine.proposals]

    def failed(self) -> Error:
        (error,) = self.answers
        assert isinstance(error, Error)
        assert error.outcome == "not_applied"
        return error


@pytest.fixture
def bench() -> Tried:
    return Tried()


def test_a_plain_write_is_not_tried(bench: Tried) -> None:
    bench.execute(sql="INSERT INTO t VALUES (1)")
    assert (bench.executed, len(bench.logged())) == ([], 1)


def test_one_that_comes_to_no_end_never_reaches_the_log(bench: Tried) -> None:
    bench.takes_s = 3.0
    bench.execute(sql=ENDLESS)
    error = bench.failed()
    assert error.code == "statement_too_long"
    assert not error.retryable
    assert bench.logged() == []
    assert bench.given_back == 1


@pytest.mark.parametrize("takes_s", [3.0, 4.5])
def test_one_long_step_that_nothing_stops_does_not_reach_it_either(
    bench: Tried, takes_s: float
) -> None:
    bench.deaf, bench.takes_s = True, takes_s
    bench.execute(1, sql="INSERT INTO t VALUES (? LIKE ?)")
    assert bench.failed().code == "statement_too_long"
    assert bench.logged() == []
    bench.takes_s = 0.0
    bench.execute(1, sql="INSERT INTO t VALUES (1)")
    assert len(bench.logged()) == 1, "its session goes on"


def test_its_callers_deadline_ends_it_too(bench: Tried) -> None:
    bench.takes_s = 60.0
    bench.replica.execute(
        SESSION, 1, 0, (Statement(ENDLESS),), foreign_keys=True, timeout_s=1.0, done=bench.done
    )
    bench.loop.run()
    assert bench.failed().code == "deadline"
    assert bench.logged() == [], "what was said not to be applied never is"
    assert bench.given_back == 1


def test_what_is_quick_enters_the_log_and_is_trusted_for_a_while(bench: Tried) -> None:
    for sequence in (1, 2):
        bench.execute(sequence, sql=COPY)
    assert bench.executed == [COPY]
    bench.loop.pass_time(trials.TRUSTED_S)
    bench.execute(3, sql=COPY)
    assert bench.executed == [COPY, COPY]
    assert bench.logged() == [COPY] * 3


def test_what_recurses_is_tried_each_time_and_so_is_what_was_slow(bench: Tried) -> None:
    bench.execute(1, sql=ENDLESS)
    bench.execute(2, sql=ENDLESS)
    bench.takes_s = 2 * trials.QUICK_S
    bench.execute(3, sql=COPY)
    bench.execute(4, sql=COPY)
    assert bench.executed == [ENDLESS, ENDLESS, COPY, COPY]
    assert len(bench.logged()) == 4


def test_long_values_are_not_trusted(bench: Tried) -> None:
    def execute(sequence: int, value: str) -> None:
        statement = Statement("INSERT INTO t VALUES (instr(?, 'b'))", ((value,),))
        bench.replica.execute(
            SESSION, sequence, 0, (statement,), foreign_keys=True, timeout_s=5.0, done=bench.done
        )
        bench.loop.run()

    execute(1, "a")
    execute(2, "a" * 100)
    assert len(bench.executed) == 1
    execute(3, "a" * 1_000_000)
    assert len(bench.executed) == 2


def test_what_fails_by_itself_is_an_outcome_and_goes_into_the_log(bench: Tried) -> None:
    bench.fails = OperationalError("the transaction failed", code="transaction_failed")
    bench.execute(sql=COPY)
    assert bench.logged() == [COPY]


def test_what_writes_more_than_a_trial_keeps(bench: Tried) -> None:
    bench.fails = DataError("too many pages", code="transaction_too_large")
    bench.execute(sql=COPY)
    assert bench.logged() == [COPY], "a copy of a large table ends some time"
    bench.execute(2, sql=ENDLESS)
    assert bench.failed().code == "transaction_too_large"


def test_no_room_for_a_trial_is_said(bench: Tried) -> None:
    bench.fails = None
    machine: Any = bench.machine

    def full(_seed: bytes, _keys: bool) -> Any:
        raise OverloadedError("full", code="transactions_full")

    machine.begin_transaction = full
    bench.execute(sql=COPY)
    assert bench.failed().retryable


def test_the_order_of_a_session_is_kept_and_others_pass(bench: Tried) -> None:
    replica = bench.replica
    for session, sequence, sql in (
        (SESSION, 1, COPY),
        (SESSION, 2, "INSERT INTO t VALUES (2)"),
        (SESSION, 3, ENDLESS),
        (SESSION, 4, "INSERT INTO t VALUES (4)"),
        (OTHER, 1, "INSERT INTO t VALUES (5)"),
    ):
        replica.execute(
            session, sequence, 0, (Statement(sql),), foreign_keys=True, timeout_s=5.0,
            done=bench.done,
        )  # fmt: skip
    assert bench.logged() == ["INSERT INTO t VALUES (5)"]
    bench.loop.run()
    assert bench.logged()[1:] == [
        COPY,
        "INSERT INTO t VALUES (2)",
        ENDLESS,
        "INSERT INTO t VALUES (4)",
    ]


def test_a_retry_of_what_was_applied_is_not_tried_again(bench: Tried) -> None:
    bench.execute(99, sql=ENDLESS)
    assert (bench.executed, len(bench.logged())) == ([], 1)


def test_a_retry_of_what_waits_in_the_log_is_not_tried_again(bench: Tried) -> None:
    """It would be refused although it is about to be applied."""
    bench.execute(1, sql=ENDLESS)
    bench.loop.run()
    bench.takes_s = 60.0
    bench.execute(1, sql=ENDLESS)
    bench.loop.run()
    assert (bench.executed, len(bench.logged()), bench.answers) == ([ENDLESS], 2, [])
    bench.execute(2, sql=ENDLESS)
    bench.loop.run()
    assert (len(bench.executed), len(bench.logged())) == (2, 2)


def test_what_would_wait_long_to_be_tried_is_refused(
    bench: Tried, monkeypatch: pytest.MonkeyPatch
) -> None:
    running: list[Any] = []
    monkeypatch.setattr(bench.loop, "submit", lambda *work: running.append(work))
    for number in range(FLOOR):
        session = SessionId(bytes.fromhex(HISTORY), (10 + number) << 16, b"t" * 16)
        bench.execute(1, session, ENDLESS)
    bench.loop.now_s += 0.5
    bench.execute(1, OTHER, ENDLESS)
    error = bench.failed()
    assert isinstance(error, OverloadedError)
    assert error.detail["retry_after_ms"] > 0
    bench.execute(2, OTHER, "INSERT INTO t VALUES (1)")
    assert len(bench.logged()) == 1, "plain writes are not in that queue"
    for _lane, work, done in running:
        done(work(), None)
    bench.loop.run()
    assert len(bench.logged()) == 1 + FLOOR
    bench.execute(1, OTHER, ENDLESS)
    assert len(running) == FLOOR + 1


def test_who_waits_behind_one_that_is_tried_is_answered_at_its_own_deadline(bench: Tried) -> None:
    bench.takes_s = 1.9
    told: list[tuple[float, Any]] = []
    start_s = bench.loop.now_s
    for sequence, sql, timeout_s in ((1, ENDLESS, 5.0), (2, "INSERT INTO t VALUES (2)", 0.5)):
        bench.replica.execute(
            SESSION, sequence, 0, (Statement(sql),), foreign_keys=True, timeout_s=timeout_s,
            done=lambda _answer, error: told.append((bench.loop.now_s - start_s, error)),
        )  # fmt: skip
    bench.loop.run()
    [(after_s, error)] = told
    assert after_s < 1.0
    assert (error.outcome, error.retryable) == ("not_applied", True)
    assert bench.logged() == [ENDLESS]
