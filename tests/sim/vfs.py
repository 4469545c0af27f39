"""SQLite on the simulated disk: a VFS whose data methods go to a SimFiles.

Locks and shared memory are those of SQLite's own unix VFS, on empty files of a memory file system,
so that writer, readers and checkpoints live beside each other as they do on a real disk. There is
one VFS for all machines (the machine's own layers above it are made once for each VFS, and for
good): the first part of a path names the simulated machine. Each run of a process has files of its
own for the locks, so that what a killed process leaves open disturbs nobody.

As the unix VFS does: the first sync of a write-ahead log or journal that was opened to be created
also syncs its directory (os_unix.c, UNIXFILE_DIRSYNC).
"""

from __future__ import annotations

import errno
import functools
import itertools
import os
import posixpath
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import apsw

from raftdb.machine.format import JULIAN_EPOCH_MS
from tests.sim.disk import SimFile, SimFiles
from tests.sim.threads import running

_MEMORY = "/dev/shm"
_numbers = itertools.count(1)
_LOGS = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL
_CREATE = apsw.SQLITE_OPEN_CREATE
_ACCESS_FLAGS = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_EXCLUSIVE
_TRANSIENT = (
    apsw.SQLITE_OPEN_TEMP_DB
    | apsw.SQLITE_OPEN_TEMP_JOURNAL
    | apsw.SQLITE_OPEN_TRANSIENT_DB
    | apsw.SQLITE_OPEN_SUBJOURNAL
)


def _failed(error: OSError, extended: int) -> apsw.Error:
    """What the unix VFS makes of an errno (os_unix.c)."""
    if error.errno == errno.ENOSPC:
        return apsw.FullError(str(error))
    found = apsw.IOError(str(error))
    found.extendedresult = extended
    return found


class SimVfsFile(apsw.VFSFile):  # type: ignore[misc]
    """One file that SQLite has open: locks on the memory file system, data on the disk."""

    def __init__(
        self, route: Route, file: SimFile, directory: str, lock_path: str, flags: list[int]
    ) -> None:
        asked = flags[0]
        flags[0] = (asked & ~_ACCESS_FLAGS) | apsw.SQLITE_OPEN_READWRITE | _CREATE
        super().__init__("unix", lock_path, flags)
        flags[0] = asked
        if asked & apsw.SQLITE_OPEN_READONLY:
            flags[1] = asked
        self._between = route.between
        self._file = file
        self._new_name_in = directory if asked & _CREATE and asked & _LOGS else ""
        self._read = file.read_at
        self._write = file.write_at

    def xRead(self, amount: int, offset: int) -> bytes:
        if self._between is not None:
            self._between()
        try:
            return self._read(offset, amount)
        except OSError as error:
            raise _failed(error, apsw.SQLITE_IOERR_READ) from error

    def xWrite(self, data: bytes, offset: int) -> None:
        if self._between is not None:
            self._between()
        try:
            self._write(offset, data)
        except OSError as error:
            raise _failed(error, apsw.SQLITE_IOERR_WRITE) from error

    def xTruncate(self, size: int) -> None:
        try:
            self._file.truncate(size)
        except OSError as error:
            raise _failed(error, apsw.SQLITE_IOERR_TRUNCATE) from error

    def xSync(self, flags: int) -> None:
        if self._between is not None:
            self._between()
        try:
            self._file.sync()
            if self._new_name_in:
                # As in os_unix.c, a directory that does not sync is no error there.
                self._file.files.sync_directory(self._new_name_in)
                self._new_name_in = ""
        except OSError as error:
            raise _failed(error, apsw.SQLITE_IOERR_FSYNC) from error

    def xFileSize(self) -> int:
        try:
            return self._file.size()
        except OSError as error:
            raise _failed(error, apsw.SQLITE_IOERR_FSTAT) from error

    def excepthook(self, kind: type[BaseException], error: BaseException, trace: Any) -> None:
        """SQLite got its error code; nothing is to be printed."""


@dataclass(frozen=True)
class Route:
    """Where the files of one machine are, as of one life of its process."""

    files: SimFiles
    prefix: str
    """Of the paths of the files for locks."""
    between: Callable[[], None] | None = None
    """Called at each call for data."""


class SimVfs(apsw.VFS):  # type: ignore[misc]
    """The VFS of all simulated machines of this process."""

    name = "simulated"

    def __init__(self) -> None:
        self.routes: dict[str, Route] = {}
        """By machine. A file stays where it was when it was opened."""
        self.now_ms: Callable[[], int] = _no_time
        """Unix time, of whoever asks outside a request."""
        super().__init__(self.name, "unix", maxpathname=512)

    def _route(self, path: str) -> Route:
        return self.routes[path.split("/", 2)[1]]

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        if path is None or flags[0] & _TRANSIENT:
            # Sorting and statement journals: they don't outlive the process.
            return apsw.VFSFile("unix", path, flags)
        route = self._route(path)
        try:
            file = route.files.open(path, create=bool(flags[0] & _CREATE))
        except OSError as error:
            raise apsw.CantOpenError(str(error)) from error
        lock_path = route.prefix + path.replace("/", "_")
        return SimVfsFile(route, file, posixpath.dirname(path), lock_path, flags)

    def xDelete(self, path: str, sync_directory: bool) -> None:
        files = self._route(path).files
        try:
            files.remove(path)
            if sync_directory:
                files.sync_directory(posixpath.dirname(path))
        except FileNotFoundError as error:
            raise _failed(error, apsw.SQLITE_IOERR_DELETE_NOENT) from error
        except OSError as error:
            raise _failed(error, apsw.SQLITE_IOERR_DELETE) from error

    def xAccess(self, path: str, flags: int) -> bool:
        return self._route(path).files.exists(path)

    def xFullPathname(self, path: str) -> str:
        return path

    def xCurrentTimeInt64(self) -> int:
        return JULIAN_EPOCH_MS + self.now_ms()

    def xSleep(self, microseconds: int) -> int:
        """Only a job lets others run meanwhile."""
        job = running()
        if job is not None and not job.hurries:
            job.stop(microseconds / 1e6)
        return microseconds

    def excepthook(self, kind: type[BaseException], error: BaseException, trace: Any) -> None:
        """SQLite got its error code; nothing is to be printed."""


def _no_time() -> int:
    return 0


@functools.cache
def simulated() -> SimVfs:
    """The one of this process."""
    return SimVfs()


class LockDirectory:
    """Empty files of a memory file system, for SQLite's locks and shared memory."""

    def __init__(self) -> None:
        parent = _MEMORY if os.access(_MEMORY, os.W_OK) else None
        self._path = tempfile.mkdtemp(prefix="raftdb-sim-", dir=parent)
        self._count = 0

    def new_prefix(self) -> str:
        """A beginning of paths that was never given before."""
        self._count += 1
        return f"{self._path}/{self._count}"

    def remove(self) -> None:
        """Away with all of it."""
        shutil.rmtree(self._path, ignore_errors=True)


class _SeedingVfs(apsw.VFS):  # type: ignore[misc]
    """Gives SQLite's own random generator its start."""

    def __init__(self, seed: bytes) -> None:
        self.name = f"seeding-{next(_numbers)}"
        self._seed = seed
        super().__init__(self.name, "unix")

    def xRandomness(self, count: int) -> bytes:
        return (self._seed * (count // len(self._seed) + 1))[:count]


def seed_sqlite(seed: bytes) -> None:
    """Reset SQLite's generator (salts of write-ahead logs come from it) to start from `seed`."""
    before = apsw.vfs_names()[0]
    vfs = _SeedingVfs(seed)
    try:
        apsw.set_default_vfs(vfs.name)
        apsw.randomness(0)
        apsw.randomness(1)
    finally:
        apsw.set_default_vfs(before)
        vfs.unregister()
