"""Replies that wait for locations: when they come, when they don't, and what is said then."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from raftdb.base.durability import parse_durability
from raftdb.base.errors import ConfigError, IntegrityError, InterfaceError
from raftdb.base.ids import Index
from raftdb.command import Failed, ReadToken, Results, StatementResult, encode_reply
from raftdb.consensus.port import Applied
from raftdb.node import Answer
from tests.node.fakes import SESSION, Bench

REPLY = encode_reply(Results((StatementResult((), (), 1, 1),)))


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.engine.durable = {"n1": 60, "n2": 0, "n3": 0}
    return bench


def applied(bench: Bench, index: int, reply: bytes = REPLY) -> None:
    payload_done: Callable[[Any], None] = bench.engine.proposals.pop()[1]
    payload_done(Applied(Index(index), 0, reply))
    bench.loop.run()


def test_a_success_waits_until_enough_locations_have_it(bench: Bench) -> None:
    bench.execute(durability="locations=3")
    applied(bench, 60)
    assert bench.answers == []
    bench.engine.acknowledge(n2=60, n3=59)
    assert bench.answers == []
    bench.engine.acknowledge(n3=60)
    assert bench.answers == [Answer(REPLY, 60)]


def test_the_databases_default_holds_for_who_says_nothing_and_a_request_may_ask_for_less(
    bench: Bench,
) -> None:
    settings = SimpleNamespace(current={"durability": "locations=2"})
    bench.replica.durable.cell = settings
    bench.execute()
    applied(bench, 60)
    assert bench.answers == []
    bench.execute(2, durability="quorum")
    applied(bench, 61)
    assert bench.answers == [Answer(REPLY, 61)]
    bench.engine.acknowledge(n2=60)
    assert len(bench.answers) == 2
    settings.current = {}
    bench.execute(3)
    applied(bench, 62)
    assert len(bench.answers) == 3
    settings.current = {"durability": "locations=3"}
    bench.execute(4)
    applied(bench, 63)
    assert len(bench.answers) == 3, "from the moment on when it is applied"


def test_outcome_queries_and_stored_replies_wait_too(bench: Bench) -> None:
    """C3: the retry is an entry of its own, so its reply waits like the first one's."""
    bench.replica.outcome(SESSION, 1, None, 5.0, bench.done, "locations=3")
    bench.loop.run()
    applied(bench, 60)
    assert bench.answers == []
    bench.engine.acknowledge(n2=61, n3=61)
    assert bench.answers == [Answer(REPLY, 60)]


def test_with_too_few_reachable_nothing_is_proposed(bench: Bench) -> None:
    bench.engine.answering = ("n2",)
    bench.execute(durability="locations=3")
    (error,) = bench.answers
    assert (error.code, error.outcome, error.retryable) == (
        "too_few_locations",
        "not_applied",
        True,
    )
    assert error.detail["reached"] == ("r1", "r2")
    assert bench.engine.proposals == []
    bench.execute(2, durability="locations=2")
    assert len(bench.engine.proposals) == 1
    bench.replica.outcome(SESSION, 1, None, 5.0, bench.done, "locations=3")
    bench.loop.run()
    assert len(bench.engine.proposals) == 2, "a question is asked all the same"
    bench.machine.seen = {3}
    bench.execute(3, durability="locations=3")
    assert len(bench.engine.proposals) == 3, "it is applied: refusing it would be a lie"


def test_what_the_members_can_never_give_is_said_at_once(bench: Bench) -> None:
    bench.execute(durability="locations=4")
    (error,) = bench.answers
    assert isinstance(error, InterfaceError)
    assert (error.code, error.retryable) == ("locations_impossible", False)
    bench.execute(durability="everywhere")
    assert bench.answers[1].code == "durability"
    assert bench.engine.proposals == []


def test_at_the_deadline_it_says_where_it_is_and_the_rest_can_be_awaited(bench: Bench) -> None:
    bench.execute(durability="locations=3")
    applied(bench, 60)
    bench.engine.acknowledge(n2=60)
    bench.loop.pass_time(4.6)
    (error,) = bench.answers
    assert (error.code, error.outcome) == ("durability_pending", "applied")
    assert "in 2 of 3 regions so far (r1, r2)" in error.message
    assert bench.engine.durable_waits.count == 0, "nobody waits any more"
    assert ReadToken.from_text(error.detail["token"]).index == 60
    bench.engine.applied = 60
    token, level = error.detail["token"], error.detail["durability"]
    bench.replica.await_durable(token, level, 5.0, bench.done)
    bench.loop.run()
    assert len(bench.answers) == 1
    bench.engine.acknowledge(n3=60)
    assert bench.answers[1] == Answer({"index": 60}, 60)


def test_awaiting_counts_only_what_is_committed_here(bench: Bench) -> None:
    """A deposed leader's own tail at that index is another entry."""
    bench.engine.applied = 50
    bench.engine.acknowledge(n1=90, n2=90, n3=90)
    token = bench.replica._token_at(60)
    bench.replica.await_durable(token, "locations=3", 5.0, bench.done)
    bench.loop.run()
    assert bench.answers == []
    bench.engine.apply(60)
    bench.engine.acknowledge()
    assert bench.answers == [Answer({"index": 60}, 60)]


def test_only_the_leader_knows(bench: Bench) -> None:
    bench.engine.role, bench.engine.leader = "follower", "n2"
    bench.replica.await_durable("", "locations=3", 5.0, bench.done)
    bench.execute(durability="locations=3")
    assert [error.code for error in bench.answers] == ["not_leader", "not_leader"]


def test_lost_leadership_is_an_unknown_outcome_that_is_retried(bench: Bench) -> None:
    bench.execute(durability="locations=3")
    applied(bench, 60)
    bench.engine.durable_waits.fail("not_leader")
    (error,) = bench.answers
    assert (error.code, error.outcome, error.retryable) == ("outcome_unknown", "unknown", True)


def test_a_failure_that_changed_nothing_waits_for_nothing(bench: Bench) -> None:
    bench.execute(durability="locations=3")
    failed = encode_reply(Failed(IntegrityError("UNIQUE"), 0))
    applied(bench, 60, failed)
    assert bench.answers == [Answer(failed, 60)]
    bench.execute(2, durability="locations=3")
    kept = encode_reply(Failed(IntegrityError("UNIQUE", outcome="applied"), 0))
    applied(bench, 61, kept)
    assert len(bench.answers) == 1, "OR FAIL: its rows stay"


class Archive:
    """How far it is, as told by the test."""

    def __init__(self, count: int = 2) -> None:
        self.count = count
        self.answers = count
        self.at = [0] * count
        self.wanted: list[int] = []

    def answering(self) -> int:
        return self.answers

    def upto(self, count: int) -> int:
        return sorted(self.at, reverse=True)[count - 1]

    def want(self, index: int) -> None:
        self.wanted.append(index)


def test_a_success_waits_until_the_archive_has_it(bench: Bench) -> None:
    archive = bench.replica.durable.archive = Archive()
    bench.execute(durability="archive")
    bench.execute(2, durability="archive=2,locations=2")
    applied(bench, 61)
    applied(bench, 60)
    assert archive.wanted == [61, 60]
    archive.at = [60, 59]
    bench.engine.acknowledge(n2=61)
    assert bench.answers == [Answer(REPLY, 60)]
    archive.at = [60, 61]
    bench.engine.acknowledge(n1=61)
    assert len(bench.answers) == 1
    archive.at = [61, 61]
    bench.engine.acknowledge(n2=61)
    assert len(bench.answers) == 2


def test_an_archive_that_is_away_refuses_up_front_and_late_is_said(bench: Bench) -> None:
    bench.execute(durability="archive")
    assert (bench.answers[-1].code, bench.answers[-1].retryable) == ("archive_impossible", False)
    archive = bench.replica.durable.archive = Archive()
    archive.answers = 1
    bench.execute(2, durability="archive=2")
    error = bench.answers[-1]
    assert (error.code, error.retryable, error.outcome) == (
        "archive_unreachable",
        True,
        "not_applied",
    )
    assert bench.engine.proposals == []
    bench.execute(3, durability="archive")
    applied(bench, 60)
    bench.loop.pass_time(5.0)
    late = bench.answers[-1]
    assert (late.code, late.outcome) == ("durability_pending", "applied")
    assert "not archived yet" in late.message
    assert late.detail["archived_index"] == 0
    bench.replica.await_durable(late.detail["token"], "archive", 5.0, bench.done)
    bench.engine.apply(60)
    bench.loop.run()
    archive.at = [60, 0]
    bench.engine.acknowledge(n2=1)
    assert bench.answers[-1] == Answer({"index": 60}, 60)


def test_levels_as_text() -> None:
    for text in ("quorum", "archive", "archive=2", "locations=2,archive", "locations=3@zone"):
        assert str(parse_durability(text)) == text
    for text in ("archive=0", "archive=5", "archive,archive", "archive,", "tape", "quorum,archive"):
        with pytest.raises(ConfigError):
            parse_durability(text)
