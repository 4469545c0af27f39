"""Walks msgpack without building it: what is claimed must be there, and be bounded."""

from __future__ import annotations

import msgpack

SKIP_BYTES = 1_024
"""Bodies up to this size are not worth a walk of their own."""
COUNT_BYTES = 256 * 1_024
"""Beyond, values are counted: one of a byte can take 64 once it is built."""


def check_shape(body: bytes | memoryview, values_max: int) -> None:
    """Walk msgpack without building it. Raises ValueError when more is claimed than is there, or
    when there are more than `values_max` values."""
    if len(body) > COUNT_BYTES:
        _count_values(body, values_max)
        return
    walker = msgpack.Unpacker(max_buffer_size=len(body), read_size=min(len(body), 4_096))
    walker.feed(body)
    try:
        walker.skip()
    except msgpack.OutOfData:
        raise ValueError("it ends early") from None


def _count_values(body: bytes | memoryview, values_max: int) -> None:
    sizes, position, end, pending, count = _SIZES, 0, len(body), 1, 0
    while pending:
        if position >= end or count >= values_max:
            break
        head = body[position]
        pending -= 1
        count += 1
        if head < 0x80 or head >= 0xE0:
            position += 1
        elif head < 0x90:
            pending += 2 * (head & 15)
            position += 1
        elif head < 0xA0:
            pending += head & 15
            position += 1
        elif head < 0xC0:
            position += 1 + (head & 31)
        else:
            fixed, length_bytes, per_length = sizes[head - 0xC0]
            position += 1
            if length_bytes:
                length = int.from_bytes(body[position : position + length_bytes], "big")
                position += length_bytes
                if per_length:
                    pending += per_length * length
                else:
                    position += length
            position += fixed
        if pending > end - position:
            raise ValueError("it claims more elements than it has bytes")
    if pending and count >= values_max:
        raise ValueError(f"it has more than {values_max} values")
    if pending or position != end:
        raise ValueError("it ends early or has bytes to spare")


# Of the heads 0xC0 to 0xDF: bytes of a fixed size; bytes of the length field; elements per unit of
# length (0: the length counts bytes).
# fmt: off
_FIXED = (0, 0, 0, 0,  0, 0, 0,  1, 1, 1,  4, 8,  1, 2, 4, 8,  1, 2, 4, 8,
          2, 3, 5, 9, 17,  0, 0, 0,  0, 0, 0, 0)
_LENGTH = (0, 0, 0, 0,  1, 2, 4,  1, 2, 4,  0, 0,  0, 0, 0, 0,  0, 0, 0, 0,
           0, 0, 0, 0, 0,  1, 2, 4,  2, 4, 2, 4)
_ELEMENTS = (0,) * 28 + (1, 1, 2, 2)
# fmt: on
_SIZES = tuple(zip(_FIXED, _LENGTH, _ELEMENTS, strict=True))
