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
from raftdb.client.answers import LOST, decode_answer, not_applied, results_of, transaction_lost
from raftdb.client.calls import Answered, Call, Make, Peer, answer_of
from raftdb.client.core import NEW_SESSIONS_MAX, Core, Outcome, Session, Write
from raftdb.client.sqltext import classify
from raftdb.client.values import statement_bytes
from raftdb.command import Failed, Key, Results, Statement, StatementResult, resolved
from raftdb.wire import AttachSession, Begin, Commit, Request, Rollback, Transact

_STATE = "transaction"
"""Key of an error's detail: whether the transaction is `open` still, or `ended`."""
PIECE_MAX = 60
"""Statements of a batch that are sent in one piece. The node takes 64 messages and more."""
PIECE_BYTES_MAX = 128 * 1024
"""About; a longer statement goes alone."""
_SAVEPOINTS_SURE = 50
"""As long as fewer were opened, there is room for one more: the nodes take twice as many."""
_BATCH = "raftdb_batch"
_OPEN = Statement(f"SAVEPOINT {_BATCH}")
_UNDO = Statement(f"ROLLBACK TO {_BATCH}")
_RELEASE = Statement(f"RELEASE {_BATCH}")
_NOTHING = StatementResult((), (), 0, 0)


class OpenTransaction:
    """One transaction, from BEGIN to its end. Its methods are generators; run one at a time."""

    def __init__(self, core: Core, foreign_keys: bool) -> None:
        self._core = core
        self._foreign_keys = foreign_keys
        self._peer: Peer | None = None
        self._session: Session | None = None
        self._savepoints = 0
        """Savepoints that were opened; how many are open still is not counted."""
        self._batch_is_open = False
        """The savepoint of a batch that is done: it is released together with what comes next."""
        self.over = False
        """It is committed, rolled back, or lost."""

    def begin(self, timeout_s: float) -> Steps[None]:
        """Take its snapshot now. Otherwise the first statement does."""
        call = self._core.courier.call(timeout_s)
        yield from self._first(call, ())

    def execute(self, statement: Statement, *, timeout_s: float) -> Steps[Outcome]:
        """Execute one statement. Raises what it fails with; `over` then says whether the
        transaction goes on."""
        call = self._core.courier.call(timeout_s)
        *_released, answered = yield from self._send(self._behind(statement), call)
        return Outcome(Results((self._result(answered),)), answered.index)

    def execute_all(
        self, statements: Sequence[Statement], *, timeout_s: float
    ) -> Steps[list[StatementResult]]:
        """Execute several, all or none of them: what one fails with is raised, and says which.

        They are sent in one piece, within a savepoint, where none has to know what another one
        before it brought. What stands behind one that fails is executed too, then; it is undone
        with all the others, by a second piece. (Should it end the transaction, that is lost.)"""
        call = self._core.courier.call(timeout_s)
        results: list[StatementResult] = []
        is_open = False
        try:
            if self._savepoints >= _SAVEPOINTS_SURE:
                yield from self._piece((), results, True, call)
                is_open = True
            while len(results) < len(statements):
                piece = _next_piece(statements, results)
                opens, is_open = not is_open, True
                yield from self._piece(piece, results, opens, call)
        except Error as error:
            error.detail["statement"] = len(results)
            if is_open and not self.over:
                yield from self._undo(call)
            raise
        self._batch_is_open = True
        return results

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

    def _behind(self, statement: Statement) -> tuple[Statement, ...]:
        """What is to be sent: the end of the batch before, if that is due, and the statement."""
        if not self._batch_is_open:
            return (statement,)
        self._batch_is_open = False
        return (_RELEASE, statement)

    def _send(self, statements: Sequence[Statement], call: Call) -> Steps[list[Answered]]:
        """Have them executed, one after the other; the answer of each."""
        peer = self._peer
        for one in statements:
            if one is not _OPEN and classify(one.sql).verb == "SAVEPOINT":
                self._savepoints += 1
        if peer is None:
            return (yield from self._first(call, statements))
        messages: list[Request] = []

        def make(peer: Peer, timeout_ms: int) -> Sequence[Request]:
            messages[:] = [Transact(peer.request_id(), timeout_ms, one) for one in statements]
            return messages

        call.beside = {}
        last = yield from self._ask(peer, call, make)
        return self._answers(messages, last, call)

    def _answers(self, messages: Sequence[Request], last: Answered, call: Call) -> list[Answered]:
        """Those of all messages of a piece. Raises what ends the transaction."""
        found = call.beside or {}
        try:
            return [
                *(answer_of(last.peer, found[one.request_id], None, []) for one in messages[:-1]),
                last,
            ]
        except (KeyError, LinkError):
            self.over = True
            raise transaction_lost("the leader did not answer one after the other") from None

    def _result(self, answered: Answered) -> StatementResult:
        """What one statement brought. Raises what it failed with."""
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
        found = results_of(reply).statements
        return found[0] if found else _NOTHING

    def _piece(
        self, piece: Sequence[Statement], results: list[StatementResult], opens: bool, call: Call
    ) -> Steps[None]:
        """Have a piece of a batch executed and add its results; `opens`: behind its savepoint.
        Raises the first failure, when all answers were looked at."""
        before = self._behind(_OPEN) if opens else ()
        failure: Error | None = None
        answers = yield from self._send((*before, *piece), call)
        for place, answered in enumerate(answers):
            try:
                result = self._result(answered)
            except Error as error:
                failure = failure or error
                # Without its savepoint what was executed behind it cannot be undone alone.
                self.over = self.over or (place < len(before) < len(answers))
            else:
                if failure is None and place >= len(before):
                    results.append(result)
        if failure is not None:
            raise failure

    def _undo(self, call: Call) -> Steps[None]:
        """A batch failed: take it back, and go on without it. Never fails; the transaction is over
        when that could not be done."""
        try:
            for answered in (yield from self._send((_UNDO, _RELEASE), call)):
                self._result(answered)
        except Error:
            self.over = True

    def _first(self, call: Call, statements: Sequence[Statement]) -> Steps[list[Answered]]:
        """Find the leader and begin there, with the first statements if there are any; their
        answers. It may be tried again: what was begun before is replaced, or ends with its
        connection, and changed nothing."""
        core = self._core
        try:
            yield from core.settle(call)
            for _ in range(NEW_SESSIONS_MAX):
                session = core.session
                if session is None:
                    session = yield from core.open(call)
                answers, refused = yield from self._begun(session, statements, call)
                if refused is None:
                    return answers
                core.session = None
        except BaseException:
            self.over = True
            raise
        self.over = True
        assert refused is not None, "the sessions were refused"
        raise not_applied(refused)

    def _begun(
        self, session: Session, statements: Sequence[Statement], call: Call
    ) -> Steps[tuple[list[Answered], Error | None]]:
        """Begin in that session; the statements' answers, and why the session is of no use."""
        core, messages = self._core, list[Request]()

        def make(peer: Peer, timeout_ms: int) -> Sequence[Request]:
            begin = Begin(peer.request_id(), timeout_ms, self._foreign_keys)
            messages[:] = [
                *core.attached(peer, session, begin),
                *(Transact(peer.request_id(), timeout_ms, one) for one in statements),
            ]
            call.beside = {}
            return messages

        last = yield from core.courier.ask_leader(make, call)
        answers = self._answers(messages, last, call)
        call.beside = None
        begun = len(messages) - len(statements) - 1
        for message, answered in zip(messages[: begun + 1], answers, strict=False):
            error = answered.error
            if isinstance(message, AttachSession) and isinstance(error, SessionError):
                last.peer.attached = b""
                return [], error
            if error is not None:
                raise self._refused(error)
        self._peer, self._session = last.peer, session
        return answers[begun + 1 :], None

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


def _next_piece(
    statements: Sequence[Statement], results: Sequence[StatementResult]
) -> list[Statement]:
    """The next statements of a batch that can be sent: references to what is not known yet wait.
    Raises ProgrammingError for one that refers to nothing."""
    piece: list[Statement] = []
    known, room = len(results), PIECE_BYTES_MAX
    for statement in statements[known : known + PIECE_MAX]:
        if statement.references:
            latest = max(reference.statement for reference in statement.references)
            if piece and latest >= known:
                break
            statement = resolved(statement, results)
        room -= statement_bytes(statement)
        if piece and room < 0:
            break
        piece.append(statement)
    return piece
