"""The newest entries, in memory."""

from __future__ import annotations

from raftdb.journal.format import LogEntry

__all__ = ["CACHED_ENTRY_OVERHEAD_BYTES", "EntryCache"]

CACHED_ENTRY_OVERHEAD_BYTES = 256
"""What a cached entry costs besides its data, roughly."""


class EntryCache:
    """Entries first, first + 1, ... up to the end of the log, all of them.

    What is not durable yet must stay: memory is its only copy. So the bound can be exceeded by
    what waits for the disk, which the callers' own limits bound.
    """

    __slots__ = ("bytes", "entries", "first")

    def __init__(self, first: int) -> None:
        self.entries: dict[int, LogEntry] = {}
        self.first = first
        self.bytes = 0

    def add(self, entry: LogEntry) -> None:
        """The next entry of the log."""
        self.entries[entry.index] = entry
        self.bytes += len(entry.data) + CACHED_ENTRY_OVERHEAD_BYTES

    def truncate(self, index: int, last: int) -> None:
        """Forget `index` to `last`, the end."""
        for gone in range(max(index, self.first), last + 1):
            self._remove(gone)
        self.first = min(self.first, index)

    def drop_below(self, index: int) -> None:
        """Forget what is below `index`, which is in the cache or just behind it."""
        for gone in range(self.first, index):
            self._remove(gone)
        self.first = max(self.first, index)

    def reset(self, first: int) -> None:
        """Forget all; the next entry is `first`."""
        self.entries.clear()
        self.bytes = 0
        self.first = first

    def evict(self, bytes_max: int, durable_index: int) -> None:
        """Let go of the oldest, down to the bound, as far as they are durable."""
        while self.bytes > bytes_max and self.first <= durable_index:
            self._remove(self.first)
            self.first += 1

    def _remove(self, index: int) -> None:
        entry = self.entries.pop(index)
        self.bytes -= len(entry.data) + CACHED_ENTRY_OVERHEAD_BYTES
