"""The content hash: how a row becomes a number, and how numbers become the hash of a database.

A row is hashed as BLAKE2b-128 over a 16-byte key and the row's canonical bytes; a table's sum is
the sum of its rows' hashes modulo 2^128, so that a change costs what changed and order does not
matter. DESIGN.md has the encoding byte by byte.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import msgpack

from raftdb.base.ids import Index
from raftdb.base.packing import BUFFER_KEPT_BYTES, array_header
from raftdb.machine.format import HASH_BYTES, HASH_MASK

PARTS_MAX = 4_096
"""Parts whose names are kept hashed: 0.4 KB each."""
LONG_BYTES = 0xFFFF
"""MessagePack gives the length of longer values in four bytes."""
_LONG_BLOB, _LONG_TEXT = 0xC6, 0xDB
_long_head = struct.Struct(">BI").pack
_fresh_chain = blake2b(digest_size=HASH_BYTES).copy
_place = struct.Struct("<QI").pack


@dataclass(frozen=True, slots=True)
class ContentHash:
    """The whole content right after the request at `position` requests into entry `index` + 1
    (position 0: right after all of entry `index`). All hashes have 16 bytes."""

    index: Index
    position: int
    total: bytes
    """Of tables, schema and sequences. Equal content gives equal totals, however it came about."""
    tables: dict[str, bytes]
    """By name, sorted; tables of virtual tables' own storage and sqlite_stat* included."""
    schema: bytes
    """Of sqlite_schema, user_version and application_id."""
    sequences: bytes
    """Of sqlite_sequence (AUTOINCREMENT)."""
    results: bytes
    """A chain over every reply since the history began, session openings and endings included.
    It is not part of `total`, since it tells the way and not the place."""


@dataclass(slots=True)
class LongValue:
    """A value of more than LONG_BYTES bytes that is read while it is hashed."""

    is_text: bool
    size: int
    """In bytes."""
    pieces: Iterable[memoryview]
    """All its bytes, in order. One may be overwritten by the next."""


class RowHasher:
    """Hashes rows. Not for several threads at once."""

    __slots__ = ("_key", "_parts", "fresh", "longest", "pack")

    def __init__(self, key: bytes) -> None:
        assert len(key) == HASH_BYTES, "the hash key has 16 bytes"
        self._key = key
        self.renew()
        # Copying a state is a third of the price of making one: its parameters are read each time.
        self.fresh = blake2b(key, digest_size=HASH_BYTES).copy
        """A state that a row's bytes go into; its digest, little-endian, is the row's hash."""
        self._parts: dict[tuple[str, str], Callable[[], Any]] = {}
        self.longest = 0
        """Bytes of the longest value so far, if it had more than LONG_BYTES."""

    def renew(self) -> None:
        """Let go of the packer's buffer: it keeps that of the longest row for good."""
        self.pack = msgpack.Packer(use_bin_type=True).pack
        """A row's canonical bytes. For rows without long values (`hash` is for all)."""

    def hash(self, values: Sequence[Any]) -> int:
        """Of one row or any other tuple of SQLite's values."""
        for value in values:
            if (type(value) is bytes or type(value) is str) and len(value) > LONG_BYTES:
                return self.hash_long(values)
        state, packed = self.fresh(), self.pack(values)
        state.update(packed)
        if len(packed) > BUFFER_KEPT_BYTES:
            self.renew()
        return int.from_bytes(state.digest(), "little")

    def hash_long(self, values: Sequence[Any]) -> int:
        """The same, of LongValues too, without copies of long values, each of which would keep the
        interpreter from the other threads: of 40 MB, for longer than a heartbeat may be late on a
        busy machine."""
        state = self.fresh()
        state.update(array_header(len(values)))
        for value in values:
            if type(value) is LongValue:
                state.update(_long_head(_LONG_TEXT if value.is_text else _LONG_BLOB, value.size))
                for piece in value.pieces:
                    state.update(piece)
                continue
            data = value.encode() if type(value) is str else value
            if type(data) is bytes and len(data) > LONG_BYTES:
                state.update(
                    _long_head(_LONG_TEXT if type(value) is str else _LONG_BLOB, len(data))
                )
                self.longest = max(self.longest, len(data))
                state.update(data)
            else:
                state.update(self.pack(value))
        return int.from_bytes(state.digest(), "little")

    def part(self, kind: str, name: str, sum: int) -> int:
        """`hash` of (kind, name, the sum's bytes), for a part whose sum changes all the time."""
        state = self.part_begun(kind, name)()
        state.update(sum.to_bytes(HASH_BYTES, "little"))
        return int.from_bytes(state.digest(), "little")

    def part_begun(self, kind: str, name: str) -> Callable[[], Any]:
        """Gives states of BLAKE2b that `part` goes on from: with all before the sum's bytes."""
        copy = self._parts.get((kind, name))
        if copy is None:
            if len(self._parts) >= PARTS_MAX:
                self._parts.clear()
            begun = self.fresh()
            begun.update(self.pack((kind, name, bytes(HASH_BYTES)))[:-HASH_BYTES])
            copy = self._parts[kind, name] = begun.copy
        return copy

    def weight(self, part: str) -> int:
        """By which a part's sum counts in the digest of all: odd, 128 bits."""
        return int.from_bytes(blake2b(self._key + part.encode(), digest_size=16).digest()) | 1

    def sum(self, rows: Iterable[Sequence[Any]]) -> int:
        """Of many rows, modulo 2^128."""
        total = 0
        for row in rows:
            total += self.hash(row)
        return total & HASH_MASK

    def total(self, tables: dict[str, bytes], schema: bytes, sequences: bytes) -> bytes:
        """The hash of the whole database from its parts."""
        parts: list[tuple[Any, ...]] = [("table", name, part) for name, part in tables.items()]
        parts.append(("schema", "", schema))
        parts.append(("sequences", "", sequences))
        return to_bytes(self.sum(parts))


def to_bytes(total: int) -> bytes:
    """A sum as it is stored: 16 bytes, little-endian."""
    return total.to_bytes(HASH_BYTES, "little")


def from_bytes(data: bytes) -> int:
    """A stored sum as a number."""
    return int.from_bytes(data, "little")


def chain(results: bytes, index: int, position: int, reply: bytes) -> bytes:
    """The next link of the chain over all replies."""
    state = _fresh_chain()
    state.update(results + _place(index, position) + reply)
    return state.digest()
