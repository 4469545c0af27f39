"""A leader whose disk has stopped answering hands over: nobody else would notice.

Its heartbeats need no disk, so its followers stay with it, and every write waits for its own copy
or for its applying. So when one batch of the journal has been on its way for too long it steps
down, says why, and does not stand again until the disk has answered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from raftdb.base.ports import Ports
from raftdb.consensus.port import EnginePort

CHECK_EVERY_S = 0.25
CAUSE = "disk"


class Watched(Protocol):
    """What is needed of the journal."""

    @property
    def batch_under_way(self) -> int:
        """Number of the batch that the disk has not returned yet; 0 when there is none."""


class DiskWatch:
    """Belongs to the loop."""

    def __init__(
        self,
        engine: EnginePort,
        journal: Watched,
        ports: Ports,
        stall_s: float,
        alone: Callable[[], bool],
    ) -> None:
        """`alone`: nobody else could lead."""
        self._engine = engine
        self._journal = journal
        self._ports = ports
        self._stall_s = stall_s
        self._alone = alone
        self._batch = 0
        self._since_s = 0.0
        self._timer: Any = None
        self.stalled = False
        """The disk holds up a batch for longer than it may."""

    def start(self) -> None:
        """Begin watching."""
        self._timer = self._ports.executor.call_later(CHECK_EVERY_S, self._check)

    def stop(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()

    @property
    def waiting_s(self) -> float:
        """How long the batch under way has been seen to wait."""
        return self._ports.clock.monotonic_s() - self._since_s if self._batch else 0.0

    def _check(self) -> None:
        batch = self._journal.batch_under_way
        if batch != self._batch:
            self._batch, self._since_s = batch, self._ports.clock.monotonic_s()
            if self.stalled:
                self.stalled = False
                self._ports.log.info("disk_answers_again")
                self._engine.stand_down("", cause=CAUSE)
        elif batch and not self.stalled and self.waiting_s > self._stall_s:
            self._stall()
        self.start()

    def _stall(self) -> None:
        self.stalled = True
        leads = self._engine.status().role == "leader"
        self._ports.log.warning(
            "disk_stalls", seconds=round(self.waiting_s, 3), leads=leads, batch=self._batch
        )
        if self._alone():
            return
        self._engine.stand_down(
            f"the disk has not taken a write for {self.waiting_s:.1f} s", cause=CAUSE
        )
        if leads:
            self._engine.step_down()
