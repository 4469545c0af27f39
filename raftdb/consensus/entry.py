"""What an entry's `data` holds: one type byte, then its body (DESIGN.md, "An entry's bytes").

The type bytes 0 to 3 are the library's own command types, so that the no-op it writes when a leader
begins its term is already in this format.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgpack

from raftdb.base.errors import FatalError
from raftdb.base.packing import pack_binaries
from raftdb.consensus.membership import decode_configuration

NOOP = b"\x01"
"""The entry with which a leader begins its term. No body."""
CONFIGURATION = b"\x02"
"""All members, from this entry on (raftdb.consensus.membership)."""
BATCH = b"\x10"
"""A msgpack array of payloads (bin), one per proposed request."""

BASE_DATA = b""
"""Data of the base entry (index 1, term 0), which every founded journal begins with."""

_PAYLOADS_MAX = 1 << 20


def encode_batch(payloads: Sequence[bytes]) -> bytes:
    """Several requests as one entry's data."""
    return pack_binaries(payloads, BATCH)


def decode_payloads(data: bytes) -> tuple[bytes, ...]:
    """The payloads of an entry; none for a no-op, the base entry and a change of members.

    Raises FatalError: a committed entry that this release can't read stops the node.
    """
    if data[:1] == BATCH:
        try:
            payloads = msgpack.unpackb(
                memoryview(data)[1:], use_list=False, max_array_len=_PAYLOADS_MAX, max_map_len=0
            )
        except ValueError as error:
            raise _unreadable(f"its payloads do not decode: {error}") from error
        if not isinstance(payloads, tuple) or not all(type(item) is bytes for item in payloads):
            raise _unreadable("its payloads are not an array of byte strings")
        return payloads
    if data in (BASE_DATA, NOOP):
        return ()
    if data[:1] == CONFIGURATION:
        decode_configuration(data[1:])
        return ()
    raise _unreadable(f"its type byte is {data[0]:#04x}")


def _unreadable(why: str) -> FatalError:
    return FatalError(
        f"a committed log entry cannot be read: {why}",
        code="log_entry",
        hint="a newer release may have written it: compare `raftdb --version` on all nodes",
    )
