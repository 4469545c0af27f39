"""One real connection: an asyncio Protocol that satisfies the Connection port."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, cast

from raftdb.base.errors import AuthError
from raftdb.base.ports import Handler, Peer
from raftdb.runtime.tls import Certificate, describe_error, serial_number

CLOSE_TIMEOUT_S = 10.0
"""How long `close` goes on sending to somebody who does not read."""
WRITE_CHUNK_BYTES = 128 * 1024
"""What is handed to the transport at a time: a large answer must not be encrypted in one go."""
CLOSED = "closed by the other end"
CLOSED_UNHEARD = "closed by the other end without a word: its log says why, if it refused this one"
"""In TLS 1.3 a dialler's handshake ends before the other end has judged its certificate; an alert
gives the reason only where OpenSSL itself refused it."""
KEEPALIVE_IDLE_S = 30
KEEPALIVE_INTERVAL_S = 10
KEEPALIVE_PROBES = 3
USER_TIMEOUT_MS = 60_000
"""A host that vanished without a word is noticed after about a minute, sent data or not."""


class Owner(Protocol):
    """What a connection needs of the network that made it."""

    loop: asyncio.AbstractEventLoop
    unsent_bytes_max: int

    def identify(self, connection: RealConnection, certificate: Certificate | None) -> Peer:
        """Who is there. AuthError when they may not be."""

    def refused(self, connection: RealConnection, reason: str) -> None:
        """The identity was refused."""

    def opened(self, connection: RealConnection) -> None:
        """The identity was accepted."""

    def ended(self, connection: RealConnection) -> None:
        """An opened connection is gone."""

    def crash(self, error: BaseException) -> None:
        """A handler raised."""


def tune_socket(raw: socket.socket) -> None:
    """No Nagle delay, and half-open connections are noticed. Best effort: not all systems have
    each option, and a Unix socket none."""
    options = [
        (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", KEEPALIVE_PROBES),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", USER_TIMEOUT_MS),
    ]
    for level, name, value in options:
        option = getattr(socket, name, None)
        if option is not None:
            try:
                raw.setsockopt(level, option, value)
            except OSError:
                pass


class RealConnection(asyncio.Protocol):
    """Bytes to and from one party. Used on the loop only; nothing of the port raises."""

    def __init__(self, owner: Owner, remote: str, make_handler: Callable[[], Handler]) -> None:
        self._owner = owner
        self._make_handler = make_handler
        self._transport: asyncio.Transport | None = None
        self._handler: Handler | None = None
        self._peer: Peer | None = None
        self._closing = False
        self._reading = True
        self._waiting: deque[memoryview] = deque()
        self._waiting_bytes = 0
        self._writable = True
        self._sending = False
        self._reason = ""
        self._heard = False
        self._abort_timer: asyncio.TimerHandle | None = None
        self.remote = remote
        self.serial = 0
        """Serial number of the other end's certificate; 0 without TLS."""
        self.refusal = ""
        """Why the identity was refused, or empty."""

    @property
    def peer(self) -> Peer:
        """Who is at the other end."""
        assert self._peer is not None, "asked before the handshake ended"
        return self._peer

    @property
    def attached(self) -> bool:
        """Whether the handshake ended and a transport serves this connection."""
        return self._transport is not None

    @property
    def made(self) -> bool:
        """Whether the handler was told of the connection."""
        return self._handler is not None

    def write(self, data: bytes) -> None:
        """Send all of it, in order; dropped once the connection is closed.

        Whoever lets more than the limit pile up loses the connection: callers look at
        `unsent_bytes` and hold back long before.
        """
        transport = self._transport
        if self._closing or transport is None or transport.is_closing():
            return
        if self._writable and not self._waiting and len(data) <= WRITE_CHUNK_BYTES:
            self._hand_over(transport, data)
            return
        if self.unsent_bytes() > self._owner.unsent_bytes_max:
            self.abort("too much unsent data: the other end does not read")
            return
        self._waiting.append(memoryview(data))
        self._waiting_bytes += len(data)
        self._send_waiting()

    def unsent_bytes(self) -> int:
        """Bytes not taken by the system yet."""
        if self._transport is None or self._transport.is_closing():
            return 0
        return self._waiting_bytes + self._transport.get_write_buffer_size()

    def close(self) -> None:
        """Close after what was written is sent, or after CLOSE_TIMEOUT_S."""
        if self._closing or self._transport is None:
            return
        self._closing = True
        self._reason = self._reason or "closed by this end"
        # A TLS farewell waits for the answer, and a reader may never read: then it is cut off.
        self._abort_timer = self._owner.loop.call_later(CLOSE_TIMEOUT_S, self._cut)
        if not self._waiting:
            self._transport.close()

    def abort(self, reason: str = "") -> None:
        """Close now; what was not sent is dropped."""
        self._closing = True
        self._reason = self._reason or reason or "closed by this end"
        self._cut()

    def pause_reading(self) -> None:
        """No more `data_received` until `resume_reading`."""
        if self._reading and not self._closing and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on delivering."""
        if not self._reading and not self._closing and self._transport is not None:
            self._reading = True
            self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """By asyncio, after the handshake."""
        self._transport = cast(asyncio.Transport, transport)
        raw: Any = transport.get_extra_info("socket")
        if raw is not None:
            tune_socket(raw)
        certificate = transport.get_extra_info("peercert")
        try:
            self._peer = self._owner.identify(self, certificate)
        except AuthError as error:
            self.refusal = str(error)
            self._owner.refused(self, self.refusal)
            self.abort()
            return
        self.serial = serial_number(certificate) if certificate else 0
        self._owner.opened(self)
        try:
            self._handler = self._make_handler()
            self._handler.connection_made(self)
        except BaseException as error:
            self._owner.crash(error)

    def pause_writing(self) -> None:
        """By asyncio: the transport has enough."""
        self._writable = False

    def resume_writing(self) -> None:
        """By asyncio: the transport has room again."""
        self._writable = True
        self._send_waiting()

    def data_received(self, data: bytes) -> None:
        """By asyncio."""
        handler = self._handler
        if handler is None or self._closing:
            return
        self._heard = True
        try:
            handler.data_received(data)
        except BaseException as error:
            self._owner.crash(error)

    def eof_received(self) -> None:
        """By asyncio: the other end sends no more, and the transport closes as soon as it is rid of
        what it has. Nothing else is sent; who does not read either is not waited for."""
        self._closing = True
        self._forget_waiting()
        if self._abort_timer is None:
            self._abort_timer = self._owner.loop.call_later(CLOSE_TIMEOUT_S, self._cut)

    def connection_lost(self, exc: Exception | None) -> None:
        """By asyncio, once."""
        self._closing = True
        self._forget_waiting()
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        self._transport = None
        if self._peer is None:
            return
        self._owner.ended(self)
        if self._handler is None:
            return
        reason = self._reason or (describe_error(exc) if exc else CLOSED)
        if reason == CLOSED and not self._heard:
            reason = CLOSED_UNHEARD
        try:
            self._handler.connection_lost(reason)
        except BaseException as error:
            self._owner.crash(error)

    def _send_waiting(self) -> None:
        transport = self._transport
        if self._sending or transport is None:
            return
        self._sending = True
        try:
            while self._waiting and self._writable and not transport.is_closing():
                data = self._waiting.popleft()
                if len(data) > WRITE_CHUNK_BYTES:
                    self._waiting.appendleft(data[WRITE_CHUNK_BYTES:])
                    data = data[:WRITE_CHUNK_BYTES]
                self._waiting_bytes -= len(data)
                self._hand_over(transport, data)
        finally:
            self._sending = False
        if self._closing and not self._waiting:
            transport.close()

    def _hand_over(self, transport: asyncio.Transport, data: bytes | memoryview) -> None:
        try:
            transport.write(data)
        except Exception as error:
            # uvloop raises on transports that broke a moment ago; `connection_lost` will follow.
            self.abort(describe_error(error))

    def _forget_waiting(self) -> None:
        self._waiting.clear()
        self._waiting_bytes = 0

    def _cut(self) -> None:
        self._forget_waiting()
        if self._transport is not None:
            self._transport.abort()
