"""Looks at every object of an archive: whether it is there, whole, and what it was.

`walk` goes through it once, from the first manifest to the last, and keeps nothing of what it has
passed: its memory is that of some objects, however long the chain. It knows only that all is as it
should be. Where anything is not, the whole chain is read, and `verify_objects` says what and where.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain as chained

from raftdb.archive import layout
from raftdb.archive.archive import Archive
from raftdb.archive.basecopy import check_chunks
from raftdb.archive.chain import (
    Chain,
    Link,
    Problem,
    Timeline,
    fork_of,
    last_listed,
    line_of,
    load_chain,
    load_pruned,
    merged_link,
    wrong_with,
)
from raftdb.archive.envelope import digest
from raftdb.archive.errors import ArchiveDamagedError
from raftdb.archive.links import KINDS
from raftdb.archive.merged import MergedRanges, Range
from raftdb.archive.parallel import each
from raftdb.archive.plan import Source, read_segment
from raftdb.archive.records import BaseRecord, Claim, Manifest
from raftdb.archive.writer import newest_start

__all__ = ["Walked", "verify_objects", "walk"]

AHEAD = 64
"""Manifests that are read before the turn is theirs; their objects are let go at once."""


@dataclass(slots=True)
class Walked:
    """An archive in which nothing is wrong."""

    objects: int = 0
    notes: list[Problem] = field(default_factory=list)
    """Harmless ones."""
    end: int = 0
    """Entries up to here were met."""


def walk(archive: Archive) -> Walked | None:
    """Read all manifests, segments, bases, packs, second copies; None when anything is not as it
    should be. Raises ArchiveUnavailableError."""
    walked = Walked()
    try:
        line = line_of(archive)[::-1]
        for claim in line:
            _Walk(archive, claim, fork_of(line, claim.epoch), walked).go()
    except ArchiveDamagedError:
        return None
    return walked


class _Walk:
    """Through one epoch's chain. All methods raise ArchiveDamagedError where something is odd."""

    def __init__(self, archive: Archive, claim: Claim, fork: int, walked: Walked) -> None:
        """`fork`: entries beyond it are another epoch's past no more."""
        self._archive = archive
        self._claim = claim
        self._fork = fork
        self._walked = walked
        self._merged = MergedRanges(archive, claim.epoch)
        self._seen: dict[str, bytes] = {}
        self._kept: Mapping[int, bytes] = {}

    def go(self) -> None:
        """All of it."""
        claim = self._claim
        pruned = Chain(self._archive, claim)
        load_pruned(pruned)
        self._require(not pruned.problems, "the record of retention")
        self._kept = dict(pruned.pruned.kept) if pruned.pruned is not None else {}
        first, last = pruned.first, self._last(pruned.first)
        self._require(last >= first, "the chain's beginning")
        for _sequence, found in each(self._link, sorted(self._kept), ahead=AHEAD):
            self._passed(_sound(found), None)
        before: Link | None = None
        for _item, found in each(self._link, self._items(first, last), ahead=AHEAD):
            link = _sound(found)
            self._passed(link, before)
            self._follows(link)
            before = link
        tail = load_chain(self._archive, claim, after=max(last - 1, 0))
        self._require(not any(not one.harmless for one in tail.problems), "the chain's end")
        self._walked.notes += tail.problems

    def _require(self, holds: bool, what: str) -> None:
        if not holds:
            raise ArchiveDamagedError(layout.claim_name(self._claim.epoch), what)

    def _last(self, first: int) -> int:
        """Of the newest manifest, as a listing from the newest base on tells."""
        epoch = self._claim.epoch
        start = max(newest_start(self._archive, epoch), first - 1)
        return last_listed(self._archive, epoch, start)

    def _items(self, first: int, last: int) -> Iterator[int | Range]:
        """Manifests in order, and ranges that stand for some."""
        at = first
        for one in self._merged.ranges:
            if one.last < first:
                continue
            self._require(at <= one.first and one.last <= last, "merged segments")
            yield from range(at, one.first)
            yield one
            at = one.last + 1
        yield from range(at, last + 1)

    def _link(self, item: int | Range) -> Link:
        """A manifest, when what it names is whole. By threads."""
        if isinstance(item, Range):
            link = merged_link(item, *self._merged.read(item))
        else:
            name = layout.manifest_name(self._claim.epoch, item)
            data = self._archive.fetch(name, self._kept.get(item))
            manifest = self._archive.parse(Manifest, name, data)
            link = Link(manifest, name, digest(data))
        _look(self._archive, link)
        return link

    def _passed(self, link: Link, before: Link | None) -> None:
        sequence = link.manifest.sequence
        self._require(not wrong_with(link, sequence, before, self._claim), link.name)
        follows = before is None or before.manifest.sequence == link.begins - 1
        self._require(follows and layout.number_of(link.name) == link.begins, link.name)
        if link.manifest.kind == "base":
            bad = _look_at_base(self._archive, link, self._seen)
            if bad:
                raise bad[0]
        self._walked.objects += 2 if link.manifest.kind in ("segment", "base") else 1

    def _follows(self, link: Link) -> None:
        """The log has no hole. As `_gaps`."""
        manifest, walked = link.manifest, self._walked
        if manifest.kind == "segment" and manifest.first <= self._fork:
            self._require(not walked.end or manifest.first <= walked.end + 1, manifest.object)
            walked.end = max(walked.end, min(manifest.last, self._fork))
        elif manifest.kind in ("base", "gap") and manifest.last <= self._fork:
            walked.end = max(walked.end, manifest.archived)


def _sound(found: Link | Exception) -> Link:
    if isinstance(found, Exception):
        raise found
    return found


def verify_objects(
    timeline: Timeline, progress: Callable[[int, int], None] | None = None
) -> list[Problem]:
    """Read all segments, bases, packs, second copies: problems beyond those of the chains. Raises
    ArchiveUnavailableError."""
    problems: list[Problem] = []
    links = chained.from_iterable(chain.links.of_kind(*KINDS) for chain in timeline.chains)
    total = sum(len(chain.links) for chain in timeline.chains)
    seen: dict[str, bytes] = {}
    """Packs that were read: several bases share them."""
    archive = timeline.archive
    url = archive.url
    looks = each(lambda link: _look(archive, link), links)
    for done, (link, result) in enumerate(looks, start=1):
        found = [result] if isinstance(result, Exception) else []
        if link.manifest.kind == "base":
            found += _look_at_base(archive, link, seen)
        for error in found:
            if not isinstance(error, ArchiveDamagedError):
                raise error
            problems.append(Problem(error.name, error.what, url))
        if progress is not None:
            progress(done, total)
    return problems + _gaps(timeline)


def _look(archive: Archive, link: Link) -> None:
    """Whether a segment, or a second copy, is whole. Raises ArchiveDamagedError."""
    name = link.manifest.copy
    if link.manifest.kind == "segment":
        read_segment(Source(archive, link))
    elif name and not link.adopted and archive.read(Manifest, name) != link.manifest:
        raise ArchiveDamagedError(name, f"is no copy of {link.name}")


def _look_at_base(archive: Archive, link: Link, seen: dict[str, bytes]) -> list[Exception]:
    manifest = link.manifest
    try:
        record = archive.read(BaseRecord, manifest.object, manifest.digest)
        check_chunks(manifest.object, record)
    except ArchiveDamagedError as error:
        return [error]
    todo = [pack for pack in record.packs if seen.get(pack.name) != pack.digest]
    found: list[Exception] = []
    for pack, result in each(lambda pack: len(archive.read_pack(pack.name, pack.digest)), todo):
        if isinstance(result, Exception):
            found.append(result)
        else:
            seen[pack.name] = pack.digest
    return found


def _gaps(timeline: Timeline) -> list[Problem]:
    """Between segments, where the chains are whole and yet entries are missing."""
    problems = []
    at = 0
    begin = {chain.claim.epoch: chain.first for chain in timeline.chains}
    for link in timeline.each_link("segment", "base", "gap"):
        manifest = link.manifest
        if manifest.sequence < begin[manifest.epoch]:
            # Retention left this base alone, and took the log behind it.
            continue
        if manifest.kind == "segment":
            if at and manifest.first > at + 1 and not timeline.problems:
                what = f"begins at entry {manifest.first}, and the log before it ends at {at}"
                problems.append(Problem(manifest.object, what, timeline.archive.url))
            at = max(at, manifest.last)
        elif manifest.archived > at:
            at = manifest.archived
    return problems
