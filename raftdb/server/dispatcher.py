"""From a message to the replica, and back: one dispatcher for each connection or in-process link.

It has no bytes and no socket: messages come in by `handle`, answers go out by `send`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import raftdb.wire as wire
from raftdb.base.errors import Error, InterfaceError, OverloadedError, SessionError, to_wire
from raftdb.base.limits import Limits
from raftdb.command import Failed, Opened, Results, SessionId, Statement, decode_reply, encode_reply
from raftdb.node import Answer, Replica

ROWS_CHUNK_BYTES = 256 << 10
"""A read's rows go out in pieces of this size, so that no answer holds up another for long."""

Send = Callable[[Any], None]
Describe = Callable[[], dict[str, Any]]


class Dispatcher:
    """One client's side of the replica: its session, and its requests under way."""

    def __init__(
        self, replica: Replica, limits: Limits, describe: Describe, send: Send, administer: bool
    ) -> None:
        self._replica = replica
        self._limits = limits
        self._describe = describe
        self._send = send
        self._administer = administer
        self._session: SessionId | None = None
        self._under_way = 0
        self._closed = False
        self._handlers: dict[type, Callable[[Any], None]] = {
            wire.Execute: self._on_execute,
            wire.Query: self._on_query,
            wire.OpenSession: self._on_open,
            wire.AttachSession: self._on_attach,
            wire.CloseSession: self._on_close,
            wire.Ping: self._on_ping,
            wire.Status: self._on_status,
            wire.Transfer: self._on_transfer,
            wire.ContentHash: self._on_content_hash,
        }

    @property
    def under_way(self) -> int:
        """Requests that have no final answer yet."""
        return self._under_way

    def close(self) -> None:
        """The client is gone: outcomes still come, answers are not sent."""
        self._closed = True

    def handle(self, message: Any) -> None:
        """Take one request. Its answer comes by `send`, at once or later."""
        handler = self._handlers.get(type(message))
        if handler is None:
            self._refuse(
                message.request_id,
                InterfaceError(f"this node does not offer {type(message).__name__}"),
            )
            return
        if self._under_way >= self._limits.requests_per_connection_max:
            self._refuse(
                message.request_id,
                OverloadedError(
                    f"{self._under_way} requests of this connection are under way already",
                    hint="wait for answers, or use more connections",
                    detail={"retry_after_ms": 50},
                ),
            )
            return
        handler(message)

    # ---- requests, one method each

    def _on_execute(self, message: wire.Execute) -> None:
        if self._session is None:
            self._refuse(
                message.request_id,
                SessionError(
                    "no session is attached to this connection",
                    code="session_missing",
                    hint="open or attach a session first",
                ),
            )
            return
        self._replica.execute(
            self._session,
            message.sequence,
            message.floor,
            message.statements,
            foreign_keys=message.foreign_keys,
            timeout_s=message.timeout_ms / 1000,
            done=self._answer(message.request_id, self._send_result),
        )

    def _on_query(self, message: wire.Query) -> None:
        self._replica.query(
            message.level,
            message.statement,
            self._limits.result_bytes_max,
            message.timeout_ms / 1000,
            self._answer(message.request_id, self._send_rows),
        )

    def _on_open(self, message: wire.OpenSession) -> None:
        self._replica.open_session(
            message.label,
            self._limits.request_timeout_ms / 1000,
            self._answer(message.request_id, self._send_opened),
        )

    def _on_attach(self, message: wire.AttachSession) -> None:
        try:
            session = SessionId.from_bytes(message.session_id)
            refused = self._replica.attach(session)
        except Error as error:
            refused = error
        if refused is not None:
            self._refuse(message.request_id, refused)
            return
        self._session = session
        self._send(wire.Pong(message.request_id))

    def _on_close(self, message: wire.CloseSession) -> None:
        session, self._session = self._session, None
        if session is None:
            self._send(wire.Pong(message.request_id))
            return
        self._replica.close_session(
            session,
            self._limits.request_timeout_ms / 1000,
            self._answer(message.request_id, self._send_result),
        )

    def _on_ping(self, message: wire.Ping) -> None:
        self._send(wire.Pong(message.request_id))

    def _on_status(self, message: wire.Status) -> None:
        self._send(wire.Info(message.request_id, self._describe()))

    def _on_transfer(self, message: wire.Transfer) -> None:
        if not self._administer:
            self._refuse(message.request_id, InterfaceError("not offered on this link"))
            return
        self._replica.transfer_leadership(
            message.target, self._answer(message.request_id, self._send_transferred)
        )

    def _on_content_hash(self, message: wire.ContentHash) -> None:
        self._replica.content_hash(self._answer(message.request_id, self._send_hash))

    # ---- answers

    def _answer(
        self, request_id: int, success: Callable[[int, Answer], None]
    ) -> Callable[[Answer | None, Error | None], None]:
        self._under_way += 1

        def done(answer: Answer | None, error: Error | None) -> None:
            self._under_way -= 1
            if self._closed:
                return
            if answer is None:
                self._refuse(request_id, error or InterfaceError("no answer"))
            else:
                success(request_id, answer)

        return done

    def _refuse(self, request_id: int, error: Error) -> None:
        self._send(wire.ErrorMessage(request_id, to_wire(error)))

    def _send_result(self, request_id: int, answer: Answer) -> None:
        self._send(wire.Result(request_id, answer.index, answer.body))

    def _send_opened(self, request_id: int, answer: Answer) -> None:
        reply = decode_reply(answer.body)
        if isinstance(reply, Opened):
            self._session = reply.session
        elif isinstance(reply, Failed):
            self._refuse(request_id, reply.error)
            return
        self._send_result(request_id, answer)

    def _send_rows(self, request_id: int, answer: Answer) -> None:
        body = encode_reply(answer.body)
        for first in range(0, len(body), ROWS_CHUNK_BYTES):
            chunk = body[first : first + ROWS_CHUNK_BYTES]
            last = first + ROWS_CHUNK_BYTES >= len(body)
            self._send(wire.Rows(request_id, chunk, last, answer.index))

    def _send_transferred(self, request_id: int, answer: Answer) -> None:
        self._send(wire.Info(request_id, {"reason": answer.body}))

    def _send_hash(self, request_id: int, answer: Answer) -> None:
        self._send(wire.Info(request_id, answer.body.describe()))


__all__ = ["Dispatcher", "Results", "Statement"]
