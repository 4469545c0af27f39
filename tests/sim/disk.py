"""A simulated disk: the `Files` port in memory, with what a crash, a kill and a bad device do.

What is modelled, and from where it is known:

- Data written but not synced lives in the page cache. A power loss keeps any subset of the dirty
  512-byte sectors, each in any of the versions that the cache held since the last sync, and any
  of the sizes that the file had; what did not survive inside the size reads as before, or as
  zeroes.
- Names (creates, renames, removes, directories) are durable only after `sync_directory` of the
  directory that holds them, apart from the file's own data. A power loss keeps a prefix or any
  subset of the operations that were not synced.
- A sync that fails loses what was dirty: the cache may go on showing it, but it is clean, and a
  second sync succeeds without writing it (LWN 752063). This is why a failed sync is final.
- `kill()` (SIGKILL) keeps the page cache, drops locks and open files. `crash()` is a power loss.

All choices are drawn from the given `random.Random`, in an order that depends on nothing else.
"""

from __future__ import annotations

import errno
import os
import posixpath
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

SECTOR = 512
MUTATIONS = frozenset(
    {"create", "write", "truncate", "sync", "rename", "remove", "sync_directory", "make_directory"}
)


@dataclass
class _Inode:
    """One file's content: on the device, and as the page cache shows it."""

    number: int
    durable: bytearray = field(default_factory=bytearray)
    cached: bytearray = field(default_factory=bytearray)
    pending: list[tuple[str, int, bytes]] = field(default_factory=list)
    """Since the last sync: ("write", offset, data) or ("truncate", size, b"")."""
    dropped: bool = False
    """A failed sync made pages clean that the device never got."""

    def copy(self) -> _Inode:
        """The same content, nothing shared that can change."""
        return _Inode(
            self.number, self.durable[:], self.cached[:], list(self.pending), self.dropped
        )

    def write(self, offset: int, data: bytes) -> None:
        if offset > len(self.cached):
            self.cached.extend(bytes(offset - len(self.cached)))
        self.cached[offset : offset + len(data)] = data
        self.pending.append(("write", offset, bytes(data)))

    def truncate(self, size: int) -> None:
        _resize(self.cached, size)
        self.pending.append(("truncate", size, b""))

    def sync(self) -> None:
        """Only what is dirty reaches the device: sectors that an earlier failed sync dropped
        stay lost."""
        size = len(self.cached)
        shortest = min(
            [len(self.durable), *(at for kind, at, _ in self.pending if kind != "write")]
        )
        _resize(self.durable, min(shortest, size))
        _resize(self.durable, size)
        for kind, offset, data in self.pending:
            if kind == "write":
                start = offset - offset % SECTOR
                end = min(-(-(offset + len(data)) // SECTOR) * SECTOR, size)
                self.durable[start:end] = self.cached[start:end]
        self.pending.clear()

    def lose(self, draw: random.Random) -> None:
        """Power loss: choose what of the pending operations reached the device."""
        if self.pending:
            self.durable = self._survivor(draw)
            self.pending.clear()
        self.cached = bytearray(self.durable)

    def _survivor(self, draw: random.Random) -> bytearray:
        mode = draw.choice(("none", "all", "prefix", "sectors", "sectors", "most"))
        count = len(self.pending)
        kept = {"none": 0, "all": count}.get(mode, count)
        if mode == "prefix":
            kept = draw.randint(0, count)
        image = bytearray(self.durable)
        if mode not in ("sectors", "most"):
            for operation in self.pending[:kept]:
                _apply(image, operation)
            return image
        return self._sectors(draw, 0.97 if mode == "most" else draw.choice((0.1, 0.5, 0.9)))

    def _sectors(self, draw: random.Random, chance: float) -> bytearray:
        """Each dirty sector survives by itself, in one of the versions that it had."""
        image = bytearray(self.durable)
        result = bytearray(self.durable)
        sizes = [len(image)]
        for operation in self.pending:
            before = len(image)
            _apply(image, operation)
            kind, offset, data = operation
            sizes.append(len(image))
            if kind == "truncate":
                if len(image) < before and draw.random() < chance:
                    _resize(result, min(len(result), len(image)))
                continue
            start = offset // SECTOR
            for sector in range(start, -(-(offset + len(data)) // SECTOR)):
                if draw.random() < chance:
                    piece = image[sector * SECTOR : (sector + 1) * SECTOR]
                    _resize(result, max(len(result), sector * SECTOR + len(piece)))
                    result[sector * SECTOR : sector * SECTOR + len(piece)] = piece
        size = draw.choice((draw.choice(sizes), max(sizes), len(result)))
        if draw.random() < 0.2 and max(sizes) > min(sizes):
            size = draw.randint(min(sizes), max(sizes))
        _resize(result, size)
        return result


def _resize(content: bytearray, size: int) -> None:
    if size < len(content):
        del content[size:]
    else:
        content.extend(bytes(size - len(content)))


def _apply(image: bytearray, operation: tuple[str, int, bytes]) -> None:
    kind, offset, data = operation
    if kind == "truncate":
        _resize(image, offset)
        return
    if offset > len(image):
        _resize(image, offset)
    image[offset : offset + len(data)] = data


@dataclass(frozen=True)
class _NameOperation:
    """One change of names that waits for `sync_directory`."""

    kind: str
    directories: tuple[str, ...]
    path: str
    inode: int = 0
    target: str = ""

    def apply(self, names: dict[str, int], directories: set[str]) -> None:
        if self.kind == "create":
            names[self.path] = self.inode
        elif self.kind == "remove":
            if names.get(self.path) == self.inode:
                del names[self.path]
        elif self.kind == "rename":
            if names.get(self.path) == self.inode:
                del names[self.path]
            names[self.target] = self.inode
        else:
            directories.add(self.path)


@dataclass
class Fault:
    """What the n-th matching call does. `error` is an errno; `partial` (writes): that share of
    the data is written first; `keep_cache` (failed syncs): the cache goes on showing the lost
    data (None: drawn)."""

    kind: str
    nth: int
    error: int = errno.EIO
    contains: str = ""
    partial: float = 0.0
    keep_cache: bool | None = None
    fired: bool = False


class SimFile:
    """One open file of a SimFiles; dead after `crash()` or `kill()`."""

    def __init__(self, files: SimFiles, path: str, inode: _Inode) -> None:
        self.files = files
        self._path = path
        self._inode = inode
        self._life = files.life
        self._closed = False

    def _check(self, kind: str) -> Fault | None:
        if self._closed or self._life != self.files.life:
            raise OSError(errno.EBADF, "the file is closed", self._path)
        return self.files.step(kind, self._path)

    def read_at(self, offset: int, count: int) -> bytes:
        fault = self._check("read")
        if fault:
            raise _error(fault, self._path)
        if self.files.reads is not None:
            self.files.count_read(self._path, count)
        return bytes(self._inode.cached[offset : offset + count])

    def write_at(self, offset: int, data: bytes) -> None:
        fault = self._check("write")
        if fault:
            part = data[: int(len(data) * fault.partial)]
            if part:
                self._inode.write(offset, part)
            raise _error(fault, self._path)
        self._inode.write(offset, data)

    def truncate(self, size: int) -> None:
        fault = self._check("truncate")
        if fault:
            raise _error(fault, self._path)
        self._inode.truncate(size)

    def sync(self) -> None:
        fault = self._check("sync")
        if fault:
            self.files.fail_sync(self._inode, fault)
            raise _error(fault, self._path)
        self._inode.sync()

    def size(self) -> int:
        if self._closed or self._life != self.files.life:
            raise OSError(errno.EBADF, "the file is closed", self._path)
        return len(self._inode.cached)

    def close(self) -> None:
        self._closed = True


def _error(fault: Fault, path: str) -> OSError:
    return OSError(fault.error, os.strerror(fault.error), path)


class SimFiles:
    """One machine's disk. Give each simulated node its own."""

    def __init__(self, draw: random.Random) -> None:
        self._random = draw
        self.free = 1 << 50
        self.kept: dict[str, int] = {}
        """Room that is kept, by the path of its file."""
        self._inodes: dict[int, _Inode] = {}
        self._inode_count = 0
        self._names: dict[str, int] = {}
        self._durable_names: dict[str, int] = {}
        self._directories: set[str] = {"/"}
        self._durable_directories: set[str] = {"/"}
        self._name_operations: list[_NameOperation] = []
        self._locks: set[str] = set()
        self._faults: list[Fault] = []
        self._power_left: int | None = None
        self._on_power_off: Callable[[], None] | None = None
        self.life = 0
        """Grows with every crash and kill; files and locks of an earlier life are dead."""
        self.dropped = False
        """A sync failed since this was last reset: the page cache is not what was written."""
        self.failed = False
        """A call failed since this was last reset."""
        self.rotten = False
        """What was durable was changed behind everybody's back."""
        self.on_remove: Callable[[str], None] | None = None
        """Told of each file that is removed, before anything makes that durable."""
        self.reads: dict[str, int] | None = None
        """Bytes that were read, by path, where somebody counts."""
        self.counts: dict[str, int] = {}
        """Calls so far, by kind."""
        self.mutations = 0
        """Calls so far that change anything, syncs included."""
        self.before_each: Callable[[], None] | None = None
        """Called before every call that may fail: its thread may have to wait there."""

    # -- what tests and the simulator do to it ----------------------------------------------

    def inject(self, fault: Fault) -> Fault:
        """Make the n-th call (from now, 1 is the next) of a kind fail. Kinds: open, read, write,
        truncate, sync, create, rename, remove, sync_directory, make_directory."""
        self._faults.append(fault)
        return fault

    def power_off_after(self, mutations: int, then: Callable[[], None] | None = None) -> None:
        """Let that many more changing calls happen; then every call fails until `crash()` (or
        `kill()`). `then` is called when that begins, from inside the first call that fails."""
        self._power_left = mutations
        self._on_power_off = then

    def crash(self) -> None:
        """Power loss, then power again: what was not synced survives in part or not at all."""
        draw = self._random
        prefix = draw.random() < 0.5
        chance = draw.choice((0.0, 0.5, 1.0))
        kept = draw.randint(0, len(self._name_operations))
        for position, operation in enumerate(self._name_operations):
            survives = position < kept if prefix else draw.random() < chance
            if survives:
                operation.apply(self._durable_names, self._durable_directories)
        self._name_operations.clear()
        self._durable_directories = {
            path for path in self._durable_directories if self._reachable(path)
        }
        self._durable_names = {
            path: inode
            for path, inode in self._durable_names.items()
            if posixpath.dirname(path) in self._durable_directories
        }
        self._names = dict(self._durable_names)
        self._directories = set(self._durable_directories)
        alive = set(self._names.values())
        self._inodes = {number: node for number, node in self._inodes.items() if number in alive}
        for _, inode in sorted(self._inodes.items()):
            inode.lose(draw)
        self.kill()

    def kill(self) -> None:
        """SIGKILL: open files and locks are gone; the page cache and the names stay."""
        self.life += 1
        self._locks.clear()
        self._power_left = None
        self._on_power_off = None
        self._faults = []

    def clone(self, draw: random.Random) -> SimFiles:
        """The same disk once more (nothing shared), to try several crashes from one state."""
        twin = SimFiles(draw)
        twin._inodes = {number: inode.copy() for number, inode in self._inodes.items()}
        twin._inode_count = self._inode_count
        twin._names = dict(self._names)
        twin._durable_names = dict(self._durable_names)
        twin._directories = set(self._directories)
        twin._durable_directories = set(self._durable_directories)
        twin._name_operations = list(self._name_operations)
        twin._locks = set(self._locks)
        twin._faults = [replace(fault) for fault in self._faults]
        twin._power_left = self._power_left
        twin.life = self.life
        twin.counts = dict(self.counts)
        twin.mutations = self.mutations
        return twin

    def paths(self) -> list[str]:
        """All files, sorted."""
        return sorted(self._names)

    def flip_bit(self, path: str, offset: int, bit: int) -> None:
        """Rot: one bit changes, on the device and in the cache."""
        self.rotten = True
        inode = self._inode(path)
        for content in (inode.durable, inode.cached):
            if offset < len(content):
                content[offset] ^= 1 << bit

    def overwrite(self, path: str, offset: int, data: bytes) -> None:
        """Rot of another kind: zeroed blocks, misdirected writes."""
        self.rotten = True
        inode = self._inode(path)
        for content in (inode.durable, inode.cached):
            content[offset : offset + len(data)] = data

    def unsynced_writes(self, path: str) -> list[tuple[int, int]]:
        """Where the file was written since its last sync: (offset, bytes)."""
        if path not in self._names:
            return []
        pending = self._inode(path).pending
        return [(offset, len(data)) for kind, offset, data in pending if kind == "write"]

    def stray_write(self, path: str, offset: int, data: bytes) -> None:
        """Somebody writes into a file that is not theirs, under whoever has it open."""
        inode = self._inode(path)
        for content in (inode.durable, inode.cached):
            content[offset : offset + len(data)] = data[: max(len(content) - offset, 0)]

    def set_content(self, path: str, data: bytes) -> None:
        """Replace a file's content, durably."""
        self.rotten = True
        inode = self._inode(path)
        inode.durable[:] = data
        inode.cached[:] = data
        inode.pending.clear()

    def durable_content(self, path: str) -> bytes:
        """What is on the device for a durable name (FileNotFoundError when there is none)."""
        if path not in self._durable_names:
            raise FileNotFoundError(errno.ENOENT, "no such durable file", path)
        return bytes(self._inodes[self._durable_names[path]].durable)

    def after_power_cut(self, directory: str, *, names: bool) -> SimFiles:
        """Another disk with a directory's files, as a power cut leaves them that takes all bytes
        which were not synced. `names`: what was done to names is all there, else none of it."""
        found, twin = dict(self._durable_names), SimFiles(random.Random(0))
        for operation in self._name_operations if names else ():
            operation.apply(found, set())
        twin.make_directory(directory)
        inside = directory + "/"
        for path, number in found.items():
            if path.startswith(inside) and "/" not in path[len(inside) :]:
                content = self._inodes[number].durable
                twin._inodes[number] = _Inode(number, content[:], content[:])
                twin._names[path] = number
        twin._inode_count = self._inode_count
        twin._durable_names = dict(twin._names)
        twin._durable_directories = set(twin._directories)
        twin._name_operations.clear()
        return twin

    def unsynced(self, directory: str) -> list[str]:
        """What a power cut could still take of the files in a directory: bytes and names."""
        found = [
            f"{operation.kind} {operation.path}"
            for operation in self._name_operations
            if directory in operation.directories and not operation.path.endswith("/lock")
        ]
        inside = directory + "/"
        for path, number in self._names.items():
            if path.startswith(inside) and "/" not in path[len(inside) :]:
                inode = self._inodes[number]
                if inode.pending or (inode.dropped and inode.cached != inode.durable):
                    found.append(f"bytes of {path}")
        return found

    # -- bookkeeping -------------------------------------------------------------------------

    def step(self, kind: str, path: str) -> Fault | None:
        """Count one call; returns the fault that hits it."""
        if self.before_each is not None:
            self.before_each()
        if self._power_left is not None:
            if self._power_left == 0:
                then, self._on_power_off = self._on_power_off, None
                if then is not None:
                    then()
                raise OSError(errno.EIO, "the power is off", path)
            if kind in MUTATIONS:
                self._power_left -= 1
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if kind in MUTATIONS:
            self.mutations += 1
        for fault in self._faults:
            if fault.kind == kind and fault.contains in path and not fault.fired:
                fault.nth -= 1
                if fault.nth <= 0:
                    fault.fired = self.failed = True
                    return fault
        return None

    def count_read(self, path: str, count: int) -> None:
        """Somebody wants to know."""
        if self.reads is not None:
            self.reads[path] = self.reads.get(path, 0) + count

    def fail_sync(self, inode: _Inode, fault: Fault) -> None:
        """The dirty pages become clean without being written, all or some of them."""
        self.dropped = True
        keep = self._random.random() < 0.5 if fault.keep_cache is None else fault.keep_cache
        shown = bytearray(inode.cached)
        inode.lose(self._random)
        if keep:
            inode.cached = shown
            inode.dropped = True

    def _forget_nameless(self) -> None:
        """Free the content of files that no name can come back to."""
        named = {*self._names.values(), *self._durable_names.values()}
        named.update(operation.inode for operation in self._name_operations)
        for number in [number for number in self._inodes if number not in named]:
            del self._inodes[number]

    def _fail_if(self, kind: str, path: str) -> None:
        fault = self.step(kind, path)
        if fault:
            raise _error(fault, path)

    def _inode(self, path: str) -> _Inode:
        if path not in self._names:
            if path in self._directories:
                raise IsADirectoryError(errno.EISDIR, "is a directory", path)
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return self._inodes[self._names[path]]

    def _parent(self, path: str) -> str:
        parent = posixpath.dirname(path)
        if parent not in self._directories:
            raise FileNotFoundError(errno.ENOENT, "no such directory", parent)
        return parent

    def _reachable(self, path: str) -> bool:
        while path != "/":
            if path not in self._durable_directories:
                return False
            path = posixpath.dirname(path)
        return True

    # -- the Files port ----------------------------------------------------------------------

    def open(self, path: str, *, create: bool = False, exclusive: bool = False) -> SimFile:
        self._fail_if("open", path)
        if path in self._names and create and exclusive:
            raise FileExistsError(errno.EEXIST, "file exists", path)
        if path not in self._names and create:
            parent = self._parent(path)
            self._fail_if("create", path)
            self._inode_count += 1
            number = self._inode_count
            self._inodes[number] = _Inode(number)
            self._names[path] = number
            self._name_operations.append(_NameOperation("create", (parent,), path, number))
        return SimFile(self, path, self._inode(path))

    def read_file(self, path: str) -> bytes:
        self._fail_if("read", path)
        content = bytes(self._inode(path).cached)
        if self.reads is not None:
            self.count_read(path, len(content))
        return content

    def exists(self, path: str) -> bool:
        return path in self._names or path in self._directories

    def list_directory(self, path: str) -> list[str]:
        if path not in self._directories:
            raise FileNotFoundError(errno.ENOENT, "no such directory", path)
        entries = [*self._names, *self._directories]
        return sorted(
            posixpath.basename(entry)
            for entry in entries
            if entry != "/" and posixpath.dirname(entry) == path
        )

    def make_directory(self, path: str) -> None:
        missing = []
        while path not in self._directories:
            missing.append(path)
            path = posixpath.dirname(path)
        for name in reversed(missing):
            self._fail_if("make_directory", name)
            self._directories.add(name)
            parent = posixpath.dirname(name)
            self._name_operations.append(_NameOperation("directory", (parent,), name))

    def rename(self, source: str, target: str) -> None:
        inode = self._inode(source)
        directories = (self._parent(source), self._parent(target))
        self._fail_if("rename", target)
        del self._names[source]
        self._names[target] = inode.number
        self._name_operations.append(
            _NameOperation("rename", directories, source, inode.number, target)
        )

    def remove(self, path: str) -> None:
        inode = self._inode(path)
        self._fail_if("remove", path)
        del self._names[path]
        self._name_operations.append(
            _NameOperation("remove", (self._parent(path),), path, inode.number)
        )
        if self.on_remove is not None:
            self.on_remove(path)

    def sync_directory(self, path: str) -> None:
        if path not in self._directories:
            raise FileNotFoundError(errno.ENOENT, "no such directory", path)
        self._fail_if("sync_directory", path)
        waiting = []
        for operation in self._name_operations:
            if path in operation.directories:
                operation.apply(self._durable_names, self._durable_directories)
            else:
                waiting.append(operation)
        self._name_operations = waiting
        self._forget_nameless()

    def free_bytes(self, path: str) -> int:
        return self.free - sum(self.kept.values())

    def keep_room(self, path: str, size: int) -> None:
        self.kept.pop(path, None)
        if size > self.free_bytes(path):
            raise OSError(errno.ENOSPC, "no room", path)
        if size:
            self.kept[path] = size

    def lock(self, path: str) -> Callable[[], None]:
        if path in self._locks:
            raise BlockingIOError(errno.EWOULDBLOCK, "locked by another process", path)
        self.open(path, create=True)
        self._locks.add(path)
        life = self.life

        def release() -> None:
            if life == self.life:
                self._locks.discard(path)

        return release
