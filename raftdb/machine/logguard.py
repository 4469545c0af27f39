"""Rot in the write-ahead log must not go unseen once a checkpoint has moved a part of it.

A start reads the log up to the first frame whose checksum does not fit, and takes what is behind it
for a write that a crash cut short. For frames that were never synced it is right: the database is
then an earlier commit. But pages that a checkpoint moved into the file stay there, so if a frame
that was moved rots, the file's pages are of one commit and the log's of an earlier one: a mixture
of rows, in which every page has its checksum (tried; tests/machine/test_log_guard.py).

So before a checkpoint begins, the log is synced and `checkpoint.note` beside the database says how
many frames of which log it will rely on, and afterwards, whether all of them are in the file. A
start that finds fewer has found damage.

    8 bytes  RAFTDBC and a newline        u16 version 1        u8 1: all in the file, else 0
    u8 0     8 bytes salt of the log      u32 frames           u32 CRC-32 of all before

All numbers little-endian; the salt as it stands in the log (https://www.sqlite.org/walformat.html).
"""

from __future__ import annotations

import posixpath
import struct
import zlib
from dataclasses import dataclass, replace

from raftdb.base.atomic import replace_file
from raftdb.base.errors import FatalError
from raftdb.base.ports import Files
from raftdb.machine.format import PAGE_BYTES

NOTE_FILE = "checkpoint.note"
_NOTE = struct.Struct("<8sHBB8sI")
_MAGIC = b"RAFTDBC\n"
_VERSION = 1
_HEADER_BYTES = 32
_FRAME_BYTES = PAGE_BYTES + 24
_LITTLE, _BIG = 0x377F0682, 0x377F0683


@dataclass(frozen=True, slots=True)
class Note:
    """What a checkpoint relied on."""

    salt: bytes
    frames: int
    complete: bool


def damaged(path: str, offset: int, text: str) -> FatalError:
    """The write-ahead log is not what it was."""
    return FatalError(
        f"the database's write-ahead log is damaged: {path}: {text}",
        code="write_ahead_log_damaged",
        hint="the node fetches a copy of the database from another member when it runs",
        detail={"file": path, "offset": offset},
    )


class LogGuard:
    """Of one database file. Its file calls are made by whoever calls; OSError comes as it is."""

    def __init__(self, path: str, files: Files) -> None:
        self._log = path + "-wal"
        self._note = posixpath.join(posixpath.dirname(path), NOTE_FILE)
        self._files = files
        self._written: Note | None = None

    def before(self, frames: int) -> None:
        """A checkpoint will move frames up to that number: sync them, and say so."""
        salt = self._salt()
        if salt is None or self._known(salt, frames):
            return
        file = self._files.open(self._log)
        try:
            file.sync()
        finally:
            file.close()
        self._write(Note(salt, frames, False))

    def after(self, frames: int, *, complete: bool) -> None:
        """It ended: so many of the log's frames are in the file, which are all of them or not."""
        salt = self._salt()
        if salt is None or (not complete and self._known(salt, frames)):
            return
        note = self._written
        if self._has(frames, salt):
            note = Note(salt, frames, complete)
        elif complete and note is not None and note.salt != salt:
            # All was in the file, so a commit has begun the log again, meanwhile: it has fewer
            # frames, which a kill must not make look like a loss.
            note = replace(note, complete=True)
        if note is not None and note != self._written:
            self._write(note)

    def _has(self, frames: int, salt: bytes) -> bool:
        """Whether the frame of that number belongs to the log of that salt."""
        file = self._files.open(self._log)
        try:
            head = file.read_at(_HEADER_BYTES + (frames - 1) * _FRAME_BYTES, 16)
        finally:
            file.close()
        return head[8:] == salt

    def _known(self, salt: bytes, frames: int) -> bool:
        written = self._written
        return written is not None and written.salt == salt and written.frames >= frames

    def check(self, frames: int) -> None:
        """A start found so many sound frames. Raises FatalError when there were more."""
        note = self._read()
        if note is None or not note.frames:
            return
        salt = self._salt()
        if salt == note.salt:
            if frames < note.frames:
                raise self.rotten(note.frames, frames)
        elif salt is None and not note.complete:
            # Another sound header means that the log has begun again, which it does only when all
            # of it is in the file.
            raise damaged(self._log, 0, f"its beginning, and {note.frames} frames, are gone")

    def rotten(self, frames: int, sound: int) -> FatalError:
        """Of that many frames, so many can still be read."""
        text = f"of {frames} frames that were there, {sound} can be read"
        return damaged(self._log, _HEADER_BYTES + sound * _FRAME_BYTES, text)

    def _salt(self) -> bytes | None:
        """Of the log as it lies there; None when there is none, or its header is not sound."""
        if not self._files.exists(self._log):
            return None
        file = self._files.open(self._log)
        try:
            header = file.read_at(0, _HEADER_BYTES)
        finally:
            file.close()
        if len(header) < _HEADER_BYTES:
            return None
        magic = int.from_bytes(header[:4], "big")
        if magic not in (_LITTLE, _BIG):
            return None
        words = struct.unpack("<6I" if magic == _LITTLE else ">6I", header[:24])
        first = second = 0
        for place in range(0, 6, 2):
            first = (first + words[place] + second) & 0xFFFFFFFF
            second = (second + words[place + 1] + first) & 0xFFFFFFFF
        if (first, second) != struct.unpack(">2I", header[24:]):
            return None
        return header[16:24]

    def _write(self, note: Note) -> None:
        data = _NOTE.pack(_MAGIC, _VERSION, note.complete, 0, note.salt, note.frames)
        data += zlib.crc32(data).to_bytes(4, "little")
        replace_file(self._files, self._note, data)
        self._written = note

    def _read(self) -> Note | None:
        """None: there is none, or it is damaged itself, and then nothing else is likely to be."""
        if not self._files.exists(self._note):
            return None
        data = self._files.read_file(self._note)
        if len(data) != _NOTE.size + 4:
            return None
        if zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
            return None
        magic, version, complete, _zero, salt, frames = _NOTE.unpack(data[:-4])
        if (magic, version) != (_MAGIC, _VERSION):
            return None
        return Note(salt, frames, bool(complete))


def check_header(path: str, files: Files) -> None:
    """The first bytes of the database's file: without the right ones SQLite would read its pages
    otherwise, and check no page. Raises FatalError."""
    file = files.open(path)
    try:
        header = file.read_at(0, 100)
    finally:
        file.close()
    sound = (
        header[:16] == b"SQLite format 3\0"
        and int.from_bytes(header[16:18], "big") == PAGE_BYTES
        and header[20:21] == b"\x08"
    )
    if not sound:
        raise FatalError(
            f"{path} does not begin as a database of raftdb does",
            code="database_corrupt",
            hint="the file is damaged: the node fetches a copy when it runs",
            detail={"file": path, "offset": 0},
        )
