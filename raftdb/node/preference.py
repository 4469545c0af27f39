"""Where the leader should be: it moves there by orderly transfer, and back by itself.

Only the leader decides, once a second. A member takes over when it is in a location that the
settings prefer to this node's, answers, holds nearly all of the log, and says that it may lead (its
disk answers, it is not draining, its content is not in doubt) — all of that for a stable while
without a break. Each move makes the while longer for some time, so that a place that comes and goes
does not have the leadership come and go with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from raftdb.base.cluster import ClusterSettings
from raftdb.base.ids import NodeId
from raftdb.base.locations import is_within
from raftdb.base.ports import Ports
from raftdb.consensus.port import EnginePort, EngineStatus, Member
from raftdb.node.proximity import Proximity

CHECK_EVERY_S = 1.0
STABLE_S = 5.0
STABLE_S_MAX = 320.0
CALM_S = 600.0
"""Moves and failed moves are remembered for so long."""
LAG_ENTRIES_MAX = 256
"""Who lacks more than that would hold up writes while it takes over."""


class Preference:
    """Belongs to the loop."""

    def __init__(
        self,
        engine: EnginePort,
        settings: Callable[[], ClusterSettings],
        members: Callable[[], Sequence[Member]],
        proximity: Proximity,
        ports: Ports,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._members = members
        self._proximity = proximity
        self._ports = ports
        self._since_s: dict[str, float] = {}
        """Since when a member could take over, without a break."""
        self._moves_s: list[float] = []
        self._moving = False
        self._timer: Any = None

    def start(self) -> None:
        """Begin to look."""
        self._timer = self._ports.executor.call_later(CHECK_EVERY_S, self._check)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def successor(self) -> NodeId | None:
        """Who should lead when this node does not: the best place first, then the fullest log.
        None: nobody is known to be fit, so whoever has most."""
        status = self._engine.status()
        found = self._able(status)
        if not found:
            return None
        match = {str(peer.node_id): int(peer.match_index) for peer in status.peers}
        best = min(found, key=lambda name: (self._rank(name), -match.get(name, 0), name))
        return NodeId(best)

    # ---- inside

    def _check(self) -> None:
        self.start()
        preferred = self._settings().leader_preference
        status = self._engine.status() if preferred else None
        if status is None or status.role != "leader":
            self._since_s.clear()
            return
        now_s = self._ports.clock.monotonic_s()
        own = self._rank(str(status.node_id))
        able = {name for name in self._able(status) if self._rank(name) < own}
        self._since_s = {name: self._since_s.get(name, now_s) for name in sorted(able)}
        self._moves_s = [moved_s for moved_s in self._moves_s if now_s - moved_s < CALM_S]
        stable_s = min(STABLE_S * 2 ** len(self._moves_s), STABLE_S_MAX)
        ready = [name for name, since_s in self._since_s.items() if now_s - since_s >= stable_s]
        if ready and not self._moving:
            self._move(min(ready, key=lambda name: (self._rank(name), name)), now_s)

    def _move(self, target: str, now_s: float) -> None:
        self._moving = True
        self._moves_s.append(now_s)
        place = next(one.location for one in self._members() if one.node_id == target)
        self._ports.log.info("leader_moves", to=target, location=place)

        def moved(reason: str) -> None:
            self._moving = False
            self._since_s.clear()
            if reason:
                self._ports.log.warning("leader_did_not_move", to=target, reason=reason)

        self._engine.transfer_leadership(NodeId(target), moved)

    def _rank(self, name: str) -> int:
        """Its place among the preferred ones; behind all of them when it is in none."""
        preferred = self._settings().leader_preference
        for member in self._members():
            if member.node_id == name:
                for place, location in enumerate(preferred):
                    if is_within(member.location, location):
                        return place
        return len(preferred)

    def _able(self, status: EngineStatus) -> list[str]:
        """Who could take over now."""
        voters = {str(member.node_id) for member in self._members()}
        return [
            str(peer.node_id)
            for peer in status.peers
            if peer.answers
            and peer.node_id in voters
            and int(status.last_index) - int(peer.match_index) <= LAG_ENTRIES_MAX
            and not self._proximity.unfit(str(peer.node_id))
        ]
