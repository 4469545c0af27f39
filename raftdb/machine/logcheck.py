"""Frames of the write-ahead log are looked at before a checkpoint moves them into the file.

SQLite checks a frame's checksum at a start, and never again. The pages in it have none of their own
yet: they get one when they are moved. So what changes in the log under a running node would be
moved with a sound checksum, and nothing would see it but a scrub of all content.

So the log is read by SQLite's own recovery (https://www.sqlite.org/walformat.html, section 4), on
another connection, whose log is those bytes, and whose file is an empty database: the real one may
be torn where a power cut ended a checkpoint, which the log mends. It stops at the first frame whose
checksum does not fit. What the file has of the log already is not read from the log any more.
"""

from __future__ import annotations

import itertools
import struct
from typing import Any

import apsw

from raftdb.machine.format import MARK, PAGE_BYTES
from raftdb.machine.overlay import UnsharedFile

_LOG = 1
_HEADER_BYTES = 32
_FRAME_BYTES = PAGE_BYTES + 24
_CHUNK_BYTES = 256 * _FRAME_BYTES
_HEADER = struct.Struct(">16sH6B2I8x2I8xI32x2IBH2H")
"""Of a database, and of its first page: https://www.sqlite.org/fileformat.html, 1.3 and 1.6."""
_LOGGED, _RESERVED_BYTES, _LEAF = 2, 8, 13
_EMPTY = _HEADER.pack(
    *(b"SQLite format 3\0", PAGE_BYTES, _LOGGED, _LOGGED, _RESERVED_BYTES, 64, 32, 32),
    *(1, 1, 0, 4, 1, 1, 0, _LEAF, 0, 0, PAGE_BYTES - _RESERVED_BYTES),
).ljust(PAGE_BYTES, b"\0")
_numbers = itertools.count(1)


class LogCheck(apsw.VFS):
    """How many frames are sound, as `connection` reads them. One thread at a time."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._source = connection
        self._frames = 0
        self._chunk, self._chunk_start = b"", 0
        self.name = f"raftdb-log-{next(_numbers)}"
        super().__init__(self.name, "")

    def sound_frames(self, frames: int) -> int:
        """Of the log's first `frames` frames, the last of which ends a commit: up to which commit
        they are sound. None of them may be overwritten meanwhile: a checkpoint has not moved them
        all yet. Raises apsw.Error."""
        self._frames = frames
        connection = apsw.Connection("log", flags=apsw.SQLITE_OPEN_READWRITE, vfs=self.name)
        try:
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            # The index of the log is in memory then.
            connection.execute(f"PRAGMA locking_mode = EXCLUSIVE {MARK}").fetchall()
            connection.execute(f"PRAGMA schema_version {MARK}").fetchall()
            return connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)[0]
        finally:
            connection.close(True)
            self._chunk = b""

    # The files

    def log_bytes(self) -> int:
        """What there is to be read."""
        return _HEADER_BYTES + self._frames * _FRAME_BYTES

    def read_file(self, amount: int, offset: int) -> bytes:
        """Of the empty database."""
        return _EMPTY[offset : offset + amount]

    def read_log(self, amount: int, offset: int) -> bytes:
        """Of the log, in pieces of many frames."""
        start = offset - self._chunk_start
        if not 0 <= start <= len(self._chunk) - amount:
            count = max(amount, min(_CHUNK_BYTES, self.log_bytes() - offset))
            self._chunk = bytes(self._source.read("main", _LOG, offset, count)[1])
            self._chunk_start, start = offset, 0
        return self._chunk[start : start + amount]

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
