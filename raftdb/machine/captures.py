"""Copies of the database at a known index: taken to be sent, and installed as a new generation."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import apsw

from raftdb.base.atomic import replace_file
from raftdb.base.errors import ConfigError, OperationalError
from raftdb.base.frozen import frozen
from raftdb.base.ids import HistoryId, Index, Term
from raftdb.base.ports import File, Files
from raftdb.machine import generations, stored
from raftdb.machine.checkpoints import Checkpointer
from raftdb.machine.connections import open_reader
from raftdb.machine.format import CAPTURE_FILE, DATABASE_FILE, FORMAT_VERSION
from raftdb.machine.pages import open_vfs
from raftdb.machine.rowhash import ContentHash
from raftdb.machine.stored import Progress, run_on

STEP_BYTES = 1 << 20
"""Of one step of a copy."""
SYNC_BYTES = 16 << 20
"""Whole steps. One sync of a large copy at its end would make the journal's syncs wait for it."""
DESCRIPTION_BYTES_MAX = 4096
_ATTEMPTS = 20


@frozen
class Frozen:
    """The state that the database file has while checkpoints are held back."""

    history: HistoryId
    progress: Progress
    content: ContentHash
    size_bytes: int


@frozen
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


class CaptureJob:
    """A copy in the making. `begin`, `step` and `abort` run on a lane, one at a time; between two
    steps nothing is held but checkpoints, so that the write-ahead log grows meanwhile."""

    def __init__(
        self,
        target: str,
        files: Files,
        freeze: Callable[[], Frozen | None],
        checkpointer: Checkpointer,
        spare_bytes: int = 0,
    ) -> None:
        """`spare_bytes`: room that has to be left beside the copy, or none is made."""
        self._spare_bytes = spare_bytes
        self._target = target
        self._files = files
        self._freeze = freeze
        self._checkpointer = checkpointer
        self._frozen: Frozen | None = None
        self._writing: File | None = None
        self._digest = hashlib.blake2b(digest_size=32)
        self.copied_bytes = 0

    def begin(self) -> Index:
        """Make the file the whole database, at the index that is returned, and hold it so.

        Raises ConfigError when there is a copy already, OperationalError with code `capture_busy`
        when an old reader, or another copy, is in the way, with `capture_no_room` when the copy
        would take the room that this node needs to go on.
        """
        files, target = self._files, self._target
        if files.exists(os.path.join(target, CAPTURE_FILE)):
            raise ConfigError(f"{target} holds a copy already", hint="choose an empty directory")
        files.make_directory(target)
        # Most of the work beside the writer; what is left is done while it waits.
        self._checkpointer.run()
        with self._checkpointer.lock:
            if self._checkpointer.held:
                raise _busy("another copy is being made")
            self._frozen = _frozen(self._freeze)
            self._checkpointer.held = True
            self._checkpointer.confirm()
        try:
            _check_room(files, target, self._frozen.size_bytes, self._spare_bytes)
            self._writing = files.open(os.path.join(target, DATABASE_FILE), create=True)
            self._writing.truncate(0)
        except BaseException:
            self.abort()
            raise
        return self._frozen.progress.index

    def step(self) -> Capture | None:
        """Copy up to STEP_BYTES more; when nothing is left, the finished and synced copy."""
        frozen, writing = self._frozen, self._writing
        assert frozen is not None
        assert writing is not None
        size, offset = frozen.size_bytes, self.copied_bytes
        try:
            if offset < size:
                data = self._checkpointer.read(offset, min(STEP_BYTES, size - offset))
                writing.write_at(offset, data)
                self._digest.update(data)
                self.copied_bytes += len(data)
                if self.copied_bytes % SYNC_BYTES == 0:
                    writing.sync()
                return None
            # From here on another copy may begin, and hold checkpoints for itself.
            self._let_go()
            writing.sync()
        except BaseException:
            self.abort()
            raise
        self.abort()
        return self._finish(frozen)

    def abort(self) -> None:
        """Let go of the database and of the files; harmless at any time."""
        self._let_go()
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.close()

    def _let_go(self) -> None:
        """Checkpoints go on."""
        if self._frozen is not None:
            self._frozen = None
            self._checkpointer.held = False

    def _finish(self, frozen: Frozen) -> Capture:
        result = Capture(
            history=frozen.history,
            index=frozen.progress.index,
            term=frozen.progress.term,
            position=frozen.progress.position,
            size_bytes=frozen.size_bytes,
            digest=self._digest.digest(),
            content_total=frozen.content.total,
            time_ms=frozen.progress.time_ms,
        )
        write_description(self._target, result, self._files)
        return result


def run(job: CaptureJob, pace: Callable[[int], None]) -> Capture:
    """All of it; see Machine.capture."""
    made = None
    try:
        job.begin()
        while made is None:
            made = job.step()
            if made is None:
                pace(job.copied_bytes)
    finally:
        job.abort()
    return made


def write_description(target: str, capture: Capture, files: Files) -> None:
    """Say, beside a copy's file, what it is a copy of; durable on return."""
    file = files.open(os.path.join(target, CAPTURE_FILE), create=True)
    try:
        file.truncate(0)
        file.write_at(0, describe(capture))
        file.sync()
    finally:
        file.close()
    files.sync_directory(target)


def _frozen(freeze: Callable[[], Frozen | None]) -> Frozen:
    for _attempt in range(_ATTEMPTS):
        frozen = freeze()
        if frozen is not None:
            return frozen
    raise _busy("a long query reads an older state")


def _check_room(files: Files, directory: str, size: int, spare: int) -> None:
    free = files.free_bytes(directory)
    if free < size + spare:
        raise OperationalError(
            f"a copy of {size} bytes and {spare} bytes of reserve beside it need more room than "
            f"the {free} bytes that are free in {directory}",
            code="capture_no_room",
            retryable=True,
            hint="make room on this node's disk",
        )


def _busy(why: str) -> OperationalError:
    return OperationalError(
        f"a copy cannot begin while {why}",
        code="capture_busy",
        retryable=True,
        hint="try again when it has ended",
    )


def describe(capture: Capture) -> bytes:
    """What a copy says of itself, as it is stored beside it and sent."""
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
        data = files.read_file(path)
    except OSError as error:
        raise ConfigError(f"{path} does not describe a copy: {error}") from error
    return parse_description(data, path)


def parse_description(data: bytes, path: str) -> Capture:
    """What `describe` wrote; `path` names it in messages. Raises ConfigError."""
    try:
        if len(data) > DESCRIPTION_BYTES_MAX:
            raise ValueError(f"it has {len(data)} bytes")
        value: dict[str, Any] = json.loads(data)
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
    except (ValueError, KeyError, TypeError, RecursionError) as error:
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
    # Beside the database, so that a start knows where its log begins if the journal does not.
    replace_file(files, os.path.join(generation, CAPTURE_FILE), describe(described))
    generations.make_current(files, directory, generation)
    return described


def copied_from(generation: str, files: Files) -> tuple[Index, Term] | None:
    """(index, term) of the copy that this generation began as; None when it was founded here."""
    if not files.exists(os.path.join(generation, CAPTURE_FILE)):
        return None
    found = read_description(generation, files)
    return found.index, found.term


def _verify_bytes(path: str, described: Capture, files: Files) -> None:
    digest = hashlib.blake2b(digest_size=32)
    offset = 0
    file = files.open(path)
    try:
        while data := file.read_at(offset, STEP_BYTES):
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
