"""Records what a process does to its files, and what it promises in between.

Every change goes through one lock: its event stands in the record where the change happened, also
when several threads write. A sync has two events; what was written before the first of them is
durable at the second. Events are plain tuples:

    open        handle, path, created        write     handle, offset, data
    truncate    handle, size                 rename    source, target
    remove      path                         directory path
    sync_begin  token, handle                sync_end  token
    names_begin token, path                  names_end token
    note        kind, …                      (what the node was asked, and what it promised)
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import apsw
import msgpack

from raftdb.base.ports import File
from raftdb.runtime.files import RealFiles

Event = tuple[Any, ...]

_vfs_numbers = itertools.count(1)


class Sink(Protocol):
    """Where events go, in order."""

    def append(self, event: Event) -> None: ...


class FileSink:
    """Events in a file: each is with the system when `append` returns, so a SIGKILL loses none."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def append(self, event: Event) -> None:
        os.write(self._descriptor, msgpack.packb(event, use_bin_type=True))


def read_events(path: str) -> list[Event]:
    """What a FileSink wrote; an event that the process did not finish writing is left out."""
    with open(path, "rb") as file:
        unpacker = msgpack.Unpacker(file, use_list=False, max_buffer_size=1 << 30)
        return list(unpacker)


class Recorder:
    """The record of one process. `kill_after`: that many changes happen, then SIGKILL by itself."""

    def __init__(self, sink: Sink, kill_after: int = 0) -> None:
        self._sink = sink
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._kill_after = kill_after
        self._changes = 0

    def number(self) -> str:
        """A name for a handle or a sync, of this process alone."""
        return f"{os.getpid()}-{next(self._numbers)}"

    @contextmanager
    def change(self, *event: Any) -> Iterator[None]:
        """Record a change and let it happen, with no other one in between."""
        with self._lock:
            self._sink.append(event)
            try:
                yield
            except BaseException as error:
                self._sink.append(("failed", repr(error)))
                raise
            self._count()

    def note(self, kind: str, *values: Any) -> None:
        """Something that the node was asked or promised, at this moment."""
        with self._lock:
            self._sink.append(("note", kind, *values))

    def opened(self, path: str, opening: Callable[[], Any]) -> tuple[Any, str]:
        """Open a file by `opening`; (what it returned, the handle)."""
        with self._lock:
            existed = os.path.exists(path)
            result = opening()
            handle = self.number()
            created = not existed and os.path.exists(path)
            self._sink.append(("open", handle, path, created))
            if created:
                self._count()
            return result, handle

    def sync(self, handle: str, syncing: Callable[[], None]) -> None:
        """Make a file's content durable."""
        self._two("sync", handle, syncing)

    def sync_names(self, path: str, syncing: Callable[[], None]) -> None:
        """Make a directory's names durable."""
        self._two("names", path, syncing)

    def _two(self, kind: str, what: str, syncing: Callable[[], None]) -> None:
        token = self.number()
        with self._lock:
            self._sink.append((f"{kind}_begin", token, what))
        syncing()
        with self._lock:
            self._sink.append((f"{kind}_end", token))
            self._count()

    def _count(self) -> None:
        self._changes += 1
        if self._changes == self._kill_after:
            os.kill(os.getpid(), signal.SIGKILL)


class RecordingFile:
    """A File of the port."""

    def __init__(self, file: File, handle: str, recorder: Recorder) -> None:
        self._file = file
        self._handle = handle
        self._recorder = recorder
        self.read_at = file.read_at
        self.size = file.size
        self.close = file.close

    def write_at(self, offset: int, data: bytes) -> None:
        with self._recorder.change("write", self._handle, offset, bytes(data)):
            self._file.write_at(offset, data)

    def truncate(self, size: int) -> None:
        with self._recorder.change("truncate", self._handle, size):
            self._file.truncate(size)

    def sync(self) -> None:
        self._recorder.sync(self._handle, self._file.sync)


class RecordingFiles(RealFiles):
    """The files port of this machine, recorded."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def open(self, path: str, *, create: bool = False, exclusive: bool = False) -> File:
        def opening() -> File:
            return RealFiles.open(self, path, create=create, exclusive=exclusive)

        file, handle = self._recorder.opened(path, opening)
        return RecordingFile(file, handle, self._recorder)

    def make_directory(self, path: str) -> None:
        missing: list[str] = []
        while not os.path.isdir(path):
            missing.append(path)
            path = os.path.dirname(path)
        for one in reversed(missing):
            with self._recorder.change("directory", one):
                super().make_directory(one)

    def rename(self, source: str, target: str) -> None:
        with self._recorder.change("rename", source, target):
            super().rename(source, target)

    def remove(self, path: str) -> None:
        if not os.path.exists(path):
            raise FileNotFoundError(2, "no such file", path)
        with self._recorder.change("remove", path):
            super().remove(path)

    def sync_directory(self, path: str) -> None:
        self._recorder.sync_names(path, lambda: RealFiles.sync_directory(self, path))

    def lock(self, path: str) -> Callable[[], None]:
        release, _ = self._recorder.opened(path, lambda: RealFiles.lock(self, path))
        return release  # type: ignore[no-any-return]


class RecordingVfs(apsw.VFS):
    """SQLite's files, recorded. Locks and shared memory stay the system's: crashes end them."""

    def __init__(self, recorder: Recorder) -> None:
        self.name = f"recording-{next(_vfs_numbers)}"
        self._recorder = recorder
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        if not path:
            return apsw.VFSFile("", name, flags)
        file, handle = self._recorder.opened(path, lambda: _RecordingVfsFile(name, flags))
        file.watch(self._recorder, handle, path, flags)
        return file  # type: ignore[no-any-return]

    def xDelete(self, name: str, sync_directory: bool) -> None:
        if not os.path.exists(name):
            super().xDelete(name, sync_directory)
            return
        with self._recorder.change("remove", name):
            super().xDelete(name, False)
        if sync_directory:
            directory = os.path.dirname(name)
            self._recorder.sync_names(directory, lambda: _sync_directory(directory))


class _RecordingVfsFile(apsw.VFSFile):
    def __init__(self, name: Any, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._recorder: Recorder | None = None

    def watch(self, recorder: Recorder, handle: str, path: str, flags: list[int]) -> None:
        self._recorder = recorder
        self._handle = handle
        self._directory = os.path.dirname(path)
        kinds = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL
        # The first sync of such a file syncs its directory too (os_unix.c, UNIXFILE_DIRSYNC).
        self._syncs_names = bool(flags[0] & kinds and flags[0] & apsw.SQLITE_OPEN_CREATE)

    def xWrite(self, data: bytes, offset: int) -> None:
        assert self._recorder is not None
        with self._recorder.change("write", self._handle, offset, bytes(data)):
            super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:
        assert self._recorder is not None
        with self._recorder.change("truncate", self._handle, size):
            super().xTruncate(size)

    def xSync(self, flags: int) -> None:
        assert self._recorder is not None
        recorder, handle = self._recorder, self._handle

        def syncing() -> None:
            super(_RecordingVfsFile, self).xSync(flags)

        if self._syncs_names:
            self._syncs_names = False
            recorder.sync_names(self._directory, lambda: recorder.sync(handle, syncing))
        else:
            recorder.sync(handle, syncing)


def _sync_directory(path: str) -> None:
    RealFiles().sync_directory(path)
