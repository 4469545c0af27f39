"""Who waits: until the machine has applied an index, or until enough others have it on disk."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping

from raftdb.consensus.port import DurabilityLevel

Reached = Callable[[str], None]
"""Called with `` when the index is applied, or with the reason why it will not be."""


class AppliedWaits:
    """A heap of calls by index."""

    def __init__(self, applied: Callable[[], int]) -> None:
        self._applied = applied
        self._heap: list[tuple[int, int, Reached]] = []
        self._order = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, index: int, reached: Reached) -> None:
        """Call when `index` is applied: at once when it is."""
        if index <= self._applied():
            reached("")
            return
        self._order += 1
        heapq.heappush(self._heap, (index, self._order, reached))

    def on_applied(self, applied: int) -> None:
        """The machine moved on."""
        heap = self._heap
        while heap and heap[0][0] <= applied:
            heapq.heappop(heap)[2]("")

    def fail(self, reason: str) -> None:
        """Nothing more is applied."""
        heap, self._heap = self._heap, []
        for _index, _order, reached in sorted(heap, key=lambda one: one[:2]):
            reached(reason)


class DurableWait:
    """One reply that waits. `cancel` when nobody does any more."""

    __slots__ = ("_waits", "index", "reached")

    def __init__(self, waits: DurableWaits, index: int, reached: Reached) -> None:
        self._waits = waits
        self.index = index
        self.reached: Reached | None = reached

    def cancel(self) -> None:
        """Harmless when it has ended."""
        if self.reached is not None:
            self.reached = None
            self._waits.count -= 1


class DurableWaits:
    """Replies by what they wait for beyond the quorum, and by index (rule C3).

    Nothing here knows what a level means: it says up to which index it holds, from what this
    leader knows (`look`), and all replies up to there go out.
    """

    def __init__(self) -> None:
        self._heaps: dict[DurabilityLevel, list[tuple[int, int, DurableWait]]] = {}
        self._order = 0
        self.count = 0
        """Replies that wait; when 0 there is nothing to look at."""

    def add(self, index: int, level: DurabilityLevel, reached: Reached) -> DurableWait:
        """Call when the level is known to hold for all up to `index`; see `look`."""
        wait = DurableWait(self, index, reached)
        self._order += 1
        self.count += 1
        heap = self._heaps.setdefault(level, [])
        if len(heap) > 64 and len(heap) > 2 * self.count:
            heap[:] = sorted(item for item in heap if item[2].reached is not None)
        heapq.heappush(heap, (index, self._order, wait))
        return wait

    def look(self, durable: Mapping[str, int]) -> None:
        """`durable`: up to which index each member has the log on disk, as known to this leader."""
        for level, heap in list(self._heaps.items()):
            upto = level.upto(durable)
            while heap and heap[0][0] <= upto:
                self._end(heapq.heappop(heap)[2], "")
            if not heap:
                self._heaps.pop(level, None)

    def fail(self, reason: str) -> None:
        """Leadership is gone, or the engine stops: what is known here counts no longer."""
        heaps, self._heaps = self._heaps, {}
        waiting = sorted((item for heap in heaps.values() for item in heap), key=lambda one: one[1])
        for _index, _order, wait in waiting:
            self._end(wait, reason)

    def _end(self, wait: DurableWait, reason: str) -> None:
        reached = wait.reached
        if reached is not None:
            wait.cancel()
            reached(reason)
