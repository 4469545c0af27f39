"""msgpack with a packer kept for each thread: making one costs more than packing a short message
with it (256 KiB of buffer each time)."""

from __future__ import annotations

import threading
from typing import Any

import msgpack

BUFFER_KEPT_BYTES = 1 << 20
"""A packer keeps the buffer of the largest value it packed: after a larger one it is given up."""


class _Local(threading.local):
    def __init__(self) -> None:
        self.pack = msgpack.Packer(use_bin_type=True).pack


_local = _Local()


def pack(value: Any) -> bytes:
    """The value as msgpack. Raises what msgpack raises: OverflowError, UnicodeEncodeError,
    TypeError, ValueError."""
    packed: bytes = _local.pack(value)
    if len(packed) > BUFFER_KEPT_BYTES:
        _local.pack = msgpack.Packer(use_bin_type=True).pack
    return packed
