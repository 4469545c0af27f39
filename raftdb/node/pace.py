"""Timers that follow the measured distance to the other voters.

Everything here runs on the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from raftdb.base.ports import Ports
from raftdb.consensus.port import EnginePort, Member, Timing
from raftdb.consensus.timing import stretched
from raftdb.node.proximity import Proximity

FAR_S = 0.010
"""From this round trip on a line is long."""
NEAR_S = 0.005
"""And below this one it is not any more."""
CHANGE = 0.2
"""By less than that share nothing is changed."""


class Pace:
    """One node's."""

    def __init__(
        self,
        engine: EnginePort,
        base: Timing,
        own: str,
        voters: Callable[[], Sequence[Member]],
        proximity: Proximity,
        ports: Ports,
    ) -> None:
        """`base`: as configured; nothing becomes shorter."""
        self._engine = engine
        self._base = base
        self._own = own
        self._voters = voters
        self._proximity = proximity
        self._log = ports.log
        self.timing = base
        """As it is now."""
        self.far: tuple[str, ...] = ()
        """Members to whom log entries go compressed."""

    def measured(self) -> None:
        """There is news of a distance."""
        voters = [str(one.node_id) for one in self._voters()]
        trips = [
            trip_s
            for name in voters
            if name != self._own and (trip_s := self._proximity.round_trip_s(name)) is not None
        ]
        wanted, now = stretched(self._base, len(voters), trips), self.timing
        pairs = (
            (wanted.election_min_s, now.election_min_s),
            (wanted.heartbeat_s, now.heartbeat_s),
        )
        moved = any(abs(new - old) > CHANGE * old for new, old in pairs)
        far = tuple(sorted(self._far_ones()))
        if moved or far != self.far:
            self.timing, self.far = wanted if moved else now, far
            self._log.info("timing", **self.facts())
            self._engine.set_timing(self.timing, far)

    def _far_ones(self) -> list[str]:
        found = []
        for member in self._voters():
            name = str(member.node_id)
            trip_s = self._proximity.round_trip_s(name)
            bound_s = NEAR_S if name in self.far else FAR_S
            if name != self._own and trip_s is not None and trip_s > bound_s:
                found.append(name)
        return found

    def facts(self) -> dict[str, Any]:
        """For the status, in milliseconds."""
        timing = self.timing
        return {
            "election_min_ms": round(timing.election_min_s * 1000, 1),
            "election_max_ms": round(timing.election_max_s * 1000, 1),
            "heartbeat_ms": round(timing.heartbeat_s * 1000, 1),
            "leader_timeout_ms": round(timing.leader_timeout_s * 1000, 1),
            "far": self.far,
        }
