"""From a message to the replica, and back: one dispatcher for each connection or in-process link.

It has no bytes and no socket: messages come in by `handle`, answers go out by `send`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import raftdb.wire as wire
from raftdb.base.errors import (
    AuthError,
    Error,
    InterfaceError,
    NotSupportedError,
    OverloadedError,
    SessionError,
)
from raftdb.base.ids import NodeId
from raftdb.command import Failed, Opened, SessionId, decode_reply
from raftdb.node import (
    RETRY_AFTER_MS,
    Answer,
    Cancellable,
    Replica,
    Transaction,
    busy_error,
    cursor_gone,
)
from raftdb.server.asks import ASKS

PIECES_AT_ONCE = 4
"""Pieces of a long answer (256 KiB each) that are sent in one turn of the loop: each is cut,
packed, framed and encrypted, and 32 MiB of them would hold up heartbeats and everybody's answers.
"""

Send = Callable[[Any], None]
Describe = Callable[[], dict[str, Any]]


class Dispatcher:
    """One client's side of the replica: its session, and its requests under way."""

    def __init__(
        self,
        replica: Replica,
        describe: Describe,
        send: Send,
        administer: bool,
        hold: Callable[[float], None] | None = None,
        pressed: Callable[[], None] = lambda: None,
        soon: Callable[..., object] | None = None,
    ) -> None:
        """`hold`: take no more from this client for so many seconds. `pressed`: told whenever
        something is refused because too much waits. `soon`: calls a function in the next turn of
        the loop; without it a long answer is sent in one."""
        self._soon = soon or _now
        self._pressed = pressed
        self._hold = hold
        self._replica = replica
        self._describe = describe
        self._send = send
        self._administer = administer
        self._session: SessionId | None = None
        self._transaction: Transaction | None = None
        self._under_way = 0
        self._closed = False
        self._reads: dict[int, Cancellable] = {}
        """Under way, by request id."""
        self._refused = 0
        """The sequence that was refused because too much waits; 0: none was, or it came again."""
        self._again_s = 0.0
        """Until then a client that was refused was asked to wait, at least."""
        self._cursors: set[int] = set()
        """Open ones of this client."""

    @property
    def under_way(self) -> int:
        """Requests that have no final answer yet."""
        return self._under_way

    def close(self) -> None:
        """The client is gone: its reads are stopped, its transaction ends, the outcomes of its
        writes still come, and nothing is sent."""
        self._closed = True
        for read in list(self._reads.values()):
            read.cancel()
        if self._transaction is not None:
            self._transaction.give_up(InterfaceError("the connection was closed"))
            self._transaction = None
        for cursor in self._cursors:
            self._replica.close_cursor(cursor)

    def handle(self, message: wire.Message) -> None:
        """Take one request. Its answer comes by `send`, at once or later."""
        handler = _HANDLERS.get(type(message))
        if handler is not None:
            handler(self, message)

    # ---- requests, one method each

    def _on_execute(self, message: wire.Execute) -> None:
        if self._session is None:
            self._refuse(message.request_id, _no_session())
            return
        retry_ms = self._writes_retry_ms(message.sequence)
        if retry_ms:
            self._refuse(message.request_id, busy_error(retry_ms, "writes"))
            return
        self._replica.execute(
            self._session,
            message.sequence,
            message.floor,
            message.statements,
            foreign_keys=message.foreign_keys,
            timeout_s=message.timeout_ms / 1000,
            done=self._answer(message.request_id, self._send_result),
            key=message.key,
            durability=message.durability,
        )

    def turned_away(self, kind: type, request_id: int, sequence: int) -> bytes:
        """The refusal, ready to be sent, of a request that was not decoded yet; empty: it has to
        be. Decoding is most of what refusing costs, and there are more of them the less the node
        can take."""
        if kind is wire.Execute:
            # Without a session it is refused for that.
            retry_ms = 0 if self._session is None else self._writes_retry_ms(sequence)
        elif kind is wire.OpenSession:
            retry_ms = self._replica.writes_retry_ms()
            if retry_ms:
                self._come_later(retry_ms)
        else:
            retry_ms = self._replica.reads_retry_ms()
            return _refusal(request_id, _reads_busy, retry_ms) if retry_ms else b""
        return _refusal(request_id, _writes_busy, retry_ms) if retry_ms else b""

    def _writes_retry_ms(self, sequence: int) -> int:
        """After how long a write that is not taken now should come again; 0: it is taken. What
        stands behind a refused one in its session isn't either: without that one it would be a
        gap, for the price of a log entry."""
        behind = 0 < self._refused < sequence
        retry_ms = RETRY_AFTER_MS if behind else self._replica.writes_retry_ms()
        if not retry_ms:
            self._refused = 0
            return 0
        if not behind:
            self._refused = sequence
        self._come_later(retry_ms)
        return retry_ms

    def _come_later(self, retry_ms: int) -> None:
        """Refusing costs work as well: who does not wait as it was asked to is not read from
        for that time."""
        now_s = self._replica.now_s()
        if now_s < self._again_s and self._hold is not None:
            self._hold(self._again_s - now_s)
        # Clients wait half of what they are asked to, or more: so they don't come all at once.
        self._again_s = max(self._again_s, now_s + retry_ms / 2000)

    def _on_begin(self, message: wire.Begin) -> None:
        if self._transaction is not None:
            # The one before, if it is open still, is one that its client has given up.
            self._transaction.give_up(InterfaceError("another transaction was begun"))
        self._transaction = self._replica.transactions.begin(
            message.foreign_keys,
            message.timeout_ms / 1000,
            self._answer(message.request_id, self._send_done),
        )

    def _on_transact(self, message: wire.Transact) -> None:
        if self._transaction is None:
            self._refuse(message.request_id, _no_transaction())
            return
        self._transaction.execute(
            message.statement,
            message.timeout_ms / 1000,
            self._answer(message.request_id, self._send_result),
        )

    def _on_commit(self, message: wire.Commit) -> None:
        if self._transaction is None:
            self._refuse(message.request_id, _no_transaction())
        elif self._session is None:
            self._refuse(message.request_id, _no_session())
        else:
            self._transaction.commit(
                self._session,
                message.sequence,
                message.floor,
                message.key,
                message.timeout_ms / 1000,
                self._answer(message.request_id, self._send_commit),
                message.durability,
            )

    def _on_rollback(self, message: wire.Rollback) -> None:
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            transaction.give_up(InterfaceError("the transaction was rolled back"))
        self._send(wire.Done(message.request_id))

    def _on_outcome(self, message: wire.Outcome) -> None:
        session: SessionId | None = None
        if message.key is None:
            try:
                session = SessionId.from_bytes(message.session_id)
            except Error as error:
                self._refuse(message.request_id, error)
                return
        self._replica.outcome(
            session,
            message.sequence,
            message.key,
            message.timeout_ms / 1000,
            self._answer(message.request_id, self._send_result),
            message.durability,
        )

    def _on_query(self, message: wire.Query) -> None:
        read = self._replica.query(
            message.level,
            message.statements,
            message.max_rows,
            message.timeout_ms / 1000,
            self._answer(message.request_id, self._send_rows),
            token=message.token,
            max_age_s=message.max_age_ms / 1000,
        )
        if read is not None:
            self._reads[message.request_id] = read

    def _on_open_cursor(self, message: wire.OpenCursor) -> None:
        read = self._replica.query(
            message.level,
            (message.statement,),
            0,
            message.timeout_ms / 1000,
            self._answer(message.request_id, self._send_page),
            token=message.token,
            max_age_s=message.max_age_ms / 1000,
            page_rows=message.rows,
        )
        if read is not None:
            self._reads[message.request_id] = read

    def _on_fetch(self, message: wire.FetchCursor) -> None:
        if message.cursor not in self._cursors:
            self._refuse(message.request_id, cursor_gone())
            return
        done = self._answer(message.request_id, self._send_page)

        def fetched(answer: Answer | None, error: Error | None) -> None:
            if answer is None or not answer.cursor:
                # It is closed: by its last row, or by what went wrong.
                self._cursors.discard(message.cursor)
            done(answer, error)

        self._reads[message.request_id] = self._replica.fetch(
            message.cursor, message.rows, message.timeout_ms / 1000, fetched
        )

    def _on_close_cursor(self, message: wire.CloseCursor) -> None:
        if message.cursor in self._cursors:
            self._cursors.discard(message.cursor)
            self._replica.close_cursor(message.cursor)
        self._send(wire.Done(message.request_id))

    def _on_cancel(self, message: wire.Cancel) -> None:
        """A read is stopped; a write is never taken back."""
        read = self._reads.get(message.request_id)
        if read is not None:
            read.cancel()

    def _on_open(self, message: wire.OpenSession) -> None:
        retry_ms = self._replica.writes_retry_ms()
        if retry_ms:
            self._come_later(retry_ms)
            self._refuse(message.request_id, busy_error(retry_ms, "writes"))
            return
        self._replica.open_session(
            message.label,
            message.timeout_ms / 1000,
            self._answer(message.request_id, self._send_opened),
        )

    def _on_attach(self, message: wire.AttachSession) -> None:
        try:
            session = SessionId.from_bytes(message.session_id)
            refused = self._replica.attach(session)
        except Error as error:
            refused = error
        if refused is not None:
            # What stands behind it is meant for that session, and not for the one before.
            self._session = None
            self._refuse(message.request_id, refused)
            return
        self._session, self._refused = session, 0
        self._send(wire.Done(message.request_id))

    def _on_close(self, message: wire.CloseSession) -> None:
        session, self._session = self._session, None
        if session is None:
            self._refuse(message.request_id, _no_session())
            return
        self._replica.close_session(
            session,
            message.timeout_ms / 1000,
            self._answer(message.request_id, self._send_result),
        )

    def _on_ping(self, message: wire.Ping) -> None:
        self._send(wire.Pong(message.request_id))

    def _on_status(self, message: wire.Status) -> None:
        self._send(wire.Info(message.request_id, self._describe()))

    def _on_transfer(self, message: wire.Transfer) -> None:
        if not self._administer:
            self._refuse(message.request_id, AuthError("this link may not move leadership"))
            return
        self._replica.transfer_leadership(
            NodeId(message.target) if message.target is not None else None,
            message.timeout_ms / 1000,
            self._answer(message.request_id, self._send_done),
        )

    def _on_content_hash(self, message: wire.ContentHash) -> None:
        self._replica.content_hash(
            message.index,
            message.timeout_ms / 1000,
            self._answer(message.request_id, self._send_info),
            exact=message.exact,
        )

    def _on_ask(self, message: wire.Ask) -> None:
        """By name: ASKS has who may ask, and what is done."""
        ask = ASKS.get(message.what)
        if ask is None:
            known = ", ".join(sorted(ASKS))
            self._refuse(
                message.request_id,
                NotSupportedError(
                    f"{message.what!r} cannot be asked of this node",
                    code="unknown_question",
                    hint=f"it knows: {known}; a newer release may know more",
                ),
            )
        elif ask.administers and not self._administer:
            self._refuse(message.request_id, AuthError(f"this link may not ask for {message.what}"))
        else:
            done = self._answer(message.request_id, self._send_info)
            try:
                ask.call(self._replica, message.arguments, message.timeout_ms / 1000, done)
            except Error as error:
                done(None, error)

    # ---- answers

    def _answer(
        self, request_id: int, success: Callable[[int, Answer], None]
    ) -> Callable[[Answer | None, Error | None], None]:
        self._under_way += 1

        def done(answer: Answer | None, error: Error | None) -> None:
            self._under_way -= 1
            self._reads.pop(request_id, None)
            if self._closed:
                if answer is not None and answer.cursor:
                    self._replica.close_cursor(answer.cursor)
                return
            if answer is None:
                self._refuse(request_id, error or InterfaceError("no answer"))
            else:
                success(request_id, answer)

        return done

    def _refuse(self, request_id: int, error: Error) -> None:
        if type(error) is OverloadedError:
            self._pressed()
        self._send(wire.ErrorMessage.of(request_id, error))

    def _send_result(self, request_id: int, answer: Answer) -> None:
        self._send(wire.Result(request_id, answer.index, answer.body))

    def _send_commit(self, request_id: int, answer: Answer) -> None:
        if answer.body is None:
            self._send(wire.Done(request_id))
        else:
            self._send_result(request_id, answer)

    def _send_opened(self, request_id: int, answer: Answer) -> None:
        reply = decode_reply(answer.body)
        if isinstance(reply, Failed):
            self._refuse(request_id, reply.error)
            return
        if isinstance(reply, Opened):
            self._session, self._refused = reply.session, 0
        self._send_result(request_id, answer)

    def _send_rows(self, request_id: int, answer: Answer) -> None:
        self._send_pieces(
            wire.rows_messages(request_id, answer.index, answer.body, age_ms=answer.age_ms)
        )

    def _send_page(self, request_id: int, answer: Answer) -> None:
        if answer.cursor:
            self._cursors.add(answer.cursor)
        self._send_pieces(
            wire.page_messages(request_id, answer.cursor, answer.index, answer.body, answer.age_ms)
        )

    def _send_pieces(self, pieces: Iterator[wire.Rows | wire.CursorRows]) -> None:
        """Some now, the rest in further turns of the loop."""
        if self._closed:
            return
        for piece in islice(pieces, PIECES_AT_ONCE):
            self._send(piece)
            if piece.last:
                return
        self._soon(self._send_pieces, pieces)

    def _send_done(self, request_id: int, _answer: Answer) -> None:
        self._send(wire.Done(request_id))

    def _send_info(self, request_id: int, answer: Answer) -> None:
        self._send(wire.Info(request_id, answer.body))


def _no_transaction() -> Error:
    return InterfaceError(
        "no transaction is open on this connection", code="transaction_none", hint="BEGIN one"
    )


def _now(function: Callable[..., None], *arguments: object) -> None:
    function(*arguments)


_HANDLERS: dict[type, Callable[[Dispatcher, Any], None]] = {
    wire.Execute: Dispatcher._on_execute,
    wire.Query: Dispatcher._on_query,
    wire.Cancel: Dispatcher._on_cancel,
    wire.Begin: Dispatcher._on_begin,
    wire.Transact: Dispatcher._on_transact,
    wire.Commit: Dispatcher._on_commit,
    wire.Rollback: Dispatcher._on_rollback,
    wire.Outcome: Dispatcher._on_outcome,
    wire.OpenCursor: Dispatcher._on_open_cursor,
    wire.FetchCursor: Dispatcher._on_fetch,
    wire.CloseCursor: Dispatcher._on_close_cursor,
    wire.OpenSession: Dispatcher._on_open,
    wire.AttachSession: Dispatcher._on_attach,
    wire.CloseSession: Dispatcher._on_close,
    wire.Ping: Dispatcher._on_ping,
    wire.Status: Dispatcher._on_status,
    wire.Transfer: Dispatcher._on_transfer,
    wire.ContentHash: Dispatcher._on_content_hash,
    wire.Ask: Dispatcher._on_ask,
}


def _no_session() -> Error:
    return SessionError(
        "no session is attached to this connection",
        code="session_missing",
        hint="open or attach a session first",
    )


def _writes_busy(retry_ms: int) -> Error:
    return busy_error(retry_ms, "writes")


def _reads_busy(retry_ms: int) -> Error:
    return busy_error(retry_ms, "reads")


def _refusal(request_id: int, make: Callable[[int], Error], retry_ms: int) -> bytes:
    return wire.error_frame(request_id, wire.packed_error(make, retry_ms))
