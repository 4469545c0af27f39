"""A disk that fills up: the node takes no more writes while it still has room to end well.

A file keeps `disk.reserve_bytes` of room, so that nothing else on the machine takes it. When less
than that much again is free, the file goes, and with its room the node checkpoints, cuts its log
and votes; it takes no writes, and hands leadership over. When there is room for all of that again,
it makes the file anew and goes on. A follower takes no entries meanwhile: it lags, and the quorum
is one of the others. A write that finds no room in spite of it stops the node.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Any

from raftdb.base.errors import Error, OperationalError
from raftdb.base.ports import Files, Log, Ports
from raftdb.consensus.port import EnginePort

CHECK_EVERY_S = 0.5
HAND_OVER_EVERY_S = 3.0
"""Others may be as full: then this node goes on leading, and refuses writes."""
LEADERLESS_S = 2.0
"""Without any leader for this long it stands for election, so that there is one to read from."""
MORE = 1.25
"""It goes on only with so much more than it needs."""
CAUSE = "space"
FULL = "its disk is full"
"""Why a node should not lead, as it says to the others."""
LANE = "space"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Room:
    """The file that keeps it. Called on a lane, and before the node opens its files."""

    def __init__(self, files: Files, path: str, directory: str, size: int) -> None:
        self._files = files
        self._path = path
        self._directory = directory
        self.size = size
        self.kept = False

    def look(self, *, full: bool) -> int:
        """Bytes that are free beyond the reserve; the reserve is given up when they are too few,
        and taken again when they are enough. Raises OSError.

        A user's quota does not show in what a file system says is free: it does when the reserve
        cannot be taken, and then there is nothing beyond it."""
        free = self._files.free_bytes(self._directory)
        spare = free if self.kept else free - self.size
        if self.kept and spare < self.size:
            self._files.keep_room(self._path, 0)
            self.kept = False
        elif not self.kept and spare >= self.size * (MORE if full else 1.0):
            try:
                self._files.keep_room(self._path, self.size)
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                return 0
            self.kept = True
        return spare

    def let_go(self) -> None:
        """Nobody needs it while the node does not run; and a start needs room itself."""
        self._files.keep_room(self._path, 0)
        self.kept = False


class DiskSpace:
    """Belongs to the loop."""

    def __init__(
        self,
        room: Room,
        engine: EnginePort,
        ports: Ports,
        alone: Callable[[], bool],
        unfit: Callable[[], Sequence[tuple[str, str]]] = tuple,
    ) -> None:
        """`alone`: nobody else could lead. `unfit`: the voters, and why each should not lead, as
        far as it was told here."""
        self._unfit = unfit
        self._room = room
        self._engine = engine
        self._ports = ports
        self._alone = alone
        self._timer: Any = None
        self._stopped = False
        self._handed_over_s = float("-inf")
        self._leader_seen_s = 0.0
        self._stands_down = False
        self._others_full = ""
        self.full = False
        self.free_bytes = -1
        """Beyond the reserve, when last looked at; -1: not known."""

    @property
    def _log(self) -> Log:
        return self._ports.log

    def start(self) -> None:
        """Begin to watch."""
        if self._room.size:
            self._look()

    def stop(self) -> None:
        """Watch no more, and give the room back."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self._room.size:
            self._ports.executor.submit(LANE, self._room.let_go, self._ignore)

    def refusal(self) -> Error | None:
        """Why no write is taken now; or None."""
        if self._others_full:
            return OperationalError(
                f"the disks of {self._others_full} are full: no majority would take a write",
                code="disk_full",
                retryable=True,
                hint="make room on one of their disks; reads go on",
            )
        if not self.full:
            return None
        return OperationalError(
            f"the disk is full: {max(self.free_bytes, 0)} bytes are free beyond the reserve, and "
            f"{self._room.size} are wanted",
            code="disk_full",
            retryable=True,
            hint="make room on this node's disk, or use another node; reads go on",
        )

    def facts(self) -> dict[str, Any]:
        """For the status."""
        return {"disk_full": self.full, "disk_free_bytes": self.free_bytes}

    def _look(self) -> None:
        if self._stopped:
            return
        full, room = self.full, self._room
        self._ports.executor.submit(LANE, lambda: room.look(full=full), self._looked)

    def _looked(self, spare: int | None, error: BaseException | None) -> None:
        if self._stopped:
            return
        if isinstance(error, OSError):
            self._log.warning("disk_not_looked_at", reason=str(error))
        elif error is not None:
            raise error
        elif spare is not None:
            self.free_bytes = spare
            self._judge(spare)
        self._timer = self._ports.executor.call_later(CHECK_EVERY_S, self._look)

    def _judge(self, spare: int) -> None:
        wanted = self._room.size
        if not self.full and spare < wanted:
            self.full = True
            self._engine.take_entries(False)
            self._leader_seen_s = self._ports.clock.monotonic_s()
            self._log.error("disk_full", free_bytes=spare, wanted_bytes=wanted)
        elif self.full and spare >= wanted * MORE:
            self.full = False
            self._engine.take_entries(True)
            self._log.info("disk_has_room_again", free_bytes=spare)
            self._stand_down(False)
        if self.full and not self._alone():
            self._make_way()
        self._look_at_others()

    def _look_at_others(self) -> None:
        """A write that no majority has room for is refused before it is begun."""
        voters = self._unfit()
        full = [name for name, why in voters if why == FULL]
        self._others_full = ", ".join(full) if 2 * len(full) >= len(voters) > 1 else ""

    def _make_way(self) -> None:
        """Another member should lead: it may have room."""
        status, now_s = self._engine.status(), self._ports.clock.monotonic_s()
        if status.role == "leader":
            self._leader_seen_s = now_s
            if now_s - self._handed_over_s >= HAND_OVER_EVERY_S:
                self._handed_over_s = now_s
                self._engine.transfer_leadership(None, self._handed_over)
            return
        if status.leader is not None:
            self._leader_seen_s = now_s
        self._stand_down(now_s - self._leader_seen_s < LEADERLESS_S)

    def _handed_over(self, why_not: str) -> None:
        if why_not:
            self._log.warning("hand_over_failed", reason=why_not)

    def _stand_down(self, wanted: bool) -> None:
        if wanted != self._stands_down:
            self._stands_down = wanted
            self._engine.stand_down("the disk is full" if wanted else "", cause=CAUSE)

    def _ignore(self, _result: Any, error: BaseException | None) -> None:
        if error is not None:
            self._log.warning("reserve_not_removed", reason=str(error))
