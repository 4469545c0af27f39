"""Which moment is meant, and what has to be fetched to get there: decided before anything is done.

Several destinations count as one: an entry may come from any segment that holds it, a base from any
destination. What turns out to be damaged is left out, and the way is looked for again.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from raftdb.archive.archive import Archive
from raftdb.archive.chain import Link, Problem, Timeline
from raftdb.archive.errors import ArchiveDamagedError, NotRestorableError
from raftdb.archive.records import ArchiveEntry, Segment
from raftdb.base.startup import time_text

__all__ = ["Plan", "Point", "Source", "Sources"]


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """A moment: all of entry `index`, and `position` requests of the next one."""

    index: int
    position: int = 0

    def __str__(self) -> str:
        return f"{self.index}.{self.position}" if self.position else str(self.index)


@dataclass(frozen=True, slots=True)
class Source:
    """A link and the archive it is in."""

    archive: Archive
    link: Link
    limit: int = 1 << 62
    """Entries beyond this index belong to another fork."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a restore will do."""

    target: Point
    base: Source
    segments: tuple[Source, ...]
    fetch_bytes: int
    requests: int
    last_index: int
    """The newest entry in the archive: what is between is left out on purpose."""
    last_time_ms: int

    @property
    def base_index(self) -> int:
        """Where replay begins."""
        return self.base.link.manifest.last


@dataclass(slots=True)
class Sources:
    """Everything that the destinations hold between them."""

    timelines: Sequence[Timeline]
    damaged: list[Problem] = field(default_factory=list)
    """Objects found bad while fetching."""
    _bad: set[tuple[str, str]] = field(default_factory=set)

    @property
    def problems(self) -> list[Problem]:
        """What reading the chains, and fetching so far, has found."""
        return [one for line in self.timelines for one in line.problems] + self.damaged

    def reject(self, source: Source, error: ArchiveDamagedError) -> None:
        """Use this object no more."""
        self._bad.add((source.archive.url, source.link.manifest.object))
        self.damaged.append(Problem(error.name, error.what, source.archive.url))

    def _links(self, *kinds: str) -> Iterator[Source]:
        for line in self.timelines:
            yield from self._of_line(line, *kinds)

    def _of_line(self, line: Timeline, *kinds: str) -> Iterator[Source]:
        for link in line.each_link(*kinds):
            if (line.archive.url, link.manifest.object) not in self._bad:
                yield Source(line.archive, link, line.limit_of(link.manifest.epoch))

    def last(self) -> Point:
        """The newest entry that any destination has."""
        last = max((_reach(one) for one in self._links("segment", "base")), default=None)
        if last is None:
            raise NotRestorableError(
                "the archive holds no base and no log yet", hint="see `raftdb archive status`"
            )
        return Point(last)

    def way(self, start: int, last: int) -> list[Source] | None:
        """Segments that hold the entries from `start` to `last`; None when some are missing."""
        ordered = sorted(self._links("segment"), key=_first)
        chosen: list[Source] = []
        at = start
        place = 0
        best: Source | None = None
        while at <= last:
            while place < len(ordered) and ordered[place].link.manifest.first <= at:
                one = ordered[place]
                if best is None or _reach(one) > _reach(best):
                    best = one
                place += 1
            if best is None or _reach(best) < at:
                return None
            chosen.append(best)
            at = _reach(best) + 1
        return chosen

    def plan(self, target: Point) -> Plan:
        """The way to a moment. Raises NotRestorableError, and ArchiveDamagedError when only damage
        stands in between."""
        last = self.last()
        needed = target.index + (1 if target.position else 0)
        if needed > last.index and self.damaged:
            raise self._no_way(target, [])
        if needed > last.index:
            raise NotRestorableError(
                f"the archive ends at entry {last.index}, and {target} was asked for",
                hint="choose an earlier moment, or add the destination that has more",
            )
        bases = [one for one in self._links("base") if one.link.manifest.last <= target.index]
        bases.sort(key=lambda one: -one.link.manifest.last)
        for base in bases:
            segments = self.way(base.link.manifest.last + 1, needed)
            if segments is not None:
                manifest = base.link.manifest
                fetched = sum(one.link.manifest.size for one in segments)
                times = [link.manifest.time_ms for line in self.timelines if (link := line.last)]
                return Plan(
                    target=target,
                    base=base,
                    segments=tuple(segments),
                    fetch_bytes=fetched + manifest.size + manifest.packs_bytes,
                    requests=sum(one.link.manifest.requests for one in segments),
                    last_index=last.index,
                    last_time_ms=max(times, default=0),
                )
        raise self._no_way(target, bases)

    def _no_way(self, target: Point, bases: list[Source]) -> Exception:
        bad = [one for one in self.problems if not one.harmless]
        gaps = [one.link.manifest for one in self._links("gap")]
        for gap in gaps:
            if gap.first <= target.index <= gap.last:
                return NotRestorableError(
                    f"entries {gap.first} to {gap.last} were never archived: {gap.note}",
                    hint=f"the moments before {gap.first} and from the next base on are there",
                )
        if bad:
            return ArchiveDamagedError(
                bad[0].object,
                f"{bad[0].what}; without it entry {target.index} cannot be reached "
                f"({len(bad)} problems in all)",
            )
        oldest = min((one.link.manifest.last for one in self._links("base")), default=None)
        if not bases:
            return NotRestorableError(
                f"entry {target.index} is before the oldest base, which is of entry {oldest}",
                hint="the archive began with that base, or retention took what was before: see "
                "`raftdb archive list`",
            )
        return NotRestorableError(
            f"the log between entry {bases[0].link.manifest.last} and {target.index} is not kept",
            hint="older moments are kept as bases only: see `raftdb archive list`",
        )

    # ---- moments by other names

    def find_mark(self, name: str) -> Point:
        """The moment of a named mark, the newest of that name."""
        found = [
            Point(one.link.manifest.last, one.link.manifest.position)
            for one in self._links("mark")
            if one.link.manifest.note == name
        ]
        if not found:
            names = sorted({one.link.manifest.note for one in self._links("mark")})
            raise NotRestorableError(
                f"there is no mark {name!r}", hint=f"there are: {', '.join(names) or 'none'}"
            )
        return max(found)

    def at_time(self, time_ms: int, times: Callable[[ArchiveEntry], Sequence[int]]) -> Point:
        """After the last request whose logged time is not later. `times` gives those of an entry's
        requests, as the leader stamped them; logged time never runs backwards."""
        segments = sorted(self._links("segment"), key=_first)
        bases = [
            one.link.manifest for one in self._links("base") if one.link.manifest.time_ms <= time_ms
        ]
        point = max((Point(one.last) for one in bases), default=None)
        for one in segments:
            manifest = one.link.manifest
            if manifest.time_ms <= time_ms:
                found = Point(min(manifest.last, one.limit))
                point = found if point is None else max(point, found)
        if point is None:
            raise NotRestorableError(
                f"the archive begins after {time_text(time_ms)}", hint="see `raftdb archive list`"
            )
        for entry in self.entries(point.index + 1, self.last().index):
            stamps = times(entry)
            for position, stamp in enumerate(stamps):
                if stamp > time_ms:
                    return Point(entry.index - 1, position) if position else point
            point = Point(entry.index)
        return point

    # ---- entries

    def entries(self, first: int, last: int) -> Iterator[ArchiveEntry]:
        """Entries in order, one segment in memory at a time; another destination's where one is
        damaged. Raises ArchiveDamagedError where none has them."""
        at = first
        # In each line they are in order, and there may be very many.
        lines = [self._of_line(line, "segment") for line in self.timelines]
        ordered = heapq.merge(*lines, key=_first)
        following = next(ordered, None)
        candidates: list[Source] = []
        while at <= last:
            while following is not None and _first(following) <= at:
                if _reach(following) >= at:
                    candidates.append(following)
                following = next(ordered, None)
            candidates = [one for one in candidates if _reach(one) >= at]
            if not candidates:
                raise self._no_way(Point(at), [])
            source = max(candidates, key=_reach)
            try:
                found = read_segment(source)
            except ArchiveDamagedError as error:
                self.reject(source, error)
                candidates.remove(source)
                continue
            for entry in found:
                if at <= entry.index <= last:
                    yield entry
                    at = entry.index + 1


def read_segment(source: Source) -> list[ArchiveEntry]:
    """A segment's entries, verified, up to where its fork ends. Raises ArchiveDamagedError."""
    manifest = source.link.manifest
    segment = source.archive.read(Segment, manifest.object, manifest.digest)
    indexes = [entry.index for entry in segment.entries]
    if indexes != list(range(manifest.first, manifest.last + 1)):
        raise ArchiveDamagedError(
            manifest.object, f"does not hold entries {manifest.first} to {manifest.last}"
        )
    return [entry for entry in segment.entries if entry.index <= source.limit]


def _first(source: Source) -> int:
    return source.link.manifest.first


def _reach(source: Source) -> int:
    return min(source.link.manifest.last, source.limit)
