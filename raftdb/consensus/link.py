"""One connection to a peer: frames, the hello, and long messages in pieces.

A frame is a big-endian u32 length and that many bytes of one message. Until the peer's hello has
been checked, a frame may have `hello_frame_bytes_max` bytes; afterwards no frame is longer than a
piece, so that heartbeats never wait behind more than a few of them.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import Protocol

from raftdb.base.errors import ProtocolError
from raftdb.base.limits import Limits
from raftdb.base.ports import Clock, Connection
from raftdb.consensus.messages import (
    Append,
    CopyHello,
    Hello,
    Message,
    Packed,
    Part,
    PartAck,
    Ping,
    decode,
    encode,
)
from raftdb.consensus.packing import packed, unpacked

PARTS_UNANSWERED_MAX = 8
"""Pieces under way to one peer: what a heartbeat may have to wait behind."""
FRAME_OVERHEAD_BYTES = 128
"""What a frame may have beyond a piece: its type and lengths, or a short message."""

_LENGTH = struct.Struct(">I")


class Links(Protocol):
    """The core's view of the transport: who is connected, and sending."""

    def connected(self, peer: str) -> bool: ...

    def epoch(self, peer: str) -> int:
        """Of the current connection; grows with each."""

    def send(self, peer: str, message: Message) -> None:
        """Dropped when the peer is not connected."""

    def hang_up(self, peer: str) -> None:
        """Break the connection at once: the peer notices, even one whose own words get lost."""


class LinkOwner(Protocol):
    """Who decides what a link's events mean."""

    def link_made(self, link: Link) -> None: ...

    def link_hello(self, link: Link, hello: Hello | CopyHello, second: Message | None) -> bool:
        """The hello, alone, and with what came next if that had to be waited for. False: wait for
        it. Raises ProtocolError to refuse."""

    def link_message(self, link: Link, message: Message) -> None: ...

    def link_bulk(self, link: Link) -> None:
        """A piece came in or was answered."""

    def link_failed(self, link: Link, error: ProtocolError) -> None:
        """The other side broke the protocol; the link closes after this."""

    def link_lost(self, link: Link, reason: str) -> None: ...


class Link:
    """A Handler of the Network port. `peer` is None until the hello is accepted."""

    def __init__(
        self,
        owner: LinkOwner,
        dialled: str | None,
        clock: Clock,
        limits: Limits,
        *,
        for_copy: bool = False,
    ) -> None:
        self.dialled = dialled
        """The peer we dialled; None when it dialled us."""
        self.peer: str | None = None
        self.for_copy = for_copy
        """Carries a copy of the database and nothing else."""
        self.far = False
        """The peer is behind a long line: Appends go compressed."""
        self.epoch = 0
        self.refused = False
        """The other side broke the protocol, and that was reported."""
        self.connection: Connection | None = None
        self.made_at_s = clock.monotonic_s()
        self.heard_at_s = self.made_at_s
        self.sent_at_s = self.made_at_s
        self._owner = owner
        self._clock = clock
        self._message_bytes_max = limits.peer_frame_bytes_max
        self._part_bytes = limits.peer_part_bytes
        self._frame_bytes_max = limits.hello_frame_bytes_max
        self._hello: Hello | CopyHello | None = None
        """Accepted, if only with what comes next."""
        self._buffer = bytearray()
        self._closed = False
        self._bulk: deque[bytes] = deque()
        self._bulk_offset = 0
        self._parts_sent = 0
        self._parts_answered = 0
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self._parts_received = 0

    # -- Handler ---------------------------------------------------------------------------------

    def connection_made(self, connection: Connection) -> None:
        """The Network port connected and, with TLS, knows who is there."""
        self.connection = connection
        self.made_at_s = self.heard_at_s = self._clock.monotonic_s()
        self._owner.link_made(self)

    def data_received(self, data: bytes) -> None:
        """Any number of frames, or a piece of one."""
        if self._closed:
            return
        self.heard_at_s = self._clock.monotonic_s()
        try:
            self._read_frames(data)
        except ProtocolError as error:
            self.refused = True
            self._owner.link_failed(self, error)
            self.abort()

    def connection_lost(self, reason: str) -> None:
        """The last event."""
        self._closed = True
        self._forget()
        self._owner.link_lost(self, reason)

    # -- sending ---------------------------------------------------------------------------------

    def send(self, message: Message, body: bytes | None = None) -> None:
        """In order among Appends; everything else goes ahead of what is sent in pieces. `body`
        is the message's encoding where the caller has it."""
        if self._closed or self.connection is None:
            return
        if body is None:
            body = encode(message)
        if self.far and isinstance(message, Append):
            data = packed(body)
            body = encode(Packed(data)) if data else body
        if isinstance(message, Append) and (self._bulk or len(body) > self._part_bytes):
            self._bulk.append(body)
            self._pump_bulk()
        else:
            self._write(body)

    def abort(self) -> None:
        """Close now. `link_lost` follows from the Network port."""
        if not self._closed:
            self._closed = True
            self._forget()
            if self.connection is not None:
                self.connection.abort()

    def close(self, message: Message) -> None:
        """Close after this last word is sent. `link_lost` follows from the Network port."""
        self.send(message)
        if not self._closed:
            self._closed = True
            self._forget()
            if self.connection is not None:
                self.connection.close()

    def _forget(self) -> None:
        self._bulk.clear()
        self._parts.clear()
        self._buffer.clear()

    def _write(self, body: bytes) -> None:
        assert self.connection is not None
        self.sent_at_s = self._clock.monotonic_s()
        self.connection.write(_LENGTH.pack(len(body)) + body)

    def _pump_bulk(self) -> None:
        while self._bulk and self._parts_sent - self._parts_answered < PARTS_UNANSWERED_MAX:
            body = self._bulk[0]
            if self._bulk_offset == 0 and len(body) <= self._part_bytes:
                self._bulk.popleft()
                self._write(body)
                continue
            end = self._bulk_offset + self._part_bytes
            last = end >= len(body)
            self._parts_sent += 1
            self._write(encode(Part(last, body[self._bulk_offset : end])))
            self._bulk_offset = end
            if last:
                self._bulk.popleft()
                self._bulk_offset = 0

    # -- receiving -------------------------------------------------------------------------------

    def _read_frames(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        offset = 0
        while not self._closed and len(buffer) - offset >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(buffer, offset)
            if size > self._frame_bytes_max:
                raise ProtocolError(f"a frame of {size} bytes is announced")
            end = offset + _LENGTH.size + size
            if len(buffer) < end:
                break
            body = bytes(buffer[offset + _LENGTH.size : end])
            offset = end
            self._on_message(decode(body))
        if not self._closed:
            del buffer[:offset]

    def _on_message(self, message: Message) -> None:
        if self.peer is None:
            self._on_hello(message)
        elif isinstance(message, Ping):
            pass
        elif isinstance(message, Part | PartAck) and self.for_copy:
            raise ProtocolError("a piece of a long message beside a copy")
        elif isinstance(message, Part):
            self._on_part(message)
        elif isinstance(message, PartAck):
            if not self._parts_answered <= message.parts <= self._parts_sent:
                raise ProtocolError("pieces are answered that were never sent")
            self._parts_answered = message.parts
            self._owner.link_bulk(self)
            self._pump_bulk()
        elif isinstance(message, Packed) and not self.for_copy:
            inner = decode(unpacked(message.data, self._message_bytes_max))
            if not isinstance(inner, Append):
                raise ProtocolError(f"{type(inner).__name__}, compressed")
            self._owner.link_message(self, inner)
        elif isinstance(message, Hello | CopyHello):
            raise ProtocolError("a second hello")
        else:
            self._owner.link_message(self, message)

    def _on_hello(self, message: Message) -> None:
        if self._hello is not None:
            self._owner.link_hello(self, self._hello, message)
            return
        if isinstance(message, CopyHello) and self.dialled is None:
            self.for_copy = True
        elif not isinstance(message, Hello):
            raise ProtocolError(f"{type(message).__name__} before the hello")
        if not self._owner.link_hello(self, message, None):
            self._hello = message
        self._frame_bytes_max = self._part_bytes + FRAME_OVERHEAD_BYTES

    def _on_part(self, part: Part) -> None:
        if not part.data:
            # Any number of them would stay below the bound.
            raise ProtocolError("an empty piece of a message")
        self._parts_bytes += len(part.data)
        if self._parts_bytes > self._message_bytes_max:
            raise ProtocolError(f"a message of more than {self._message_bytes_max} bytes")
        self._parts.append(part.data)
        self._parts_received += 1
        self._write(encode(PartAck(self._parts_received)))
        self._owner.link_bulk(self)
        if part.last:
            body = b"".join(self._parts)
            self._parts.clear()
            self._parts_bytes = 0
            message = decode(body)
            if not isinstance(message, Append | Packed):
                raise ProtocolError(f"{type(message).__name__} in pieces")
            self._on_message(message)
