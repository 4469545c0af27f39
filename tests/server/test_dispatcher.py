"""One client's requests on their way to the replica."""

from __future__ import annotations

import random
from typing import Any

import pytest

import raftdb.wire as wire
from raftdb.base.errors import SessionError
from raftdb.command import SessionId, Statement
from raftdb.node import Answer
from raftdb.server import Dispatcher
from raftdb.server.dispatcher import PIECES_AT_ONCE
from raftdb.wire.messages import ROWS_CHUNK_BYTES

HERE, ELSEWHERE = (SessionId(bytes([n]) * 16, n, bytes(16)) for n in (1, 2))


class FakeReplica:
    """Knows the sessions of one history; remembers what it was given."""

    def __init__(self) -> None:
        self.executed: list[SessionId] = []
        self.body = b""

    def attach(self, session: SessionId) -> SessionError | None:
        if session.history == HERE.history:
            return None
        return SessionError("another history", code="session_other_history", outcome="unknown")

    def query(self, *args: Any, **_options: Any) -> None:
        done = args[4]
        done(Answer(self.body, 7), None)

    def writes_retry_ms(self) -> int:
        return 0

    def execute(self, session: SessionId, *_args: Any, **_options: Any) -> None:
        self.executed.append(session)


def test_behind_an_attach_that_is_refused_nothing_goes_to_the_session_before() -> None:
    """Its numbers mean other writes there: it would be answered with what one of those brought."""
    replica, sent = FakeReplica(), list[Any]()
    dispatcher = Dispatcher(replica, dict, sent.append, True)  # type: ignore[arg-type]
    statements = (Statement("INSERT"),)
    dispatcher.handle(wire.AttachSession(1, HERE.to_bytes()))
    dispatcher.handle(wire.Execute(2, 1, 0, 1_000, statements, True))
    assert replica.executed == [HERE]
    dispatcher.handle(wire.AttachSession(3, ELSEWHERE.to_bytes()))
    dispatcher.handle(wire.Execute(4, 1, 0, 1_000, statements, True))
    assert replica.executed == [HERE]
    assert [(m.request_id, m.exception().code) for m in sent[-2:]] == [
        (3, "session_other_history"),
        (4, "session_missing"),
    ]


@pytest.mark.parametrize("closed", [False, True])
def test_a_long_answer_leaves_in_several_turns_of_the_loop(closed: bool) -> None:
    """Whatever else the loop has to do comes in between."""
    replica, sent, waiting = FakeReplica(), list[Any](), list[Any]()
    replica.body = random.Random(1).randbytes(10 * ROWS_CHUNK_BYTES + 1)
    dispatcher = Dispatcher(
        replica,  # type: ignore[arg-type]
        dict,
        sent.append,
        True,
        soon=lambda *call: waiting.append(call),
    )
    dispatcher.handle(wire.Query(1, "local", 1_000, 0, (Statement("SELECT"),)))
    turns = 1
    assert len(sent) == PIECES_AT_ONCE
    if closed:
        dispatcher.close()
    while waiting:
        [(function, *arguments)] = waiting
        waiting.clear()
        before = len(sent)
        function(*arguments)
        assert len(sent) - before <= PIECES_AT_ONCE
        turns += 1
    if closed:
        assert len(sent) == PIECES_AT_ONCE
        return
    assert turns == 3
    assert b"".join(piece.chunk for piece in sent) == replica.body
    assert [piece.last for piece in sent] == [False] * 10 + [True]
