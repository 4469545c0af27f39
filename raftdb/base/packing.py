"""msgpack with a packer kept for each thread: making one costs more than packing a short message
with it (256 KiB of buffer each time).

And msgpack that gives way: one call of the library has the interpreter to itself, and 100,000 rows
are 50 ms of CPU, which on a busy machine, where a process has a tenth of a core, is longer than an
election time-out. Long values are read and written in pieces, between which other threads, above
all the loop with its heartbeats, have their turn.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any

import msgpack

BUFFER_KEPT_BYTES = 1 << 20
"""A packer keeps the buffer of the largest value it packed: after a larger one it is given up."""


LONG_BYTES = 64 * 1024
"""Longer values are read in pieces. Shorter ones are a millisecond at most."""
PIECE = 500
"""Elements that are packed at a time."""


_long_header = struct.Struct(">BI").pack


class _Local(threading.local):
    def __init__(self) -> None:
        self.pack = msgpack.Packer(use_bin_type=True).pack
        self.header = msgpack.Packer(buf_size=16).pack_array_header


_local = _Local()


def pack(value: Any) -> bytes:
    """The value as msgpack. Raises what msgpack raises: OverflowError, UnicodeEncodeError,
    TypeError, ValueError."""
    packed: bytes = _local.pack(value)
    if len(packed) > BUFFER_KEPT_BYTES:
        _local.pack = msgpack.Packer(use_bin_type=True).pack
    return packed


def array_header(count: int) -> bytes:
    """What stands before so many elements."""
    header: bytes = _local.header(count)
    return header


def binary_header(size: int) -> bytes:
    """What stands before so many bytes (more than 65,535 of them)."""
    return _long_header(0xC6, size)


def text_header(size: int) -> bytes:
    """What stands before so many bytes of text (more than 65,535 of them)."""
    return _long_header(0xDB, size)


def pack_binaries(values: Sequence[bytes], before: bytes = b"") -> bytes:
    """`before`, and an array of byte strings. The library makes four copies of a long value, each
    with the interpreter to itself; this makes one."""
    if max(map(len, values), default=0) <= LONG_BYTES:
        return before + pack(values)
    parts = [before, array_header(len(values))]
    for value in values:
        parts += (binary_header(len(value)), value) if len(value) > LONG_BYTES else (pack(value),)
    return b"".join(parts)


def pack_array(elements: Sequence[Any]) -> bytes:
    """As `pack`, and in pieces. Raises as it."""
    parts = [array_header(len(elements))]
    for start in range(0, len(elements), PIECE):
        piece = elements[start : start + PIECE]
        parts.append(pack(piece)[len(array_header(len(piece))) :])
    return b"".join(parts)


def give_way(array: Any) -> Any:
    """Nothing: but before a Python function begins, another thread may have the interpreter."""
    return array


def way_giver(data: bytes | memoryview) -> Callable[[Any], Any] | None:
    """The `list_hook` to read this with: called for each array, so for each row."""
    return give_way if len(data) > LONG_BYTES else None
