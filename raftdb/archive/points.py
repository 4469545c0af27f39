"""What a chain has but segments: bases, marks, gaps, restores on trial, found without the rest.

Each manifest names the newest one before it that is no segment's (`noted`), so they are read one
from the other, back from the newest base. Where that is not told, as in what release 0.1.0 wrote,
manifests are read one by one until one tells. Anything missing or wrong on the way: None, and the
whole chain is read, which names it.
"""

from __future__ import annotations

from raftdb.archive import layout
from raftdb.archive.archive import Archive
from raftdb.archive.chain import Chain, Link, Totals, load_newest, merged_link, verify_links
from raftdb.archive.envelope import digest
from raftdb.archive.errors import ArchiveDamagedError
from raftdb.archive.parallel import each
from raftdb.archive.records import Claim, Manifest

__all__ = ["load_points"]

BLOCK = 1_024
"""Manifests read at a time where nothing tells the way."""
SEGMENT = "segment"


def load_points(archive: Archive, claim: Claim) -> Chain | None:
    """Of an epoch's chain what follows its newest base, and all before that is no segment's; None
    when that cannot be told. Raises ArchiveUnavailableError."""
    chain = load_newest(archive, claim)
    if chain is None:
        return None
    walk = _Walk(chain)
    try:
        walk.back()
        chain.totals = walk.totals()
    except ArchiveDamagedError:
        return None
    verify_links(chain, walk.kept)
    return None if any(not one.harmless for one in chain.problems) else chain


class _Walk:
    """Back through one chain, of which the newest part is there."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._start = chain.links[chain.first]
        pruned = chain.pruned
        self.kept = dict(pruned.kept) if pruned is not None else {}
        """Older bases that retention left, by sequence: their digests."""
        chain.first = pruned.first if pruned is not None else 1
        self._begin = chain.first

    def back(self) -> None:
        """Take in all that is no segment's. Raises ArchiveDamagedError."""
        link = self._start
        while True:
            sequence, noted = link.begins, link.manifest.noted
            if noted >= sequence:
                raise ArchiveDamagedError(link.name, f"names manifest {noted}, which follows it")
            if noted >= 0:
                if noted < self._begin:
                    break
                link = self._chain.links[noted] = self._link(noted)
                continue
            if sequence <= self._begin:
                break
            link = self._search(max(self._begin, sequence - BLOCK), sequence)
        wanted = sorted(self.kept)
        for sequence, found in each(self._link, wanted, workers=16, ahead=64):
            self._chain.links[sequence] = _sound(found)

    def _search(self, low: int, high: int) -> Link:
        """Look at all from `low` to below `high`, down to one that tells the way: that one."""
        links = [_sound(found) for _one, found in each(self._link, range(low, high), ahead=64)]
        for link in reversed(links):
            if link.manifest.kind != SEGMENT:
                self._chain.links[link.manifest.sequence] = link
            if link.manifest.noted >= 0:
                return link
        return links[0]

    def totals(self) -> Totals:
        """Of all segments: the bytes since a base stand in the manifest before the next one."""
        chain = self._chain
        last = chain.links[max(chain.links)].manifest
        notes = [one for one in chain.links if one >= self._begin and not self._is_segment(one)]
        before = [
            one - 1
            for one in notes
            if chain.links[one].manifest.kind == "base" and one > self._begin
        ]
        size = last.since_bytes - self._before_begin()
        for _sequence, found in each(self._link, before, workers=16, ahead=64):
            size += _sound(found).manifest.since_bytes
        return Totals(last.sequence - self._begin + 1 - len(notes), size)

    def _before_begin(self) -> int:
        """Bytes of segments since the base then that retention took away."""
        first = self._link(self._begin).manifest
        return 0 if first.kind == "base" else first.since_bytes - first.size

    def _is_segment(self, sequence: int) -> bool:
        return self._chain.links[sequence].manifest.kind == SEGMENT

    def _link(self, sequence: int) -> Link:
        chain = self._chain
        if sequence in chain.links:
            return chain.links[sequence]
        assert chain.merged is not None
        if (one := chain.merged.find(sequence)) is not None and sequence not in self.kept:
            return merged_link(one, *chain.merged.read(one))
        name = layout.manifest_name(chain.claim.epoch, sequence)
        data = chain.archive.fetch(name, self.kept.get(sequence))
        return Link(chain.archive.parse(Manifest, name, data), name, digest(data))


def _sound(found: Link | Exception) -> Link:
    if isinstance(found, Exception):
        raise found
    return found
