"""The core in virtual time: sessions, and what follows an unknown outcome."""

from __future__ import annotations

import pytest

from raftdb.base.errors import (
    APPLIED,
    NOT_APPLIED,
    UNKNOWN,
    DeadlineError,
    Error,
    InterfaceError,
    OverloadedError,
    SessionError,
)
from raftdb.client.answers import TOO_OLD
from raftdb.client.calls import Answered, Peer
from raftdb.client.core import Core, Write
from raftdb.command import Failed, ReadToken, ResultDropped, Statement, encode_reply
from raftdb.wire import CloseSession, Execute, OpenSession, Query
from tests.client.world import T, World, heard, operational, read, sequences, write

# ---- after an unknown outcome


def unknown_write(world: World, core: Core, word: str) -> None:
    """A write that ends as unknown; the log holds it back until `world.stalled_log` is released."""
    world.stalled_log = []
    with pytest.raises(DeadlineError) as caught:
        write(world, core, word, timeout_s=0.5)
    assert caught.value.outcome == UNKNOWN
    assert core.unsettled


def test_unknown_write_is_fenced_before_the_next_write() -> None:
    """The late original must not be applied behind a later acknowledged write."""
    world = World()
    core = world.core()
    write(world, core, "a")
    unknown_write(world, core, "b")
    late, world.stalled_log = world.stalled_log or [], None
    write(world, core, "c")
    assert heard(world, CloseSession) == 1
    for commit in late:
        commit()
    assert world.effects == ["a", "c"], "once fenced it is never applied"
    assert not core.unsettled


def test_unknown_write_is_fenced_before_the_next_read() -> None:
    """What the read shows is final: who then writes again by hand doesn't write twice."""
    world = World()
    core = world.core()
    write(world, core, "a")
    unknown_write(world, core, "b")
    late, world.stalled_log = world.stalled_log or [], None
    assert read(world, core) == ["a"]
    for commit in late:
        commit()
    assert read(world, core) == ["a"]
    write(world, core, "b")
    assert world.effects == ["a", "b"]


def test_unknown_write_that_was_applied_shows_in_the_next_read() -> None:
    world = World()
    core = world.core()
    write(world, core, "a")
    unknown_write(world, core, "b")
    for commit in world.stalled_log or []:
        commit()
    world.stalled_log = None
    assert read(world, core) == ["a", "b"]


def test_local_read_does_not_fence() -> None:
    world = World()
    core = world.core()
    write(world, core, "a")
    unknown_write(world, core, "b")
    assert read(world, core, "local") == ["a"]
    assert core.unsettled


@pytest.mark.parametrize("applied_meanwhile", [False, True])
def test_resume_gives_the_outcome_once(applied_meanwhile: bool) -> None:
    world = World()
    core = world.core()
    write(world, core, "a")
    unknown_write(world, core, "b")
    late, world.stalled_log = world.stalled_log or [], None
    if applied_meanwhile:
        for commit in late:
            commit()
    outcome = world.run(core.resume(timeout_s=T))
    assert outcome.results.statements[0].changes == 1
    if not applied_meanwhile:
        for commit in late:
            commit()
    write(world, core, "c")
    assert world.effects == ["a", "b", "c"]
    assert heard(world, CloseSession) == 0
    assert set(sequences(world)) == {1, 2, 3}


def test_resume_needs_something_to_resume() -> None:
    world = World()
    core = world.core()
    write(world, core, "a")
    with pytest.raises(InterfaceError):
        world.run(core.resume(timeout_s=T))


def test_fence_that_cannot_be_had_leaves_the_next_write_not_applied() -> None:
    world = World()
    core = world.core()
    write(world, core, "a")
    unknown_write(world, core, "b")
    with pytest.raises(DeadlineError) as caught:
        write(world, core, "c", timeout_s=0.5)
    assert caught.value.outcome == NOT_APPLIED
    assert core.unsettled
    stalled, world.stalled_log = world.stalled_log or [], None
    for commit in stalled:
        commit()
    write(world, core, "d")
    assert world.effects == ["a", "b", "d"]


def test_fence_that_is_refused_for_the_moment_is_asked_for_again() -> None:
    """A node lets go of a session that it is asked to close, also where it has too much to do: that
    it knows none on this connection does not say that it is closed."""
    world = World()
    core = world.core()
    write(world, core, "a")
    unknown_write(world, core, "b")
    late, world.stalled_log = world.stalled_log or [], None
    world.nodes["n1"].refuse = [OverloadedError("busy")]
    assert read(world, core) == ["a"]
    for commit in late:
        commit()
    assert read(world, core) == ["a"]
    assert heard(world, CloseSession) == 2


def test_interrupted_write_is_unsettled() -> None:
    """Ctrl-C while waiting: sent, so unknown."""
    world = World()
    core = world.core()
    write(world, core, "a")
    world.stalled_log = []

    def interrupt() -> None:
        raise KeyboardInterrupt

    world.after(0.1, interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(world, core, "b")
    assert core.unsettled
    stalled, world.stalled_log = world.stalled_log or [], None
    for commit in stalled:
        commit()
    assert read(world, core) == ["a", "b"]
    assert not core.unsettled


# ---- sessions that end


def test_unknown_session_is_replaced_silently() -> None:
    world = World()
    core = world.core()
    write(world, core, "a")
    world.sessions.clear()
    write(world, core, "b")
    assert world.effects == ["a", "b"]
    assert heard(world, OpenSession) == 2
    assert sequences(world) == [1, 2, 1]


def test_session_that_ends_while_a_write_is_open_makes_it_unknown() -> None:
    world = World()
    core = world.core()
    write(world, core, "a")
    world.nodes["n1"].lose_replies = 1
    world.after(0.0026, world.sessions.clear)
    with pytest.raises(SessionError) as caught:
        write(world, core, "b")
    assert caught.value.outcome == UNKNOWN
    assert world.effects == ["a", "b"], "it had been applied, and the client cannot know"
    assert not core.unsettled, "an ended session applies nothing late"
    write(world, core, "c")
    assert world.effects == ["a", "b", "c"]


def test_session_refused_at_attach_is_replaced() -> None:
    world = World()
    core = world.core()
    write(world, core, "a")
    world.kill("n1")
    world.elect("n2")
    other = SessionError("other history", code="session_other_history", outcome=UNKNOWN)
    world.nodes["n2"].refuse = [other]
    write(world, core, "b")
    assert world.effects == ["a", "b"]


def test_sessions_that_always_end_give_up() -> None:
    world = World()
    core = world.core()
    world.nodes["n1"].refuse = []
    gone = SessionError("gone", code="session_unknown")

    class Refusing(list[Error]):
        """Refuses every write, and no opening of a session."""

        def __bool__(self) -> bool:
            return isinstance(world.heard[-1][1], Execute)

        def pop(self, _index: object = -1) -> Error:
            return gone

    world.nodes["n1"].refuse = Refusing()
    with pytest.raises(SessionError) as caught:
        write(world, core, "a")
    assert caught.value.outcome == NOT_APPLIED
    assert heard(world, Execute) == 3


def test_lost_reply_to_open_session_opens_another() -> None:
    world = World()
    core = world.core()
    world.nodes["n1"].refuse = [operational("outcome_unknown", UNKNOWN, True)]
    write(world, core, "a")
    assert world.effects == ["a"]


def test_large_result_of_a_retry_is_said_to_be_applied() -> None:
    world = World()
    core = world.core()
    write(world, core, "a")
    real = world.apply

    def dropping(session: bytes, message: object) -> object:
        reply = real(session, message)
        return ResultDropped(100_000) if isinstance(message, Execute) else reply

    world.apply = dropping  # type: ignore[method-assign,assignment]
    with pytest.raises(Error) as caught:
        write(world, core, "b")
    assert (caught.value.code, caught.value.outcome) == ("result_dropped", APPLIED)
    assert not core.unsettled


def test_what_settles_a_write_counts_among_what_was_seen() -> None:
    """A read of level `session` at a node that lags must not look from before the decision: the
    write is applied, is not shown, and is written again."""
    world = World()
    core = world.core()
    write(world, core, "a")
    unknown_write(world, core, "b")
    late, world.stalled_log = world.stalled_log or [], None
    for commit in late:
        commit()
    applied = world.index
    assert "b" in read(world, core, "session")
    tokens = [message.token for _, message in world.heard if isinstance(message, Query)]
    assert [ReadToken.from_text(token).index > applied for token in tokens] == [True]


def test_what_says_that_a_session_is_gone_counts_too() -> None:
    world = World()
    core = world.core()
    write(world, core, "a")
    world.nodes["n1"].lose_replies = 1
    original = world.apply

    def apply(session: bytes, message: object) -> object:
        reply = original(session, message)
        if isinstance(message, Execute) and message.sequence == 2:
            world.sessions.clear()
        return reply

    world.apply = apply  # type: ignore[method-assign,assignment]
    with pytest.raises(SessionError) as caught:
        write(world, core, "b")
    assert caught.value.outcome == UNKNOWN
    assert core.seen is not None
    assert core.seen.index == world.index


def test_a_key_that_is_too_old_is_no_end_of_the_session_and_stays_unknown() -> None:
    world = World()
    core = world.core()
    write(world, core, "a")
    with pytest.raises(SessionError) as caught:
        world.run(core.execute((Statement("old key"),), timeout_s=T))
    assert (caught.value.code, caught.value.outcome) == (TOO_OLD, UNKNOWN)
    assert not core.unsettled
    write(world, core, "b")
    assert heard(world, OpenSession) == 1
    assert sequences(world) == [1, 2, 3]


def test_a_commit_under_a_key_that_is_too_old_is_unknown_and_not_to_be_retried() -> None:
    world = World()
    core = world.core()
    write(world, core, "a")
    session = core.session
    assert session is not None
    peer = core.courier.attached_peer(session.session_id)
    assert isinstance(peer, Peer)
    error = SessionError("too old", code=TOO_OLD, outcome=UNKNOWN)
    answered = Answered(peer, None, index=9, encoded=encode_reply(Failed(error, -1)))
    with pytest.raises(SessionError) as caught:
        core.committed(Write(session, 2, (), True, is_commit=True), answered)
    assert (caught.value.outcome, caught.value.retryable) == (UNKNOWN, False)
    assert core.session is session
