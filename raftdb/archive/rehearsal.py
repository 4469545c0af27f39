"""When a destination's newest moment is restored to prove that it can be, and what came of it.

The node that uploads to a destination does it, so one node of the cluster does. The time of the
last success is in the chain itself: who takes over goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from raftdb.base.ports import Ports

__all__ = ["Rehearsal", "Verified", "Verifier"]

FIRST_MINUTES = 10
"""A destination that was never verified is, after so long."""
RETRY_S = 900.0
ALARM_PERIODS = 2
"""Older than so many periods is an alarm."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What a restore into a scratch directory gave."""

    index: int
    problem: str
    """`` when it gave the content hash that was recorded live."""


class Verifier(Protocol):
    """Does one restore at a time."""

    def start(self, url: str, done: Callable[[Verified], None]) -> None:
        """Begin; `done` is called on the loop."""

    def stop(self) -> None:
        """End it; `done` is not called any more."""


class Rehearsal:
    """One destination's. On the loop."""

    def __init__(self, url: str, shown: str, period_minutes: int, ports: Ports) -> None:
        """`shown`: the URL for messages."""
        self._url = url
        self._shown = shown
        self._period_s = period_minutes * 60.0
        self._ports = ports
        self._begun_s = ports.clock.monotonic_s()
        self._not_before_s = 0.0
        self.running = False
        self.problem = ""
        """Why the last restore failed; `` when it did not."""
        self._alarmed = False

    def due(self, *, active: bool, archived: int, verified_age_s: float | None) -> bool:
        """Whether this node should do it now."""
        now_s = self._ports.clock.monotonic_s()
        if not self._period_s or not active or not archived or self.running:
            return False
        if now_s < self._not_before_s:
            return False
        if verified_age_s is None:
            return now_s - self._begun_s >= min(self._period_s, FIRST_MINUTES * 60.0)
        return verified_age_s >= self._period_s

    def start(self, verifier: Verifier, ended: Callable[[], None]) -> None:
        """Do it."""
        self.running = True
        self._ports.log.info("archive_verify", destination=self._shown)

        def done(result: Verified) -> None:
            self.running = False
            self.problem = result.problem
            if result.problem:
                self._not_before_s = self._ports.clock.monotonic_s() + RETRY_S
                self._ports.log.error(
                    "archive_verify_failed",
                    destination=self._shown,
                    reason=result.problem,
                    hint="run `raftdb archive verify --restore`; it names what is wrong",
                )
            else:
                self._ports.log.info(
                    "archive_verified", destination=self._shown, index=result.index
                )
            ended()

        verifier.start(self._url, done)

    def late(self, verified_age_s: float | None) -> bool:
        """Whether the last success is too long ago; logged when that begins."""
        age_s = verified_age_s
        if age_s is None:
            age_s = self._ports.clock.monotonic_s() - self._begun_s
        late = self._period_s > 0 and age_s > ALARM_PERIODS * self._period_s
        if late and not self._alarmed:
            self._ports.log.error(
                "archive_unverified",
                destination=self._shown,
                age_s=round(age_s),
                reason=self.problem or "no restore has succeeded",
            )
        self._alarmed = late
        return late

    def facts(self, verified_age_s: float | None) -> dict[str, Any]:
        """For the status."""
        return {
            "verify_running": self.running,
            "verify_problem": self.problem,
            "verify_alarm": bool(self.problem) or self.late(verified_age_s),
        }
