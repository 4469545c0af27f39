"""Bases, marks and gaps are found without reading the segments' part of the chain."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from raftdb.archive import Archive, ChainWriter, Keyring, Near, Sealer, Sources, layout, records
from raftdb.archive import writer as writing
from raftdb.archive.chain import Chain, load_chain, load_timeline
from raftdb.archive.errors import ArchiveDamagedError
from raftdb.archive.near import load_near
from raftdb.archive.points import load_points
from raftdb.archive.records import Manifest, Pruned
from tests.archive.test_near import CountingStore, base_record, entries

SEGMENTS = 600
HISTORY = "a" * 32
Told = Callable[[Manifest | None], int]
TOLD: Told = vars(writing)["_noted"]


def built(told: Told, monkeypatch: pytest.MonkeyPatch) -> Archive:
    """600 segments, a base after each fiftieth, a mark or a gap now and then."""
    monkeypatch.setattr(writing, "_noted", told)
    drawn = random.Random(1)
    store = CountingStore()
    found = Archive.open_or_create(store, Sealer(Keyring({}), drawn.randbytes), "c" * 32, 0)
    writer = ChainWriter(
        found, history=HISTORY, node="n1", wall_ms=lambda: 0, randbytes=drawn.randbytes, build=b""
    )
    tail = writer.begin()
    for number in range(SEGMENTS):
        if number % 50 == 0:
            record = base_record(tail.archived or 1)
            name, data = writer.put_base(record, tail.sequence)
            tail = writer.base(tail, 1, name, data, record)
        if number % 170 == 3:
            tail = writer.mark(tail, 1, tail.archived, 0, f"mark {number}")
        if number == 440:
            tail = writer.gap(tail, 1, tail.archived + 5, "lost")
        tail = writer.segment(tail, 1, entries(tail.archived + 1, 2), number * 1000)
    return found


def not_told(_before: Manifest | None) -> int:
    """As release 0.1.0 writes."""
    return -1


def in_turns(before: Manifest | None) -> int:
    """Both releases' nodes upload, for a hundred manifests each."""
    sequence = 0 if before is None else before.sequence
    return -1 if sequence // 100 % 2 else TOLD(before)


def notes(chain: Chain) -> dict[int, Manifest]:
    return {one: link.manifest for one, link in chain.links.items() if is_note(link.manifest)}


def is_note(manifest: Manifest) -> bool:
    return manifest.kind != "segment"


@pytest.mark.parametrize("told", [TOLD, not_told, in_turns], ids=["told", "not told", "in turns"])
@pytest.mark.parametrize("pruned", [False, True])
def test_they_are_those_of_the_whole_chain(
    told: Told, pruned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = built(told, monkeypatch)
    [claim] = archive.claims()
    store = archive.store
    assert isinstance(store, CountingStore)
    if pruned:
        prune(archive, load_chain(archive, claim))
    whole = load_chain(archive, claim)
    assert whole.problems == []
    store.gets = 0
    found = load_points(archive, claim)
    assert found is not None
    if told is TOLD:
        assert store.gets < 50 + 2 * len(notes(whole)) + 20
    assert notes(found) == notes(whole)
    assert (found.first, found.last) == (whole.first, whole.last)
    segments = [link.manifest for link in whole.of_kind("segment")]
    assert found.totals is not None
    assert found.totals.segments == len(segments)
    assert found.totals.size == sum(one.size for one in segments)


def prune(archive: Archive, chain: Chain) -> None:
    """From the middle of what follows the fourth base on; the second base stays."""
    bases = chain.of_kind("base")
    first = bases[3].manifest.sequence + 20
    kept = ((bases[1].manifest.sequence, bases[1].digest),)
    record = Pruned(1, first, kept, 0)
    name = layout.pruned_name(1, first, 0)
    archive.put(name, archive.seal(record, name))
    store = archive.store
    assert isinstance(store, CountingStore)
    for sequence, link in chain.links.items():
        if sequence < first and sequence != kept[0][0]:
            del store.objects[link.name]
            store.objects.pop(link.manifest.object, None)


@pytest.mark.parametrize("what", ["missing", "cut"])
def test_what_is_wrong_on_the_way_is_named_by_reading_all(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = built(TOLD, monkeypatch)
    [claim] = archive.claims()
    store = archive.store
    assert isinstance(store, CountingStore)
    link = load_chain(archive, claim).of_kind("base")[4]
    data = store.objects.pop(link.name)
    if what == "cut":
        store.objects[link.name] = data[:-1]
    assert load_points(archive, claim) is None
    line = load_timeline(archive, every=load_points)
    assert [one.object for one in line.problems] == [link.name]
    assert line.chains[0].totals is None


def test_a_manifest_that_names_a_later_one_leads_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    archive = built(lambda before: 60 + (before.sequence if before else 0), monkeypatch)
    [claim] = archive.claims()
    assert load_points(archive, claim) is None


def test_manifests_of_the_former_release_read_as_not_told() -> None:
    known = Manifest(1, 2, bytes(32), HISTORY, 1, "n1", 0, "mark", noted=1)
    value = records.msgpack.unpackb(records.encode(known))
    del value["noted"]
    plain = records.msgpack.packb(value)
    assert records.decode(Manifest, "name", plain) == replace(known, noted=-1)


def indexes(archive: Archive, near: Near | None, first: int, last: int) -> Sequence[int]:
    part = None if near is None else (lambda one, claim: load_near(one, claim, near))
    found = Sources([load_timeline(archive, part=part)])
    return [one.index for one in found.entries(first, last)]


def test_a_part_of_the_log_is_read_from_its_part_of_the_chain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    archive = built(TOLD, monkeypatch)
    store = archive.store
    assert isinstance(store, CountingStore)
    for first, last in ((2, 4), (77, 78), (500, 640), (1100, None)):
        store.gets = 0
        end = last or 1200
        assert indexes(archive, Near(first=first, index=last), first, end) == [
            *range(first, end + 1)
        ]
        # Halving, the segments and their manifests.
        assert store.gets < 60 + 2 * (end - first)
    segments = load_chain(archive, archive.claims()[0]).of_kind("segment")
    place = next(one for one in segments if one.manifest.first <= 510 <= one.manifest.last)
    del store.objects[place.manifest.object]
    with pytest.raises(ArchiveDamagedError):
        indexes(archive, Near(first=500, index=640), 500, 640)
