"""Appends to distant followers, compressed: a long line is slow, and the entries repeat themselves.

zstd at its quickest level: about 3 ms of the loop for a mebibyte of SQL, which it makes a fifth or
less (measured on this class of machine). Short messages, and what does not get shorter, go as they
are; so do messages beyond PACK_BYTES_MAX, which would hold up the loop.
"""

from __future__ import annotations

import zstandard

from raftdb.base.errors import ProtocolError

PACK_BYTES_MIN = 512
PACK_BYTES_MAX = 4 << 20
_GAIN = 0.9
_LEVEL = 1


def packed(body: bytes) -> bytes:
    """The body, compressed; b"" when that is not worth while."""
    if not PACK_BYTES_MIN <= len(body) <= PACK_BYTES_MAX:
        return b""
    made = zstandard.ZstdCompressor(level=_LEVEL).compress(body)
    return made if len(made) < _GAIN * len(body) else b""


def unpacked(data: bytes, bytes_max: int) -> bytes:
    """What was compressed, of at most `bytes_max` bytes: nothing longer is ever made. Raises
    ProtocolError."""
    try:
        size = zstandard.frame_content_size(data)
        if not 0 <= size <= bytes_max:
            raise ProtocolError(f"a compressed message of {size} bytes is announced")
        body = zstandard.ZstdDecompressor().decompress(data, max_output_size=bytes_max)
    except zstandard.ZstdError as error:
        raise ProtocolError(f"a compressed message does not decode: {error}") from None
    if len(body) != size:
        raise ProtocolError("a compressed message is not as long as it says")
    return body
