"""The asyncio driver: does the core's actions on an event loop, with links of its own."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import Any, TypeVar

from raftdb.base.ids import Address
from raftdb.base.limits import DEFAULT_LIMITS, Limits
from raftdb.base.ports import Clock
from raftdb.client.actions import (
    Action,
    Await,
    Dial,
    Drop,
    Link,
    LinkError,
    Pause,
    Steps,
    Transmit,
)
from raftdb.client.link import TLS_ALERT, node_of, reason_of, tls_context
from raftdb.client.options import Options
from raftdb.wire import (
    ClientSide,
    Hello,
    LocalProtocolError,
    Message,
    RemoteProtocolError,
    Request,
)

ARRIVED_MAX = 256
"""Messages that came and were not asked for yet; beyond, the connection is not read from."""

CLOSE_S = 0.5
"""How long a connection may take to end in good order."""

_Value = TypeVar("_Value")


class AsyncLink(Link, asyncio.Protocol):
    """One connection, TLS included, on an event loop."""

    def __init__(self, clock: Clock, limits: Limits) -> None:
        self._clock = clock
        self._core = ClientSide(limits)
        self._transport: Any = None
        self._arrived: list[Message] = []
        self._ended: LinkError | None = None
        self._changed = asyncio.Event()
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._reading = True
        self.gone = asyncio.Event()
        """Set when the transport has let go of the connection."""

    # ---- from the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Decode; who waits is woken."""
        try:
            self._arrived += self._core.receive(data)
        except RemoteProtocolError as error:
            told = "wants TLS" if data[:2] == TLS_ALERT else error.message
            self._end(LinkError(f"does not speak the protocol: {told}"))
            return
        if self._reading and len(self._arrived) > ARRIVED_MAX:
            self._reading = False
            self._transport.pause_reading()
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end of it."""
        self.gone.set()
        reason = LinkError(*reason_of(exc)) if exc is not None else None
        self._end(reason or LinkError("closed the connection"))

    def pause_writing(self) -> None:
        """Too much is unsent."""
        self._may_write.clear()

    def resume_writing(self) -> None:
        """It has left."""
        self._may_write.set()

    def _end(self, why: LinkError) -> None:
        if self._ended is None:
            self._ended = why
        if self._transport is not None:
            self._transport.abort()
        self._changed.set()
        self._may_write.set()

    # ---- for the driver

    async def transmit(
        self, messages: Sequence[Hello | Request], until_s: float, stall_s: float
    ) -> None:
        """Send all. Raises LinkError; DataError when one is too large to send."""
        if self._ended is not None:
            raise LinkError(self._ended.reason, self._ended.cause, unsent=True)
        try:
            data = b"".join([self._core.send(message) for message in messages])
        except LocalProtocolError as error:
            raise LinkError(f"is of no use: {error.message}", unsent=True) from error
        self._transport.write(data)
        while not self._may_write.is_set():
            before = self._transport.get_write_buffer_size()
            left_s = min(until_s - self._clock.monotonic_s(), stall_s)
            try:
                async with asyncio.timeout(max(left_s, 0.0)):
                    await self._may_write.wait()
            except TimeoutError:
                if left_s <= 0 or self._transport.get_write_buffer_size() >= before:
                    raise LinkError("does not take what is sent", silent=True) from None
        if self._ended is not None:
            raise self._ended

    async def receive(self, until_s: float) -> Sequence[Message]:
        """What came, at least one message; nothing when `until_s` passed first."""
        while not self._arrived:
            if self._ended is not None:
                raise self._ended
            self._changed.clear()
            left_s = until_s - self._clock.monotonic_s()
            try:
                async with asyncio.timeout(max(left_s, 0.0)):
                    await self._changed.wait()
            except TimeoutError:
                return ()
        arrived, self._arrived = self._arrived, []
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()
        return arrived

    def close(self) -> None:
        """Close; what is written still leaves, within CLOSE_S."""
        if self._transport is not None:
            self._transport.close()
            # TLS says farewell and waits for the other end's, which a silent one never sends.
            asyncio.get_running_loop().call_later(CLOSE_S, self.abort)

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def identify(self) -> None:
        """Note whom the other end's certificate names. Raises LinkError."""
        certificate = self._transport.get_extra_info("peercert")
        if certificate is not None:
            self.node_id, self.cluster_id = node_of(certificate)


class AsyncDriver:
    """Runs one generator at a time."""

    def __init__(self, options: Options, clock: Clock, limits: Limits = DEFAULT_LIMITS) -> None:
        self._options = options
        self._clock = clock
        self._limits = limits
        self._context = tls_context(options)
        self._closing: set[AsyncLink] = set()

    async def run(self, steps: Steps[_Value]) -> _Value:
        """Run to the end and return its value; what it raises comes through."""
        try:
            action: Action = next(steps)
            while True:
                try:
                    result = await self._do(action)
                except BaseException as error:
                    # Cancellation too: the core notes what is left open, and raises it again.
                    action = steps.throw(error)
                else:
                    action = steps.send(result)
        except StopIteration as stop:
            value: _Value = stop.value
            return value

    async def close(self) -> None:
        """Let dropped connections end properly: a loop that ends before them complains."""
        try:
            async with asyncio.timeout(CLOSE_S):
                for link in self._closing:
                    await link.gone.wait()
        except TimeoutError:
            for link in self._closing:
                link.abort()
            await asyncio.sleep(0)
        self._closing.clear()

    async def _do(self, action: Action) -> Any:
        link: Any = getattr(action, "link", None)
        if isinstance(action, Await):
            return await link.receive(action.until_s)
        if isinstance(action, Transmit):
            return await link.transmit(action.messages, action.until_s, action.stall_s)
        if isinstance(action, Dial):
            return await self._dial(action)
        if isinstance(action, Drop):
            link.close()
            self._closing = {one for one in self._closing if not one.gone.is_set()} | {link}
            return None
        assert isinstance(action, Pause)
        return await asyncio.sleep(max(0.0, action.until_s - self._clock.monotonic_s()))

    async def _dial(self, action: Dial) -> AsyncLink:
        left_s = max(action.until_s - self._clock.monotonic_s(), 0.001)
        link = AsyncLink(self._clock, self._limits)
        try:
            async with asyncio.timeout(left_s):
                await _connect(link, action.address, self._context, left_s)
        except (OSError, UnicodeError, ValueError) as error:
            silent, tls = isinstance(error, TimeoutError), isinstance(error, ssl.SSLError)
            refused = not (silent or tls)
            raise LinkError(*reason_of(error), silent=silent, refused=refused) from error
        try:
            link.identify()
        except BaseException:
            link.close()
            raise
        return link


async def _connect(
    link: AsyncLink, address: Address, context: ssl.SSLContext | None, left_s: float
) -> None:
    """TCP, and TLS above it. Raises OSError."""
    # Late, as in link.py: who only asks for help loads no event loop.
    from raftdb.runtime.dialling import answering
    from raftdb.runtime.secure import SecureTransport

    loop = asyncio.get_running_loop()
    place = await answering(loop, address)
    if context is None:
        await loop.create_connection(lambda: link, place.host, place.port)
        return
    # asyncio's own layer costs some 35 us more for each message there and back.
    secure = SecureTransport(
        loop, context, link, server_side=False, handshake_timeout_s=max(left_s, 0.001)
    )
    await loop.create_connection(lambda: secure, place.host, place.port)
    await secure.shaken()
