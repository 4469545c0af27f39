"""One client's requests on their way to the replica."""

from __future__ import annotations

from typing import Any

import raftdb.wire as wire
from raftdb.base.errors import SessionError
from raftdb.command import SessionId, Statement
from raftdb.server import Dispatcher

HERE, ELSEWHERE = (SessionId(bytes([n]) * 16, n, bytes(16)) for n in (1, 2))


class FakeReplica:
    """Knows the sessions of one history; remembers what it was given."""

    def __init__(self) -> None:
        self.executed: list[SessionId] = []

    def attach(self, session: SessionId) -> SessionError | None:
        if session.history == HERE.history:
            return None
        return SessionError("another history", code="session_other_history", outcome="unknown")

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
