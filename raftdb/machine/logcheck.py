"""Frames of the write-ahead log are looked at before a checkpoint moves them into the file.

SQLite checks a frame's checksum at a start, and never again. The pages in it have none of their own
yet: they get one when they are moved. So what changes in the log under a running node would be
moved with a sound checksum, and nothing would see it but a scrub of all content.

So the log is read by SQLite's own recovery (https://www.sqlite.org/walformat.html, section 4), on
another connection, whose log is those bytes, and whose file is an empty database: the real one may
be torn where a power cut ended a checkpoint, which the log mends. It stops at the first frame whose
checksum does not fit.

A frame's checksum goes on from that of the frame before it. So a part of the log can be looked at
by itself: behind a header whose checksum is that of the frame before the part. The checksums of
frames do not cover the salt that each repeats from the header, so the salt of such a header can be
chosen (two words, for two words of checksum), and shown in each frame in place of the one that is
there. Each frame is compared with the one before it, as in the whole; so parts that cover the log
find all that the whole would.
"""

from __future__ import annotations

import itertools
import struct
from typing import Any

import apsw

from raftdb.machine.format import MARK, PAGE_BYTES
from raftdb.machine.overlay import UnsharedFile

LOOK_FRAMES = 2_048
"""So many frames that were looked at before are looked at again with each look (some 10 ms)."""

_LOG = 1
_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24
_FRAME_BYTES = PAGE_BYTES + _FRAME_HEADER_BYTES
_CHUNK_FRAMES = 256
_SALT = slice(16, 24)
_SUM = slice(16, 24)
"""Of a frame's header; the log's own has it from byte 24 on."""
_SALT_OF_FRAME = 8
_BIG_ENDIAN = 1
_MASK = 0xFFFFFFFF
_PAGES = 0x7FFFFFFF
"""That the file has, by the frame which ends a part: as many as there may be."""
_HEADER = struct.Struct(">16sH6B2I8x2I8xI32x2IBH2H")
"""Of a database, and of its first page: https://www.sqlite.org/fileformat.html, 1.3 and 1.6."""
_LOGGED, _RESERVED_BYTES, _LEAF = 2, 8, 13
_EMPTY = _HEADER.pack(
    *(b"SQLite format 3\0", PAGE_BYTES, _LOGGED, _LOGGED, _RESERVED_BYTES, 64, 32, 32),
    *(1, 1, 0, 4, 1, 1, 0, _LEAF, 0, 0, PAGE_BYTES - _RESERVED_BYTES),
).ljust(PAGE_BYTES, b"\0")
_numbers = itertools.count(1)


def _added(data: bytes, order: str, first: int, second: int) -> tuple[int, int]:
    """The log's checksum goes on over `data`, whose words are in that order (walformat, 4.1)."""
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for place in range(0, len(words), 2):
        first = (first + words[place] + second) & _MASK
        second = (second + words[place + 1] + first) & _MASK
    return first, second


class LogCheck(apsw.VFS):
    """How many frames are sound, as `connection` reads them. One thread at a time."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._source = connection
        self._first = self._count = 0
        self._header = self._end = self._salt = b""
        self._chunk, self._chunk_first = b"", 0
        self._looked: tuple[bytes, int] = (b"", 0)
        """Of which log so many frames have been looked at."""
        self._again = 0
        """From which frame on some are looked at again."""
        self.name = f"raftdb-log-{next(_numbers)}"
        super().__init__(self.name, "")

    def look(self, frames: int) -> int:
        """Of the log's first `frames` frames, up to where they are sound: all of them while there
        are few; else what is new, and LOOK_FRAMES of the others in turn. What it costs is in
        proportion to what was written, and bounded while nothing is. See `sound_frames`."""
        salt, looked = self._looked
        header = self._read(0, _HEADER_BYTES)
        if header[_SALT] != salt or frames < looked:
            looked = self._again = 0
        if frames <= LOOK_FRAMES or not looked:
            parts = [(0, frames)]
        else:
            start = self._again if self._again < frames else 0
            self._again = min(start + LOOK_FRAMES, frames)
            parts = [(start, self._again), *([(looked, frames)] if looked < frames else [])]
        for first, last in parts:
            sound = self.sound_frames(first, last)
            if sound < last:
                return sound
        self._looked = header[_SALT], frames
        return frames

    def sound_frames(self, first: int, last: int) -> int:
        """Of the log's frames from `first` (from 0) to before `last`, behind those before: up to
        which they are sound, or, if not all are, up to which commit. None of them may be
        overwritten meanwhile: a checkpoint has not moved them all yet. Raises apsw.Error."""
        self._begin(first, last)
        connection = apsw.Connection("log", flags=apsw.SQLITE_OPEN_READWRITE, vfs=self.name)
        try:
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            # The index of the log is in memory then.
            connection.execute(f"PRAGMA locking_mode = EXCLUSIVE {MARK}").fetchall()
            connection.execute(f"PRAGMA schema_version {MARK}").fetchall()
            sound = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)[0]
            return first + min(sound, self._count)
        finally:
            connection.close(True)
            self._chunk = b""

    def _begin(self, first: int, last: int) -> None:
        """Make what stands before the part, and a commit behind it: SQLite counts up to one."""
        header = self._read(0, _HEADER_BYTES)
        order = ">" if header[3] & _BIG_ENDIAN else "<"
        self._first, self._count, self._chunk = first, last - first, b""
        self._salt = header[_SALT]
        if first:
            before = header[:16]
            one, two = self._sum_of(first - 1)
            a, b = _added(before, order, 0, 0)
            salt = ((one - a - b) & _MASK, (two - b - one) & _MASK)
            header = before + struct.pack(f"{order}2I", *salt) + struct.pack(">2I", one, two)
        self._header = header
        start = struct.pack(">2I", 2, _PAGES)
        total = _added(start + bytes(PAGE_BYTES), order, *self._sum_of(last - 1))
        self._end = start + header[_SALT] + struct.pack(">2I", *total) + bytes(PAGE_BYTES)

    def _sum_of(self, frame: int) -> tuple[int, int]:
        data = self._read(_HEADER_BYTES + frame * _FRAME_BYTES, _FRAME_HEADER_BYTES)[_SUM]
        one, two = struct.unpack(">2I", data)
        return one, two

    def _read(self, offset: int, count: int) -> bytes:
        """Of the log as it lies there; zeros behind its end."""
        return bytes(self._source.read("main", _LOG, offset, count)[1])

    # The files

    def log_bytes(self) -> int:
        """What there is to be read, with the frame that ends it."""
        return _HEADER_BYTES + (self._count + 1) * _FRAME_BYTES

    def read_file(self, amount: int, offset: int) -> bytes:
        """Of the empty database."""
        return _EMPTY[offset : offset + amount]

    def read_log(self, amount: int, offset: int) -> bytes:
        """Of the part, in pieces of many frames."""
        if offset < _HEADER_BYTES:
            return self._header[offset : offset + amount]
        frame, start = divmod(offset - _HEADER_BYTES, _FRAME_BYTES)
        if frame >= self._count:
            return self._end[start : start + amount]
        place = (frame - self._chunk_first) * _FRAME_BYTES + start
        if not (self._chunk and 0 <= place <= len(self._chunk) - amount):
            self._chunk, self._chunk_first = self._frames_from(frame), frame
            place = start
        return self._chunk[place : place + amount]

    def _frames_from(self, frame: int) -> bytes:
        count = min(_CHUNK_FRAMES, self._count - frame)
        offset = _HEADER_BYTES + (self._first + frame) * _FRAME_BYTES
        data = self._read(offset, count * _FRAME_BYTES)
        if self._first == 0:
            return data
        shown, there, salt = bytearray(data), self._salt, self._header[_SALT]
        for place in range(_SALT_OF_FRAME, len(shown), _FRAME_BYTES):
            # Another one than the log's is left as it is, and does not fit.
            if shown[place : place + 8] == there:
                shown[place : place + 8] = salt
        return bytes(shown)

    # What SQLite asks of a VFS

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        return _Bytes(self, is_log=not flags[0] & apsw.SQLITE_OPEN_MAIN_DB)

    def xAccess(self, pathname: str, flags: int) -> bool:
        return pathname.endswith("-wal")

    def xDelete(self, filename: str, syncdir: bool) -> None:
        pass

    def xFullPathname(self, name: str) -> str:
        return name


class _Bytes(UnsharedFile):
    """One file, which is never written."""

    def __init__(self, check: LogCheck, *, is_log: bool) -> None:
        self._read = check.read_log if is_log else check.read_file
        self._size = check.log_bytes() if is_log else PAGE_BYTES

    def xRead(self, amount: int, offset: int) -> bytes:
        return self._read(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:
        raise apsw.ReadOnlyError("the log is only looked at")

    def xTruncate(self, newsize: int) -> None:
        raise apsw.ReadOnlyError("the log is only looked at")

    def xFileSize(self) -> int:
        return self._size
