"""Sending copies: one at a time is made and kept, for as many members as ask (rules D2 and 13).

A copy is made beside everything else, step by step at a bounded rate, and then lies still in a
file of its own; it is sent piece by piece as it is asked for. The log is pinned from the copy's
index, so that whoever installs it can go on from the log, however long it took.
"""

from __future__ import annotations

import posixpath
import zlib
from collections.abc import Callable
from typing import Any

from raftdb.base.errors import Error, FatalError, ProtocolError
from raftdb.base.limits import Limits
from raftdb.base.ports import Files, Ports, Timer
from raftdb.consensus.link import Link
from raftdb.consensus.messages import (
    CopyAsk,
    CopyFetch,
    CopyGone,
    CopyLater,
    CopyOffer,
    CopyPart,
)
from raftdb.consensus.port import Copied, CopyJob, CopySettings, Held

LANE = "copy"
IDLE_S = 60.0
"""A copy that nobody asked for in this time is removed."""
PIECES_WAITING_MAX = 16
"""Of one connection."""
ID_BYTES = 16
AGAIN_S = 2.0
"""After one that could not be made none is begun for so long: each try holds up the writer."""
REASON_MAX = 200
STEP_BYTES = 1 << 20
"""What one step copies, for the pace."""


class CopySource:
    """Belongs to the loop; files are touched on the copy lane alone."""

    def __init__(
        self,
        settings: CopySettings,
        ports: Ports,
        limits: Limits,
        applied: Callable[[], int],
        refuses: Callable[[], str],
    ) -> None:
        self._settings = settings
        self._ports = ports
        self._piece_bytes = limits.peer_part_bytes
        self._applied = applied
        self._refuses = refuses
        self._directory = posixpath.join(settings.directory, "outgoing")
        self._job: CopyJob | None = None
        self._ready: Copied | None = None
        self._id = b""
        self._pin: Held | None = None
        self._used_at_s = 0.0
        self._not_before_s = float("-inf")
        self._why_not = ""
        """Why the last one could not be made."""
        self._waiting: dict[Link, int] = {}
        self._timer: Timer | None = None
        self._stopped = False
        self.sent_bytes = 0

    def start(self) -> None:
        """Remove what an earlier process left."""
        files, directory = self._ports.files, self._directory
        self._submit(lambda: clear(files, directory), self._done_quietly)

    def stop(self) -> None:
        """Let go of everything; what is on the lane ends unheard."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        job, self._job = self._job, None
        if job is not None:
            self._submit(job.abort, self._done_quietly)
        self._unpin()

    @property
    def busy(self) -> bool:
        """A copy is being made or kept."""
        return self._job is not None or self._ready is not None

    # -- what members ask ------------------------------------------------------------------------

    def on_ask(self, link: Link, message: CopyAsk) -> None:
        """Offer the copy there is, if it is of use; else make one."""
        ready = self._ready
        refused = self._refuses()
        if refused:
            # Its own content is in doubt (rule D1).
            link.send(CopyLater(refused))
            return
        if ready is not None and self._usable(ready, message.at_least):
            self._used_at_s = self._ports.clock.monotonic_s()
            link.send(CopyOffer(self._id, ready.index, ready.term, ready.size, ready.description))
            return
        if self._applied() < message.at_least:
            link.send(CopyLater("this node has not applied that much"))
            return
        if self._job is None:
            if self._ports.clock.monotonic_s() < self._not_before_s:
                link.send(CopyLater(self._why_not))
                return
            self._begin()
        link.send(CopyLater("a copy is being made"))

    def _usable(self, ready: Copied, at_least: int) -> bool:
        return ready.index >= at_least and self._pin is not None and not self._pin.overrun

    def on_fetch(self, link: Link, message: CopyFetch) -> None:
        """Read a piece on the lane, and send it."""
        ready = self._ready
        if ready is None or message.copy != self._id:
            link.send(CopyGone(message.copy))
            return
        if message.size > self._piece_bytes or message.offset + message.size > ready.size:
            raise ProtocolError("a piece of a copy is asked for that there is not")
        if self._waiting.get(link, 0) >= PIECES_WAITING_MAX:
            raise ProtocolError(f"more than {PIECES_WAITING_MAX} pieces are asked for at once")
        self._waiting[link] = self._waiting.get(link, 0) + 1
        self._used_at_s = self._ports.clock.monotonic_s()
        files, path = self._ports.files, ready.path

        def sent(data: bytes | None, error: BaseException | None) -> None:
            if link in self._waiting:
                self._waiting[link] -= 1
            if data is None or len(data) != message.size:
                self._ports.log.warning("copy_not_read", file=path, error=repr(error))
                link.send(CopyGone(message.copy))
                return
            self.sent_bytes += len(data)
            link.send(CopyPart(message.copy, message.offset, zlib.crc32(data), data))

        self._submit(lambda: _read(files, path, message.offset, message.size), sent)

    def on_lost(self, link: Link) -> None:
        """Whoever asked is gone; the copy stays for a while."""
        self._waiting.pop(link, None)

    # -- making one ------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._drop()
        # From here on, before it is known where exactly the copy will be taken (rule D2).
        self._pin = self._settings.pin(self._applied() + 1)
        self._id = self._ports.random.randbytes(ID_BYTES)
        files, directory = self._ports.files, self._directory
        job = self._job = self._settings.store.begin(directory)

        def work() -> int:
            clear(files, directory)
            return job.begin()

        self._submit(work, self._begun)

    def _begun(self, index: int | None, error: BaseException | None) -> None:
        if self._job is None:
            return
        if error is not None or index is None:
            self._failed(error)
            return
        assert self._pin is not None
        self._pin.move_to(index + 1)
        self._ports.log.info("copy_begun", index=index)
        self._step()

    def _step(self) -> None:
        if self._job is not None:
            self._submit(self._job.step, self._stepped)

    def _stepped(self, made: Copied | None, error: BaseException | None) -> None:
        if self._job is None:
            return
        if error is not None:
            self._failed(error)
        elif made is None:
            pause_s = STEP_BYTES / self._settings.rate_bytes_per_s
            self._timer = self._ports.executor.call_later(pause_s, self._step)
        else:
            self._job = None
            self._ready = made
            self._used_at_s = self._ports.clock.monotonic_s()
            self._ports.log.info("copy_made", index=made.index, bytes=made.size)
            self._watch()

    def _failed(self, error: BaseException | None) -> None:
        job, self._job = self._job, None
        if job is not None:
            files, directory = self._ports.files, self._directory

            def undo() -> None:
                job.abort()
                clear(files, directory)

            self._submit(undo, self._done_quietly)
        self._unpin()
        self._not_before_s = self._ports.clock.monotonic_s() + AGAIN_S
        self._why_not = f"no copy can be made: {error}"[:REASON_MAX]
        if isinstance(error, FatalError) or not isinstance(error, Error | OSError):
            raise error or AssertionError("a copy was lost")
        self._ports.log.warning("copy_not_made", reason=str(error))

    # -- dropping it -----------------------------------------------------------------------------

    def _watch(self) -> None:
        """Drop the copy when nobody asked for it for long."""
        if self._ready is None:
            return
        if self._ports.clock.monotonic_s() - self._used_at_s > IDLE_S:
            self._drop()
            return
        self._timer = self._ports.executor.call_later(IDLE_S / 4, self._watch)

    def _drop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._unpin()
        if self._ready is not None:
            self._ready = None
            files, directory = self._ports.files, self._directory
            self._submit(lambda: clear(files, directory), self._done_quietly)

    def _unpin(self) -> None:
        if self._pin is not None:
            self._pin.release()
            self._pin = None

    def _submit(self, work: Callable[[], Any], done: Callable[[Any, Any], None]) -> None:
        def unless_stopped(result: Any, error: BaseException | None) -> None:
            if not self._stopped:
                done(result, error)

        self._ports.executor.submit(LANE, work, unless_stopped)

    def _done_quietly(self, _result: Any, error: BaseException | None) -> None:
        if error is not None:
            self._ports.log.warning("copy_not_removed", reason=str(error))


def clear(files: Files, directory: str) -> None:
    """Remove the files of a directory that holds nothing else."""
    if files.exists(directory):
        for name in files.list_directory(directory):
            files.remove(posixpath.join(directory, name))


def _read(files: Files, path: str, offset: int, size: int) -> bytes:
    file = files.open(path)
    try:
        return file.read_at(offset, size)
    finally:
        file.close()
