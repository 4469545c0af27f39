"""One connection, seen from either side: bytes to messages and back, no IO.

A connection goes through these states; both sides keep the same table and neither knows which of
them it is (they differ only in what they may send).

    FRESH       nobody has spoken; only a Hello may come
    GREETED     the Hello is out; the server accepts it (Welcome) or refuses (ErrorMessage 0)
    OPEN        requests and replies
    DRAINING    after Goodbye: requests and replies still, for what crossed on the way
    CLOSED      after ErrorMessage 0 or a fault: nothing more

Frames are a big-endian u32 length and that many bytes of body. Until the Welcome a server takes
`limits.hello_frame_bytes_max` and a client WELCOME_FRAME_BYTES_MAX; afterwards
`limits.client_frame_bytes_max` (announced in the Welcome). A header that claims more is refused
when the header is there, before any of the body is kept.

An exception from `send` leaves the connection as it was. RemoteProtocolError from `receive` ends
the receiving: every later call raises it again; a server can still say why (`send` of an
ErrorMessage with request_id 0). Any other exception from `receive` is a bug.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Mapping
from typing import Any

from raftdb.base.errors import DataError
from raftdb.base.limits import DEFAULT_LIMITS, Limits
from raftdb.wire import messages as m
from raftdb.wire.codec import decode, encode
from raftdb.wire.early import Door, glance
from raftdb.wire.errors import LocalProtocolError, RemoteProtocolError

WELCOME_FRAME_BYTES_MAX = 64 * 1024
LONG_REQUEST_BYTES = 64 * 1024
"""A longer one is counted while it is under way. Of shorter ones the number is bounded."""
_HEADER = struct.Struct(">I")
HEADER_BYTES = _HEADER.size


class State(enum.Enum):
    """Where a connection stands."""

    FRESH = "fresh"
    GREETED = "greeted"
    OPEN = "open"
    DRAINING = "draining"
    CLOSED = "closed"


_REQUESTS = (
    m.OpenSession,
    m.AttachSession,
    m.CloseSession,
    m.Execute,
    m.Begin,
    m.Transact,
    m.Commit,
    m.Rollback,
    m.Outcome,
    m.Query,
    m.OpenCursor,
    m.FetchCursor,
    m.CloseCursor,
    m.Status,
    m.Ping,
    m.Transfer,
    m.ContentHash,
    m.Ask,
)
_REPLIES = (m.Result, m.Rows, m.CursorRows, m.Info, m.Pong, m.Done, m.ErrorMessage)
_WHILE_OPEN = (*_REQUESTS, *_REPLIES, m.Cancel)

TRANSITIONS: Mapping[State, Mapping[type, State]] = {
    State.FRESH: {m.Hello: State.GREETED},
    State.GREETED: {m.Welcome: State.OPEN},
    State.OPEN: dict.fromkeys(_WHILE_OPEN, State.OPEN) | {m.Goodbye: State.DRAINING},
    State.DRAINING: dict.fromkeys((*_WHILE_OPEN, m.Goodbye), State.DRAINING),
    State.CLOSED: {},
}
"""What may be said in a state, and the state that follows. An ErrorMessage with request_id 0 is
the exception: it may come from the server at any time and leads to CLOSED."""


class _Side:
    """What both sides share."""

    _sends: frozenset[type]
    _receives: frozenset[type]

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self.limits = limits
        self.state = State.FRESH
        self._allowed = TRANSITIONS[State.FRESH]
        self._fault: tuple[str, str, str] | None = None
        self._buffer = bytearray()
        self._open: set[int] = set()
        self._long: dict[int, int] = {}
        """Sizes of the long requests among them."""
        self.defer_bytes = 0
        """A frame longer than this is not decoded here, but put into `deferred`; 0: none is."""
        self.deferred = b""
        """The body of a frame that somebody else decodes (`decode`) and brings back (`decoded` or
        `undecodable`); what comes meanwhile waits."""
        self.door: Door | None = None
        """May answer a request before it is decoded: a long one always, others while `pressed`.
        What stands behind another message of the same bytes is decoded: its turn is not yet."""
        self.pressed = False
        self._receive_frame_max = 0
        self._send_frame_max = 0
        self._requests_max = limits.requests_per_connection_max

    @property
    def open_requests(self) -> int:
        """How many requests have no (last) reply yet."""
        return len(self._open)

    @property
    def held_bytes(self) -> int:
        """What has come of a frame that is not complete, and the long requests without a reply."""
        long = sum(self._long.values()) if self._long else 0
        return len(self._buffer) + len(self.deferred) + long

    @property
    def is_arriving(self) -> bool:
        """Whether the beginning of a long frame has come, and not all of it."""
        if len(self._buffer) < HEADER_BYTES or self.deferred:
            return False
        return bool(_HEADER.unpack_from(self._buffer)[0] > LONG_REQUEST_BYTES)

    def is_long(self, request_id: int) -> bool:
        """Whether that request counts in `held_bytes`."""
        return request_id in self._long

    def send(self, message: m.Message) -> bytes:
        """The message's bytes, ready for the stream.

        Raises LocalProtocolError when it may not be sent now, DataError when a value cannot be sent
        or the frame would be larger than the other side takes.
        """
        if type(message) not in self._sends:
            raise LocalProtocolError(f"this side does not send {type(message).__name__}")
        body = encode(message)
        if len(body) > self._send_frame_max:
            raise DataError(
                f"a message of {len(body)} bytes is larger than the"
                f" {self._send_frame_max} bytes allowed",
                code="too_large",
                hint="split it into smaller requests",
            )
        self._step(message, LocalProtocolError)
        return _HEADER.pack(len(body)) + body

    def receive(self, data: bytes | bytearray | memoryview) -> list[m.Message]:
        """Take bytes as they come; give the messages that are complete, in order.

        Raises RemoteProtocolError. Its `messages` are the good ones that stood ahead of the fault.
        """
        if self._fault is not None:
            # A fresh one each time: an exception keeps alive whatever its traceback has seen.
            code, text, hint = self._fault
            raise RemoteProtocolError(text, code=code, hint=hint)
        received: list[m.Message] = []
        if self.deferred:
            self._buffer += data
            return received
        try:
            if self._buffer:
                self._buffer += data
                with memoryview(self._buffer) as view:
                    used = self._frames(view, received)
                del self._buffer[:used]
            else:
                with memoryview(data) as view:
                    used = self._frames(view, received)
                    if used < len(view):
                        self._buffer += view[used:]
        except RemoteProtocolError as error:
            self._end(error, received)
            raise
        return received

    def decoded(self, message: m.Message) -> list[m.Message]:
        """Take the message that `deferred` was: it, and what is complete behind it. Raises as
        `receive`."""
        received: list[m.Message] = []
        size, self.deferred = len(self.deferred), b""
        try:
            self._take(message, size, received)
            with memoryview(self._buffer) as view:
                used = self._frames(view, received)
            del self._buffer[:used]
        except RemoteProtocolError as error:
            self._end(error, received)
            raise
        return received

    def undecodable(self, error: RemoteProtocolError) -> None:
        """`deferred` is no message: nothing more is taken from the other side."""
        self.deferred = b""
        self._end(error, [])

    def _end(self, error: RemoteProtocolError, received: list[m.Message]) -> None:
        error.messages = tuple(received)
        self._fault = (error.code, error.message, error.hint)
        self._become(State.CLOSED)

    def _frames(self, view: memoryview, received: list[m.Message]) -> int:
        """Decode all complete frames; give the number of bytes used."""
        position, end = 0, len(view)
        while end - position >= HEADER_BYTES:
            (size,) = _HEADER.unpack_from(view, position)
            if size > self._receive_frame_max:
                raise RemoteProtocolError(
                    f"a frame of {size} bytes is larger than the "
                    f"{self._receive_frame_max} bytes allowed",
                    code="frame_too_large",
                    hint="split the request, or check that this is a raftdb client port",
                )
            start = position + HEADER_BYTES
            if end - start < size:
                break
            position = start + size
            long = 0 < self.defer_bytes < size
            if (self.pressed or long) and not received and self._turned_away(view[start:position]):
                continue
            if long:
                self.deferred = bytes(view[start:position])
                break
            message = decode(view[start:position], self.limits.request_values_max)
            self._take(message, size, received)
        return position

    def _turned_away(self, body: memoryview) -> bool:
        """Whether the door answered it. What may not be said now is decoded, and blamed."""
        found = glance(body) if self.door is not None and self.state in _TALKING else None
        return (
            found is not None
            and self.door is not None
            and found[1] not in self._open
            and len(self._open) < self._requests_max
            and self.door(*found)
        )

    def _take(self, message: m.Message, size: int, received: list[m.Message]) -> None:
        if type(message) not in self._receives:
            raise RemoteProtocolError(f"{type(message).__name__} came from the wrong side")
        self._step(message, RemoteProtocolError)
        if size > LONG_REQUEST_BYTES:
            self._note_long(message, size)
        received.append(message)

    def _step(self, message: Any, blame: type[Exception]) -> None:
        """Check that the message may be said now, then note that it was. Nothing changes when it
        may not."""
        kind = type(message)
        following = self._allowed.get(kind)
        if kind is m.ErrorMessage and message.request_id == 0:
            following = self._after_refusal(blame)
        elif following is None:
            raise blame(f"{kind.__name__} is not allowed: {self.state.value}")
        elif kind in _REQUEST_TYPES:
            request_id = message.request_id
            if request_id in self._open:
                raise blame(f"request id {request_id} is open already")
            if len(self._open) >= self._requests_max:
                raise blame(f"more than {self._requests_max} requests are open")
            self._open.add(request_id)
        elif kind in _REPLY_TYPES:
            request_id = message.request_id
            if request_id not in self._open:
                raise blame(f"{kind.__name__} for request {request_id}, which is not open")
            if kind not in _IN_PIECES or message.last:
                self._open.discard(request_id)
                if self._long:
                    self._long.pop(request_id, None)
        elif kind is m.Welcome:
            self._welcomed(message)
        if following is not self.state:
            self._become(following)

    def _note_long(self, message: Any, size: int) -> None:
        if type(message) in _REQUEST_TYPES:
            self._long[message.request_id] = size

    def _after_refusal(self, blame: type[Exception]) -> State:
        """ErrorMessage 0 may come at any time, once; after a fault of the other side a server may
        still say it."""
        if self.state is State.CLOSED and self._fault is None:
            raise blame("the connection is closed already")
        return State.CLOSED

    def _become(self, state: State) -> None:
        self.state = state
        self._allowed = TRANSITIONS[state]
        if state is State.CLOSED:
            # What has come of the next frame is of no use: nothing more is taken.
            self._buffer = bytearray()

    def _welcomed(self, welcome: m.Welcome) -> None:
        raise NotImplementedError


_TALKING = (State.OPEN, State.DRAINING)
_IN_PIECES = frozenset((m.Rows, m.CursorRows))
_REQUEST_TYPES = frozenset(_REQUESTS)
_REPLY_TYPES = frozenset(_REPLIES)
_CLIENT_TYPES = frozenset((m.Hello, *_REQUESTS, m.Cancel))
_SERVER_TYPES = frozenset((m.Welcome, *_REPLIES, m.Goodbye))


class ClientSide(_Side):
    """A client's end."""

    _sends = _CLIENT_TYPES
    _receives = _SERVER_TYPES

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        super().__init__(limits)
        self._send_frame_max = limits.hello_frame_bytes_max
        self._receive_frame_max = WELCOME_FRAME_BYTES_MAX
        self._offered: tuple[int, ...] = ()

    def send(self, message: m.Message) -> bytes:
        data = super().send(message)
        if type(message) is m.Hello:
            self._offered = message.versions
        return data

    def _welcomed(self, welcome: m.Welcome) -> None:
        if welcome.version not in self._offered:
            raise RemoteProtocolError(
                f"the server chose protocol version {welcome.version}, which was not offered"
            )
        self._send_frame_max = welcome.frame_bytes_max
        self._receive_frame_max = self.limits.client_frame_bytes_max
        self._requests_max = welcome.requests_max


class ServerSide(_Side):
    """A server's end."""

    _sends = _SERVER_TYPES
    _receives = _CLIENT_TYPES

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        super().__init__(limits)
        self._receive_frame_max = limits.hello_frame_bytes_max
        self._send_frame_max = WELCOME_FRAME_BYTES_MAX

    def _welcomed(self, welcome: m.Welcome) -> None:
        if (
            welcome.frame_bytes_max > self.limits.client_frame_bytes_max
            or welcome.requests_max > self.limits.requests_per_connection_max
        ):
            raise LocalProtocolError("the Welcome announces more than this side's limits")
        self._receive_frame_max = self.limits.client_frame_bytes_max
        self._send_frame_max = self.limits.client_frame_bytes_max
