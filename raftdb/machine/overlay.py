"""A private, writable view of the database as of one commit: pages of a snapshot below, own above.

SQLite has one writer per file. So a transaction that stays open over many calls gets a file of its
own, which exists in memory only: what it has not written itself is read from the database as of the
commit that it began at, and what it writes is seen by nobody else and thrown away at the end. No
lock is taken, so nobody waits, whatever is open for however long.

The snapshot is held by a reader connection with an open read transaction: as long as it is open,
SQLite neither overwrites the frames of the write-ahead log that the snapshot consists of, nor
moves later ones into the file (https://www.sqlite.org/walformat.html, section 2). One exception: if
all frames were in the file already when the reader began, it reads the file alone, and the log may
start again from its beginning. That is seen by the salt in a frame's header; what the frame held is
in the file then, and stays there unchanged until the reader ends.
"""

from __future__ import annotations

import itertools
import struct
import threading
from bisect import bisect_right
from typing import Any

import apsw

from raftdb.machine.format import JULIAN_EPOCH_MS, PAGE_BYTES

_LOG_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24
_FRAME_BYTES = _FRAME_HEADER_BYTES + PAGE_BYTES
_SALT = slice(16, 24)
"""Of the log's header. Frame headers have it from byte 8 to 16."""
_FRAMES_AT_ONCE = 64
_PAGE_NUMBER = struct.Struct(">I")
_FILE, _LOG = 0, 1
_numbers = itertools.count(1)

_FORMAT_VERSIONS = slice(18, 20)
_ROLLBACK_JOURNAL = b"\x01\x01"
"""Written over the format versions of page 1, which say that there is a write-ahead log."""
_CHANGE_COUNTER = slice(24, 28)


class OverlayFullError(Exception):
    """The transaction wrote more pages than it may keep."""


def log_salt(connection: apsw.Connection) -> bytes:
    """Of the write-ahead log as it is now; with the writer held back."""
    _whole, header = connection.read("main", _LOG, 0, _LOG_HEADER_BYTES)
    return bytes(header[_SALT])


class PageBudget:
    """How many pages all overlays of a machine may keep together. From any thread."""

    def __init__(self, pages_max: int) -> None:
        self._lock = threading.Lock()
        self.free = pages_max

    def take(self) -> bool:
        """One page, if there is room for it."""
        with self._lock:
            if self.free <= 0:
                return False
            self.free -= 1
            return True

    def give(self, pages: int) -> None:
        """So many are not kept any more."""
        with self._lock:
            self.free += pages


class LogIndex:
    """Which frames of the write-ahead log hold which page. Shared by all overlays of a machine;
    grows with the log, and begins again with it. `follow` with `lock` held."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.salt = b""
        self.frames: dict[int, list[int]] = {}
        """Page number to its frames, ascending, from 1."""
        self._known = 0

    def follow(self, connection: apsw.Connection, salt: bytes, frames: int) -> bool:
        """Learn all frames up to `frames`, which were committed and had that salt when the
        connection's snapshot began. False: the log has started again since then, so the file alone
        has the snapshot. (Only committed frames are learnt: later ones may be written anew.)"""
        if salt != self.salt:
            self.salt, self.frames, self._known = salt, {}, 0
        while self._known < frames:
            count = min(frames - self._known, _FRAMES_AT_ONCE)
            if not self._learn(connection, count):
                return False
        return True

    def is_near(self, salt: bytes, frames: int) -> bool:
        """Whether `follow` would have little to do, and nobody is at it."""
        if not self.lock.acquire(blocking=False):
            return False
        try:
            return frames - (self._known if salt == self.salt else 0) <= _FRAMES_AT_ONCE
        finally:
            self.lock.release()

    def _learn(self, connection: apsw.Connection, count: int) -> bool:
        start = _LOG_HEADER_BYTES + self._known * _FRAME_BYTES
        if count < 8:
            # Few: their headers alone.
            step, data = (
                _FRAME_HEADER_BYTES,
                b"".join(
                    connection.read("main", _LOG, start + n * _FRAME_BYTES, _FRAME_HEADER_BYTES)[1]
                    for n in range(count)
                ),
            )
        else:
            step = _FRAME_BYTES
            data = connection.read("main", _LOG, start, count * _FRAME_BYTES)[1]
        for position in range(0, count * step, step):
            if data[position + 8 : position + 16] != self.salt:
                return False
            (page,) = _PAGE_NUMBER.unpack_from(data, position)
            self._known += 1
            self.frames.setdefault(page, []).append(self._known)
        return True


class OverlayVfs(apsw.VFS):
    """The file of one overlay, and its time. One thread at a time."""

    def __init__(self, reader: apsw.Connection, log_index: LogIndex, budget: PageBudget) -> None:
        self._budget = budget
        self.name = f"raftdb-overlay-{next(_numbers)}"
        self._julian_ms = JULIAN_EPOCH_MS
        super().__init__(self.name, "")
        self._reader = reader
        self._log_index = log_index
        self._frames: dict[int, list[int]] | None = None
        self._salt = b""
        self._frame_max = 0
        self._base_pages = 0
        self._snapshot_pages = 0
        self._version = 0
        self._pages: dict[int, bytes] = {}
        self._pages_max = 0
        self.full = False
        """`pages_max` was reached: the statement that did it failed."""
        self.starved = False
        """All overlays together have reached theirs."""
        self.failed: apsw.Error | None = None
        """The snapshot could not be read: a page is damaged, perhaps."""

    def begin(self, salt: bytes, frames: int, pages: int, pages_max: int) -> None:
        """A transaction begins: the snapshot has `pages` pages and consists of the first `frames`
        frames of the log of that salt, and the file. The reader's read transaction is open."""
        index = self._log_index
        with index.lock:
            known = frames > 0 and index.follow(self._reader, salt, frames)
            # The index may begin again while this transaction goes on: its own dict stays.
            self._frames = index.frames if known else None
        self._salt = salt
        self._frame_max = frames
        self._snapshot_pages = pages
        self._pages_max = pages_max
        self.restart()

    def restart(self) -> None:
        """The transaction begins again, on the same snapshot: it has written nothing."""
        self._base_pages = self._snapshot_pages
        self._forget()
        self.full = self.starved = False
        # Another change counter: SQLite forgets the pages of the transaction before.
        self._version = (self._version + 1) & 0xFFFFFFFF

    def pages_written(self) -> int:
        """How many pages of its own it keeps."""
        return len(self._pages)

    def end(self) -> None:
        """Forget what the transaction wrote."""
        self._forget()
        self._frames = None

    def _forget(self) -> None:
        self._budget.give(len(self._pages))
        self._pages.clear()

    # The file

    def page(self, number: int) -> bytes:
        """One page as the transaction sees it; `` past the end."""
        data = self._pages.get(number)
        if data is None:
            if number > self._base_pages:
                return b""
            try:
                data = self._snapshot_page(number)
            except apsw.Error as error:
                self.failed = error
                raise
        if number == 1:
            whole = bytearray(data)
            whole[_FORMAT_VERSIONS] = _ROLLBACK_JOURNAL
            whole[_CHANGE_COUNTER] = self._version.to_bytes(4, "big")
            data = bytes(whole)
        return data

    def _snapshot_page(self, number: int) -> bytes:
        read = self._reader.read
        frames = self._frames.get(number) if self._frames is not None else None
        if frames:
            place = bisect_right(frames, self._frame_max)
            if place:
                offset = _LOG_HEADER_BYTES + (frames[place - 1] - 1) * _FRAME_BYTES
                # The page first, then its header: a writer who starts the log again writes them
                # in the other order, so an old header proves that the page was the old one.
                _whole, data = read("main", _LOG, offset + _FRAME_HEADER_BYTES, PAGE_BYTES)
                _whole, header = read("main", _LOG, offset, _FRAME_HEADER_BYTES)
                if header[8:16] == self._salt:
                    return bytes(data)
                self._frames = None
        return bytes(read("main", _FILE, (number - 1) * PAGE_BYTES, PAGE_BYTES)[1])

    def write(self, number: int, data: bytes) -> None:
        """Keep a page that the transaction wrote."""
        if number not in self._pages:
            if len(self._pages) >= self._pages_max:
                self.full = True
                raise OverlayFullError
            if not self._budget.take():
                self.starved = True
                raise OverlayFullError
        self._pages[number] = data

    def truncate(self, pages: int) -> None:
        """The file ends there from now on."""
        beyond = [n for n in self._pages if n > pages]
        for number in beyond:
            del self._pages[number]
        self._budget.give(len(beyond))
        self._base_pages = min(self._base_pages, pages)

    def size(self) -> int:
        """Pages."""
        return max(self._base_pages, max(self._pages, default=0))

    def set_time(self, time_ms: int) -> None:
        """Unix milliseconds, from now on the time of every statement."""
        self._julian_ms = JULIAN_EPOCH_MS + time_ms

    # What SQLite asks of a VFS

    def xCurrentTimeInt64(self) -> int:
        return self._julian_ms

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        if flags[0] & apsw.SQLITE_OPEN_MAIN_DB:
            return _OverlayFile(self)
        # What SQLite sorts on the disk.
        return apsw.VFSFile("", name, flags)

    def xAccess(self, pathname: str, flags: int) -> bool:
        return False

    def xFullPathname(self, name: str) -> str:
        return name


class UnsharedFile:
    """What SQLite asks of a file that exists in memory: nobody else uses it, nothing is synced."""

    def xSync(self, flags: int) -> None:
        pass

    def xLock(self, level: int) -> None:
        pass

    def xUnlock(self, level: int) -> None:
        pass

    def xCheckReservedLock(self) -> bool:
        return False

    def xFileControl(self, op: int, pointer: int) -> bool:
        return False

    def xSectorSize(self) -> int:
        return PAGE_BYTES

    def xDeviceCharacteristics(self) -> int:
        return 0

    def xClose(self) -> None:
        pass


class _OverlayFile(UnsharedFile):
    """SQLite's view of an overlay."""

    def __init__(self, vfs: OverlayVfs) -> None:
        self._vfs = vfs

    def xRead(self, amount: int, offset: int) -> bytes:
        data = self._vfs.page(offset // PAGE_BYTES + 1)
        start = offset % PAGE_BYTES
        return data if amount == PAGE_BYTES and not start else data[start : start + amount]

    def xWrite(self, data: bytes, offset: int) -> None:
        assert len(data) == PAGE_BYTES, "SQLite writes whole pages"
        self._vfs.write(offset // PAGE_BYTES + 1, bytes(data))

    def xTruncate(self, newsize: int) -> None:
        self._vfs.truncate(newsize // PAGE_BYTES)

    def xFileSize(self) -> int:
        return self._vfs.size() * PAGE_BYTES
