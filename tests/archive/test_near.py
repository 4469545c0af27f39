"""A moment of the past is planned from what is near it: as the whole chain would have it."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from raftdb.archive import Archive, ChainWriter, Keyring, Near, Sealer, Sources, Tail, layout
from raftdb.archive.chain import load_timeline
from raftdb.archive.near import load_near
from raftdb.archive.plan import Point
from raftdb.archive.records import ArchiveEntry, BaseRecord
from raftdb.archive.store import Listed

SEGMENTS = 400
BASE_EVERY = 50
LATE = 7
"""Segments that are added between the beginning of a base and its manifest."""
TIME_STEP_MS = 1_000


class CountingStore:
    """Objects in memory, and how many were read."""

    url = "memory:"

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.gets = 0

    def put(self, name: str, data: bytes) -> bool:
        return self.objects.setdefault(name, data) is data

    def get(self, name: str) -> bytes | None:
        self.gets += 1
        return self.objects.get(name)

    def listing(self, prefix: str, after: str = "") -> list[Listed]:
        names = sorted(one for one in self.objects if one.startswith(prefix) and one > after)
        return [Listed(one, len(self.objects[one]), 0) for one in names]


def entries(first: int, count: int) -> list[ArchiveEntry]:
    return [ArchiveEntry(index, 1, b"data", b"h" * 16) for index in range(first, first + count)]


def base_record(index: int) -> BaseRecord:
    return BaseRecord(
        epoch=1,
        history="a" * 32,
        index=index,
        term=1,
        time_ms=0,
        content=b"c" * 16,
        size_bytes=0,
        file_digest=bytes(32),
        fingerprint={},
        chunk_bytes=65_536,
        packs=(),
        chunks=b"",
    )


@pytest.fixture(scope="module")
def archive() -> Archive:
    """400 segments, a base after each fiftieth, and a mark at the end."""
    drawn = random.Random(1)
    store = CountingStore()
    found = Archive.open_or_create(store, Sealer(Keyring({}), drawn.randbytes), "c" * 32, 0)
    writer = ChainWriter(
        found, history="a" * 32, node="n1", wall_ms=lambda: 0, randbytes=drawn.randbytes, build=b""
    )
    tail: Tail = writer.begin()
    name, data = writer.put_base(base_record(1), 0)
    tail = writer.base(tail, 1, name, data, base_record(1))
    begun: tuple[int, int] | None = None
    for number in range(SEGMENTS):
        if number % BASE_EVERY == BASE_EVERY - LATE:
            begun = tail.archived, tail.sequence
        if number % BASE_EVERY == 0 and begun is not None:
            record = base_record(begun[0])
            name, data = writer.put_base(record, begun[1])
            tail = writer.base(tail, 1, name, data, record)
        several = entries(tail.archived + 1, drawn.randint(1, 3))
        tail = writer.segment(tail, 1, several, (number + 1) * TIME_STEP_MS)
    writer.mark(tail, 1, tail.archived, 0, "the end")
    return found


def near(archive: Archive, wanted: Near) -> tuple[Sources, int]:
    """What was read for it, and how many objects."""
    store = archive.store
    assert isinstance(store, CountingStore)
    before = store.gets
    line = load_timeline(archive, part=lambda one, claim: load_near(one, claim, wanted))
    return Sources([line]), store.gets - before


def test_every_moment_has_the_plan_that_the_whole_chain_gives(archive: Archive) -> None:
    whole = Sources([load_timeline(archive)])
    last = whole.last().index
    most = same = 0
    for index in range(2, last + 1, 3):
        found, reads = near(archive, Near(index=index))
        one, other = found.plan(Point(index)), whole.plan(Point(index))
        most = max(most, reads)
        assert one.last_index == last
        place = max([s.link.manifest.sequence for s in one.segments], default=0)
        if other.base.link.manifest.sequence > place > 0:
            # A base of an earlier entry that was added later: one more is replayed from.
            assert len(one.segments) <= BASE_EVERY + LATE
            continue
        assert [s.link.name for s in one.segments] == [s.link.name for s in other.segments]
        assert one.base.link.name == other.base.link.name
        same += 1
    # A base's distance, the halving, claims and the end: not the chain's length.
    assert same > last // 3 // 2
    assert most < 2 * BASE_EVERY + 40 < SEGMENTS / 2


def test_every_time_is_the_moment_that_the_whole_chain_gives(archive: Archive) -> None:
    whole = Sources([load_timeline(archive)])
    times: Callable[[ArchiveEntry], list[int]] = lambda entry: [stamps[entry.index]]  # noqa: E731
    stamps = {
        index: link.manifest.time_ms
        for link in whole.timelines[0].links("segment")
        for index in range(link.manifest.first, link.manifest.last + 1)
    }
    for time_ms in range(TIME_STEP_MS * 2, SEGMENTS * TIME_STEP_MS, 7_700):
        found, reads = near(archive, Near(time_ms=time_ms))
        assert found.at_time(time_ms, times) == whole.at_time(time_ms, times)
        assert reads < 2 * BASE_EVERY + 40


@pytest.mark.parametrize("kind", ["manifests", "bases"])
def test_what_is_missing_there_is_named_by_reading_all(archive: Archive, kind: str) -> None:
    store = archive.store
    assert isinstance(store, CountingStore)
    index = 500
    found, _reads = near(archive, Near(index=index))
    plan = found.plan(Point(index))
    link = plan.segments[0].link
    name = link.name if kind == "manifests" else plan.base.link.name
    kept = store.objects.pop(name)
    try:
        damaged, reads = near(archive, Near(index=index))
        assert reads > SEGMENTS
        assert any(one.object == name for one in damaged.problems)
    finally:
        store.objects[name] = kept


def test_moments_that_are_not_there_are_left_to_the_whole_chain(archive: Archive) -> None:
    [claim] = archive.claims()
    last = Sources([load_timeline(archive)]).last().index
    for wanted in (Near(index=0), Near(index=last + 1), Near(time_ms=10**15), Near(time_ms=-1)):
        assert load_near(archive, claim, wanted) is None
    assert load_near(archive, claim, Near(index=last)) is not None
    assert layout.claim_name(claim.epoch) in {one.name for one in archive.listing("epochs/")}
