"""Reading a chain: every manifest verified, everything that is missing or wrong named.

A chain begins at manifest 1, or where retention's record says, and goes on without gaps to the
highest manifest that a listing or a segment knows of. So an object that is gone leaves a hole that
is seen, at the end too: a segment without a manifest tells which one it was to have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain as chain_of

from raftdb.archive import layout
from raftdb.archive.archive import Archive
from raftdb.archive.envelope import digest
from raftdb.archive.errors import ArchiveDamagedError
from raftdb.archive.links import Link, Links
from raftdb.archive.merged import MergedRanges, Range
from raftdb.archive.parallel import each
from raftdb.archive.records import Claim, Manifest, Merged, Pruned, Segment
from raftdb.archive.store import Listed
from raftdb.archive.writer import NO_DIGEST, newest_start

__all__ = [
    "Chain",
    "Link",
    "Problem",
    "Timeline",
    "Totals",
    "load_chain",
    "load_newest",
    "load_timeline",
]


NEVER = 1 << 62
"""Where an epoch was left that goes on."""
MISSING_TOLD = 16
"""So many manifests that are missing in a row are named one by one."""
NEWEST_BASES = 3
"""The newest base may be uploaded and not be in the chain yet: so many are looked at."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it should be."""

    object: str
    what: str
    where: str
    """The destination."""
    harmless: bool = False
    """An upload that was cut short looks the same; nothing is lost by it."""

    def __str__(self) -> str:
        return f"{self.object}: {self.what} ({self.where})"


@dataclass(frozen=True, slots=True)
class Totals:
    """Of a chain's segments, where not all of them were read."""

    segments: int
    size: int


@dataclass(slots=True)
class Chain:
    """One epoch's."""

    archive: Archive
    claim: Claim
    links: Links = field(default_factory=Links)
    """By sequence."""
    problems: list[Problem] = field(default_factory=list)
    first: int = 1
    pruned: Pruned | None = None
    merged: MergedRanges | None = None
    """Which parts of it were made one; None: that was not looked at."""
    unreferenced: list[Listed] = field(default_factory=list)
    """Objects that no manifest names: uploads that lost a race or were cut short."""
    totals: Totals | None = None
    """None: `links` has them all."""

    @property
    def last(self) -> Link | None:
        """The newest link."""
        return self.links[max(self.links)] if self.links else None

    def of_kind(self, *kinds: str) -> list[Link]:
        """Links of these kinds, in order."""
        return list(self.links.of_kind(*kinds))

    def note(self, name: str, what: str, *, harmless: bool = False) -> None:
        """Remember a problem."""
        self.problems.append(Problem(name, what, self.archive.url, harmless))


def load_chain(
    archive: Archive,
    claim: Claim,
    progress: Callable[[int], None] | None = None,
    after: int = 0,
) -> Chain:
    """Read an epoch's chain, or what of it follows manifest `after`. Raises
    ArchiveUnavailableError; damage is in `problems`."""
    chain = Chain(archive, claim)
    load_pruned(chain)
    kept = dict(chain.pruned.kept) if chain.pruned is not None else {}
    first_kept = chain.first
    if after >= chain.first:
        chain.first, kept = after + 1, {}
    last = max(last_listed(archive, claim.epoch, chain.first - 1), chain.first - 1)
    chain.merged = MergedRanges(archive, claim.epoch)
    ranges = _load_merged(chain)
    missing: list[int] = []

    def fetch(sequence: int) -> tuple[Manifest, bytes]:
        name = layout.manifest_name(claim.epoch, sequence)
        data = archive.fetch(name, kept.get(sequence))
        return archive.parse(Manifest, name, data), digest(data)

    wanted = chain_of(sorted(kept), _between(ranges, chain.first, last))
    for done, (sequence, found) in enumerate(each(fetch, wanted, workers=16, ahead=64), start=1):
        name = layout.manifest_name(claim.epoch, sequence)
        if isinstance(found, ArchiveDamagedError):
            if found.missing:
                missing.append(sequence)
            else:
                chain.note(name, found.what)
        elif isinstance(found, Exception):
            raise found
        else:
            manifest, check = found
            chain.links[sequence] = Link(manifest, name, check)
        if progress is not None:
            progress(done)
    _note_missing(chain, missing)
    verify_links(chain, kept)
    _look_beyond(chain, partial=after >= first_kept)
    return chain


def last_listed(archive: Archive, epoch: int, after: int) -> int:
    """The highest manifest after that one that a listing shows; 0: none."""
    listed = archive.listing(layout.folder(epoch, "manifests"), layout.manifest_name(epoch, after))
    return max((number for one in listed if (number := layout.number_of(one.name))), default=0)


def _load_merged(chain: Chain) -> list[Range]:
    """Take in what stands for manifests; the ranges that are taken in."""
    assert chain.merged is not None
    ranges, taken = chain.merged, []
    wanted = [one for one in ranges.ranges if one.last >= chain.first]
    for one, found in each(ranges.read, wanted, workers=16, ahead=64):
        if isinstance(found, ArchiveDamagedError):
            chain.note(one.name, found.what)
        elif isinstance(found, Exception):
            raise found
        else:
            chain.links[one.last] = merged_link(one, *found)
            taken.append(one)
    return taken


def merged_link(one: Range, record: Merged, manifest: Manifest) -> Link:
    """What a record of merged segments is in a chain."""
    return Link(manifest, one.name, record.check, False, one.first, record.merged_ms)


def _between(ranges: Sequence[Range], first: int, last: int) -> Iterator[int]:
    """Sequences that are in none of the ranges."""
    at = first
    for one in ranges:
        yield from range(at, one.first)
        at = max(at, one.last + 1)
    yield from range(at, last + 1)


def _note_missing(chain: Chain, missing: Sequence[int]) -> None:
    """Name them; many in a row by the first of them."""
    epoch, url = chain.claim.epoch, chain.archive.url
    if missing and missing[0] == 1 and chain.pruned is None:
        what = f"a record of retention is missing in {url}, or the chain's beginning is"
        chain.note(layout.folder(epoch, "pruned"), what)
    place = 0
    while place < len(missing):
        end = place
        while end + 1 < len(missing) and missing[end + 1] == missing[end] + 1:
            end += 1
        if end - place < MISSING_TOLD:
            for sequence in missing[place : end + 1]:
                chain.note(layout.manifest_name(epoch, sequence), f"is missing in {url}")
        if end > place:
            record = layout.merged_name(epoch, missing[place], missing[end])
            what = f"are missing in {url}; or, if they were merged, {record} is"
            if end - place < MISSING_TOLD:
                what = f"may have been merged: then {record} is missing"
            else:
                what = f"and all up to {missing[end]} {what}"
            chain.note(layout.manifest_name(epoch, missing[place]), what)
        place = end + 1


def load_pruned(chain: Chain) -> None:
    """Where the chain begins since something was pruned, if it was."""
    archive, epoch = chain.archive, chain.claim.epoch
    found = archive.listing(layout.folder(epoch, "pruned"))
    if not found:
        return
    name = found[-1].name
    try:
        chain.pruned = archive.read(Pruned, name)
        chain.first = chain.pruned.first
    except ArchiveDamagedError as error:
        chain.note(name, error.what)
        number = layout.number_of(name)
        chain.first = number if number is not None else 1


def verify_links(chain: Chain, kept: dict[int, bytes]) -> None:
    """Each link names the one before, is where it says, and never of a lower term."""
    before: Link | None = None
    for sequence in sorted(chain.links):
        link = chain.links[sequence]
        if what := wrong_with(link, sequence, before, chain.claim):
            chain.note(link.name, what)
            if sequence not in kept:
                del chain.links[sequence]
                continue
        before = link


def wrong_with(link: Link, sequence: int, before: Link | None, claim: Claim) -> str:
    """What is wrong with a link that stands at `sequence`, after `before`; `` when nothing is."""
    manifest = link.manifest
    if (manifest.sequence, manifest.epoch) != (sequence, claim.epoch):
        return f"is manifest {manifest.sequence} of epoch {manifest.epoch}: it was swapped"
    if manifest.history != claim.history:
        return f"belongs to history {manifest.history}"
    if sequence == 1 and manifest.previous != NO_DIGEST:
        return "does not begin a chain"
    if before is not None and before.manifest.sequence == link.begins - 1:
        if manifest.previous != before.digest:
            return "does not follow the manifest before it: one of the two was replaced"
        if manifest.term < before.manifest.term:
            return f"is of term {manifest.term}, after term {before.manifest.term}"
    return ""


def _folder_after(epoch: int, kind: str, number: str) -> tuple[str, str]:
    folder = layout.folder(epoch, kind)
    return folder, folder + number if number else ""


def _look_beyond(chain: Chain, *, partial: bool) -> None:
    """Objects that no manifest names; a segment that follows the chain's end is taken into it."""
    archive, epoch = chain.archive, chain.claim.epoch
    named = {link.manifest.object for link in chain.links.values() if link.manifest.object}
    begin = chain.links.get(chain.first)
    known = "" if begin is None or not partial else f"{begin.manifest.archived:016d}"
    segments = [
        one
        for one in archive.listing(*_folder_after(epoch, "segments", known))
        if one.name not in named
    ]
    bases = [
        one
        for one in archive.listing(*_folder_after(epoch, "bases", known))
        if one.name not in named
    ]
    chain.unreferenced = segments + bases
    last = chain.last
    archived = last.manifest.archived if last is not None else 0
    end = last.manifest.sequence if last is not None else chain.first - 1
    holes = _holes(chain, end)
    for listed in segments:
        if not holes and (layout.number_of(listed.name) or 0) <= archived:
            continue
        try:
            segment = archive.read(Segment, listed.name)
        except ArchiveDamagedError as error:
            chain.note(listed.name, f"no manifest names it, and it {error.what}", harmless=True)
            continue
        _adopt(chain, listed, segment, end)
    _look_at_notes(chain, holes, end)


def _holes(chain: Chain, end: int) -> set[int]:
    """Sequences up to `end` for which nothing stands."""
    holes: set[int] = set()
    at = chain.first
    for sequence in sorted(chain.links):
        holes.update(range(at, chain.links[sequence].begins))
        at = max(at, sequence + 1)
    holes.update(range(at, end + 1))
    return holes


def _look_at_notes(chain: Chain, holes: set[int], end: int) -> None:
    """Manifests that name no segment stand in the archive twice: the second copy of one that is
    missing takes its place."""
    folder = layout.folder(chain.claim.epoch, "notes")
    behind_the_end = f"{folder}{end:012d}."
    for listed in chain.archive.listing(folder, "" if holes else behind_the_end):
        sequence = layout.number_of(listed.name) or 0
        if sequence in chain.links or (sequence not in holes and sequence <= end):
            continue
        name = layout.manifest_name(chain.claim.epoch, sequence)
        try:
            manifest = chain.archive.read(Manifest, listed.name)
        except ArchiveDamagedError as error:
            chain.note(listed.name, f"is the copy of {name}, and {error.what}", harmless=True)
            continue
        if _has_manifest(chain, name):
            continue
        before = chain.links.get(sequence - 1)
        first = sequence == 1 and manifest.previous == NO_DIGEST
        if not first and (before is None or before.digest != manifest.previous):
            if sequence > end:
                chain.note(name, f"is missing: {listed.name} is a copy of it")
            continue
        if sequence > end:
            what = f"is missing, or was not made yet; its copy {listed.name} is used"
            chain.note(name, what, harmless=True)
        chain.links[sequence] = Link(manifest, name, b"", adopted=True)


def _has_manifest(chain: Chain, name: str) -> bool:
    """Whether a sound manifest of that name is there by now: an uploader is at work."""
    try:
        chain.archive.read(Manifest, name)
    except ArchiveDamagedError:
        return False
    return True


def _adopt(chain: Chain, listed: Listed, segment: Segment, end: int) -> None:
    """Take in a segment whose manifest is missing or damaged, if it is certain where it goes."""
    sequence = segment.sequence
    name = layout.manifest_name(chain.claim.epoch, sequence)
    if sequence in chain.links or sequence < chain.first or _has_manifest(chain, name):
        return
    before = chain.links.get(sequence - 1)
    if before is None or before.digest != segment.previous:
        if sequence > end:
            chain.note(name, f"is missing: it named {listed.name}")
        return
    what = f"is missing, or the upload of {listed.name} was cut short"
    if sequence > end:
        chain.note(name, f"{what}; that segment is whole and used", harmless=True)
    entries = segment.entries
    manifest = Manifest(
        epoch=segment.epoch,
        sequence=sequence,
        previous=segment.previous,
        history=segment.history,
        term=segment.term,
        node="",
        created_ms=listed.modified_ms,
        kind="segment",
        object=listed.name,
        digest=digest(chain.archive.fetch(listed.name)),
        size=listed.size,
        first=entries[0].index,
        last=entries[-1].index,
        last_term=entries[-1].term,
        requests=sum(len(entry.hashes) // 16 for entry in entries),
        time_ms=segment.time_ms,
        content=segment.content,
        build=segment.build,
        archived=entries[-1].index,
        base=before.manifest.base,
    )
    # Its manifest's digest is not known: nothing can be chained to it.
    chain.links[sequence] = Link(manifest, name, b"", adopted=True)


@dataclass(slots=True)
class Timeline:
    """What one destination has of a history and of those it was forked from."""

    archive: Archive
    chains: list[Chain]
    """By epoch; only those that the newest one descends from."""
    left_at: int = NEVER
    """Where the newest of them was left, as another destination knows, which has the epoch after
    it; this one was not reached then."""

    @property
    def problems(self) -> list[Problem]:
        """Of all chains."""
        return [one for chain in self.chains for one in chain.problems]

    def links(self, *kinds: str) -> list[Link]:
        """Links of these kinds which belong to the newest epoch's past, in order."""
        return list(self.each_link(*kinds))

    def each_link(self, *kinds: str) -> Iterator[Link]:
        """The same, one in memory at a time."""
        for chain in self.chains:
            limit = self.limit_of(chain.claim.epoch)
            for link in chain.links.of_kind(*kinds):
                manifest = link.manifest
                begins = manifest.first if manifest.kind == "segment" else manifest.last
                if begins <= limit:
                    yield link

    @property
    def last(self) -> Link | None:
        """The newest link."""
        for chain in reversed(self.chains):
            if chain.last is not None:
                return chain.last
        return None

    def limit_of(self, epoch: int) -> int:
        """Up to which index an epoch's entries count: where the next one forks, or a later one,
        which may do so before."""
        return min(self.left_at, fork_of([chain.claim for chain in self.chains], epoch))


def load_newest(archive: Archive, claim: Claim) -> Chain | None:
    """What is needed for an epoch's newest moment, from its newest base on; None when that cannot
    be told, or anything is wrong with it. A chain grows by thousands of manifests a day."""
    for skip in range(NEWEST_BASES):
        start = newest_start(archive, claim.epoch, skip)
        if not start:
            return None
        chain = load_chain(archive, claim, after=start)
        last = chain.last
        if last is not None and last.manifest.base > start:
            return None if any(not one.harmless for one in chain.problems) else chain
    return None


Part = Callable[[Archive, Claim], Chain | None]
"""Reads of an epoch's chain what is needed, if that can be told."""


def line_of(archive: Archive, epoch: int | None = None) -> list[Claim]:
    """The newest epoch's claim (or that of `epoch`), and those it descends from, back to the first.
    Raises as `load_timeline`."""
    claims = archive.claims()
    if not claims:
        raise ArchiveDamagedError(layout.claim_name(1), f"is missing in {archive.url}")
    line: list[Claim] = []
    number = len(claims) if epoch is None else epoch
    while 1 <= number <= len(claims):
        claim = claims[number - 1]
        line.append(claim)
        if claim.parent >= number:
            raise ArchiveDamagedError(layout.claim_name(number), f"descends from {claim.parent}")
        number = claim.parent
    return line


def fork_of(line: Sequence[Claim], epoch: int) -> int:
    """Where an epoch's entries end to count for the newest of its line: at the lowest fork after
    it, since who restores twice may go further back the second time."""
    return min((one.fork_index for one in line if one.epoch > epoch), default=NEVER)


def load_timeline(
    archive: Archive,
    epoch: int | None = None,
    *,
    newest: bool = False,
    part: Part | None = None,
    every: Part | None = None,
) -> Timeline:
    """Read the newest epoch (or `epoch`) and those it descends from. With `newest` only what its
    newest moment needs, with `part` what that gives of the newest epoch, where that is whole, and
    with `every` what that gives of each.
    Raises ArchiveUnavailableError, and ArchiveDamagedError when a claim is missing or damaged."""
    line = line_of(archive, epoch)
    if every is not None:
        chains = [every(archive, claim) or load_chain(archive, claim) for claim in reversed(line)]
        return Timeline(archive, chains)
    part = load_newest if newest else part
    if part is not None and (chain := part(archive, line[0])) is not None:
        before = [Chain(archive, claim) for claim in reversed(line[1:])]
        return Timeline(archive, [*before, chain])
    return Timeline(archive, [load_chain(archive, claim) for claim in reversed(line)])
