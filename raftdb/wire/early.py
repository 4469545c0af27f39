"""What a busy server needs of a request in order to turn it away: its kind and its numbers.

A body is read no further than its first elements, whatever is behind them; what these are not
quite as they should be is left to `decode`, which says what is wrong.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable

from raftdb.base.errors import Error, to_wire
from raftdb.base.packing import pack
from raftdb.wire import messages as m
from raftdb.wire.checks import INTEGER_MAX
from raftdb.wire.codec import kind_of

Door = Callable[[type, int, int], bool]
"""Asked with the message's type, its request id and its sequence (0: that kind has none); True:
it is answered already, and need not be decoded."""

HEAD_BYTES_MAX = 20
"""Array and kind of one byte each, two integers of nine."""
_SEQUENCED = kind_of(m.Execute)
_KINDS: dict[int, type] = {
    kind_of(one): one for one in (m.Execute, m.OpenSession, m.Query, m.OpenCursor)
}
_ARRAY, _ARRAY_MASK = 0x90, 0xF0
_UINT8, _UINT64 = 0xCC, 0xCF
_ERROR_HEAD = bytes((_ARRAY | 3, kind_of(m.ErrorMessage)))
_HEADER = struct.Struct(">I")


def glance(body: bytes | memoryview) -> tuple[type, int, int] | None:
    """Type, request id and sequence of what may be turned away; None: it has to be decoded."""
    head = bytes(body[:HEAD_BYTES_MAX])
    if len(head) < 3 or head[0] & _ARRAY_MASK != _ARRAY:
        return None
    kind = _KINDS.get(head[1])
    if kind is None:
        return None
    request_id, position = _integer(head, 2)
    if not 0 < request_id <= INTEGER_MAX:
        return None
    if head[1] != _SEQUENCED:
        return kind, request_id, 0
    sequence, _position = _integer(head, position)
    return (kind, request_id, sequence) if 0 < sequence <= INTEGER_MAX else None


def _integer(head: bytes, position: int) -> tuple[int, int]:
    """A msgpack integer that is not negative, and where the next one begins; -1: it is none."""
    first = head[position] if position < len(head) else 0xFF
    if first < 0x80:
        return first, position + 1
    if not _UINT8 <= first <= _UINT64:
        return -1, position
    end = position + 1 + (1 << (first - _UINT8))
    if end > len(head):
        return -1, position
    return int.from_bytes(head[position + 1 : end], "big"), end


@functools.lru_cache(maxsize=64)
def packed_error(make: Callable[[int], Error], milliseconds: int) -> bytes:
    """The error that `make` makes of that time, packed once for all who get it."""
    return pack(to_wire(make(milliseconds)))


def error_frame(request_id: int, packed: bytes) -> bytes:
    """The frame of an ErrorMessage for a request that was never opened."""
    body = _ERROR_HEAD + pack(request_id) + packed
    return _HEADER.pack(len(body)) + body
