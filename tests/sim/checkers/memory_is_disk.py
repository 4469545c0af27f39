"""What a journal says of its disk is so: its durable end lies within the log, in the segments as
they were written, with the terms that it has in memory; sealed segments hand on to each other
without a hole; and what is not durable is in memory (the invariants of journal/journal.py)."""

from __future__ import annotations

from typing import Any

from raftdb.consensus.messages import HeartbeatAck
from tests.sim.checkers.base import Broken, Checker


class MemoryIsDisk(Checker):
    hears = (HeartbeatAck,)

    def __init__(self) -> None:
        self._known: set[Any] = set()
        self._cut: dict[Any, int] = {}
        """What the journal had taken when its log was cut, by node."""

    def after_event(self, node: Any) -> None:
        if node not in self._known:
            self._known.add(node)
            self._check_segments(node)
        self._check(node)

    def on_append(self, node: Any, entries: list[Any]) -> None:
        self._check(node)

    def on_ack_made(self, node: Any, ack: Any) -> None:
        self._check(node)

    def on_send(self, node: Any, message: Any) -> None:
        # While the disk is slow, nothing else may happen for long.
        self._check(node)

    def on_dropped(self, node: Any) -> None:
        self._check_segments(node)

    def on_truncate(self, node: Any, index: int) -> None:
        self._cut[node] = node.journal.sequence() + 1

    def _check(self, node: Any) -> None:
        if node in self._cut and node.journal.durable_sequence >= self._cut[node]:
            del self._cut[node]
            self._check_segments(node)
        journal = node.journal
        durable, last = journal._durable_index, journal._last_index
        cache, active = journal._cache, journal._segments.active.index
        if durable > last or cache.first > max(durable + 1, journal._first_index):
            raise Broken(
                "memory is disk",
                f"{node.name} has its log in memory from {cache.first} to {last}, and says that it "
                f"is durable up to {durable}",
            )
        if len(cache.entries) != last + 1 - cache.first:
            raise Broken(
                "memory is disk",
                f"{node.name} has {len(cache.entries)} entries in memory from {cache.first} on, "
                f"its log ends at {last}",
            )
        if durable >= max(active.first, cache.first) and (
            durable > active.last or active.term_at(durable) != cache.entries[durable].term
        ):
            raise Broken(
                "memory is disk",
                f"{node.name} says that {durable} is durable, its last segment has entries up to "
                f"{active.last} there, or another one",
            )

    def _check_segments(self, node: Any) -> None:
        segments = node.journal._segments
        below = segments.active.index.first
        for segment in reversed(segments.sealed):
            last = min(segment.tail.last_index, below - 1)
            if segment.last != last:
                raise Broken(
                    "memory is disk",
                    f"{node.name} takes segment {segment.number} to end at {segment.last}, the "
                    f"next ones begin at {below}: it ends at {last}",
                )
            below = min(below, segment.first)
