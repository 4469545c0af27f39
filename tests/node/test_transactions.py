"""Open transactions: in order, within bounds, and ended with a true word about what was applied."""

from __future__ import annotations

from typing import Any

import pytest

from raftdb.base.errors import Error, FatalError, OperationalError
from raftdb.base.ids import Index
from raftdb.base.limits import Limits
from raftdb.command import Commit, Results, Statement, decode_request, encode_reply
from raftdb.consensus.port import Applied, NotApplied, OutcomeUnknown, ReadReady
from raftdb.machine import Executed
from raftdb.machine.transaction import Step
from raftdb.node.calls import Answer
from tests.node.fakes import SESSION, Bench

REPLY = encode_reply(Results(()))


class FakeWorkspace:
    """Runs nothing; remembers."""

    index = applied = 50

    def __init__(self, bench: Opened) -> None:
        self.bench = bench
        self.ran: list[str] = []
        self.stopped = False
        self.due = False

    def execute_briefly(self, statement: Statement, time_ms: int, now_s: Any) -> Executed | None:
        if not self.bench.brief or statement.sql.startswith("LONG"):
            return None
        return self.execute(statement, time_ms)

    def execute(self, statement: Statement, time_ms: int, recorded: Any = ()) -> Executed:
        self.recorded = [one.statement.sql for one in recorded]
        self.ran.append(statement.sql)
        self.bench.loop.now_s += self.bench.takes_s
        if statement.sql == "slow":
            # Its deadline passes while it runs.
            self.bench.loop.now_s += 60
        is_read = statement.sql.startswith("SELECT")
        return Executed(Step(REPLY, b"d" * 16, is_read, statement.sql == "or rollback"), time_ms)

    def keys_are_due(self) -> bool:
        return self.due

    def stop(self) -> None:
        self.stopped = True


class Opened(Bench):
    """A replica, and one transaction that was begun on it."""

    brief = True
    """Whether snapshots are taken, and statements executed, on the loop."""

    def __init__(self, **limits: int) -> None:
        super().__init__(Limits(**limits))
        self.made: list[FakeWorkspace] = []
        self.takes_s = 0.0
        self.ended: list[FakeWorkspace] = []
        machine: Any = self.machine
        machine.begin_transaction = self.make
        machine.begin_transaction_briefly = lambda *more: self.make(*more) if self.brief else None
        machine.end_transaction = self.ended.append
        machine.end_transaction_briefly = self.end_briefly
        machine.applied = lambda: (Index(50), 3)
        self.transaction = self.replica.transactions.begin(True, 5.0, self.take)
        self.loop.run()
        if self.engine.reads:
            self.engine.reads.pop()(ReadReady(Index(50)))
            self.loop.run()

    def make(self, _seed: bytes, _foreign_keys: bool) -> FakeWorkspace:
        self.made.append(FakeWorkspace(self))
        return self.made[-1]

    def end_briefly(self, workspace: FakeWorkspace) -> bool:
        if self.brief:
            self.ended.append(workspace)
        return self.brief

    def take(self, answer: Answer | None, error: Error | None) -> None:
        self.answers.append(answer if error is None else error)

    def run(self, *sql: str) -> Any:
        """Statements; the last one's answer."""
        for one in sql:
            self.transaction.execute(Statement(one), 5.0, self.take)
        self.loop.run()
        return self.answers[-1]

    def commit(self) -> Any:
        self.transaction.commit(SESSION, 7, 6, None, 5.0, self.take)
        self.loop.run()
        return self.answers[-1]


@pytest.fixture(autouse=True, params=["on the loop", "on lanes"])
def _where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Opened, "brief", request.param == "on the loop")


def failed(answer: Any, code: str, outcome: str = "not_applied") -> None:
    assert isinstance(answer, Error), answer
    assert (answer.code, answer.outcome) == (code, outcome)


def test_it_begins_when_leadership_is_confirmed_and_commits_as_one_entry() -> None:
    bench = Opened()
    assert bench.answers == [Answer(None, 50)]
    assert bench.run("INSERT 1", "SELECT 2") == Answer(REPLY, 50)
    assert bench.engine.proposals == []
    bench.commit()
    [(payload, done)] = bench.engine.proposals
    request = decode_request(payload)
    assert isinstance(request, Commit)
    assert [one.statement.sql for one in request.statements] == ["INSERT 1", "SELECT 2"]
    assert (request.session, request.sequence, request.floor) == (SESSION.number, 7, 6)
    done(Applied(Index(51), 0, b"reply"))
    bench.loop.run()
    assert bench.answers[-1] == Answer(b"reply", 51)
    assert len(bench.ended) == 1
    failed(bench.run("INSERT 3"), "transaction_none")
    assert len(bench.replica.transactions) == 0


def test_a_clock_that_was_set_back_takes_no_time_back(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Opened()
    bench.run("INSERT 1")
    before_ms = bench.loop.wall_ms()
    monkeypatch.setattr(bench.loop, "wall_ms", lambda: before_ms - 60_000)
    bench.commit()
    [(payload, _done)] = bench.engine.proposals
    request = decode_request(payload)
    assert isinstance(request, Commit)
    assert request.statements[0].time_ms == request.stamp.time_ms == before_ms


def test_reads_alone_are_committed_without_the_log() -> None:
    bench = Opened()
    bench.run("SELECT 1")
    assert bench.commit() == Answer(None, 50)
    assert bench.engine.proposals == []
    assert len(bench.ended) == 1


def test_a_follower_and_a_deposed_leader_hold_none() -> None:
    bench = Opened()
    bench.engine.role = "follower"
    failed(bench.run("INSERT 1"), "transaction_lost")
    assert len(bench.ended) == 1
    bench.transaction = bench.replica.transactions.begin(True, 5.0, bench.take)
    bench.loop.run()
    failed(bench.answers[-1], "not_leader")
    bench.engine.role = "leader"
    bench = Opened()
    bench.run("INSERT 1")
    bench.commit()
    bench.engine.proposals[0][1](NotApplied("not_leader"))
    bench.loop.run()
    failed(bench.answers[-1], "transaction_lost")


def test_an_unknown_commit_is_unknown_and_a_full_queue_leaves_it_open() -> None:
    bench = Opened()
    bench.run("INSERT 1")
    bench.commit()
    bench.engine.proposals.pop()[1](NotApplied("overloaded"))
    bench.loop.run()
    failed(bench.answers[-1], "overloaded")
    assert bench.answers[-1].detail["transaction"] == "open"
    bench.commit()
    bench.engine.proposals.pop()[1](OutcomeUnknown("leadership lost"))
    bench.loop.run()
    failed(bench.answers[-1], "outcome_unknown", "unknown")
    bench = Opened()
    bench.run("INSERT 1")
    bench.commit()
    bench.loop.pass_time(8)
    failed(bench.answers[-1], "deadline", "unknown")
    assert len(bench.ended) == 1


def test_deferred_keys_leave_it_open() -> None:
    bench = Opened()
    bench.run("INSERT 1")
    workspace: Any = bench.transaction._workspace
    workspace.due = True
    failed(bench.commit(), "constraint_foreign_key")
    assert bench.answers[-1].detail["transaction"] == "open"
    workspace.due = False
    bench.commit()
    assert len(bench.engine.proposals) == 1


def test_what_is_refused_before_it_runs_leaves_it_open() -> None:
    bench = Opened(sql_bytes_max=10)
    answer = bench.run("INSERT " + "x" * 20)
    failed(answer, "sql_too_long")
    assert answer.detail["transaction"] == "open"
    assert bench.run("INSERT 1") == Answer(REPLY, 50)


@pytest.mark.parametrize(
    ("limits", "seconds", "code"),
    [
        ({"transaction_idle_ms_max": 2_000}, 3, "transaction_expired"),
        ({"transaction_age_ms_max": 2_000}, 3, "transaction_expired"),
        ({"statements_per_request_max": 2}, 0, "transaction_too_large"),
        ({"request_bytes_max": 200}, 0, "transaction_too_large"),
    ],
)
def test_limits_end_it(limits: dict[str, int], seconds: float, code: str) -> None:
    bench = Opened(**limits)
    assert bench.run("INSERT 1", "INSERT 2") == Answer(REPLY, 50)
    bench.loop.pass_time(seconds)
    if not seconds:
        bench.run("INSERT 3")
    failed(bench.run("INSERT 4"), code)
    failed(bench.commit(), code)
    assert len(bench.ended) == 1


def test_one_that_is_used_is_not_idle() -> None:
    bench = Opened(transaction_idle_ms_max=2_000)
    for _ in range(5):
        bench.loop.pass_time(1.5)
        assert bench.run("INSERT 1") == Answer(REPLY, 50)
    bench.loop.pass_time(2.5)
    failed(bench.run("INSERT 1"), "transaction_expired")


def test_work_is_bounded() -> None:
    bench = Opened(transaction_work_ms_max=1_000)
    bench.takes_s = 0.4
    bench.run("INSERT 1", "INSERT 2")
    failed(bench.run("INSERT 3"), "transaction_too_large")


def test_a_statement_whose_deadline_passes_ends_it() -> None:
    bench = Opened()
    bench.transaction.execute(Statement("INSERT 1"), 1.0, bench.take)
    # Its turn never comes: the loop stands still, and the deadline passes.
    bench.loop.now_s += 0.1
    workspace: Any = bench.transaction._workspace
    bench.transaction._late(1.0)
    assert workspace.stopped
    failed(bench.run("INSERT 2"), "transaction_timeout")
    assert len(bench.ended) == 1


def test_what_sqlite_ended_is_over() -> None:
    bench = Opened()
    assert bench.run("or rollback") == Answer(REPLY, 50)
    failed(bench.run("INSERT 1"), "transaction_none")


def test_old_ones_end_when_the_log_has_to_begin_again() -> None:
    bench = Opened()
    bench.run("INSERT 1")
    bench.loop.pass_time(3)
    bench.replica.transactions.end_older_than(5, "why")
    assert bench.run("INSERT 1") == Answer(REPLY, 50)
    bench.replica.transactions.end_older_than(2, "why")
    answer = bench.run("INSERT 1")
    failed(answer, "transaction_lost")
    assert isinstance(answer, OperationalError)
    assert "why" in answer.message


def test_what_all_of_them_recorded_is_bounded_together() -> None:
    bench = Opened(transactions_bytes_max=1_000)
    value = "x" * 500
    assert bench.run(f"INSERT '{value}'") == Answer(REPLY, 50)
    other = bench.replica.transactions.begin(True, 5.0, bench.take)
    bench.loop.run()
    bench.engine.reads.pop()(ReadReady(Index(50), 1.0))
    bench.loop.run()
    other.execute(Statement(f"INSERT '{value}'"), 5.0, bench.take)
    bench.loop.run()
    failed(bench.answers[-1], "transactions_full")
    assert bench.answers[-1].retryable
    assert len(bench.replica.transactions) == 1, "the one that asked for too much is over"
    assert bench.run("INSERT 2") == Answer(REPLY, 50), "the others go on"
    bench.transaction.give_up(OperationalError("gone"))
    assert bench.replica.transactions.bytes == 0


def test_the_first_statement_runs_beside_the_question_and_is_told_after_it() -> None:
    bench = Opened()
    bench.brief = True
    bench.answers.clear()
    transaction = bench.replica.transactions.begin(True, 5.0, bench.take)
    transaction.execute(Statement("INSERT 1"), 5.0, bench.take)
    transaction.execute(Statement("INSERT 2"), 5.0, bench.take)
    bench.loop.run()
    assert bench.made[-1].ran == ["INSERT 1"]
    assert bench.answers == []
    bench.engine.reads.pop()(ReadReady(Index(50), 1.0))
    bench.loop.run()
    assert bench.made[-1].ran == ["INSERT 1", "INSERT 2"]
    assert bench.answers == [Answer(None, 50), Answer(REPLY, 50), Answer(REPLY, 50)]
    transaction.commit(SESSION, 7, 6, None, 5.0, bench.take)
    bench.loop.run()
    request = decode_request(bench.engine.proposals[-1][0])
    assert isinstance(request, Commit)
    assert [one.statement.sql for one in request.statements] == ["INSERT 1", "INSERT 2"]


def test_a_snapshot_that_lacks_what_was_acknowledged_is_taken_again() -> None:
    bench = Opened()
    bench.brief = True
    bench.answers.clear()
    transaction = bench.replica.transactions.begin(True, 5.0, bench.take)
    transaction.execute(Statement("INSERT 1"), 5.0, bench.take)
    bench.loop.run()
    [old] = bench.made[1:]
    bench.engine.reads.pop()(ReadReady(Index(51), 1.0))
    bench.loop.run()
    new = bench.made[-1]
    assert new is not old
    assert bench.ended == [old]
    assert (old.ran, new.ran) == (["INSERT 1"], ["INSERT 1"])
    assert bench.answers == [Answer(None, 50), Answer(REPLY, 50)]


def test_what_is_not_confirmed_is_never_told() -> None:
    bench = Opened()
    bench.brief = True
    bench.answers.clear()
    transaction = bench.replica.transactions.begin(True, 5.0, bench.take)
    transaction.execute(Statement("INSERT 1"), 5.0, bench.take)
    bench.loop.run()
    assert bench.made[-1].ran == ["INSERT 1"]
    bench.engine.reads.pop()(NotApplied("not_leader"))
    bench.loop.run()
    for answer in bench.answers:
        failed(answer, "not_leader")
    assert len(bench.answers) == 2
    assert bench.ended == bench.made[1:]


def test_a_long_statement_runs_on_a_lane_which_knows_what_ran_before() -> None:
    bench = Opened()
    bench.brief = True
    lanes = len(bench.loop.lanes)
    assert bench.run("INSERT 1", "INSERT 2") == Answer(REPLY, 50)
    assert len(bench.loop.lanes) == lanes
    assert bench.run("LONG 3") == Answer(REPLY, 50)
    assert len(bench.loop.lanes) == lanes + 1
    assert bench.made[-1].recorded == ["INSERT 1", "INSERT 2"]


def test_an_answer_that_comes_at_once_needs_one_snapshot() -> None:
    """Of a cluster of one member: the question is answered before anything else is done."""
    bench = Opened()
    bench.brief = True
    bench.made.clear()
    bench.answers.clear()
    engine: Any = bench.engine
    engine.read_index = lambda done: bench.loop.call_soon(done, ReadReady(Index(50)))
    transaction = bench.replica.transactions.begin(True, 5.0, bench.take)
    transaction.execute(Statement("INSERT 1"), 5.0, bench.take)
    bench.loop.run()
    assert bench.answers == [Answer(None, 50), Answer(REPLY, 50)]
    assert len(bench.made) == 1
    transaction.give_up(OperationalError("gone"))
    bench.loop.run()
    assert bench.ended[-1:] == bench.made


def test_a_damaged_page_under_the_snapshot_stops_the_node_and_is_told() -> None:
    bench = Opened()
    machine: Any = bench.machine

    def damaged(*_more: Any) -> Any:
        raise FatalError("page 7 is damaged", code="page_damaged")

    bench.answers.clear()
    machine.begin_transaction_briefly = machine.begin_transaction = damaged
    bench.replica.transactions.begin(True, 5.0, bench.take)
    with pytest.raises(FatalError):
        bench.loop.run()
    bench.engine.reads.pop()(ReadReady(Index(50), 1.0))
    bench.loop.run()
    assert bench.answers[-1].code == "page_damaged"


def test_a_statement_that_meets_a_damaged_page_ends_the_node_and_says_what_to_do() -> None:
    bench = Opened()

    def damaged(*_more: Any) -> Any:
        raise FatalError("page 7 is damaged", code="page_damaged")

    workspace: Any = bench.made[-1]
    workspace.execute = damaged
    bench.transaction.execute(Statement("SELECT 1"), 5.0, bench.take)
    with pytest.raises(FatalError):
        bench.loop.run()
    bench.loop.run()
    failed(bench.answers[-1], "transaction_lost")
    assert bench.answers[-1].retryable
