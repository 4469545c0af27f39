"""The content hash of the last commits, for comparing replicas while they work.

Replicas group entries into transactions each in their own way, so they do not commit at the same
indexes. Where the index is a multiple of MARK_EVERY every one does: the applier ends a transaction
there. Between marks the last commit of an idle cluster is the same on all.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import replace
from itertools import islice

from raftdb.base.frozen import frozen
from raftdb.base.ids import Index

MARK_EVERY = 64
"""All replicas commit at the indexes that this divides."""
WANTED_MAX = 64
"""Marks whose tables' sums somebody has asked for in advance; the lowest are forgotten first."""
DETAILED_MAX = 64
"""Samples of each kind (marks, other commits) that have the tables' sums at a time, the newest."""
SUMS_MAX = 100_000
"""Of all of them of one kind together (some 15 MB): with many tables fewer samples have them."""
RECENT_MAX = 256
MARKS_MAX = 1_024


@frozen
class Sample:
    """One replica's content right after one entry."""

    index: Index
    content: bytes
    """16 bytes: a weighted sum of all tables' sums, kept as they change."""
    results: bytes
    """16 bytes: the chain over all replies."""
    tables: dict[str, bytes] | None = None
    """Sums by table, while somebody wants to know where replicas differ."""


class Samples:
    """Written by the thread that applies, read by any."""

    def __init__(self, tables: Callable[[], dict[str, bytes]]) -> None:
        self._tables = tables
        self._lock = threading.Lock()
        self._recent: OrderedDict[int, Sample] = OrderedDict()
        self._marks: OrderedDict[int, Sample] = OrderedDict()
        self._with_sums: tuple[deque[int], deque[int]] = (deque(), deque())
        """Indexes of samples that have the tables' sums: marks, and others."""
        self._wanted: set[int] = set()
        self.detailed = False
        """Keep the tables' sums too, at each commit."""

    def add(self, index: Index, content: int, results: bytes) -> None:
        """All of entry `index` is committed."""
        wanted = self.detailed or (self._wanted and index in self._wanted)
        tables = self._tables() if wanted else None
        sample = Sample(index, content.to_bytes(16, "little"), results, tables)
        with self._lock:
            recent = self._recent
            recent[index] = sample
            if len(recent) > RECENT_MAX:
                recent.popitem(last=False)
            if index % MARK_EVERY == 0:
                self._marks[index] = sample
                if len(self._marks) > MARKS_MAX:
                    self._marks.popitem(last=False)
            if tables is not None:
                self._bound(index, len(tables))

    def _bound(self, index: int, count: int) -> None:
        """Sample `index` has `count` sums: older ones give theirs up. With the lock held."""
        kept = self._with_sums[index % MARK_EVERY != 0]
        if not kept or kept[-1] != index:
            kept.append(index)
        while len(kept) > 1 and (len(kept) > DETAILED_MAX or len(kept) * count > SUMS_MAX):
            old = kept.popleft()
            for samples in (self._recent, self._marks):
                if old in samples:
                    samples[old] = replace(samples[old], tables=None)

    def detail_last(self) -> None:
        """Give the last sample its tables' sums. While nothing is applied."""
        with self._lock:
            if self._recent:
                index, sample = next(reversed(self._recent.items()))
                tables = self._tables()
                for samples in (self._recent, self._marks):
                    if index in samples:
                        samples[index] = replace(sample, tables=tables)
                self._bound(index, len(tables))

    def want(self, index: int) -> int:
        """Keep the tables' sums too at the first mark from this index on, if that is still to
        come; which one that is. From any thread."""
        index = -(-index // MARK_EVERY) * MARK_EVERY
        wanted = {one for one in self._wanted if one >= index - WANTED_MAX * MARK_EVERY} | {index}
        self._wanted = set(sorted(wanted)[-WANTED_MAX:])
        return index

    def at(self, index: int) -> Sample | None:
        """Of the commit at that index, while it is kept."""
        with self._lock:
            return self._recent.get(index) or self._marks.get(index)

    def since(self, index: int, recent: int = 1) -> list[Sample]:
        """What others may have too: marks after `index`, and the last commits, `recent` of them.
        At most 64, the newest ones, in order."""
        with self._lock:
            newest = islice(reversed(self._recent.values()), recent)
            found = [one for one in newest if one.index > index]
            lowest = found[-1].index if found else 1 << 63
            for number in reversed(self._marks):
                if number <= index or len(found) >= 64:
                    break
                if number < lowest:
                    found.append(self._marks[number])
            found.reverse()
            return found

    def last(self) -> Sample | None:
        """Of the newest commit."""
        with self._lock:
            return next(reversed(self._recent.values())) if self._recent else None
