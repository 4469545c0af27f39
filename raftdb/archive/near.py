"""What one moment of the past needs of a chain: from the base before it on, and no more.

A chain grows by thousands of manifests a day. Their indexes and times never fall, so the place of a
moment is found by halving; the manifest there tells the newest base before it, and that one where
the chain ended when it was begun. All that is read is verified as ever, link by link. Where
anything is missing or does not fit, the answer is None: then the whole chain is read, and names it.
"""

from __future__ import annotations

from dataclasses import dataclass

from raftdb.archive import layout
from raftdb.archive.archive import Archive
from raftdb.archive.chain import (
    Chain,
    Link,
    last_listed,
    load_pruned,
    merged_link,
    verify_links,
)
from raftdb.archive.envelope import digest
from raftdb.archive.errors import ArchiveDamagedError
from raftdb.archive.merged import MergedRanges
from raftdb.archive.parallel import each
from raftdb.archive.records import Claim, Manifest
from raftdb.archive.writer import newest_start

__all__ = ["Near", "load_near"]

BACK_MAX = 16
"""Marks and the like at the end of a chain that are passed over to find its last entry."""


@dataclass(frozen=True, slots=True)
class Near:
    """The moment that is wanted, by index or by time, or entries that are to be looked at."""

    index: int | None = None
    """An entry that has to be there."""
    first: int | None = None
    """Entries from this one on are looked at, and not replayed: up to `index`, or the last one."""
    time_ms: int | None = None
    """Unix milliseconds: what was logged up to then, and what came next."""


def load_near(archive: Archive, claim: Claim, near: Near) -> Chain | None:
    """Of an epoch's chain what is needed for that moment; None when that cannot be told. Raises
    ArchiveUnavailableError."""
    reader = _Reader(archive, claim)
    try:
        last = reader.last()
        if near.first is not None:
            place, start = reader.between(near.first, near.index, last)
        else:
            place = reader.place(near, last) if last else 0
            start = reader.start(near, place) if place else None
        if start is None:
            return None
        chain = reader.load(start, place)
        end = reader.go_on(chain, near, place, last)
        reader.add_end(chain, end, last)
    except ArchiveDamagedError:
        return None
    verify_links(chain, {})
    return None if chain.problems else chain


class _Reader:
    """One chain's manifests by number, each fetched once; of those whose segments were made one,
    what stands for them."""

    def __init__(self, archive: Archive, claim: Claim) -> None:
        self._archive = archive
        self._claim = claim
        self._first = 1
        self._found: dict[int, Link] = {}
        self._merged = MergedRanges(archive, claim.epoch)

    def link(self, sequence: int) -> Link:
        """Raises ArchiveDamagedError."""
        if (one := self._merged.find(sequence)) is not None:
            return merged_link(one, *self._merged.read(one))
        if sequence not in self._found:
            name = layout.manifest_name(self._claim.epoch, sequence)
            data = self._archive.fetch(name)
            manifest = self._archive.parse(Manifest, name, data)
            self._found[sequence] = Link(manifest, name, digest(data))
        return self._found[sequence]

    def last(self) -> int:
        """Of the newest manifest, as a listing from the newest base on tells; 0: no base."""
        pruned = Chain(self._archive, self._claim)
        load_pruned(pruned)
        self._first = pruned.first
        epoch = self._claim.epoch
        start = newest_start(self._archive, epoch)
        if not start or pruned.problems:
            return 0
        return last_listed(self._archive, epoch, start)

    def place(self, near: Near, last: int) -> int:
        """The first manifest by which all that is wanted is there; 0 when none is."""
        low, high = self._first, last
        if not self._reaches(near, high):
            return 0
        if self._reaches(near, low):
            return low
        while high - low > 1:
            middle = (low + high) // 2
            if self._reaches(near, middle):
                high = middle
            else:
                low = middle
        return high

    def _reaches(self, near: Near, sequence: int) -> bool:
        manifest = self.link(sequence).manifest
        if near.index is not None:
            return manifest.archived >= near.index
        assert near.time_ms is not None
        return manifest.time_ms > near.time_ms

    def between(self, first: int, index: int | None, last: int) -> tuple[int, int | None]:
        """The manifest by which all up to `index` is there, and the one before that of `first`;
        None for what is to be read as a whole."""
        begin = self.place(Near(index=first), last) if last else 0
        if not begin:
            return 0, None
        until = None if index is None else Near(index=max(index, first))
        place = self.place(until, last) if until and self._reaches(until, last) else last
        return place, begin - 1

    def start(self, near: Near, place: int) -> int | None:
        """Where the chain ended when the newest base before that place was begun; None when there
        is none that is of use."""
        if place == self._first:
            begin = self.link(place).manifest
            is_there = near.index is not None and begin.last <= near.index
            return place - 1 if begin.kind == "base" and is_there else None
        base = self.link(place - 1).manifest.base
        if base < self._first:
            return None
        manifest = self.link(base).manifest
        if manifest.kind != "base" or (near.index is not None and manifest.last > near.index):
            return None
        start = layout.base_sequence(manifest.object)
        return start if self._first <= start + 1 else None

    def load(self, start: int, place: int) -> Chain:
        """Manifests after `start` up to `place`."""
        chain = Chain(self._archive, self._claim, first=start + 1)
        wanted = range(start + 1, place + 1)
        for _sequence, found in each(self.link, wanted, workers=16, ahead=64):
            if isinstance(found, Exception):
                raise found
            chain.links[found.manifest.sequence] = found
        return chain

    def go_on(self, chain: Chain, near: Near, place: int, last: int) -> int:
        """Take what follows until there is a segment that ends after the time that is wanted (a
        base may have moved it before); returns the last one taken."""
        at = place
        while near.time_ms is not None and at < last and not self._ends_after(near, at):
            link = self.link(at + 1)
            at = link.manifest.sequence
            chain.links[at] = link
        return at

    def _ends_after(self, near: Near, sequence: int) -> bool:
        return self.link(sequence).manifest.kind == "segment" and self._reaches(near, sequence)

    def add_end(self, chain: Chain, end: int, last: int) -> None:
        """The chain's end too: how far the archive goes is told in every plan."""
        for sequence in range(last, max(end, last - BACK_MAX), -1):
            link = self.link(sequence)
            chain.links[link.manifest.sequence] = link
            if link.manifest.kind in ("segment", "base"):
                return
