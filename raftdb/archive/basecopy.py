"""Base copies: the database's file in chunks of 64 KiB, packed by 64.

A chunk that is as it was in the base before is referred to, not uploaded again. After some
generations, or when old packs are mostly dead weight, a base takes everything afresh.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from raftdb.archive import layout
from raftdb.archive.archive import Archive
from raftdb.archive.envelope import digest
from raftdb.archive.errors import ArchiveDamagedError, ChainMovedError
from raftdb.archive.records import PACK, BaseRecord, PackReference
from raftdb.base.ports import File

__all__ = ["CHUNK_BYTES", "BaseUpload", "write_pack"]

CHUNK_BYTES = 64 * 1024
PACK_CHUNKS = 64
STEP_CHUNKS = 128
"""Chunks looked at in one step: a step gives the lane back after 8 MiB at most."""
GENERATIONS_MAX = 8
_CHUNK = struct.Struct("<16sII")


def _chunk_digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


class BaseUpload:
    """Uploads one copy, step by step, on a lane."""

    def __init__(
        self,
        archive: Archive,
        epoch: int,
        file: File,
        size: int,
        randbytes: Callable[[int], bytes],
        previous: BaseRecord | None,
    ) -> None:
        self._archive = archive
        self._epoch = epoch
        self._file = file
        self._size = size
        self._mark = randbytes(8)
        self._previous = previous if _builds_on(previous, size) else None
        self._packs: list[PackReference] = []
        self._old: dict[int, int] = {}
        """Number of a pack in the base before to its number here."""
        self._chunks: list[tuple[bytes, int, int]] = []
        self._pending: list[tuple[int, bytes, bytes]] = []
        """Chunks of the next pack: (place in `_chunks`, digest, bytes)."""
        self._number = 0
        self.sent_bytes = 0

    @property
    def done_bytes(self) -> int:
        """How much of the file was looked at."""
        return min(self._size, len(self._chunks) * CHUNK_BYTES)

    def step(self) -> bool:
        """Look at some chunks, upload at most one pack: whether there is more to do."""
        for _ in range(STEP_CHUNKS):
            place = len(self._chunks)
            if place * CHUNK_BYTES >= self._size:
                break
            data = self._file.read_at(
                place * CHUNK_BYTES, min(CHUNK_BYTES, self._size - place * CHUNK_BYTES)
            )
            check = _chunk_digest(data)
            known = self._known(place, check)
            if known is not None:
                self._chunks.append((check, *known))
                continue
            self._chunks.append((check, 0, 0))
            self._pending.append((place, check, data))
            if len(self._pending) == PACK_CHUNKS:
                self._upload()
                return True
        if len(self._chunks) * CHUNK_BYTES < self._size:
            return True
        if self._pending:
            self._upload()
        return False

    def record(self, capture: Any, time_ms: int, fingerprint: Mapping[str, Any]) -> BaseRecord:
        """What was uploaded; `capture` is the machine's description of the copy."""
        return BaseRecord(
            epoch=self._epoch,
            history=str(capture.history),
            index=int(capture.index),
            term=int(capture.term),
            time_ms=time_ms,
            content=capture.content_total,
            size_bytes=self._size,
            file_digest=capture.digest,
            fingerprint=fingerprint,
            chunk_bytes=CHUNK_BYTES,
            packs=tuple(self._packs),
            chunks=b"".join([_CHUNK.pack(*one) for one in self._chunks]),
            generation=0 if self._previous is None else self._previous.generation + 1,
        )

    def _known(self, place: int, check: bytes) -> tuple[int, int] | None:
        previous = self._previous
        if previous is None or (place + 1) * _CHUNK.size > len(previous.chunks):
            return None
        before, pack, slot = _CHUNK.unpack_from(previous.chunks, place * _CHUNK.size)
        if before != check:
            return None
        number = self._old.get(pack)
        if number is None:
            number = self._old[pack] = len(self._packs)
            self._packs.append(previous.packs[pack])
        return number, slot

    def _upload(self) -> None:
        name = layout.pack_name(self._epoch, self._mark, self._number)
        self._number += 1
        plain = b"".join([data for _place, _check, data in self._pending])
        archive = self._archive
        data = archive.sealer.seal(PACK, archive.root.archive, name, plain)
        if not archive.put(name, data):
            raise ChainMovedError(f"{name} is taken")
        self.sent_bytes += len(data)
        pack = len(self._packs)
        self._packs.append(PackReference(name, digest(data), len(data), len(self._pending)))
        for slot, (place, check, _data) in enumerate(self._pending):
            self._chunks[place] = (check, pack, slot)
        self._pending.clear()


def _builds_on(previous: BaseRecord | None, size: int) -> bool:
    """Whether an incremental base is worth it."""
    if previous is None or previous.generation >= GENERATIONS_MAX:
        return False
    if previous.chunk_bytes != CHUNK_BYTES:
        return False
    held = sum(pack.chunks for pack in previous.packs) * CHUNK_BYTES
    return held <= 2 * max(size, previous.size_bytes)


def check_chunks(name: str, record: BaseRecord) -> None:
    """Whether the description fits together. Raises ArchiveDamagedError."""
    count = -(-record.size_bytes // max(1, record.chunk_bytes))
    if len(record.chunks) != count * _CHUNK.size or record.chunk_bytes < 512:
        raise ArchiveDamagedError(name, "describes another number of chunks than its file has")
    for _check, pack, slot in _CHUNK.iter_unpack(record.chunks):
        if pack >= len(record.packs) or slot >= record.packs[pack].chunks:
            raise ArchiveDamagedError(name, f"refers to chunk {slot} of pack {pack}: there is none")


def places(record: BaseRecord) -> dict[int, list[tuple[int, int, bytes]]]:
    """Pack to (place in the file in chunks, slot in the pack, digest)."""
    found: dict[int, list[tuple[int, int, bytes]]] = {}
    for place, (check, pack, slot) in enumerate(_CHUNK.iter_unpack(record.chunks)):
        found.setdefault(pack, []).append((place, slot, check))
    return found


def write_pack(
    record: BaseRecord,
    number: int,
    plain: bytes,
    wanted: Iterable[tuple[int, int, bytes]],
    file: File,
) -> None:
    """Write a pack's chunks to where they belong in the file."""
    size = record.chunk_bytes
    for place, slot, check in wanted:
        length = min(size, record.size_bytes - place * size)
        data = plain[slot * size : slot * size + length]
        if _chunk_digest(data) != check:
            raise ArchiveDamagedError(
                record.packs[number].name, f"chunk {slot} is not the one that was archived"
            )
        file.write_at(place * size, data)
