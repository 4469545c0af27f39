"""An answer that takes the loop a while, shared by those who ask for it at about the same time."""

from __future__ import annotations

from raftdb.base.ports import Clock
from raftdb.server.dispatcher import Describe

SHARED_FOR = 10
"""So many times as long as it took to make, it is told again: a tenth of the loop's time, at most,
is spent on it."""


class Shared:
    """What a node says of itself. That takes it a quarter of a millisecond or more, and nine bytes
    ask for it: a thousand such questions in one piece would keep a leader from its heartbeats."""

    def __init__(self, describe: Describe, clock: Clock) -> None:
        self._describe = describe
        self._now_s = clock.monotonic_s
        self._told: dict[str, object] = {}
        self._until_s = float("-inf")

    def tell(self) -> dict[str, object]:
        """As of now, or of a moment ago. Not to be changed."""
        begun_s = self._now_s()
        if begun_s >= self._until_s:
            self._told = self._describe()
            ended_s = self._now_s()
            self._until_s = ended_s + SHARED_FOR * (ended_s - begun_s)
        return self._told
