"""One base copy under way: captured beside the writer, uploaded step by step, then added.

The capture runs on the checkpoint lane, as every copy does; the upload on a lane of its own, so
that the log goes on being archived meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from raftdb.archive import layout
from raftdb.archive.basecopy import BaseUpload
from raftdb.archive.errors import ArchiveDamagedError
from raftdb.archive.records import BaseRecord, Manifest
from raftdb.archive.writer import ChainWriter, Tail
from raftdb.base.errors import Error, FatalError, OperationalError
from raftdb.base.ports import File, Ports
from raftdb.machine import DATABASE_FILE, Capture, Machine, fingerprint

__all__ = ["BaseJob"]

CHECKPOINT_LANE = "checkpoint"
RETRY_S = 5.0


class BaseJob:
    """At most one copy at a time, of one destination. On the loop."""

    def __init__(
        self,
        machine: Machine,
        directory: str,
        lane: str,
        rate_bytes_per_s: int,
        ports: Ports,
        spare_bytes: int = 0,
    ) -> None:
        """`spare_bytes`: room that the copy has to leave on this node's disk."""
        self._spare_bytes = spare_bytes
        self._machine = machine
        self._directory = directory
        self._lane = lane
        self._rate = rate_bytes_per_s
        self._ports = ports
        self._stopped = False
        self._capture: Capture | None = None
        self._upload: BaseUpload | None = None
        self._file: File | None = None
        self._ready: tuple[str, bytes, BaseRecord] | None = None
        self.busy = False
        """A copy is being taken or uploaded."""
        self.sent_bytes = 0
        self.last_size = 0
        """Bytes of the last copy's file."""
        self._not_before_s = 0.0
        self._sequence = 0

    @property
    def ready(self) -> bool:
        """A copy is uploaded and waits to be added to the chain."""
        return self._ready is not None

    @property
    def index(self) -> int:
        """Of the copy that is ready."""
        return 0 if self._ready is None else self._ready[2].index

    def stop(self) -> None:
        """Go no further."""
        self._stopped = True

    def begin(self, writer: ChainWriter, epoch: int, previous: int, sequence: int) -> None:
        """Take and upload a copy; `previous` is the manifest of the base it may build on, or 0,
        `sequence` the last manifest there is."""
        if self.busy or self._ports.clock.monotonic_s() < self._not_before_s:
            return
        self.busy = True
        self._sequence = sequence

        def take() -> Capture:
            _empty(self._ports, self._directory)
            return self._machine.capture(
                self._directory,
                _no_pace,
                files=self._ports.files,
                spare_bytes=self._spare_bytes,
            )

        def taken(capture: Any, error: BaseException | None) -> None:
            if error is not None or self._stopped:
                self._failed(error)
                return
            self._capture = capture
            self._run(lambda: self._open(writer, epoch, previous), lambda _x: self._step(writer))

        self._ports.executor.submit(CHECKPOINT_LANE, take, taken)

    def add(self, writer: ChainWriter, tail: Tail, term: int) -> Tail:
        """Name it in the chain; on the destination's lane."""
        assert self._ready is not None
        name, data, record = self._ready
        return writer.base(tail, term, name, data, record)

    def added(self) -> None:
        """It is in the chain."""
        if self._ready is not None:
            self._ports.log.info(
                "archive_base", index=self._ready[2].index, bytes=self._ready[2].size_bytes
            )
        self._ready = None

    def drop(self) -> None:
        """The copy that is ready is of no use any more. (Pruning takes its objects.)"""
        assert self._ready is not None
        self._ports.log.info("archive_base_dropped", index=self._ready[2].index)
        self._ready = None

    # ---- on the lane

    def _open(self, writer: ChainWriter, epoch: int, previous: int) -> None:
        capture = self._capture
        assert capture is not None
        if capture.position:
            raise OperationalError(
                "the copy was taken in the midst of an entry", code="capture_busy"
            )
        self._file = self._ports.files.open(os.path.join(self._directory, DATABASE_FILE))
        self._upload = BaseUpload(
            writer.archive,
            epoch,
            self._file,
            capture.size_bytes,
            self._ports.random.randbytes,
            _previous(writer, epoch, previous),
        )

    def _step(self, writer: ChainWriter) -> None:
        upload = self._upload
        assert upload is not None
        before = upload.sent_bytes

        def stepped(more: bool) -> None:
            sent = upload.sent_bytes - before
            self.sent_bytes += sent
            pause_s = sent / self._rate if self._rate else 0.0
            if more:
                self._ports.executor.call_later(pause_s, self._step, writer)
            else:
                self._run(lambda: self._finish(writer), self._finished)

        self._run(upload.step, stepped)

    def _finish(self, writer: ChainWriter) -> tuple[str, bytes, BaseRecord]:
        assert self._upload is not None
        assert self._capture is not None
        record = self._upload.record(self._capture, self._capture.time_ms, fingerprint().to_wire())
        name, data = writer.put_base(record, self._sequence)
        self._close()
        return name, data, record

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        _empty(self._ports, self._directory)

    # ---- on the loop

    def _run(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        def done(result: Any, error: BaseException | None) -> None:
            if error is not None or self._stopped:
                self._failed(error)
            else:
                then(result)

        if self._stopped:
            return
        self._ports.executor.submit(self._lane, work, done)

    def _finished(self, ready: tuple[str, bytes, BaseRecord]) -> None:
        self.busy = False
        self._ready = ready
        self.last_size = ready[2].size_bytes
        self._upload, self._capture = None, None

    def _failed(self, error: BaseException | None) -> None:
        self.busy = False
        self._upload = None
        if self._file is not None:
            self._file.close()
            self._file = None
        if error is None or self._stopped:
            return
        broken = isinstance(error, FatalError) and not isinstance(error, ArchiveDamagedError)
        if broken or not isinstance(error, Error | OSError):
            # The database could not be read: this node must stop.
            raise error
        self._not_before_s = self._ports.clock.monotonic_s() + RETRY_S
        self._ports.log.warning("archive_base_failed", reason=str(error))


def _previous(writer: ChainWriter, epoch: int, sequence: int) -> BaseRecord | None:
    """The base to build on; None when there is none, or it can't be read (then all is taken)."""
    if not sequence:
        return None
    try:
        manifest = writer.archive.read(Manifest, layout.manifest_name(epoch, sequence))
        return writer.archive.read(BaseRecord, manifest.object, manifest.digest)
    except ArchiveDamagedError:
        return None


def _empty(ports: Ports, directory: str) -> None:
    ports.files.make_directory(directory)
    for name in ports.files.list_directory(directory):
        ports.files.remove(os.path.join(directory, name))


def _no_pace(_done: int) -> None:
    pass
