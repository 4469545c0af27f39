"""What a file system may leave after a power loss, computed from a record.

The model is the weakest that careful programs assume (ALICE, OSDI 2014): of what was not synced,
any part may have reached the disk, in any order: writes whole, in sectors, or as a grown file full
of zeros; truncations, creations, renames and removals either way. A sync of a file makes its
content durable and not its name; a sync of a directory makes names durable and no content. Within a
sector of 512 bytes a write is whole or absent, and does not touch its neighbours' bytes.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.powerloss.record import Event

SECTOR_BYTES = 512
PAGE_BYTES = 4096

State = Mapping[str, bytes | None]
"""Path below the root to content; None: a directory."""

KEEP, DROP, ZERO, TORN = "keep", "drop", "zero", "torn"


@dataclass(frozen=True, slots=True)
class Change:
    """A write (`data`) or a truncation (`size`) that is not known to be durable."""

    number: int
    offset: int
    data: bytes | None
    size: int = 0


@dataclass(slots=True)
class Inode:
    number: int
    durable: bytes = b""
    pending: list[Change] = field(default_factory=list)
    digests: dict[tuple[int, ...], bytes] = field(default_factory=dict)
    """Of what is durable together with these changes."""

    def digest(self, fates: Mapping[int, str], draw: random.Random) -> bytes:
        """Of the content that `fates` leaves."""
        chosen = [(one, fates.get(one.number, DROP)) for one in self.pending]
        kept = tuple(one.number for one, fate in chosen if fate == KEEP)
        plain = all(fate in (KEEP, DROP) for _one, fate in chosen)
        if plain and kept in self.digests:
            return self.digests[kept]
        digest = hashlib.blake2b(_content(self.durable, chosen, draw), digest_size=16).digest()
        if plain:
            self.digests[kept] = digest
        return digest

    def make_durable(self, before: int) -> None:
        """Everything that was written before event `before`."""
        now = [change for change in self.pending if change.number < before]
        if now:
            self.digests.clear()
            self.durable = _content(self.durable, ((change, KEEP) for change in now), None)
            self.pending = self.pending[len(now) :]


@dataclass(frozen=True, slots=True)
class NameChange:
    """A change of names that is not known to be durable."""

    number: int
    kind: str
    path: str
    inode: int = 0
    target: str = ""

    @property
    def directories(self) -> set[str]:
        return {posixpath.dirname(self.path), posixpath.dirname(self.target or self.path)}

    def apply(self, names: dict[str, int], directories: set[str]) -> None:
        if self.kind == "create":
            names[self.path] = self.inode
        elif self.kind == "remove":
            names.pop(self.path, None)
        elif self.kind == "rename":
            names.pop(self.path, None)
            names[self.target] = self.inode
        else:
            directories.add(self.path)


class Disk:
    """The disk after some events of a record: what is durable, and what may be."""

    def __init__(self, root: str, initial: State | None = None) -> None:
        self._root = root
        self.inodes: dict[int, Inode] = {}
        self.names: dict[str, int] = {}
        self.directories: set[str] = {""}
        self.name_changes: list[NameChange] = []
        self._handles: dict[str, int] = {}
        self._syncs: dict[str, tuple[int, str]] = {}
        for path, content in sorted((initial or {}).items()):
            if content is None:
                self.directories.add(path)
            else:
                inode = self._new_inode()
                inode.durable = content
                self.names[path] = inode.number
        self.durable_names = dict(self.names)
        self.durable_directories = set(self.directories)

    def feed(self, number: int, event: Event) -> None:
        """Event `number` of the record happened."""
        kind = event[0]
        if kind == "open":
            self._open(number, *event[1:])
        elif kind == "write":
            inode = self.inodes[self._handles[event[1]]]
            inode.pending.append(Change(number, event[2], event[3]))
        elif kind == "truncate":
            inode = self.inodes[self._handles[event[1]]]
            inode.pending.append(Change(number, 0, None, event[2]))
        elif kind in ("rename", "remove", "directory"):
            self._rename_or_remove(number, kind, *map(self._relative, event[1:]))
        elif kind in ("sync_begin", "names_begin"):
            self._syncs[event[1]] = (number, event[2])
        elif kind == "sync_end":
            before, handle = self._syncs.pop(event[1])
            self.inodes[self._handles[handle]].make_durable(before)
        elif kind == "names_end":
            before, path = self._syncs.pop(event[1])
            self._names_durable(before, self._relative(path))
        elif kind == "failed":
            raise AssertionError(f"the recorded process failed: {event[1]}")

    def _relative(self, path: str) -> str:
        relative = os.path.relpath(path, self._root)
        return "" if relative == "." else relative

    def _new_inode(self) -> Inode:
        inode = Inode(len(self.inodes) + 1)
        self.inodes[inode.number] = inode
        return inode

    def _open(self, number: int, handle: str, path: str, created: bool) -> None:
        path = self._relative(path)
        if created:
            inode = self._new_inode()
            self.names[path] = inode.number
            self.name_changes.append(NameChange(number, "create", path, inode.number))
        self._handles[handle] = self.names[path]

    def _rename_or_remove(self, number: int, kind: str, path: str, target: str = "") -> None:
        inode = self.names.get(path, 0)
        change = NameChange(number, kind, path, inode, target)
        change.apply(self.names, self.directories)
        if not path.startswith(".."):
            self.name_changes.append(change)

    def _names_durable(self, before: int, directory: str) -> None:
        waiting = []
        for change in self.name_changes:
            if change.number < before and directory in change.directories:
                change.apply(self.durable_names, self.durable_directories)
            else:
                waiting.append(change)
        self.name_changes = waiting

    def pending(self) -> list[tuple[Inode, Change]]:
        """All changes of content that may or may not be there, in order, of files whose names may
        survive."""
        named = {*self.durable_names.values(), *self.names.values()}
        named.update(change.inode for change in self.name_changes)
        found = [
            (inode, change)
            for inode in self.inodes.values()
            if inode.number in named
            for change in inode.pending
        ]
        return sorted(found, key=lambda one: one[1].number)

    def state(self, fates: Mapping[int, str], draw: random.Random) -> dict[str, bytes | None]:
        """The files as they are after the crash. `fates`: by event number; what has none is
        dropped."""
        result: dict[str, bytes | None] = {}
        for path, inode in self._survivors(fates):
            if inode is None:
                result[path] = None
            else:
                chosen = ((one, fates.get(one.number, DROP)) for one in inode.pending)
                result[path] = _content(inode.durable, chosen, draw)
        return result

    def key(self, fates: Mapping[int, str], draw: random.Random) -> bytes:
        """Equal for equal states; quicker than making them."""
        digest = hashlib.blake2b(digest_size=16)
        for path, inode in self._survivors(fates):
            digest.update(path.encode() + b"\0")
            digest.update(b"directory" if inode is None else inode.digest(fates, draw))
        return digest.digest()

    def _survivors(self, fates: Mapping[int, str]) -> list[tuple[str, Inode | None]]:
        """Names that are there after the crash, in order; None: a directory."""
        names, directories = dict(self.durable_names), set(self.durable_directories)
        for change in self.name_changes:
            if fates.get(change.number, DROP) != DROP:
                change.apply(names, directories)
        reachable = {path for path in directories if _reachable(path, directories)}
        found: list[tuple[str, Inode | None]] = [(path, None) for path in reachable if path]
        found += [
            (path, self.inodes[number])
            for path, number in names.items()
            if posixpath.dirname(path) in reachable
        ]
        return sorted(found, key=lambda one: one[0])

    def cached(self) -> dict[str, bytes | None]:
        """The files as a process sees them, before any crash."""
        result: dict[str, bytes | None] = {path: None for path in sorted(self.directories) if path}
        for path, number in sorted(self.names.items()):
            inode = self.inodes[number]
            result[path] = _content(inode.durable, ((one, KEEP) for one in inode.pending), None)
        return result


def _reachable(path: str, directories: set[str]) -> bool:
    while path:
        if path not in directories:
            return False
        path = posixpath.dirname(path)
    return True


def _content(
    durable: bytes, changes: Iterable[tuple[Change, str]], draw: random.Random | None
) -> bytes:
    content: bytearray | None = None
    for change, fate in changes:
        if fate == DROP:
            continue
        if content is None:
            content = bytearray(durable)
        if change.data is None:
            _resize(content, change.size)
        elif fate == KEEP:
            _write(content, change.offset, change.data)
        elif fate == ZERO:
            _resize(content, max(len(content), change.offset + len(change.data)))
        else:
            assert draw is not None
            _tear(content, change.offset, change.data, draw)
    return durable if content is None else bytes(content)


def _resize(content: bytearray, size: int) -> None:
    if size < len(content):
        del content[size:]
    else:
        content.extend(bytes(size - len(content)))


def _write(content: bytearray, offset: int, data: bytes) -> None:
    if offset > len(content):
        _resize(content, offset)
    content[offset : offset + len(data)] = data


def _tear(content: bytearray, offset: int, data: bytes, draw: random.Random) -> None:
    """Some sectors (or pages) of a write reach the disk: the first, the last, all but one,
    or any."""
    unit = draw.choice((SECTOR_BYTES, SECTOR_BYTES, PAGE_BYTES))
    first, last = offset // unit, (offset + len(data) - 1) // unit
    count = last - first + 1
    kind = draw.choice(("first", "last", "hole", "any"))
    edge = draw.randint(0, count)
    for position in range(count):
        if kind == "any":
            there = draw.random() < 0.5
        elif kind == "hole":
            there = position != edge
        else:
            there = position < edge if kind == "first" else position >= edge
        start = max(offset, (first + position) * unit)
        end = min(offset + len(data), (first + position + 1) * unit)
        if there:
            _write(content, start, data[start - offset : end - offset])
    if draw.random() < 0.5:
        # The file's size may be there before its content is.
        _resize(content, max(len(content), offset + len(data)))


def write_state(state: State, directory: Path) -> None:
    """Make the state real below an empty directory."""
    directory.mkdir(parents=True, exist_ok=True)
    for path, content in sorted(state.items()):
        target = directory / path
        if content is None:
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.write_bytes(content)


def read_state(directory: Path) -> dict[str, bytes | None]:
    """The files below a directory, without SQLite's shared memory (no crash keeps it)."""
    found: dict[str, bytes | None] = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_dir():
            found[name] = None
        elif not name.endswith("-shm"):
            found[name] = path.read_bytes()
    return found
