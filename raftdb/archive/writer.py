"""Adds to an archive's chain: segments, bases, gaps, marks. On one lane, one call at a time.

Every addition is an object under a name of its own (a segment, or a second copy of the manifest),
and then the next manifest, made by a conditional put. Whoever loses that race has done no harm: he
reads what the other one added (`follow`), and goes on from there. So any number of uploaders may
meet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from raftdb.archive import layout
from raftdb.archive.archive import Archive
from raftdb.archive.envelope import DIGEST_BYTES, digest
from raftdb.archive.errors import ChainMovedError, SupersededError
from raftdb.archive.records import ArchiveEntry, BaseRecord, Claim, Manifest, Segment

__all__ = ["ChainWriter", "Tail", "newest_start", "replay_s"]

NO_DIGEST = bytes(DIGEST_BYTES)
MARK_BYTES = 6
REPLAY_RATE = 10_000
"""Requests per second, of one row each, on a slow machine; until a restore on trial tells."""


def replay_s(manifest: Manifest) -> float:
    """How long replaying the log from the newest base up to that manifest would take, about."""
    return manifest.since_requests / (manifest.replay_rate or REPLAY_RATE)


@dataclass(frozen=True, slots=True)
class Tail:
    """The chain's end, as last seen."""

    epoch: int
    sequence: int
    digest: bytes
    last: Manifest | None
    """The last manifest; None while there is none."""

    @property
    def archived(self) -> int:
        """Entries up to here are archived."""
        return 0 if self.last is None else self.last.archived

    @property
    def replay_s(self) -> float:
        """How long replaying the log since the newest base would take, about."""
        return 0.0 if self.last is None else replay_s(self.last)

    @property
    def has_base(self) -> bool:
        """Whether a restore has something to begin with; not after a gap."""
        return self.last is not None and self.last.base > 0


class ChainWriter:
    """One history's, at one destination."""

    def __init__(
        self,
        archive: Archive,
        *,
        history: str,
        node: str,
        wall_ms: Callable[[], int],
        randbytes: Callable[[int], bytes],
        build: bytes,
    ) -> None:
        self._archive = archive
        self._history = history
        self._node = node
        self._wall_ms = wall_ms
        self._randbytes = randbytes
        self._build = build
        self._epoch = 0

    @property
    def archive(self) -> Archive:
        """Where it writes."""
        return self._archive

    # ---- where the chain ends

    def begin(self) -> Tail:
        """Find this history's epoch (or claim the first), and the end of its chain. Raises
        SupersededError when a later epoch was claimed by another history."""
        claims = self._archive.claims()
        if not claims:
            first = Claim(1, self._history, 0, 0, 0, "first", self._wall_ms(), self._node)
            self._archive.make_claim(first)
            claims = self._archive.claims()
        mine = [one for one in claims if one.history == self._history]
        if claims[-1].history != self._history:
            raise _superseded(claims[-1], self._history, bool(mine))
        self._epoch = claims[-1].epoch
        sequences = self._sequences(newest_start(self._archive, self._epoch))
        sequences = sequences or self._sequences(0)
        if not sequences:
            return Tail(self._epoch, 0, NO_DIGEST, None)
        return self.follow(self._tail_at(max(sequences)))

    def _sequences(self, after: int) -> list[int]:
        listed = self._archive.listing(
            layout.folder(self._epoch, "manifests"), layout.manifest_name(self._epoch, after)
        )
        return [number for one in listed if (number := layout.number_of(one.name))]

    def follow(self, tail: Tail) -> Tail:
        """Read what was added after `tail`, by whomever."""
        while True:
            name = layout.manifest_name(tail.epoch, tail.sequence + 1)
            data = self._archive.store.get(name)
            if data is None:
                return tail
            manifest = self._archive.parse(Manifest, name, data)
            tail = Tail(tail.epoch, manifest.sequence, digest(data), manifest)

    def check_epoch(self) -> None:
        """Raises SupersededError when a later epoch was claimed."""
        claim = self._archive.claim(self._epoch + 1)
        if claim is not None:
            raise _superseded(claim, self._history, True)

    def _tail_at(self, sequence: int) -> Tail:
        name = layout.manifest_name(self._epoch, sequence)
        data = self._archive.fetch(name)
        manifest = self._archive.parse(Manifest, name, data)
        return Tail(self._epoch, sequence, digest(data), manifest)

    # ---- what is added

    def segment(self, tail: Tail, term: int, entries: Sequence[ArchiveEntry], time_ms: int) -> Tail:
        """Add entries, which follow what is archived. Raises ChainMovedError."""
        first, last = entries[0], entries[-1]
        before = tail.last
        assert before is None or before.kind == "gap" or first.index == before.archived + 1
        content = next((e.hashes[-16:] for e in reversed(entries) if e.hashes), b"")
        time_ms = max(time_ms, before.time_ms if before is not None else 0)
        segment = Segment(
            epoch=tail.epoch,
            sequence=tail.sequence + 1,
            previous=tail.digest,
            history=self._history,
            term=term,
            time_ms=time_ms,
            content=content,
            build=self._build,
            entries=tuple(entries),
        )
        name = layout.segment_name(tail.epoch, first.index, last.index, self._randbytes(MARK_BYTES))
        data = self._put(name, self._archive.seal(segment, name))
        requests = sum(len(entry.hashes) // 16 for entry in entries)
        return self._append(
            tail,
            term,
            kind="segment",
            object=name,
            digest=digest(data),
            size=len(data),
            first=first.index,
            last=last.index,
            last_term=last.term,
            requests=requests,
            time_ms=time_ms,
            content=content,
            build=self._build,
            archived=last.index,
            since_bytes=(before.since_bytes if before is not None else 0) + len(data),
            since_requests=(before.since_requests if before is not None else 0) + requests,
        )

    def base(self, tail: Tail, term: int, name: str, data: bytes, record: BaseRecord) -> Tail:
        """Add a base copy whose packs and description are there already."""
        return self._append(
            tail,
            term,
            kind="base",
            object=name,
            digest=digest(data),
            size=len(data),
            last=record.index,
            last_term=record.term,
            time_ms=max(record.time_ms, tail.last.time_ms if tail.last is not None else 0),
            content=record.content,
            build=self._build,
            note=str(record.fingerprint.get("sqlite_version", "")),
            total_bytes=record.size_bytes,
            packs_bytes=sum(pack.size for pack in record.packs),
            archived=max(tail.archived, record.index),
            base=tail.sequence + 1,
            base_ms=self._wall_ms(),
            since_bytes=0,
            since_requests=0,
        )

    def gap(self, tail: Tail, term: int, last: int, reason: str) -> Tail:
        """Name entries, up to `last`, that can't be archived any more (rule A7)."""
        first = tail.archived + 1
        return self._append(
            tail, term, kind="gap", first=first, last=last, note=reason, archived=last, base=0
        )

    def mark(self, tail: Tail, term: int, index: int, position: int, name: str) -> Tail:
        """Give a moment a name."""
        return self._append(tail, term, kind="mark", last=index, position=position, note=name)

    def verified(
        self, tail: Tail, index: int, content: bytes, note: str, replay_rate: int = 0
    ) -> Tail:
        """Note that a restore to `index` was done and gave the recorded hash. `replay_rate`: its
        requests per second; 0: too few to tell, what was known before stays."""
        if not replay_rate and tail.last is not None:
            replay_rate = tail.last.replay_rate
        term = tail.last.term if tail.last is not None else 0
        return self._append(
            tail,
            term,
            kind="verified",
            last=index,
            content=content,
            note=note,
            verified_ms=self._wall_ms(),
            replay_rate=replay_rate,
        )

    def put_base(self, record: BaseRecord, sequence: int = 0) -> tuple[str, bytes]:
        """Make the description of a base: its name and bytes. `sequence`: where the chain ended
        when it was begun, or before."""
        mark = self._randbytes(MARK_BYTES)
        name = layout.base_name(record.epoch, record.index, sequence, mark)
        return name, self._put(name, self._archive.seal(record, name))

    def _put(self, name: str, data: bytes) -> bytes:
        if not self._archive.put(name, data):
            raise ChainMovedError(f"{name} is taken", hint="try again under another name")
        return data

    def _append(self, tail: Tail, term: int, **changes: Any) -> Tail:
        before = tail.last
        if before is not None and before.term > term:
            raise ChainMovedError(
                f"node {before.node} of term {before.term} uploads, this node is in term {term}"
            )
        kept = Manifest(
            epoch=tail.epoch,
            sequence=tail.sequence + 1,
            previous=tail.digest,
            history=self._history,
            term=term,
            node=self._node,
            created_ms=self._wall_ms(),
            kind=str(changes["kind"]),
            time_ms=before.time_ms if before is not None else 0,
            archived=tail.archived,
            base=before.base if before is not None else 0,
            base_ms=before.base_ms if before is not None else 0,
            verified_ms=before.verified_ms if before is not None else 0,
            replay_rate=before.replay_rate if before is not None else 0,
            since_bytes=before.since_bytes if before is not None else 0,
            since_requests=before.since_requests if before is not None else 0,
            noted=_noted(before),
        )
        manifest = replace(kept, **changes)
        if manifest.kind != "segment":
            # A segment tells which manifest is to name it. These have nobody else who would miss
            # them at the chain's end.
            mark = self._randbytes(MARK_BYTES)
            manifest = replace(manifest, copy=layout.note_name(tail.epoch, tail.sequence + 1, mark))
            self._put(manifest.copy, self._archive.seal(manifest, manifest.copy))
        name = layout.manifest_name(tail.epoch, manifest.sequence)
        data = self._archive.seal(manifest, name)
        if not self._archive.put(name, data):
            raise ChainMovedError(f"manifest {manifest.sequence} was added by another node")
        return Tail(tail.epoch, manifest.sequence, digest(data), manifest)


def _noted(before: Manifest | None) -> int:
    """What the manifest after `before` says is the newest one that is no segment's."""
    if before is None:
        return 0
    return before.noted if before.kind == "segment" else before.sequence


def newest_start(archive: Archive, epoch: int, skip: int = 0) -> int:
    """A sequence before that of the newest base's manifest; `skip`: of an older base. 0 when there
    is none."""
    listed = archive.listing(layout.folder(epoch, "bases"))
    sequences = [layout.base_sequence(one.name) for one in listed]
    return sequences[-1 - skip] if skip < len(sequences) else 0


def _superseded(claim: Claim, history: str, known: bool) -> SupersededError:
    if not known:
        return SupersededError(
            f"the archive follows history {claim.history}, and this cluster's is {history}",
            code="archive_of_another",
            hint="a cluster that was cloned or founded anew needs a destination of its own, and "
            "one that was restored or recovered while this was out of reach a new prefix there",
        )
    return SupersededError(
        f"epoch {claim.epoch} of the archive was claimed by {claim.claimed_by} with history "
        f"{claim.history}: this cluster was restored elsewhere as of entry {claim.fork_index}, "
        "and what it does here counts no more",
        hint="stop these nodes; what they acknowledged after that entry is in their journals",
    )
