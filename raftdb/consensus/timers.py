"""An engine's two timers: the election deadline of those that follow, the heartbeat of a leader."""

from __future__ import annotations

from collections.abc import Callable

from raftdb.base.ports import Ports, Timer
from raftdb.consensus.core import Core
from raftdb.consensus.port import Timing
from raftdb.consensus.wall import LEADER


class Timers:
    """`event` runs a call as one event of the engine."""

    def __init__(
        self, core: Core, ports: Ports, timing: Timing, event: Callable[[Callable[[], None]], None]
    ) -> None:
        self._core = core
        self._clock = ports.clock
        self._executor = ports.executor
        self._timing = timing
        self._event = event
        self._election: Timer | None = None
        self._heartbeat: Timer | None = None
        self._stopped = False

    def stop(self) -> None:
        """For good."""
        self._stopped = True
        for timer in (self._election, self._heartbeat):
            if timer is not None:
                timer.cancel()

    def arm_election(self) -> None:
        """One timer, set for the earliest deadline: messages only move the deadline on."""
        if self._election is not None or self._stopped:
            return
        delay_s = self._core.library.election_deadline_s - self._clock.monotonic_s()
        self._election = self._executor.call_later(max(delay_s, 0.001), self._on_election)

    def election_is_nearer(self) -> None:
        """The deadline was moved to an earlier time."""
        if self._election is not None:
            self._election.cancel()
            self._election = None
        self.arm_election()

    def _on_election(self) -> None:
        self._election = None
        if not self._stopped and self._core.library.role != LEADER:
            self._event(self._election_due)

    def _election_due(self) -> None:
        library = self._core.library
        if library.election_deadline_s < self._clock.monotonic_s():
            self._core.on_election_deadline()
        if library.role != LEADER:
            self.arm_election()

    def arm_heartbeat(self) -> None:
        """As a leader."""
        if self._heartbeat is None and not self._stopped:
            self._heartbeat = self._executor.call_later(
                self._timing.heartbeat_s, self._on_heartbeat
            )

    def _on_heartbeat(self) -> None:
        self._heartbeat = None
        if not self._stopped and self._core.library.role == LEADER:
            self._event(self._heartbeat_due)

    def _heartbeat_due(self) -> None:
        self._core.check_quorum()
        if self._core.library.role == LEADER:
            self._core.send_heartbeats()
            self.arm_heartbeat()
