"""A transaction over many calls, as its client sees it. No IO.

It lives on one connection to the leader and nowhere else: no statement of it is ever sent twice.
What ends that connection ends the transaction, and then nothing of it is applied. Only the COMMIT
enters the log; it takes the session's next sequence. When its reply is lost, it is not sent again:
the cluster is asked for the outcome of that sequence, and that is final (a COMMIT which was not
seen by then never takes effect).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from raftdb.base.errors import (
    APPLIED,
    UNKNOWN,
    DeadlineError,
    Error,
    OperationalError,
    SessionError,
)
from raftdb.client.actions import LinkError, Steps
from raftdb.client.answers import LOST, decode_answer, results_of, transaction_lost
from raftdb.client.calls import Answered, Call, Make, Peer
from raftdb.client.core import Core, Outcome, Session, Write
from raftdb.command import Failed, Key, Statement
from raftdb.wire import Begin, Commit, Request, Rollback, Transact

_STATE = "transaction"
"""Key of an error's detail: whether the transaction is `open` still, or `ended`."""


class OpenTransaction:
    """One transaction, from BEGIN to its end. Its methods are generators; run one at a time."""

    def __init__(self, core: Core, foreign_keys: bool) -> None:
        self._core = core
        self._foreign_keys = foreign_keys
        self._peer: Peer | None = None
        self._session: Session | None = None
        self.over = False
        """It is committed, rolled back, or lost."""

    def begin(self, timeout_s: float) -> Steps[None]:
        """Take its snapshot now. Otherwise the first statement does."""
        call = self._core.courier.call(timeout_s)
        yield from self._first(call, None)

    def execute(self, statement: Statement, *, timeout_s: float) -> Steps[Outcome]:
        """Execute one statement. Raises what it fails with; `over` then says whether the
        transaction goes on."""
        call = self._core.courier.call(timeout_s)
        peer = self._peer
        if peer is None:
            answered = yield from self._first(call, statement)
        else:
            answered = yield from self._ask(
                peer,
                call,
                lambda peer, timeout_ms: (Transact(peer.request_id(), timeout_ms, statement),),
            )
        if answered.error is not None:
            raise self._refused(answered.error)
        reply = decode_answer(answered.encoded)
        # A failure tells of rows too: that one is there already.
        self._core.note_seen(answered.peer, answered.index)
        if isinstance(reply, Failed):
            if reply.error.detail.get(_STATE) == "ended":
                self.over = True
            reply.error.detail.setdefault("statement", 0)
            raise reply.error
        return Outcome(results_of(reply), answered.index)

    def commit(
        self, key: Key | None, *, timeout_s: float, durability: str | None = None
    ) -> Steps[int]:
        """Commit; the log index, 0 when nothing was done. Raises what it fails with: outcome
        `unknown` only if no majority could be asked before the deadline."""
        peer, session = self._peer, self._session
        if peer is None or session is None:
            self.over = True
            return 0
        call = self._core.courier.call(timeout_s, writes=True)
        level = self._core.durability if durability is None else durability
        number = session.settled + 1
        write = Write(session, number, (), self._foreign_keys, key, level, is_commit=True)

        def make(peer: Peer, timeout_ms: int) -> Sequence[Request]:
            floor = write.sequence - 1
            return (Commit(peer.request_id(), write.sequence, floor, timeout_ms, key, level),)

        self._core.leave_unsettled((write,))
        self._core.last_write = (session.session_id, write.sequence)
        try:
            answered = yield from self._ask(peer, call, make)
        except OperationalError as error:
            self.over = True
            if not call.unsure:
                self._core.leave_unsettled(())
            if error.code != LOST or not call.unsure:
                raise
            return (yield from self._core.resolve(write, call))
        except BaseException:
            self.over = True
            raise
        refused = answered.error
        if refused is not None and refused.outcome == UNKNOWN:
            self.over = True
            return (yield from self._core.resolve(write, call))
        self._core.leave_unsettled(())
        if refused is not None:
            if refused.outcome == APPLIED:
                self._core.take(write)
                self._core.note_applied(answered.peer, refused)
            raise self._refused(refused)
        self.over = True
        if not answered.encoded:
            return answered.index
        return self._core.committed(write, answered)

    def rollback(self, *, timeout_s: float) -> Steps[None]:
        """Forget all of it. Never fails: a transaction that is lost is rolled back too."""
        peer, self._peer = self._peer, None
        if self.over or peer is None:
            self.over = True
            return
        self.over = True
        call = self._core.courier.call(timeout_s)
        with contextlib.suppress(Error):
            yield from self._ask(
                peer, call, lambda peer, _timeout_ms: (Rollback(peer.request_id()),)
            )

    # ---- inside

    def _first(self, call: Call, statement: Statement | None) -> Steps[Answered]:
        """Find the leader and begin there, with the first statement if there is one. It may be
        tried again: whatever was begun before ends with its connection, and changed nothing."""
        core = self._core
        yield from core.settle(call)
        session = core.session
        if session is None:
            session = yield from core.open(call)
        self._session = session

        def make(peer: Peer, timeout_ms: int) -> Sequence[Request]:
            begin = Begin(peer.request_id(), timeout_ms, self._foreign_keys)
            messages = [*core.attached(peer, session, begin)]
            if statement is not None:
                messages.append(Transact(peer.request_id(), timeout_ms, statement))
            return messages

        try:
            answered = yield from core.courier.ask_leader(make, call)
        except BaseException:
            self.over = True
            raise
        if isinstance(answered.error, SessionError):
            answered.peer.attached, core.session = b"", None
        if answered.error is not None:
            raise self._refused(answered.error)
        self._peer = answered.peer
        return answered

    def _ask(self, peer: Peer, call: Call, make: Make) -> Steps[Answered]:
        try:
            return (yield from self._core.courier.ask_peer(peer, make, call))
        except LinkError as lost:
            self.over = True
            raise transaction_lost(f"the leader {lost.reason}") from None
        except BaseException:
            self.over = True
            raise

    def _refused(self, error: Error) -> Error:
        """An error of the request, not a result of the statement."""
        if error.detail.get(_STATE) != "open":
            self.over = True
        if isinstance(error, DeadlineError):
            error.outcome = "not_applied"
        return error
