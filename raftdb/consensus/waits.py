"""Who waits until the machine has applied an index."""

from __future__ import annotations

import heapq
from collections.abc import Callable

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
