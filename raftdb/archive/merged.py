"""Segments made one: what an old part of the chain is kept as.

An uploader adds a segment and a manifest each half second. Some hundreds of them in a row become
one segment of all their entries, and one record that stands for all their manifests: it carries
the digest that the manifest after them names, and what the first of them names, so that the chain
is as whole as before. Nothing is changed: both are new objects, and the old ones may go a day
later, by pruning. Nobody waits for it: whoever prunes does it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from raftdb.archive import layout
from raftdb.archive.archive import Archive
from raftdb.archive.envelope import digest
from raftdb.archive.errors import ArchiveDamagedError
from raftdb.archive.parallel import each
from raftdb.archive.records import ArchiveEntry, Manifest, Merged, Segment, decode, encode
from raftdb.archive.writer import MARK_BYTES, newest_start

__all__ = ["MergedRanges", "Merger", "Range"]

RUN_BYTES = 4 << 20
"""Of log in one object, about: as much as an uploader's own segments have at most, since a restore
holds some of them in memory."""
RUN_SEGMENTS = 4_096
NEWEST_BASES = 1
"""The part of the chain that begins with the base before the newest one stays as it is: nodes and
restores of the newest moment read it."""
_RANGE = re.compile(r"([0-9]{12})-([0-9]{12})")


@dataclass(frozen=True, slots=True, order=True)
class Range:
    """Manifests, by sequence, that a record stands for."""

    first: int
    last: int
    name: str


class MergedRanges:
    """Of one epoch: which parts of its chain were made one."""

    def __init__(self, archive: Archive, epoch: int) -> None:
        self._archive = archive
        self._epoch = epoch
        self.ranges: list[Range] = []
        self._found: dict[str, Merged] = {}
        listed = archive.listing(layout.folder(epoch, "merged"))
        at = 0
        for one in sorted(filter(None, (_range_of(one.name) for one in listed))):
            # Two that prune at once may make ranges that overlap: the first counts.
            if one.first > at:
                self.ranges.append(one)
                at = one.last

    @property
    def last(self) -> int:
        """The highest manifest that is in a range; 0 without any."""
        return self.ranges[-1].last if self.ranges else 0

    def find(self, sequence: int) -> Range | None:
        """The range that holds a manifest."""
        low, high = 0, len(self.ranges)
        while low < high:
            middle = (low + high) // 2
            if self.ranges[middle].last < sequence:
                low = middle + 1
            else:
                high = middle
        if low < len(self.ranges) and self.ranges[low].first <= sequence:
            return self.ranges[low]
        return None

    def read(self, one: Range) -> tuple[Merged, Manifest]:
        """What stands for a range. Raises ArchiveDamagedError."""
        if one.name not in self._found:
            self._found[one.name] = self._archive.read(Merged, one.name)
        record = self._found[one.name]
        manifest = decode(Manifest, one.name, record.manifest)
        is_it = (record.epoch, record.first, record.last) == (self._epoch, one.first, one.last)
        if not is_it or manifest.sequence != one.last or manifest.kind != "segment":
            raise ArchiveDamagedError(one.name, "stands for other manifests than its name says")
        return record, manifest


def _range_of(name: str) -> Range | None:
    match = _RANGE.fullmatch(name.rpartition("/")[2])
    if match is None or int(match[1]) > int(match[2]):
        return None
    return Range(int(match[1]), int(match[2]), name)


@dataclass(slots=True)
class _Run:
    """Segments that follow each other, and become one."""

    manifests: list[Manifest] = field(default_factory=list)
    entries: list[ArchiveEntry] = field(default_factory=list)
    check: bytes = b""
    """Digest of the last manifest."""
    size: int = 0

    def takes(self, manifest: Manifest) -> bool:
        """Whether that segment may be added."""
        if not self.manifests:
            return True
        last = self.manifests[-1]
        return (
            manifest.first == last.last + 1
            and manifest.build == last.build
            and len(self.manifests) < RUN_SEGMENTS
            and self.size < RUN_BYTES
        )


class Merger:
    """One epoch's, once. Needs no right to delete."""

    def __init__(
        self, archive: Archive, epoch: int, history: str, randbytes: Callable[[int], bytes]
    ) -> None:
        self._archive = archive
        self._epoch = epoch
        self._history = history
        self._randbytes = randbytes
        self.segments = 0
        """Made one with others."""
        self.objects = 0
        """What they became."""

    def run(self, first: int, before_ms: int, now_ms: int, *, dry_run: bool) -> None:
        """Go through the chain from manifest `first` on, as far as it was made before `before_ms`;
        memory is that of one run. Raises ArchiveDamagedError, and has then merged what is before
        the damage; ArchiveUnavailableError."""
        ranges = MergedRanges(self._archive, self._epoch)
        start = max(first, ranges.last + 1)
        end = newest_start(self._archive, self._epoch, NEWEST_BASES)
        run = _Run()
        for manifest, check, entries in self._links(ranges, start, end, dry_run=dry_run):
            if manifest.created_ms > before_ms:
                break
            is_segment = manifest.kind == "segment"
            if not is_segment or not run.takes(manifest):
                self._end(run, now_ms, dry_run=dry_run)
                run = _Run()
            if is_segment:
                run.manifests.append(manifest)
                run.entries += entries
                run.check = check
                run.size += sum(len(one.data) + len(one.hashes) for one in entries)
        self._end(run, now_ms, dry_run=dry_run)

    def _links(
        self, ranges: MergedRanges, start: int, end: int, *, dry_run: bool
    ) -> Iterator[tuple[Manifest, bytes, tuple[ArchiveEntry, ...]]]:
        """Manifests in order, each verified against the one before, and segments' entries."""
        before = b""
        if (known := ranges.find(start - 1)) is not None:
            before = ranges.read(known)[0].check

        def fetch(sequence: int) -> tuple[Manifest, bytes, tuple[ArchiveEntry, ...]]:
            name = layout.manifest_name(self._epoch, sequence)
            data = self._archive.fetch(name)
            manifest = self._archive.parse(Manifest, name, data)
            entries: tuple[ArchiveEntry, ...] = ()
            if manifest.kind == "segment" and not dry_run:
                segment = self._archive.read(Segment, manifest.object, manifest.digest)
                entries = segment.entries
            return manifest, digest(data), entries

        for sequence, found in each(fetch, range(start, end + 1), workers=16, ahead=64):
            if isinstance(found, Exception):
                raise found
            manifest, check, entries = found
            name = layout.manifest_name(self._epoch, sequence)
            if manifest.sequence != sequence or manifest.history != self._history:
                raise ArchiveDamagedError(name, f"is manifest {manifest.sequence}: it was swapped")
            if before and manifest.previous != before:
                raise ArchiveDamagedError(name, "does not follow the manifest before it")
            indexes = [one.index for one in entries]
            if entries and indexes != list(range(manifest.first, manifest.last + 1)):
                raise ArchiveDamagedError(manifest.object, "does not hold the entries it should")
            before = check
            yield manifest, check, entries

    def _end(self, run: _Run, now_ms: int, *, dry_run: bool) -> None:
        """Make a run one."""
        if len(run.manifests) < 2:
            return
        self.segments += len(run.manifests)
        self.objects += 1
        if dry_run:
            return
        archive, first, last = self._archive, run.manifests[0], run.manifests[-1]
        segment = Segment(
            epoch=self._epoch,
            # Whoever finds it without its record knows where it begins.
            sequence=first.sequence,
            previous=first.previous,
            history=self._history,
            term=last.term,
            time_ms=last.time_ms,
            content=last.content,
            build=last.build,
            entries=tuple(run.entries),
        )
        mark = self._randbytes(MARK_BYTES)
        name = layout.segment_name(self._epoch, first.first, last.last, mark)
        data = archive.seal(segment, name)
        archive.put(name, data)
        archive.fetch(name, digest(data))
        manifest = replace(
            last,
            previous=first.previous,
            object=name,
            digest=digest(data),
            size=len(data),
            first=first.first,
            requests=sum(one.requests for one in run.manifests),
        )
        record = Merged(
            epoch=self._epoch,
            first=first.sequence,
            last=last.sequence,
            check=run.check,
            manifest=encode(manifest),
            merged_ms=now_ms,
        )
        name = layout.merged_name(self._epoch, first.sequence, last.sequence)
        # When it is there already, somebody merged the same at the same time: his counts.
        archive.store.put(name, archive.seal(record, name))
