"""TLS over a plain transport: OpenSSL between two memory BIOs, and nothing else.

asyncio and uvloop have such a layer too. It costs some 35 µs for each message there and back, more
than everything else that is done for it (DESIGN.md has the figures), and it neither counts what
waits nor sends the alert that tells the other end why it is refused.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Protocol, cast

READ_BYTES = 256 * 1024
_OPENING, _OPEN, _CLOSING, _LOST = range(4)


class Inner(Protocol):
    """What lies above: an asyncio protocol, told of plain bytes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...

    def data_received(self, data: bytes) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def eof_received(self) -> bool | None: ...

    def connection_lost(self, exc: Exception | None) -> None: ...


class _Nobody:
    """Above a connection that is gone."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        pass

    def data_received(self, data: bytes) -> None:
        pass

    def pause_writing(self) -> None:
        pass

    def resume_writing(self) -> None:
        pass

    def eof_received(self) -> None:
        pass

    def connection_lost(self, exc: Exception | None) -> None:
        pass


_NOBODY = _Nobody()


class SecureTransport(asyncio.Transport, asyncio.Protocol):
    """The protocol of a plain transport, and the transport of a protocol above.

    `ready` ends with the handshake: by an OSError (ssl.SSLError is one) when there is no
    connection; then the one above never hears of it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: ssl.SSLContext,
        inner: Inner,
        *,
        server_side: bool,
        handshake_timeout_s: float,
    ) -> None:
        super().__init__()
        self._loop = loop
        self._inner = inner
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side)
        self._plain: asyncio.Transport | None = None
        self._state = _OPENING
        self._reading = True
        self._error: Exception | None = None
        self._timeout_s = handshake_timeout_s
        self._timer: asyncio.TimerHandle | None = None
        self.ready: asyncio.Future[None] = loop.create_future()

    @property
    def attached(self) -> bool:
        """Whether a plain transport serves this, and closes the socket."""
        return self._plain is not None

    async def shaken(self) -> None:
        """Wait for the end of the handshake. Raises OSError; cancelling it gives the connection
        up."""
        try:
            await self.ready
        except asyncio.CancelledError:
            self.abort()
            raise

    # ---- as the protocol of the plain transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The TCP connection is there: shake hands."""
        self._plain = cast(asyncio.Transport, transport)
        if self.ready.done():
            # Nobody waits for it any more.
            self._plain.abort()
            return
        self._timer = self._loop.call_later(self._timeout_s, self._late)
        self._shake_hands()

    def data_received(self, data: bytes) -> None:
        """Bytes of TLS."""
        if self._state == _CLOSING:
            return
        self._incoming.write(data)
        if self._state == _OPENING:
            self._shake_hands()
        if self._state == _OPEN:
            self._read()

    def eof_received(self) -> None:
        """The other end sends no more; the plain transport closes when this returns None."""
        if self._state == _OPEN:
            self._inner.eof_received()

    def pause_writing(self) -> None:
        """The plain transport has enough."""
        if self._state == _OPEN:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """It has room again."""
        if self._state in (_OPEN, _CLOSING):
            self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The TCP connection is gone."""
        opened, self._state = self._state != _OPENING, _LOST
        self._stop_timer()
        error = self._error or exc
        if not self.ready.done():
            self.ready.set_exception(error or ConnectionResetError("closed during the handshake"))
            self.ready.exception()  # Seen: whoever was to wait may have given up already.
        elif opened:
            self._inner.connection_lost(error)
        self._let_go()

    def _let_go(self) -> None:
        """Of what a connection takes, some 30 kB: all of it hangs together in circles, which the
        collector comes to after millions of allocations only."""
        self._inner, self._plain, self._error = _NOBODY, None, None
        del self._tls, self._incoming, self._outgoing

    # ---- as the transport of the protocol above

    def write(self, data: Any) -> None:
        """Send all of it, in order."""
        if self._state != _OPEN or not data:
            return
        assert self._plain is not None
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            self._fail(error)
            return
        self._plain.write(self._outgoing.read())

    def get_write_buffer_size(self) -> int:
        """Bytes of TLS that the system has not taken yet."""
        return 0 if self._plain is None else self._plain.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As asyncio's TLS transports: `peercert`, and what the plain transport knows."""
        if name == "peercert" and self._state != _LOST:
            return self._tls.getpeercert()
        return default if self._plain is None else self._plain.get_extra_info(name, default)

    def is_closing(self) -> bool:
        """Whether nothing can be written any more."""
        return self._state != _OPEN or self._plain is None or self._plain.is_closing()

    def pause_reading(self) -> None:
        """No more data until `resume_reading`."""
        self._reading = False
        if self._plain is not None:
            self._plain.pause_reading()

    def resume_reading(self) -> None:
        """Go on, with what is already here first."""
        self._reading = True
        if self._plain is not None and not self._plain.is_closing():
            self._plain.resume_reading()
            self._loop.call_soon(self._read)

    def close(self) -> None:
        """Say farewell after what was written, and wait for the other end to close: a connection
        that is closed with unread data resets, and takes along what the other end has not read yet.
        Whoever closes bounds that wait, by `abort`."""
        if self._state != _OPEN or self._plain is None:
            return
        self._farewell()
        if not self._reading:
            self._plain.resume_reading()

    def abort(self) -> None:
        """Close now; what was not sent is dropped."""
        if not self.ready.done():
            self.ready.cancel()
        if self._plain is not None:
            self._plain.abort()

    # ---- inside

    def _shake_hands(self) -> None:
        assert self._plain is not None
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except (ssl.SSLError, ValueError) as error:
            # The alert says why, where the other end has got as far as to hear it.
            self._fail(error if isinstance(error, ssl.SSLError) else ssl.SSLError(str(error)))
            return
        self._flush()
        self._stop_timer()
        self._state = _OPEN
        if self.ready.done():
            self._plain.abort()
            return
        self.ready.set_result(None)
        self._inner.connection_made(self)

    def _read(self) -> None:
        """Hand over what has arrived whole."""
        if self._state == _LOST:
            return
        tls, incoming, inner = self._tls, self._incoming, self._inner
        while self._state == _OPEN and self._reading:
            try:
                data = tls.read(READ_BYTES)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLError as error:
                self._fail(error)
                return
            if not data:
                self._farewell()
                assert self._plain is not None
                self._plain.close()
                inner.eof_received()
                return
            inner.data_received(data)
            # Asking once more would cost an exception each time.
            if not incoming.pending and not tls.pending():
                break
        self._flush()

    def _farewell(self) -> None:
        self._state = _CLOSING
        try:
            self._tls.unwrap()
        except (ssl.SSLError, ValueError):
            # It is said all the same; what the other end answers does not matter.
            pass
        self._flush()

    def _flush(self) -> None:
        if self._plain is not None and self._outgoing.pending and not self._plain.is_closing():
            self._plain.write(self._outgoing.read())

    def _fail(self, error: Exception) -> None:
        self._error = error
        self._state = self._state if self._state == _OPENING else _CLOSING
        self._flush()
        if self._plain is not None:
            self._plain.close()

    def _late(self) -> None:
        self._error = TimeoutError(f"no TLS handshake within {self._timeout_s:g} s")
        if self._plain is not None:
            self._plain.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
