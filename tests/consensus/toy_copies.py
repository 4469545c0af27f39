"""Copies of the toy database, and installing them: what generations of files are to the machine."""

from __future__ import annotations

import hashlib
import posixpath

import msgpack

from raftdb.base.errors import ConfigError
from raftdb.base.ids import Index, Term
from raftdb.consensus import CommittedEntry, Copied
from tests.consensus.toy import ToyStore
from tests.sim.disk import SimFiles

STEP_BYTES = 4096


class Again(Exception):
    """A copy was installed: the process begins anew."""


class ToyCopyJob:
    """Satisfies CopyJob: what the toy holds when it begins, written out in steps."""

    def __init__(self, store: ToyStore, directory: str, files: SimFiles) -> None:
        self._store = store
        self._directory = directory
        self._files = files
        self._data = b""
        self._done = 0
        self._last: CommittedEntry | None = None

    def begin(self) -> int:
        # A complete checkpoint comes first: what is copied is on the disk here (rule D2).
        self._store.durable = len(self._store.entries)
        self._last = self._store.entries[-1]
        self._data = msgpack.packb(
            [(one.index, one.term, one.payloads, one.configuration) for one in self._store.entries]
        )
        self._files.make_directory(self._directory)
        return self._last.index

    def step(self) -> Copied | None:
        assert self._last is not None
        path = posixpath.join(self._directory, "toy")
        file = self._files.open(path, create=True)
        try:
            piece = self._data[self._done : self._done + STEP_BYTES]
            if piece:
                file.write_at(self._done, piece)
                self._done += len(piece)
                return None
            file.sync()
        finally:
            file.close()
        digest = hashlib.blake2b(self._data, digest_size=16).digest()
        return Copied(self._last.index, self._last.term, len(self._data), path, digest)

    def abort(self) -> None:
        pass


class ToyCopies:
    """Satisfies CopyStore."""

    def __init__(self, store: ToyStore, files: SimFiles) -> None:
        self._store = store
        self._files = files

    def begin(self, directory: str) -> ToyCopyJob:
        return ToyCopyJob(self._store, directory, self._files)

    def install(self, path: str, description: bytes) -> None:
        data = self._files.read_file(path)
        if hashlib.blake2b(data, digest_size=16).digest() != description:
            raise ConfigError("the copy is damaged", code="capture_damaged")
        self.put(data)
        for name in self._files.list_directory(posixpath.dirname(path)):
            self._files.remove(posixpath.join(posixpath.dirname(path), name))

    def put(self, data: bytes) -> None:
        """One durable step: the next start has all of it."""
        entries = [
            CommittedEntry(Index(index), Term(term), tuple(payloads), configuration)
            for index, term, payloads, configuration in msgpack.unpackb(data)
        ]
        self._store.installed = entries


class TrustingCopies(ToyCopies):
    """Row 11, planted: what came is installed unseen, as far as it can be read."""

    def install(self, path: str, description: bytes) -> None:
        unpacker = msgpack.Unpacker()
        unpacker.feed(self._files.read_file(path))
        entries = []
        try:
            for _ in range(unpacker.read_array_header()):
                entries.append(unpacker.unpack())
        except (msgpack.OutOfData, ValueError):
            pass
        self.put(msgpack.packb(entries))
