"""Looking for damage before somebody needs what is damaged: everything is read, slowly, and again
after some hours.

The log's sealed segments first, then the pages of the database's file; each is verified by its
checksums. Damage goes the way that all damage goes (`Assembly.fail`): the node heals.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raftdb.base.config import ScrubConfig
from raftdb.base.ports import Ports
from raftdb.base.startup import time_text
from raftdb.journal.segmentcheck import SegmentCheck, sealed_segments
from raftdb.machine import Machine

LANE = "scrub"
BEGIN_AFTER_S = 60.0
"""A start has other things to do."""
BATCHES_PER_STEP = 256
PAGES_BYTES_PER_STEP = 256 << 10
IDLE, LOG, DATABASE = "idle", "log", "database"

Step = Callable[[], int]
"""Reads some more, and returns how many bytes; -1: that was all."""


class FileScrub:
    """Belongs to the loop; one step at a time, on a lane of its own."""

    def __init__(
        self, machine: Machine, journal_directory: str, ports: Ports, config: ScrubConfig
    ) -> None:
        self._machine = machine
        self._directory = journal_directory
        self._ports = ports
        self._bytes_per_s = config.file_bytes_per_s
        self._every_s = config.file_hours * 3600.0
        self._timer: Any = None
        self._stopped = False
        self._segments: list[str] = []
        self._check: SegmentCheck | None = None
        self._offset = 0
        self.state = IDLE
        """What is being read: `idle`, `log`, `database`."""
        self.read_bytes = 0
        """In this pass, or in the last one."""
        self.passes = 0
        """That came to their end without finding anything, since the start."""
        self.ended_ms = 0
        """Unix milliseconds of the last one's end; 0: none so far."""

    def start(self) -> None:
        """Begin, some time from now; not where there is nothing to read or nothing is wanted."""
        if self._every_s and not self._machine.absent:
            self._after(min(BEGIN_AFTER_S, self._every_s), self.begin)

    def stop(self) -> None:
        """No more of it."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def begin(self) -> None:
        """Read everything once, from now on; harmless while that is under way."""
        if self.state != IDLE or self._stopped:
            return
        self.state, self.read_bytes, self._offset = LOG, 0, 0
        files, directory = self._ports.files, self._directory

        def listed(found: list[str] | None, error: BaseException | None) -> None:
            if error is None:
                self._segments = found or []
                self._step()
            else:
                self._ended(error)

        self._ports.executor.submit(LANE, lambda: sealed_segments(files, directory), listed)

    def facts(self) -> dict[str, Any]:
        """For the status. Damage that was found shows as such."""
        return {
            "state": self.state,
            "read_bytes": self.read_bytes,
            "sound_passes": self.passes,
            "last_sound_pass": time_text(self.ended_ms) if self.ended_ms else None,
        }

    def _after(self, delay_s: float, call: Callable[[], None]) -> None:
        self._timer = self._ports.executor.call_later(delay_s, call)

    def _step(self) -> None:
        if self._stopped:
            return
        work = self._log_step if self.state == LOG else self._database_step
        self._ports.executor.submit(LANE, work, self._stepped)

    def _log_step(self) -> int:
        """On the lane. What a step costs is counted when its segment is read."""
        check = self._check
        if check is None:
            if not self._segments:
                return -1
            check = self._check = SegmentCheck(self._ports.files, self._segments.pop(0))
        known = check.size
        if check.step(BATCHES_PER_STEP):
            self._check = None
        return check.size - known

    def _database_step(self) -> int:
        size = self._machine.check_pages(self._offset, PAGES_BYTES_PER_STEP)
        self._offset += size
        return size or -1

    def _stepped(self, size: int | None, error: BaseException | None) -> None:
        if self._stopped:
            return
        if error is not None or size is None:
            self._ended(error)
        elif size >= 0:
            self.read_bytes += size
            # Steps that only compute leave the processor to others all the same.
            self._after(max(size / self._bytes_per_s, 0.005), self._step)
        elif self.state == LOG:
            self.state = DATABASE
            self._step()
        else:
            self._ended(None)

    def _ended(self, error: BaseException | None) -> None:
        self.state, self._check = IDLE, None
        log = self._ports.log
        if isinstance(error, OSError):
            log.warning("scrub_given_up", reason=str(error))
        elif error is not None:
            log.error("scrub_found_damage", reason=str(error))
            raise error
        else:
            self.passes += 1
            self.ended_ms = self._ports.clock.wall_ms()
            log.info("scrub_ended", read_bytes=self.read_bytes)
        self._after(self._every_s, self.begin)
