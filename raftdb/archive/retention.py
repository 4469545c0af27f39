"""What an archive may lose: decided from its chains, carried out object by object.

Every moment of the last `point_in_time_days` stays: the newest base before that time, and all that
came after it. Of what is older, bases stay: the last one of each day, week and month, for as long
as each of the three is kept. A record of what goes is made before anything does, so that a chain
that begins late is known from one that lost its beginning.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime

from raftdb.archive import layout
from raftdb.archive.chain import Chain, Link, Timeline
from raftdb.archive.plan import Source, read_segment
from raftdb.archive.records import BaseRecord, Pruned
from raftdb.archive.store import Listed, PruneStore
from raftdb.base.errors import ConfigError

__all__ = ["PrunePlan", "Retention", "carry_out", "newest_ms", "plan_pruning"]

DAY_MS = 86_400_000
GRACE_MS = DAY_MS
"""An object that no manifest names may be an upload under way; after a day it is none. A base takes
longer than that where the rate is bounded: its packs are then followed by others within a day."""


@dataclass(frozen=True, slots=True)
class Retention:
    """For how long what is kept; 0: not at all."""

    point_in_time_days: int = 35
    daily_days: int = 90
    weekly_days: int = 365
    monthly_days: int = 1_826

    def __post_init__(self) -> None:
        if min(self.point_in_time_days, self.daily_days, self.weekly_days, self.monthly_days) < 0:
            raise ConfigError("a time to keep is negative", hint="give 0 or more days")


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What would go, in the order in which it goes."""

    records: tuple[Pruned, ...]
    """Made first."""
    doomed: tuple[str, ...]
    """Objects."""
    doomed_bytes: int
    kept_bases: int
    oldest_index: int
    """The oldest moment of the point-in-time window."""
    holds: tuple[str, ...]
    """Legal holds: while there is one nothing goes."""


def plan_pruning(timeline: Timeline, retention: Retention, now_ms: int) -> PrunePlan:
    """Decide. Raises ConfigError when the archive is damaged: what is left might be needed."""
    damage = [one for one in timeline.problems if not one.harmless]
    if damage:
        raise ConfigError(
            f"the archive is damaged, so nothing is pruned: {damage[0]}",
            code="archive_damaged",
            hint="see `raftdb archive verify`; mend it, or begin another destination",
        )
    archive = timeline.archive
    holds = tuple(one.name.rpartition("/")[2] for one in archive.listing(layout.HOLDS))
    bases = timeline.links("base")
    if not bases:
        return PrunePlan((), (), 0, 0, 0, holds)
    cutoff_ms = now_ms - retention.point_in_time_days * DAY_MS
    # Of what an earlier pruning left alone, without the log behind it, no window begins.
    begin = {chain.claim.epoch: chain.first for chain in timeline.chains}
    whole = [one for one in bases if one.manifest.sequence >= begin[one.manifest.epoch]] or bases
    before = [one for one in whole if _made_ms(one) <= cutoff_ms]
    # A base that has the moment of the cut-off or an earlier one: all after it can be reached.
    first = before[-1] if before else whole[0]
    kept = _older_bases(bases, first, retention, now_ms)
    records: list[Pruned] = []
    begins: dict[int, Pruned] = {}
    """By epoch: where its chain begins from now on."""
    gone: set[tuple[int, int]] = set()
    """Epochs and sequences."""
    for chain in timeline.chains:
        record = _record(chain, first, kept, now_ms)
        if record is None:
            continue
        begins[record.epoch] = record
        names = {sequence for sequence, _digest in record.kept}
        gone |= {
            (record.epoch, sequence)
            for sequence in chain.links
            if sequence < record.first and sequence not in names
        }
        former = chain.pruned.kept if chain.pruned is not None else ()
        if record.first > chain.first or record.kept != former:
            records.append(record)
    doomed = _doomed(timeline, gone, begins, now_ms)
    for chain in timeline.chains:
        doomed |= _former_records(chain, {one.epoch for one in records})
    return PrunePlan(
        records=tuple(records),
        doomed=tuple(doomed),
        doomed_bytes=sum(doomed.values()),
        kept_bases=sum((one.manifest.epoch, one.manifest.sequence) not in gone for one in bases),
        oldest_index=first.manifest.last,
        holds=holds,
    )


def _older_bases(
    bases: Sequence[Link], first: Link, retention: Retention, now_ms: int
) -> set[tuple[int, int]]:
    """Of those before `first`, the last of each day, week and month, while that is kept."""
    kept: set[tuple[int, int]] = set()
    for days, slot in (
        (retention.daily_days, "%Y-%m-%d"),
        (retention.weekly_days, "%G-%V"),
        (retention.monthly_days, "%Y-%m"),
    ):
        last: dict[str, Link] = {}
        for one in bases:
            created_ms = _made_ms(one)
            if one is first:
                break
            if created_ms >= now_ms - days * DAY_MS:
                moment = datetime.fromtimestamp(created_ms / 1000, UTC)
                last[moment.strftime(slot)] = one
        kept |= {_place(one) for one in last.values()}
    return kept


def _place(base: Link) -> tuple[int, int]:
    return base.manifest.epoch, base.manifest.sequence


def _made_ms(base: Link) -> int:
    """When it was made: by its node's clock, but not before what was logged up to it, whose time
    never runs back. A clock that is years behind would make it seem older than all the others."""
    return max(base.manifest.created_ms, base.manifest.time_ms)


def _record(chain: Chain, first: Link, kept: set[tuple[int, int]], now_ms: int) -> Pruned | None:
    """Where this chain begins from now on; None: where it did."""
    epoch = chain.claim.epoch
    if epoch > first.manifest.epoch or not chain.links:
        return None
    begins = _needed_from(chain, first)
    if epoch < first.manifest.epoch:
        begins = max(chain.links) + 1
    stay = tuple(
        (sequence, chain.links[sequence].digest)
        for sequence in sorted(chain.links)
        if sequence < begins and (epoch, sequence) in kept
    )
    return Pruned(epoch, max(begins, chain.first), stay, now_ms)


def _needed_from(chain: Chain, base: Link) -> int:
    """The first manifest that replaying from this base needs: while it was uploaded the log went
    on, so segments that follow its moment stand before its manifest."""
    return min(
        [base.manifest.sequence]
        + [
            link.begins
            for link in chain.links.of_kind("segment")
            if link.manifest.last > base.manifest.last
        ]
    )


def _doomed(
    timeline: Timeline, gone: Set[tuple[int, int]], begins: Mapping[int, Pruned], now_ms: int
) -> dict[str, int]:
    """Names and sizes: objects that only what goes refers to, then its manifests."""
    archive = timeline.archive
    named: set[str] = set()
    needed: set[str] = set()
    for chain in timeline.chains:
        for sequence, link in chain.links.items():
            names = named if (chain.claim.epoch, sequence) in gone else needed
            names |= {link.manifest.object, link.manifest.copy}
            if link.manifest.kind == "base":
                record = archive.read(BaseRecord, link.manifest.object, link.manifest.digest)
                names |= {pack.name for pack in record.packs}
    doomed: dict[str, int] = {}
    since_ms = min(now_ms, newest_ms(timeline)) - GRACE_MS
    for chain in timeline.chains:
        epoch = chain.claim.epoch
        merged = _Merged(chain, now_ms)
        for kind in ("segments", "bases", "packs", "notes"):
            listed = archive.listing(layout.folder(epoch, kind))
            loose = [one for one in listed if one.name not in needed and one.name not in named]
            old_ms = _under_way_since(loose, since_ms) if kind == "packs" else since_ms
            for one in listed:
                old = one.modified_ms < old_ms
                if kind == "segments" and merged.holds_for_now(one.name):
                    continue
                if one.name not in needed and (one.name in named or old):
                    doomed[one.name] = one.size
        begin = begins.get(epoch)
        first = begin.first if begin is not None else 0
        kept = {sequence for sequence, _digest in begin.kept} if begin is not None else set()
        for one in archive.listing(layout.folder(epoch, "merged")):
            if (layout.number_of(one.name) or 0) < first:
                doomed[one.name] = one.size
        for one in archive.listing(layout.folder(epoch, "manifests")):
            sequence = layout.number_of(one.name) or 0
            if (sequence < first and sequence not in kept) or merged.settled(sequence):
                doomed[one.name] = one.size
    return doomed


def newest_ms(timeline: Timeline) -> int:
    """The store's time when the newest object was made, among those that a living archive makes
    all the time. Ages are told from this: the clock here may be days ahead of the store's."""
    archive, epoch = timeline.archive, timeline.chains[-1].claim.epoch
    folders = [layout.folder(epoch, kind) for kind in ("segments", "packs", "notes")]
    listings = (archive.listing(folder) for folder in (layout.EPOCHS, *folders))
    return max((one.modified_ms for listed in listings for one in listed), default=0)


def _under_way_since(packs: Sequence[Listed], since_ms: int) -> int:
    """Since when packs that no manifest names may belong to a base under way: before `since_ms`
    where one followed the other within `GRACE_MS` up to then."""
    for modified_ms in sorted((one.modified_ms for one in packs), reverse=True):
        if modified_ms < since_ms:
            break
        since_ms = min(since_ms, modified_ms - GRACE_MS)
    return since_ms


class _Merged:
    """What of a chain was made one, and what may go for that."""

    def __init__(self, chain: Chain, now_ms: int) -> None:
        self._chain = chain
        self._since_ms = now_ms - GRACE_MS
        young = sorted(
            (link.manifest.first, link.manifest.last)
            for link in chain.links.of_kind("segment")
            if link.merged_from and link.merged_ms > self._since_ms
        )
        self._young_first = [first for first, _last in young]
        self._young_last = [last for _first, last in young]
        self._sound: dict[str, bool] = {}

    def holds_for_now(self, segment: str) -> bool:
        """Whether a restore that began before the merging may still read it."""
        first = layout.number_of(segment) or 0
        place = bisect_right(self._young_first, first) - 1
        return place >= 0 and first <= self._young_last[place]

    def settled(self, sequence: int) -> bool:
        """Whether that manifest is stood for since a day, by what was read back whole. Raises
        ArchiveDamagedError when it is not whole."""
        assert self._chain.merged is not None
        one = self._chain.merged.find(sequence)
        link = None if one is None else self._chain.links.get(one.last)
        if link is None or not link.merged_from or link.merged_ms > self._since_ms:
            return False
        if link.name not in self._sound:
            read_segment(Source(self._chain.archive, link))
            self._sound[link.name] = True
        return True


def _former_records(chain: Chain, anew: set[int]) -> dict[str, int]:
    """Retention's own records: the last one counts, and nobody would miss the others."""
    epoch = chain.claim.epoch
    found = chain.archive.listing(layout.folder(epoch, "pruned"))
    return {one.name: one.size for one in (found if epoch in anew else found[:-1])}


def carry_out(timeline: Timeline, plan: PrunePlan, store: PruneStore) -> None:
    """Do it. Raises ConfigError while there is a legal hold, ArchiveUnavailableError."""
    archive = timeline.archive
    holds = [one.name for one in archive.listing(layout.HOLDS)]
    if holds:
        raise ConfigError(
            f"a legal hold is on {archive.url}: {holds[0].rpartition('/')[2]}",
            code="legal_hold",
            hint="nothing is pruned until `raftdb archive release` takes it off",
        )
    for record in plan.records:
        # A later record of the same place takes the former one's: names are made once.
        name = layout.pruned_name(record.epoch, record.first, record.pruned_ms)
        archive.put(name, archive.seal(record, name))
    for name in plan.doomed:
        store.delete(name)
