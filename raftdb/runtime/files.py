"""The real `Files` port: POSIX files with positioned reads and writes.

New files are readable by their owner only (0600), new directories too (0700). `sync` is
fdatasync: it returns when data and size are on the device. A failed sync is reported once, as
OSError; whoever gets it must not try again, since Linux marks the lost pages clean
(https://lwn.net/Articles/752063/).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys
from collections.abc import Callable

from raftdb.base.ports import File, Files

__all__ = ["RealFiles"]

_FILE_MODE = 0o600
_DIRECTORY_MODE = 0o700
_IO_BYTES_MAX = 1 << 30
"""Linux moves at most 2 GiB - 4096 bytes per call; stay well below."""


def _data_sync(descriptor: int) -> None:
    if sys.platform == "darwin":
        # fsync leaves data in the drive's cache there.
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(descriptor)


def _allocate(descriptor: int, size: int) -> None:
    """Room for `size` bytes, where the system can give it without writing them."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        os.ftruncate(descriptor, size)
        return
    chunk = bytes(1 << 20)
    for offset in range(0, size, len(chunk)):
        os.pwrite(descriptor, chunk[: size - offset], offset)


class RealFile:
    """One open file descriptor. Positioned calls only, so any thread may use it."""

    __slots__ = ("_descriptor", "_path")

    def __init__(self, path: str, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def read_at(self, offset: int, count: int) -> bytes:
        data = os.pread(self._descriptor, min(count, _IO_BYTES_MAX), offset)
        if len(data) == count or not data:
            return data
        parts = [data]
        done = len(data)
        while done < count:
            data = os.pread(self._descriptor, min(count - done, _IO_BYTES_MAX), offset + done)
            if not data:
                break
            parts.append(data)
            done += len(data)
        return b"".join(parts)

    def write_at(self, offset: int, data: bytes) -> None:
        try:
            done = os.pwrite(self._descriptor, data[:_IO_BYTES_MAX], offset)
            if done == len(data):
                return
            self._write_rest(offset, data, done)
        except OSError as error:
            raise self._named(error) from None

    def _write_rest(self, offset: int, data: bytes, done: int) -> None:
        rest = memoryview(data)
        while done < len(data):
            count = os.pwrite(self._descriptor, rest[done : done + _IO_BYTES_MAX], offset + done)
            if count <= 0:
                raise OSError(errno.EIO, "the system took no byte of a write")
            done += count

    def truncate(self, size: int) -> None:
        try:
            os.ftruncate(self._descriptor, size)
        except OSError as error:
            raise self._named(error) from None

    def sync(self) -> None:
        try:
            _data_sync(self._descriptor)
        except OSError as error:
            raise self._named(error) from None

    def _named(self, error: OSError) -> OSError:
        """The system's error on a descriptor does not say which file it was."""
        return OSError(error.errno, error.strerror or str(error), self._path)

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class RealFiles:
    """The file system of this machine, as the `Files` port."""

    def open(self, path: str, *, create: bool = False, exclusive: bool = False) -> File:
        flags = os.O_RDWR | os.O_CLOEXEC
        if create:
            flags |= os.O_CREAT
            if exclusive:
                flags |= os.O_EXCL
        return RealFile(path, os.open(path, flags, _FILE_MODE))

    def read_file(self, path: str) -> bytes:
        with open(path, "rb", buffering=0) as file:
            return file.readall()

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def list_directory(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def make_directory(self, path: str) -> None:
        os.makedirs(path, mode=_DIRECTORY_MODE, exist_ok=True)

    def rename(self, source: str, target: str) -> None:
        os.replace(source, target)

    def remove(self, path: str) -> None:
        os.unlink(path)

    def sync_directory(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # Names are metadata: fdatasync would do on Linux, fsync does everywhere.
            os.fsync(descriptor)
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None
        finally:
            os.close(descriptor)

    def free_bytes(self, path: str) -> int:
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize

    def keep_room(self, path: str, size: int) -> None:
        if size <= 0:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
        try:
            _allocate(descriptor, size)
        except BaseException:
            os.unlink(path)
            raise
        finally:
            os.close(descriptor)

    def lock(self, path: str) -> Callable[[], None]:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
        try:
            # flock belongs to the open file description: it ends with the process, however that
            # ends, and a second open in the same process is refused too.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(descriptor)
            raise
        held = [descriptor]

        def release() -> None:
            with contextlib.suppress(IndexError):
                os.close(held.pop())

        return release


def _check_port(files: RealFiles) -> Files:
    """Only for mypy: RealFiles satisfies the port."""
    return files
