"""The client port: bytes to messages, messages to the dispatcher, answers to bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import raftdb.wire as wire
from raftdb.base.errors import DataError, Error, OverloadedError, ProtocolError
from raftdb.base.ids import Address
from raftdb.base.limits import Limits
from raftdb.base.ports import Connection, Listener, Ports, Timer
from raftdb.node import RETRY_AFTER_MS, Replica
from raftdb.server.dispatcher import Describe, Dispatcher
from raftdb.server.greeting import greet
from raftdb.server.prepare import read_long
from raftdb.server.shared import Shared

UNSENT_PAUSE_BYTES = 1 << 20
"""A client that does not read its answers is not read from either."""

DRAIN_CHECK_S = 0.01
PRESSED_S = 1.0
"""So long after a request was refused because too much waits, others are asked at the door."""
LANE = "decode"
SLOW_FRAME_S = 1.0
"""When all requests together have too many bytes, a long one that has been coming for longer than
this and is not complete gives up its place."""
HOLD_S_MAX = 0.5
"""So long, at most, a client is not read from that asks again and again while the node is busy."""


class ClientListener:
    """Owns the client port and its connections."""

    def __init__(
        self, *, replica: Replica, ports: Ports, limits: Limits, describe: Describe
    ) -> None:
        self.replica = replica
        self.ports = ports
        self.limits = limits
        self.describe = Shared(describe, ports.clock).tell
        self._listener: Listener | None = None
        self._connections: dict[int, ClientConnection] = {}
        self._accepted = 0
        self.requests_bytes = 0
        """Of requests that are being received or under way: incomplete ones, and the long ones."""
        self.unsent_bytes = 0
        """Of answers to clients that are slow to read them."""
        self.pressed = False
        """Too much waits, or did a while ago: requests are turned away before they are decoded."""
        self._pressed_until_s = 0.0

    def open(self, address: Address, ready: Callable[[BaseException | None], None]) -> None:
        """Listen; `ready` gets None, or why not."""

        def opened(listener: Listener | None, error: BaseException | None) -> None:
            self._listener = listener
            ready(error)

        self.ports.network.listen("client", address, self._accept, opened)

    @property
    def address(self) -> Address | None:
        """Where it listens."""
        return self._listener.address if self._listener is not None else None

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self._connections)

    def _accept(self) -> ClientConnection:
        self._accepted += 1
        return ClientConnection(self, self._accepted)

    def press(self) -> None:
        """Something was refused because too much waits."""
        self.pressed = True
        self._pressed_until_s = self.ports.clock.monotonic_s() + PRESSED_S

    def relax(self) -> None:
        """Something was not refused."""
        self.pressed = self.ports.clock.monotonic_s() < self._pressed_until_s

    @property
    def has_room(self) -> bool:
        """Whether requests may have more bytes."""
        return self.requests_bytes <= self.limits.client_requests_bytes_max

    def make_room(self) -> None:
        """Requests have too many bytes together. Who began one and does not go on with it would
        keep all others out: those that take longest end."""
        last_s = self.ports.clock.monotonic_s() - SLOW_FRAME_S
        slow = [one for one in self._connections.values() if 0 < one.frame_begun_s < last_s]
        for one in sorted(slow, key=lambda one: one.frame_begun_s):
            if self.has_room:
                return
            one.give_up_frame()

    def cut_slowest(self) -> None:
        """Answers that nobody reads have too many bytes together: whoever has most of them goes.
        Else a few that never read would have everybody cut who is sent a large answer."""
        max(self._connections.values(), key=lambda one: one.unsent_bytes).cut()

    def opened(self, connection: ClientConnection) -> None:
        """A connection's handshake is done."""
        self._connections[connection.number] = connection

    def closed(self, connection: ClientConnection) -> None:
        """A connection is gone."""
        self._connections.pop(connection.number, None)

    def stop_accepting(self) -> None:
        """Close the port; open connections stay."""
        if self._listener is not None:
            self._listener.close()

    def say_goodbye(self, reason: str) -> None:
        """Tell every client to go elsewhere."""
        for connection in list(self._connections.values()):
            connection.say_goodbye(reason)

    def close(self) -> None:
        """Close every connection after what was written is sent."""
        for connection in list(self._connections.values()):
            connection.close()


class ClientConnection:
    """One client connection: a Handler of the Network port."""

    def __init__(self, owner: ClientListener, number: int) -> None:
        self.number = number
        self._owner = owner
        self._core = wire.ServerSide(owner.limits)
        self._core.defer_bytes = wire.LONG_REQUEST_BYTES
        self._core.door = self._door
        self._connection: Connection | None = None
        self._dispatcher: Dispatcher | None = None
        self._timer: Timer | None = None
        self._out: list[bytes] = []
        self._turned_away = False
        """Refusals among them, that nothing else sends."""
        self._paused = False
        """Answers wait to be read."""
        self._held = False
        """It does not wait as it was asked to."""
        self._decoding = False
        """A long request of it is read on a lane."""
        self._requests_bytes = 0
        self.unsent_bytes = 0
        """Its part of what its owner counts."""
        self.frame_begun_s = 0.0
        """When the first bytes came of a long request that is not complete; 0: there is none."""

    # ---- Handler

    def connection_made(self, connection: Connection) -> None:
        self._connection = connection
        self._owner.opened(self)
        timeout_s = self._owner.limits.handshake_timeout_ms / 1000
        self._timer = self._owner.ports.executor.call_later(timeout_s, self._no_hello)

    def data_received(self, data: bytes) -> None:
        fault: wire.RemoteProtocolError | None = None
        self._core.pressed = self._owner.pressed
        try:
            messages: Sequence[wire.Message] = self._core.receive(data)
        except wire.RemoteProtocolError as error:
            fault, messages = error, error.messages
        self._took(messages, fault)

    def _door(self, kind: type, request_id: int, sequence: int) -> bool:
        """Turn a request away, if it must be, before it is decoded."""
        if self._dispatcher is None or self._connection is None:
            return False
        refusal = self._dispatcher.turned_away(kind, request_id, sequence)
        if not refusal:
            self._owner.relax()
            return False
        self._owner.press()
        self._out.append(refusal)
        self._turned_away = True
        return True

    def _took(
        self, messages: Sequence[wire.Message], fault: wire.RemoteProtocolError | None
    ) -> None:
        core = self._core
        turned_away = self._turned_away
        if turned_away:
            self._turned_away = False
            self._flush()
        held = core.held_bytes
        if held or self._requests_bytes:
            self._count_requests(held)
            self._note_frame(another=turned_away or bool(messages))
            if not self._owner.has_room and not core.deferred:
                messages = self._refuse_long(messages)
        for message in messages:
            if isinstance(message, wire.Hello):
                self._on_hello(message)
            elif self._dispatcher is not None:
                self._dispatcher.handle(message)
        if fault is not None:
            self._end_with(fault)
        elif core.deferred and not self._decoding:
            self._decode()

    def _decode(self) -> None:
        """A long request is read on a lane: a hundred thousand rows are a fifth of a second, in
        which neither heartbeats nor others would be answered. What stands behind it waits."""
        connection, core = self._connection, self._core
        if connection is None:
            return
        self._decoding = True
        connection.pause_reading()
        body, values_max = core.deferred, self._owner.limits.request_values_max

        def decoded(message: wire.Message | None, error: BaseException | None) -> None:
            self._decoding = False
            if self._connection is None or core.state is wire.State.CLOSED:
                core.deferred = b""
                self._count_requests(0)
                return
            fault: wire.RemoteProtocolError | None = None
            messages: Sequence[wire.Message] = ()
            try:
                if error is not None:
                    raise error
                assert message is not None, "it was decoded"
                messages = core.decoded(message)
            except wire.RemoteProtocolError as wrong:
                if core.deferred:
                    core.undecodable(wrong)
                fault, messages = wrong, wrong.messages
            self._took(messages, fault)
            self._read_on()

        replica = self._owner.replica

        def read() -> wire.Message | None:
            gone = self._connection is None
            return None if gone else read_long(replica, body, values_max)

        self._owner.ports.executor.submit(LANE, read, decoded)

    def _read_on(self) -> None:
        """Read again, unless something stands against it."""
        if self._connection is not None and not (self._paused or self._held or self._decoding):
            self._connection.resume_reading()

    def connection_lost(self, reason: str) -> None:
        # What waits for its turn to be read is there until then, whoever has gone.
        self._count_requests(len(self._core.deferred) if self._decoding else 0)
        self._count_unsent(0)
        self._cancel_timer()
        if self._dispatcher is not None:
            self._dispatcher.close()
        # No circles are left for the collector: it comes rarely.
        self._connection = self._dispatcher = self._core.door = None
        self._owner.closed(self)

    # ---- what all clients hold together

    def _count_requests(self, held: int) -> None:
        self._owner.requests_bytes += held - self._requests_bytes
        self._requests_bytes = held

    def _note_frame(self, another: bool) -> None:
        """Since when a long frame comes. `another`: one has ended."""
        if not self._core.is_arriving:
            self.frame_begun_s = 0.0
        elif another or not self.frame_begun_s:
            self.frame_begun_s = self._owner.ports.clock.monotonic_s()

    def _count_unsent(self, unsent: int) -> None:
        self._owner.unsent_bytes += unsent - self.unsent_bytes
        self.unsent_bytes = unsent

    def _refuse_long(self, messages: Sequence[wire.Message]) -> Sequence[wire.Message]:
        """Too much is under way: answer the long ones of these. One that has not come wholly has
        no number yet to be answered by, so its connection ends."""
        self._owner.make_room()
        if self._owner.has_room or self._core.state is wire.State.CLOSED:
            return messages
        error = _too_many_bytes()
        kept: list[wire.Message] = []
        for message in messages:
            request_id = getattr(message, "request_id", 0)
            if self._core.is_long(request_id):
                self.send(wire.ErrorMessage.of(request_id, error))
            else:
                kept.append(message)
        self._count_requests(self._core.held_bytes)
        # What is short is no part of it: of such there are no more than connections.
        if self._core.is_arriving and not self._owner.has_room:
            self._end_with(error)
        return kept

    def give_up_frame(self) -> None:
        """The request that is on its way does not come in time."""
        self._end_with(_too_many_bytes())

    # ---- conversation

    def _on_hello(self, hello: wire.Hello) -> None:
        self._cancel_timer()
        owner = self._owner
        try:
            welcome = greet(owner.replica, owner.limits, hello)
        except Error as error:
            self._end_with(error)
            return
        self._dispatcher = Dispatcher(
            owner.replica,
            owner.describe,
            self.send,
            administer=True,
            hold=self.hold,
            pressed=owner.press,
            soon=owner.ports.executor.call_soon,
        )
        self.send(welcome)

    def send(self, message: wire.ServerMessage) -> None:
        """Queue an answer; what is queued in one turn of the loop leaves in one write. The answer
        to the only request that was under way leaves at once."""
        if self._connection is None or self._core.state is wire.State.CLOSED:
            return
        try:
            data = self._core.send(message)
        except DataError as error:
            request_id = getattr(message, "request_id", 0)
            data = self._core.send(wire.ErrorMessage.of(request_id, error))
        if self._requests_bytes:
            self._count_requests(self._core.held_bytes)
        self._out.append(data)
        if self._dispatcher is None or not self._dispatcher.under_way:
            self._flush()
        elif len(self._out) == 1:
            self._owner.ports.executor.call_soon(self._flush)

    def _flush(self) -> None:
        connection = self._connection
        out, self._out = self._out, []
        if connection is None or not out:
            return
        connection.write(out[0] if len(out) == 1 else b"".join(out))
        if not self._paused and connection.unsent_bytes() > UNSENT_PAUSE_BYTES:
            self._paused = True
            connection.pause_reading()
            self._owner.ports.executor.call_later(DRAIN_CHECK_S, self._maybe_resume)
        if self._paused:
            self._bound_unsent(connection)

    def _bound_unsent(self, connection: Connection) -> None:
        """It reads slowly: what waits for all who do is bounded."""
        owner = self._owner
        self._count_unsent(connection.unsent_bytes())
        if owner.unsent_bytes > owner.limits.client_unsent_bytes_max:
            owner.cut_slowest()

    def cut(self) -> None:
        """Too much waits for it to read."""
        connection = self._connection
        assert connection is not None, "who is gone has nothing unsent"
        self._owner.ports.log.warning(
            "client_too_slow", remote=connection.peer.remote, unsent_bytes=self.unsent_bytes
        )
        self._count_unsent(0)
        connection.abort()

    def _maybe_resume(self) -> None:
        connection = self._connection
        if connection is None:
            return
        self._count_unsent(connection.unsent_bytes())
        if connection.unsent_bytes() > UNSENT_PAUSE_BYTES // 2:
            self._owner.ports.executor.call_later(DRAIN_CHECK_S, self._maybe_resume)
            return
        self._paused = False
        self._count_unsent(0)
        self._read_on()

    def hold(self, seconds: float) -> None:
        """Take nothing from this client for so long."""
        if self._connection is not None and not self._held:
            self._held = True
            self._connection.pause_reading()
            self._owner.ports.executor.call_later(min(seconds, HOLD_S_MAX), self._let_go)

    def _let_go(self) -> None:
        self._held = False
        self._read_on()

    def say_goodbye(self, reason: str) -> None:
        """Tell the client that this node is going."""
        if self._dispatcher is not None:
            self.send(wire.Goodbye(reason))

    def close(self) -> None:
        """Close after what was written is sent."""
        if self._out:
            self._flush()
        if self._connection is not None:
            self._connection.close()

    # ---- ends

    def _end_with(self, error: Error) -> None:
        connection = self._connection
        if connection is None:
            return
        self._owner.ports.log.warning(
            "client_refused",
            remote=connection.peer.remote,
            name=connection.peer.name,
            reason=str(error),
        )
        self._cancel_timer()
        if self._dispatcher is not None:
            self._dispatcher.close()
            self._dispatcher = None
        self._out.append(self._core.send(wire.ErrorMessage.of(0, error)))
        self.frame_begun_s = 0.0
        self._count_requests(len(self._core.deferred))
        self.close()

    def _no_hello(self) -> None:
        self._timer = None
        self._end_with(
            ProtocolError(
                "no hello came in time",
                hint="this is raftdb's client port: connect with raftdb's client library",
            )
        )

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _too_many_bytes() -> Error:
    return OverloadedError(
        f"busy, retry after {RETRY_AFTER_MS} ms",
        hint="the requests of all clients have too many bytes together;"
        " limits.client_requests_bytes_max",
        detail={"retry_after_ms": RETRY_AFTER_MS},
    )
