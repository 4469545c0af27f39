"""The content hash after each request, kept until the archive has it (rule A5).

The machine tells the hashes of a transaction right before it commits it; they are appended to a
file of this node, unsynced: after a kill the page cache has them, and what a power cut takes, the
replay that follows it tells again. Files are dropped when everything in them is archived.

    <data_dir>/archive/hashes/00000001.hashes

A record is [length of the rest u32, CRC-32 of the rest u32, logged time u64, count u32] and count
times [index u64, position u32, content hash 16 bytes], little-endian. A restart begins a new file.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter

from raftdb.base.ports import File, Files

__all__ = ["HashLog", "HashReader", "Recorded"]

FILE_BYTES = 8 << 20
_READ_BYTES = 256 * 1024
_HEAD = struct.Struct("<II")
_BODY = struct.Struct("<QI")
_ITEM = struct.Struct("<QI16s")
_INDEX_OF = itemgetter(0)
_WHOLE_MAX = 256
_WHOLE = [struct.Struct("<QI" + count * "QI16s") for count in range(_WHOLE_MAX + 1)]
"""Of records of so many items: packing all at once is a fraction of the price."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What is known of some entries."""

    hashes: dict[int, bytes]
    """Index to the hashes after its requests; only entries of which all are known."""
    time_ms: int
    """Logged time after the last of them; 0 when nothing is known."""


class _Part:
    __slots__ = ("first", "last", "path", "size")

    def __init__(self, path: str) -> None:
        self.path = path
        self.size = 0
        self.first = 0
        self.last = 0
        """Indexes; 0 when it is empty."""


class HashLog:
    """One node's. `record` on whatever thread applies; the rest on the loop or on one lane."""

    def __init__(self, files: Files, data_dir: str, bytes_max: int) -> None:
        """Raises OSError."""
        self._files = files
        self._directory = os.path.join(data_dir, "archive", "hashes")
        self._bytes_max = bytes_max
        files.make_directory(self._directory)
        self._parts: list[_Part] = []
        for name in files.list_directory(self._directory):
            if name.endswith(".hashes"):
                part = _Part(os.path.join(self._directory, name))
                self._scan(part)
                self._parts.append(part)
        last = 0
        if self._parts:
            last = int(os.path.basename(self._parts[-1].path).partition(".")[0])
        self._next = last + 1
        self._file: File | None = None
        self._full: list[File] = []
        """Files that are full, and not synced yet."""
        self._named = True
        """The names of all files are durable."""
        self._failed = False

    @property
    def failed(self) -> bool:
        """Whether hashes could not be written; applying goes on without."""
        return self._failed

    def record(self, time_ms: int, items: Sequence[tuple[int, int, bytes]]) -> None:
        """Hashes of a transaction that is about to be committed: (index, position, hash)."""
        if not items or self._failed:
            return
        body = _body(time_ms, items)
        data = _HEAD.pack(len(body), zlib.crc32(body)) + body
        try:
            part = self._part_for(len(data))
            assert self._file is not None
            self._file.write_at(part.size, data)
        except OSError:
            # An archive without hashes is worth more than a node that stops for them.
            self._failed = True
            return
        part.size += len(data)
        part.first = part.first or items[0][0]
        part.last = items[-1][0]

    def _part_for(self, size: int) -> _Part:
        if self._file is not None and self._parts[-1].size + size <= FILE_BYTES:
            return self._parts[-1]
        if self._file is not None:
            self._full.append(self._file)
            self._file = None
        part = _Part(os.path.join(self._directory, f"{self._next:08d}.hashes"))
        self._next += 1
        self._file = self._files.open(part.path, create=True)
        self._named = False
        self._parts.append(part)
        while sum(one.size for one in self._parts) > self._bytes_max and len(self._parts) > 1:
            self._remove(self._parts.pop(0))
        return part

    def sync(self) -> None:
        """Make durable what is recorded: before a checkpoint, which ends the replay of what is
        below it. Where that fails, there are no hashes from here on: checkpoints must go on."""
        try:
            while self._full:
                self._full[0].sync()
                self._full.pop(0).close()
            file = self._file
            if file is not None:
                file.sync()
            if not self._named:
                self._named = True
                self._files.sync_directory(self._directory)
        except OSError:
            self._failed = True

    def parts(self) -> list[tuple[str, int, int, int]]:
        """(path, bytes, first index, last index) of each file, oldest first. From any thread."""
        return [(one.path, one.size, one.first, one.last) for one in list(self._parts)]

    def drop_below(self, index: int) -> None:
        """Everything below `index` is archived. Raises OSError."""
        while len(self._parts) > 1 and self._parts[0].last < index:
            self._remove(self._parts.pop(0))

    def close(self) -> None:
        """Close the files."""
        while self._full:
            self._full.pop(0).close()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _remove(self, part: _Part) -> None:
        self._files.remove(part.path)

    def _scan(self, part: _Part) -> None:
        data = self._files.read_file(part.path)
        for end, _time_ms, items in _records(data):
            part.first = part.first or items[0][0]
            part.last = items[-1][0]
            part.size = end


class HashReader:
    """Reads a HashLog forwards, for one destination, on its lane."""

    def __init__(self, files: Files, log: HashLog) -> None:
        self._files = files
        self._log = log
        self._read: dict[str, int] = {}
        """Bytes of each file that were read."""
        self._known: dict[int, tuple[int, list[bytes]]] = {}
        """Index to (logged time, hashes by position; b"" where one is not known)."""

    def take(self, first: int, last: int) -> Recorded:
        """Of the entries from `first` to `last`. What is before `first` is forgotten. Raises
        OSError."""
        for index in [one for one in self._known if one < first]:
            del self._known[index]
        for path, size, part_first, part_last in self._log.parts():
            if part_last >= first and part_first <= last:
                self._read_part(path, size, first, last)
        hashes: dict[int, bytes] = {}
        time_ms = 0
        for index in range(first, last + 1):
            at_ms, known = self._known.get(index, (0, []))
            time_ms = max(time_ms, at_ms)
            if known and b"" not in known:
                hashes[index] = b"".join(known)
        return Recorded(hashes, time_ms)

    def _keep_record(self, items: list[tuple[int, int, bytes]], first: int, at_ms: int) -> None:
        for index, group in groupby(items, _INDEX_OF):
            if index < first:
                continue
            of_entry = list(group)
            whole = of_entry[0][1] == 0 and of_entry[-1][1] == len(of_entry) - 1
            if whole and index not in self._known:
                self._known[index] = (at_ms, [one[2] for one in of_entry])
                continue
            for _index, position, content in of_entry:
                self._keep(index, position, content, at_ms)

    def _keep(self, index: int, position: int, content: bytes, at_ms: int) -> None:
        found = self._known.get(index)
        if found is None:
            found = self._known[index] = (at_ms, [])
        hashes = found[1]
        if position == len(hashes):
            hashes.append(content)
        elif position < len(hashes):
            # Told again by a replay after a kill.
            hashes[position] = content
        else:
            hashes += [b""] * (position - len(hashes))
            hashes.append(content)

    def _read_part(self, path: str, size: int, first: int, last: int) -> None:
        start = self._read.get(path, 0)
        if start >= size:
            return
        file = self._files.open(path)
        try:
            while start < size:
                data = file.read_at(start, min(_READ_BYTES, size - start))
                if len(data) >= _HEAD.size:
                    whole = _HEAD.unpack_from(data)[0] + _HEAD.size
                    if whole > len(data):
                        data = file.read_at(start, min(whole, size - start))
                used = 0
                for used, at_ms, items in _records(data):  # noqa: B007
                    if items[-1][0] >= first:
                        self._keep_record(items, first, at_ms)
                    if items[-1][0] > last:
                        break
                if not used:
                    return
                start += used
                self._read[path] = start
                if items[-1][0] > last:
                    return
        finally:
            file.close()


def _body(time_ms: int, items: Sequence[tuple[int, int, bytes]]) -> bytes:
    if len(items) <= _WHOLE_MAX:
        return _WHOLE[len(items)].pack(time_ms, len(items), *chain.from_iterable(items))
    return _BODY.pack(time_ms, len(items)) + b"".join([_ITEM.pack(*one) for one in items])


def _records(data: bytes) -> Iterator[tuple[int, int, list[tuple[int, int, bytes]]]]:
    """(offset of its end, logged time, items) of each record, up to the first that does not
    verify: a kill may leave an unfinished one at the end."""
    offset = 0
    while len(data) - offset >= _HEAD.size + _BODY.size:
        length, check = _HEAD.unpack_from(data, offset)
        body = data[offset + _HEAD.size : offset + _HEAD.size + length]
        if len(body) < max(length, _BODY.size) or zlib.crc32(body) != check:
            return
        time_ms, count = _BODY.unpack_from(body)
        if not count or count * _ITEM.size != len(body) - _BODY.size:
            return
        offset += _HEAD.size + length
        yield offset, time_ms, list(_ITEM.iter_unpack(body[_BODY.size :]))
