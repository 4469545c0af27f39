"""Every call ends once, with what is known of its outcome."""

from __future__ import annotations

import pytest

from raftdb.base.errors import (
    DataError,
    DeadlineError,
    FatalError,
    InternalError,
    NotLeaderError,
    OperationalError,
    OverloadedError,
    ProgrammingError,
    SessionError,
)
from raftdb.base.ids import Index, NodeId
from raftdb.base.limits import Limits
from raftdb.command import Execute, Results, SessionId, Statement, decode_reply, decode_request
from raftdb.consensus.port import Applied, NotApplied, OutcomeUnknown, ReadReady
from raftdb.node import Answer
from tests.node.fakes import FORGED, SESSION, Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_write_is_stamped_proposed_and_answered_once(bench: Bench) -> None:
    bench.execute(sequence=3)
    (payload, done), *_ = bench.engine.proposals
    request = decode_request(payload)
    assert isinstance(request, Execute)
    assert (request.session, request.sequence) == (SESSION.number, 3)
    assert (request.stamp.time_ms, request.stamp.seed) == (1_000_000, b"r" * 8)
    assert bench.answers == []
    done(Applied(Index(51), 0, b"reply"))
    assert bench.answers == [Answer(b"reply", 51)]
    bench.loop.pass_time(10)
    assert len(bench.answers) == 1


def test_the_deadline_ends_the_wait_and_a_late_outcome_is_silent(bench: Bench) -> None:
    bench.execute()
    bench.loop.pass_time(5.1)
    (error,) = bench.answers
    assert isinstance(error, DeadlineError)
    assert error.outcome == "unknown"
    bench.engine.proposals[0][1](Applied(Index(51), 0, b"reply"))
    assert len(bench.answers) == 1


def test_a_hand_over_past_its_deadline_may_come_yet(bench: Bench) -> None:
    bench.replica.transfer_leadership(NodeId("n2"), 1.0, bench.done)
    bench.loop.pass_time(1.1)
    (error,) = bench.answers
    assert isinstance(error, DeadlineError)
    assert error.outcome == "unknown"


@pytest.mark.parametrize(
    ("outcome", "kind", "word"),
    [
        (OutcomeUnknown("leadership lost"), OperationalError, "unknown"),
        (NotApplied("not_leader"), NotLeaderError, "not_applied"),
        (NotApplied("overloaded"), OverloadedError, "not_applied"),
        (NotApplied("stopping"), OperationalError, "not_applied"),
    ],
)
def test_what_the_engine_says_of_a_proposal(
    bench: Bench, outcome: OutcomeUnknown | NotApplied, kind: type[Exception], word: str
) -> None:
    bench.execute()
    bench.engine.proposals[0][1](outcome)
    (error,) = bench.answers
    assert isinstance(error, kind)
    assert error.outcome == word  # type: ignore[attr-defined]
    assert error.retryable  # type: ignore[attr-defined]


def test_who_does_not_lead_says_who_does(bench: Bench) -> None:
    bench.engine.role, bench.engine.leader = "follower", "n2"
    bench.execute()
    bench.engine.proposals[0][1](NotApplied("not_leader"))
    (error,) = bench.answers
    assert error.detail == {"term": 3, "leader": "n2", "address": "10.0.0.1:202"}


def test_a_forged_or_foreign_session_never_reaches_the_log(bench: Bench) -> None:
    bench.execute(session=FORGED)
    bench.execute(session=SessionId(b"x" * 16, SESSION.number, SESSION.token))
    assert bench.engine.proposals == []
    assert [error.code for error in bench.answers] == ["session_forged", "session_other_history"]
    assert all(isinstance(error, SessionError) for error in bench.answers)


def test_a_session_that_is_not_known_here_is_for_the_log_to_judge(bench: Bench) -> None:
    bench.execute(session=SessionId(SESSION.history, 99 << 16, b"?" * 16))
    assert len(bench.engine.proposals) == 1


def test_what_is_out_of_bounds_takes_no_place_in_the_sequence(bench: Bench) -> None:
    bench.execute(sql="x" * (Limits().sql_bytes_max + 1))
    assert bench.engine.proposals == []
    assert isinstance(bench.answers[0], DataError)


def test_a_linearizable_read_waits_for_the_engine(bench: Bench) -> None:
    bench.query()
    assert bench.answers == []
    bench.engine.reads[0](ReadReady(Index(50)))
    bench.loop.step()
    assert bench.loop.lanes == ["read-0"]
    bench.loop.run()
    results = decode_reply(bench.answers[0].body)
    assert isinstance(results, Results)
    assert results.statements[0].rows == ((1,),)


def test_a_read_that_the_engine_refuses_goes_elsewhere(bench: Bench) -> None:
    bench.query()
    bench.engine.reads[0](NotApplied("not_leader"))
    assert isinstance(bench.answers[0], NotLeaderError)
    assert bench.loop.lanes == []


def test_a_read_past_its_deadline_is_not_begun(bench: Bench) -> None:
    bench.query()
    bench.loop.pass_time(5.1)
    assert isinstance(bench.answers[0], DeadlineError)
    assert bench.answers[0].outcome == "not_applied"
    bench.engine.reads[0](ReadReady(Index(50)))
    assert bench.loop.lanes == []


def test_a_local_read_asks_nobody(bench: Bench) -> None:
    bench.query("local")
    assert bench.engine.reads == []
    assert bench.answers[0].index == 50


def test_errors_of_reads(bench: Bench) -> None:
    bench.machine.error = ProgrammingError("no such table: t")
    bench.query("local")
    bench.machine.error = RuntimeError("what?")
    bench.query("local")
    bench.machine.error = None
    bench.query("by heart")
    kinds = [type(error) for error in bench.answers]
    assert kinds[:2] == [ProgrammingError, InternalError]
    assert "by heart" in str(bench.answers[2])


def test_a_bound_on_rows_reaches_the_machine(bench: Bench) -> None:
    bench.query("local", rows_max=7)
    bench.query("local")
    assert [rows for rows, _ in bench.machine.asked] == [7, None]


def test_reads_at_the_same_time_have_lanes_of_their_own(bench: Bench) -> None:
    for _ in range(3):
        bench.replica.query("local", (Statement("SELECT 1"),), 0, 5.0, bench.done)
    bench.loop.step()
    assert bench.loop.lanes == ["read-0", "read-1", "read-2"]
    bench.loop.run()
    bench.query("local")
    assert bench.loop.lanes[-1] == "read-0"


def test_a_read_past_its_deadline_is_stopped(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[bool] = []
    monkeypatch.setattr("raftdb.machine.QueryStop.stop", lambda _self: stopped.append(True))
    bench.replica.query("local", (Statement("SELECT 1"),), 0, 0.5, bench.done)
    bench.loop.step()
    bench.loop.lanes.clear()
    waiting, bench.loop._ready = bench.loop._ready, []
    bench.loop.pass_time(1.0)
    assert stopped == [True]
    assert isinstance(bench.answers[0], DeadlineError)
    bench.loop._ready = waiting
    bench.loop.run()
    assert len(bench.answers) == 1


def test_reads_that_wait_are_bounded() -> None:
    bench = Bench(Limits(reads_waiting_max=2))
    for _ in range(3):
        bench.query()
    (error,) = bench.answers
    assert isinstance(error, OverloadedError)
    bench.engine.reads[0](ReadReady(Index(50)))
    bench.loop.run()
    bench.query()
    assert len(bench.engine.reads) == 3


def test_draining_hands_over_first_and_waits_for_what_is_under_way(bench: Bench) -> None:
    ended: list[bool] = []
    bench.execute()
    bench.replica.drain(lambda: ended.append(True))
    (target, handed_over), *_ = bench.engine.transfers
    assert target is None
    bench.execute(sequence=2)
    assert isinstance(bench.answers[0], NotLeaderError)
    handed_over("")
    bench.loop.run()
    assert ended == []
    bench.engine.proposals[0][1](Applied(Index(51), 0, b"reply"))
    bench.loop.run()
    assert ended == [True]
    assert len(bench.engine.proposals) == 1


def test_a_follower_drains_at_once(bench: Bench) -> None:
    bench.engine.role = "follower"
    ended: list[bool] = []
    bench.replica.drain(lambda: ended.append(True))
    assert ended == [True]
    assert bench.engine.transfers == []


def test_a_damaged_page_is_an_error_and_the_end_of_the_node(bench: Bench) -> None:
    bench.machine.error = FatalError("a page is damaged")
    with pytest.raises(FatalError):
        bench.query("local")
    (error,) = bench.answers
    assert isinstance(error, FatalError)
