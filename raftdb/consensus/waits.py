"""Who waits: until the machine has applied an index, or until enough others have it on disk."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping

from raftdb.consensus.port import DurabilityLevel

Reached = Callable[[str], None]
"""Called with `` when the index is applied, or with the reason why it will not be."""


class Wait:
    """One that waits. `cancel` when it does no more."""

    __slots__ = ("_waits", "reached")

    def __init__(self, waits: AppliedWaits | DurableWaits, reached: Reached) -> None:
        self._waits = waits
        self.reached: Reached | None = reached

    def cancel(self) -> None:
        """Harmless when it has ended."""
        if self.reached is not None:
            self.reached = None
            self._waits.count -= 1

    def end(self, reason: str) -> None:
        """Call, unless it was cancelled."""
        reached = self.reached
        if reached is not None:
            self.cancel()
            reached(reason)


_Heap = list[tuple[int, int, Wait]]
"""By index, and of one index by order."""


def _push(heap: _Heap, index: int, order: int, wait: Wait, count: int) -> None:
    """`count`: of those that wait still. The others go when they are the most: their index may
    be one that is never reached."""
    if len(heap) > 64 and len(heap) > 2 * count:
        heap[:] = sorted(item for item in heap if item[2].reached is not None)
    heapq.heappush(heap, (index, order, wait))


class AppliedWaits:
    """A heap of calls by index."""

    def __init__(self, applied: Callable[[], int]) -> None:
        self._applied = applied
        self._heap: _Heap = []
        self._order = 0
        self.count = 0
        """Calls that wait."""

    def __len__(self) -> int:
        return self.count

    def add(self, index: int, reached: Reached) -> Wait | None:
        """Call when `index` is applied: at once when it is."""
        if index <= self._applied():
            reached("")
            return None
        wait = Wait(self, reached)
        self._order += 1
        self.count += 1
        _push(self._heap, index, self._order, wait, self.count)
        return wait

    def on_applied(self, applied: int) -> None:
        """The machine moved on."""
        heap = self._heap
        while heap and heap[0][0] <= applied:
            heapq.heappop(heap)[2].end("")

    def fail(self, reason: str) -> None:
        """Nothing more is applied."""
        heap, self._heap = self._heap, []
        for _index, _order, wait in sorted(heap, key=lambda one: one[:2]):
            wait.end(reason)


class DurableWaits:
    """Replies by what they wait for beyond the quorum, and by index (rule C3).

    Nothing here knows what a level means: it says up to which index it holds, from what this
    leader knows (`look`), and all replies up to there go out.
    """

    def __init__(self) -> None:
        self._heaps: dict[DurabilityLevel, _Heap] = {}
        self._order = 0
        self.count = 0
        """Replies that wait; when 0 there is nothing to look at."""

    def add(self, index: int, level: DurabilityLevel, reached: Reached) -> Wait:
        """Call when the level is known to hold for all up to `index`; see `look`."""
        wait = Wait(self, reached)
        self._order += 1
        self.count += 1
        _push(self._heaps.setdefault(level, []), index, self._order, wait, self.count)
        return wait

    def look(self, durable: Mapping[str, int]) -> None:
        """`durable`: up to which index each member has the log on disk, as known to this leader."""
        for level, heap in list(self._heaps.items()):
            upto = level.upto(durable)
            while heap and heap[0][0] <= upto:
                heapq.heappop(heap)[2].end("")
            if not heap:
                self._heaps.pop(level, None)

    def fail(self, reason: str) -> None:
        """Leadership is gone, or the engine stops: what is known here counts no longer."""
        heaps, self._heaps = self._heaps, {}
        waiting = sorted((item for heap in heaps.values() for item in heap), key=lambda one: one[1])
        for _index, _order, wait in waiting:
            wait.end(reason)
