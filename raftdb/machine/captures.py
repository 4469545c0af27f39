"""Copies of the database at a known index: taken to be sent, and installed as a new generation."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import apsw

from raftdb.base.errors import ConfigError, OperationalError
from raftdb.base.ids import HistoryId, Index, Term
from raftdb.base.ports import Files
from raftdb.machine import generations, stored
from raftdb.machine.checkpoints import Checkpointer
from raftdb.machine.connections import open_reader
from raftdb.machine.format import CAPTURE_FILE, DATABASE_FILE, FORMAT_VERSION
from raftdb.machine.pages import open_vfs
from raftdb.machine.rowhash import ContentHash
from raftdb.machine.stored import Progress, run_on

_CHUNK_BYTES = 1 << 20
_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Frozen:
    """The state that the database file has while checkpoints are held back."""

    history: HistoryId
    progress: Progress
    content: ContentHash
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Capture:
    """A copy of the database, and what it is a copy of."""

    history: HistoryId
    index: Index
    term: Term
    position: int
    """0, unless the copy was taken between two requests of entry `index` + 1."""
    size_bytes: int
    digest: bytes
    """BLAKE2b-256 of the file."""
    content_total: bytes
    """ContentHash.total at (index, position)."""
    time_ms: int = 0
    """Logged time there, Unix milliseconds."""


def capture(
    target: str,
    pace: Callable[[int], None],
    files: Files,
    freeze: Callable[[], Frozen | None],
    checkpointer: Checkpointer,
) -> Capture:
    """See Machine.capture."""
    description_path = os.path.join(target, CAPTURE_FILE)
    if files.exists(description_path):
        raise ConfigError(f"{target} holds a copy already", hint="choose an empty directory")
    files.make_directory(target)
    with checkpointer.lock:
        frozen = _frozen(freeze)
        path = os.path.join(target, DATABASE_FILE)
        digest = _copy(checkpointer.read, frozen.size_bytes, path, pace, files)
    result = Capture(
        history=frozen.history,
        index=frozen.progress.index,
        term=frozen.progress.term,
        position=frozen.progress.position,
        size_bytes=frozen.size_bytes,
        digest=digest,
        content_total=frozen.content.total,
        time_ms=frozen.progress.time_ms,
    )
    write_description(target, result, files)
    return result


def write_description(target: str, capture: Capture, files: Files) -> None:
    """Say, beside a copy's file, what it is a copy of; durable on return."""
    file = files.open(os.path.join(target, CAPTURE_FILE), create=True)
    try:
        file.truncate(0)
        file.write_at(0, _describe(capture))
        file.sync()
    finally:
        file.close()
    files.sync_directory(target)


def _frozen(freeze: Callable[[], Frozen | None]) -> Frozen:
    for _attempt in range(_ATTEMPTS):
        frozen = freeze()
        if frozen is not None:
            return frozen
    raise OperationalError(
        "a copy cannot begin while a long query reads an older state",
        code="capture_busy",
        retryable=True,
        hint="try again when it has ended",
    )


def _copy(
    read: Callable[[int, int], bytes],
    size: int,
    target: str,
    pace: Callable[[int], None],
    files: Files,
) -> bytes:
    """Copy the database's file, synced; its BLAKE2b-256."""
    digest = hashlib.blake2b(digest_size=32)
    offset = 0
    writing = files.open(target, create=True)
    try:
        writing.truncate(0)
        while offset < size:
            data = read(offset, min(_CHUNK_BYTES, size - offset))
            writing.write_at(offset, data)
            digest.update(data)
            offset += len(data)
            pace(offset)
        writing.sync()
    finally:
        writing.close()
    return digest.digest()


def _describe(capture: Capture) -> bytes:
    value = {
        "format_version": FORMAT_VERSION,
        "history": capture.history,
        "index": capture.index,
        "term": capture.term,
        "position": capture.position,
        "size_bytes": capture.size_bytes,
        "digest": capture.digest.hex(),
        "content_total": capture.content_total.hex(),
        "time_ms": capture.time_ms,
    }
    return (json.dumps(value, indent=2) + "\n").encode("ascii")


def read_description(directory: str, files: Files) -> Capture:
    """What a copy says of itself. Raises ConfigError."""
    path = os.path.join(directory, CAPTURE_FILE)
    try:
        value: dict[str, Any] = json.loads(files.read_file(path))
        if value["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format {value['format_version']}")
        return Capture(
            history=HistoryId(str(value["history"])),
            index=Index(int(value["index"])),
            term=Term(int(value["term"])),
            position=int(value["position"]),
            size_bytes=int(value["size_bytes"]),
            digest=bytes.fromhex(value["digest"]),
            content_total=bytes.fromhex(value["content_total"]),
            time_ms=int(value.get("time_ms", 0)),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} does not describe a copy: {error}") from error


def install(
    directory: str,
    capture_directory: str,
    *,
    history: HistoryId,
    files: Files,
    verify_content: bool,
    vfs_base: str,
) -> Capture:
    """See Machine.install."""
    described = read_description(capture_directory, files)
    if described.history != history:
        raise ConfigError(
            f"the copy belongs to history {described.history}, not {history}",
            code="wrong_history",
        )
    source = os.path.join(capture_directory, DATABASE_FILE)
    _verify_bytes(source, described, files)
    generation = generations.make_next(files, directory)
    files.rename(source, os.path.join(generation, DATABASE_FILE))
    _verify_database(os.path.join(generation, DATABASE_FILE), described, verify_content, vfs_base)
    generations.make_current(files, directory, generation)
    generations.remove_others(files, directory)
    return described


def _verify_bytes(path: str, described: Capture, files: Files) -> None:
    digest = hashlib.blake2b(digest_size=32)
    offset = 0
    file = files.open(path)
    try:
        while data := file.read_at(offset, _CHUNK_BYTES):
            digest.update(data)
            offset += len(data)
    finally:
        file.close()
    if offset != described.size_bytes or digest.digest() != described.digest:
        raise ConfigError(
            f"{path} is not the file that was copied: {offset} of {described.size_bytes} bytes, "
            f"digest {digest.hexdigest()[:16]}…",
            code="capture_damaged",
            hint="fetch the copy again",
        )


def _verify_database(path: str, described: Capture, verify_content: bool, vfs_base: str) -> None:
    with _opened(path, vfs_base) as connection:
        run = run_on(connection)
        meta = stored.read_meta(run, path)
        progress = stored.read_progress(run)
        content = stored.stored_hash(run, meta.hash_key)
        found = (
            meta.history,
            progress.index,
            progress.term,
            progress.position,
            content.total,
        )
        wanted = (
            described.history,
            described.index,
            described.term,
            described.position,
            described.content_total,
        )
        if verify_content and found == wanted:
            found = (*found[:4], stored.recomputed_hash(run, meta.hash_key).total)
    if found != wanted:
        raise ConfigError(
            f"{path} does not hold what its description says",
            code="capture_damaged",
            hint="fetch the copy again",
        )


@contextmanager
def _opened(path: str, vfs_base: str) -> Any:
    vfs = open_vfs(vfs_base)
    try:
        connection = open_reader(path, vfs.name)
    except apsw.Error as error:
        raise ConfigError(f"{path} does not open: {error}", code="capture_damaged") from error
    try:
        yield connection
    except apsw.Error as error:
        raise ConfigError(f"{path} does not read: {error}", code="capture_damaged") from error
    finally:
        connection.close(True)
