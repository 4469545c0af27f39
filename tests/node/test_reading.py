"""Read levels: what each waits for, what it refuses, and what an answer says of itself."""

from __future__ import annotations

from typing import Any

import pytest

from raftdb.base.errors import (
    InterfaceError,
    NotLeaderError,
    OverloadedError,
    UnavailableError,
)
from raftdb.base.ids import Index
from raftdb.command import ReadToken, Statement
from raftdb.consensus.port import NotApplied, ReadReady
from raftdb.node import congestion, reading
from tests.node.fakes import HISTORY, Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()


def token(index: int, history: str = HISTORY, fork: int = 0) -> str:
    return ReadToken(bytes.fromhex(history), fork, index).to_text()


def confirm(bench: Bench, begun_s: float, index: int = 50) -> None:
    bench.engine.reads.pop(0)(ReadReady(Index(index), begun_s))
    bench.loop.run()


# ---- session


def test_a_session_read_waits_for_what_its_client_has_seen(bench: Bench) -> None:
    bench.query("session", token=token(50))
    assert bench.answers.pop().index == 50
    bench.query("session", token=token(52))
    bench.engine.apply(51)
    bench.loop.run()
    assert bench.answers == []
    bench.engine.apply(52)
    bench.loop.run()
    assert bench.answers[0].index == 52
    assert bench.engine.reads == [], "nobody else is asked"


def test_reads_that_wait_for_what_never_comes_leave_nothing_behind(bench: Bench) -> None:
    """They kept their places, and their statements: after enough of them nobody could read."""
    for _ in range(3):
        bench.query("session", token=token(1 << 62))
    assert len(bench.engine.waits) == 3
    bench.loop.pass_time(reading.PATIENCE_S + 0.1)
    assert len(bench.answers) == 3
    assert bench.engine.waits == []
    for exact in (False, True):
        bench.replica.content_hash(1 << 62, 0.5, bench.done, exact=exact)
    bench.replica.await_durable(token(1 << 62), "", 0.5, bench.done)
    assert len(bench.engine.waits) == 3
    bench.loop.pass_time(0.6)
    assert (len(bench.answers), bench.engine.waits) == (6, [])


def test_a_session_read_without_a_token_is_answered_at_once(bench: Bench) -> None:
    bench.query("session")
    assert bench.answers[0].index == 50


def test_a_node_that_lags_sends_a_session_read_elsewhere_after_a_second(bench: Bench) -> None:
    bench.query("session", token=token(60))
    bench.loop.pass_time(reading.PATIENCE_S + 0.1)
    (error,) = bench.answers
    assert isinstance(error, UnavailableError)
    assert (error.code, error.retryable, error.outcome) == ("behind", True, "not_applied")
    bench.engine.apply(60)
    bench.loop.run()
    assert len(bench.answers) == 1
    assert bench.loop.lanes == []


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (token(1, "cd" * 16), "token_other_history"),
        (token(1, fork=1), "token_other_fork"),
        ("r1.nonsense", "token"),
    ],
)
def test_tokens_of_other_data_are_refused(bench: Bench, text: str, code: str) -> None:
    bench.query("session", token=text)
    (error,) = bench.answers
    assert isinstance(error, InterfaceError)
    assert (error.code, error.retryable) == (code, False)


# ---- bounded (rule R1)


def test_freshness_counts_from_the_sending_of_what_a_quorum_confirmed(bench: Bench) -> None:
    bench.query("bounded", max_age_s=2.0)
    asked_s = bench.loop.now_s
    bench.loop.pass_time(0.5)
    confirm(bench, asked_s)
    assert bench.answers.pop().age_ms == 501
    bench.loop.pass_time(1.4)
    bench.query("bounded", max_age_s=2.0)
    assert bench.answers.pop().age_ms == 1901, "what is known to be fresh enough asks nobody"
    assert bench.engine.reads == []
    bench.loop.pass_time(0.2)
    bench.query("bounded", max_age_s=2.0)
    assert bench.answers == []
    assert len(bench.engine.reads) == 1, "and what is not has it confirmed anew"
    confirm(bench, bench.loop.now_s)
    assert bench.answers.pop().age_ms == 1


def test_the_age_of_what_waits_for_a_lane_is_that_of_its_snapshot(bench: Bench) -> None:
    bench.query("bounded", max_age_s=2.0)
    confirm(bench, bench.loop.now_s)
    bench.answers.clear()
    statements = (Statement("SELECT 1"),)
    bench.replica.query("bounded", statements, 0, 5.0, bench.done, max_age_s=2.0)
    bench.loop.step()
    assert bench.answers == [], "it waits for its lane"
    bench.loop.now_s += 1.0
    bench.loop.run()
    assert bench.answers.pop().age_ms == 1001


def test_what_waits_for_longer_than_its_bound_is_proved_again(bench: Bench) -> None:
    """Fresh enough when it came, it was answered with what was older by then."""
    bench.query("bounded", max_age_s=2.0)
    confirm(bench, bench.loop.now_s)
    bench.answers.clear()
    bench.loop.now_s += 1.5
    statements = (Statement("SELECT 1"),)
    bench.replica.query("bounded", statements, 0, 5.0, bench.done, max_age_s=2.0)
    # The loop is busy with something else.
    bench.loop.now_s += 1.0
    bench.loop.run()
    assert bench.answers == []
    confirm(bench, bench.loop.now_s)
    bench.loop.run()
    assert bench.answers.pop().age_ms == 1


def test_what_waits_for_a_lane_for_longer_than_its_bound_goes_elsewhere(bench: Bench) -> None:
    bench.query("bounded", max_age_s=2.0)
    confirm(bench, bench.loop.now_s)
    bench.answers.clear()
    statements = (Statement("SELECT 1"),)
    bench.replica.query("bounded", statements, 0, 5.0, bench.done, max_age_s=2.0)
    bench.loop.step()
    bench.loop.now_s += 2.5
    bench.loop.run()
    (error,) = bench.answers
    assert isinstance(error, UnavailableError)
    assert error.code == "too_old"


def test_a_confirmation_that_took_too_long_proves_too_little(bench: Bench) -> None:
    bench.query("bounded", max_age_s=0.3)
    begun_s = bench.loop.now_s
    bench.loop.pass_time(0.4)
    confirm(bench, begun_s)
    (error,) = bench.answers
    assert isinstance(error, UnavailableError)
    assert error.code == "too_old"


def test_a_minority_cannot_prove_how_old_its_data_is(bench: Bench) -> None:
    bench.query("bounded", max_age_s=5.0)
    confirm(bench, bench.loop.now_s)
    bench.answers.clear()
    bench.loop.pass_time(6.0)
    bench.query("bounded", max_age_s=5.0)
    bench.loop.pass_time(reading.PATIENCE_S + 0.1)
    (error,) = bench.answers
    assert isinstance(error, UnavailableError)
    assert error.code == "too_old"
    bench.engine.reads.pop()(NotApplied("not_leader"))
    bench.query("bounded", max_age_s=5.0)
    bench.engine.reads.pop()(NotApplied("not_leader"))
    bench.loop.run()
    assert bench.answers[1].code == "too_old"
    bench.query("bounded", max_age_s=5.0)
    bench.engine.reads.pop()(NotApplied("overloaded"))
    bench.loop.run()
    assert isinstance(bench.answers[2], OverloadedError)


def test_an_older_confirmation_does_not_make_the_data_older(bench: Bench) -> None:
    bench.query("linearizable")
    bench.query("linearizable")
    confirm(bench, bench.loop.now_s)
    confirm(bench, bench.loop.now_s - 3)
    assert [answer.age_ms for answer in bench.answers] == [1, 1]


# ---- linearizable, local


def test_a_linearizable_read_at_a_follower_without_a_leader_goes_elsewhere(bench: Bench) -> None:
    bench.engine.role, bench.engine.leader = "follower", None
    bench.query("linearizable")
    bench.engine.reads.pop()(NotApplied("not_leader"))
    bench.loop.run()
    assert isinstance(bench.answers[0], NotLeaderError)


def test_a_local_read_says_that_its_age_is_not_known(bench: Bench) -> None:
    bench.query("local")
    assert bench.answers.pop().age_ms == -1
    bench.query("linearizable")
    confirm(bench, bench.loop.now_s)
    bench.loop.pass_time(1.0)
    bench.answers.clear()
    bench.query("local")
    assert bench.answers.pop().age_ms == 1001, "or what is known by now"


# ---- on the loop, and on lanes


def test_a_short_read_is_done_on_the_loop(bench: Bench) -> None:
    bench.machine.is_brief = True
    bench.query("local")
    assert bench.loop.lanes == []
    assert bench.machine.brief == 1
    assert bench.answers[0].index == 50


def test_short_reads_leave_the_loop_to_others_now_and_then(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.machine.is_brief = True
    monkeypatch.setattr(reading, "TURN_S", -1.0)
    order: list[str] = []

    def done(answer: Any, _error: Any) -> None:
        order.append("read")

    for _ in range(3):
        bench.replica.query("local", (Statement("SELECT 1"),), 0, 5.0, done)
    bench.loop.call_soon(order.append, "other")
    bench.loop.run()
    assert order == ["read", "other", "read", "read"]


def test_an_error_of_one_short_read_is_not_the_others(bench: Bench) -> None:
    bench.machine.is_brief = True
    bench.machine.error = InterfaceError("no")
    for _ in range(3):
        bench.replica.query("local", (Statement("SELECT 1"),), 0, 5.0, bench.done)
    bench.loop.run()
    assert [str(error) for error in bench.answers] == ["no"] * 3


# ---- more than can be done


def test_reads_that_would_wait_long_for_their_turn_are_refused(bench: Bench) -> None:
    waiting: list[Any] = []
    for _ in range(congestion.FLOOR):
        bench.replica.query(
            "local", (Statement("SELECT 1"),), 0, 5.0, lambda *found: waiting.append(found)
        )
    bench.loop.now_s += 1.0
    bench.query("local")
    (error,) = [one for one in bench.answers if isinstance(one, OverloadedError)]
    assert error.detail["retry_after_ms"] == congestion.RETRY_MIN_MS
    assert len(waiting) == congestion.FLOOR, "those that waited are answered"
    bench.query("local")
    assert bench.answers[-1].index == 50


def test_reads_that_wait_for_an_index_are_no_queue(bench: Bench) -> None:
    """A node that lags refuses no local read because others wait for what it lacks."""
    for _ in range(2 * congestion.FLOOR):
        bench.query("session", token=token(60))
    bench.loop.now_s += 0.9
    bench.query("local")
    assert bench.answers[-1].index == 50


def test_long_reads_that_would_wait_long_for_a_lane_are_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    running: list[Any] = []
    monkeypatch.setattr(bench.loop, "submit", lambda *work: running.append(work))
    for _ in range(reading.LANE_QUEUE * bench.limits.readers_max):
        bench.query("local")
    bench.loop.now_s += 1.0
    bench.query("local")
    (error,) = bench.answers
    assert isinstance(error, OverloadedError)
    assert bench.replica.load()["reads_refused"] == 1
    for _lane, work, done in running:
        done(work(), None)
    bench.query("local")
    assert len(running) == reading.LANE_QUEUE * bench.limits.readers_max + 1
