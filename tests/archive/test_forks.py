"""Epochs that were left, at one destination or at some of them: what counts of the former ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raftdb.archive import (
    ArchiveUnavailableError,
    Claim,
    Near,
    Point,
    SupersededError,
    layout,
    open_store,
)
from raftdb.archive.records import ArchiveEntry
from raftdb.archive.verify import walk
from raftdb.base.errors import ConfigError
from raftdb.base.ids import HistoryId
from raftdb.ops.archive import open_destinations, status
from raftdb.ops.recover import find_archives
from raftdb.ops.recreate import claim_epoch, claim_newest, lineage_of
from raftdb.runtime.clock import RealClock
from tests.archive.faults import Uploader
from tests.archive.support import CLUSTER, KEYS, Live, filled, restored, sources
from tests.archive.test_near import base_record, entries
from tests.machine.support import HISTORY

SECOND, THIRD = "d" * 32, "e" * 32


def claim(live: Live, epoch: int, history: str, fork: int) -> None:
    assert live.archive.make_claim(Claim(epoch, history, epoch - 1, fork, 0, "replace", 1, "test"))


def write(live: Live, history: str, base: int, several: list[ArchiveEntry]) -> None:
    """A restored cluster's first base and log."""
    writer = live.new_writer("n9", history)
    tail = writer.begin()
    name, data = writer.put_base(base_record(base), 0)
    tail = writer.base(tail, 1, name, data, base_record(base))
    writer.segment(tail, 1, several, live.times[base])


def test_a_second_restore_that_goes_further_back_leaves_out_more(tmp_path: Path) -> None:
    """First to entry 15, then to entry 8: nothing of the first history after 8 is the third's."""
    live = filled(tmp_path)
    claim(live, 2, SECOND, 15)
    write(live, SECOND, 15, entries(16, 3))
    claim(live, 3, THIRD, 8)
    found = sources(live.store)
    assert found.last() == Point(8)
    _plan, done = restored(found, tmp_path / "work")
    assert done.content == live.hashes[max(key for key in live.hashes if key[0] == 8)]
    write(live, THIRD, 8, entries(9, 3))
    found = sources(live.store)
    assert found.last() == Point(11)
    assert [one.data for one in found.entries(9, 11)] == [b"data"] * 3
    assert {one.link.manifest.epoch for one in found.plan(Point(11)).segments} == {3}
    both = open_destinations([live.store.url], KEYS)
    # A token or a session of the first history is good up to 8, not up to where the third goes.
    assert [(one, int(index)) for one, index, _position in lineage_of(both, Point(11))] == [
        (HISTORY, 8),
        (SECOND, 8),
        (THIRD, 11),
    ]
    walked = walk(live.archive)
    assert walked is not None
    assert walked.end == 11
    live.close()


def test_a_destination_that_was_away_when_an_epoch_was_claimed(tmp_path: Path) -> None:
    """It still has what the former history wrote after the fork: that is nobody's past."""
    live = filled(tmp_path)
    other = open_store(f"file://{tmp_path}/other")
    for one in live.store.listing(""):
        assert other.put(one.name, live.store.get(one.name) or b"")
    claim(live, 2, SECOND, 12)
    urls = [live.store.url, other.url]
    for order in (urls, urls[::-1]):
        found = open_destinations(order, KEYS)
        assert found.sources.last() == Point(12)
        assert not found.damage
        assert any("do not count" in str(one) for one in found.problems)
    write(live, SECOND, 12, entries(13, 2))
    for order in (urls, urls[::-1]):
        for newest in (False, True):
            found = open_destinations(order, KEYS, newest=newest)
            assert found.sources.last() == Point(14)
            plan = found.sources.plan(Point(14))
            assert plan.base.link.manifest.last == 12
            assert {one.link.manifest.epoch for one in plan.segments} == {2}
    # The next epoch is claimed at both, and forks there where the one that was missed did.
    claim_epoch(found, Point(14), HistoryId(THIRD), RealClock())
    third = [one.archive.claims()[-1] for one in found.sources.timelines]
    assert sorted((one.parent, one.fork_index) for one in third) == [(1, 12), (2, 14)]
    # Of what is before the fork it is as good as ever.
    found = open_destinations([other.url, live.store.url], KEYS)
    store: Any = live.store
    for one in live.store.listing(layout.folder(1, "segments")):
        store.delete(one.name)
    _plan, done = restored(found.sources, tmp_path / "work", Point(10))
    assert done.content == live.hashes[max(key for key in live.hashes if key[0] == 10)]
    assert open_destinations([other.url], KEYS).sources.last() == Point(12)
    live.close()


def test_destinations_that_went_apart_are_not_put_together(tmp_path: Path) -> None:
    live = filled(tmp_path)
    other = open_store(f"file://{tmp_path}/other")
    for one in live.store.listing(""):
        assert other.put(one.name, live.store.get(one.name) or b"")
    claim(live, 2, SECOND, 12)
    name = layout.claim_name(2)
    third = Claim(2, THIRD, 1, 9, 0, "replace", 1, "test")
    assert other.put(name, live.archive.seal(third, name))
    with pytest.raises(ConfigError, match="went apart"):
        open_destinations([live.store.url, other.url], KEYS)
    live.close()


def test_a_base_that_was_begun_before_a_gap_is_not_added_behind_it(tmp_path: Path) -> None:
    """It would make believe that what follows can be restored: its log ends at the gap."""
    live = filled(tmp_path)
    node = Uploader(live, tmp_path / "hashes", "n1", "follower")
    node.loop.pass_time(10.0)
    assert node.status()["archived_index"] == live.index
    base: Any = node.destination._base
    base.ready, base.index = True, live.index
    dropped: list[int] = []

    def drop() -> None:
        dropped.append(base.index)
        base.ready = False

    base.drop, base.begin = drop, lambda *_arguments: None
    live.run(("INSERT INTO t(x) VALUES (1)",))
    live.run(("INSERT INTO t(x) VALUES (2)",))
    tail = live.writer.follow(live.tail)
    live.writer.gap(tail, 1, live.index, "the journal's bound was reached")
    node.destination._active = True
    node.destination.refresh()
    node.loop.pass_time(1.0)
    node.destination._active = True
    node.loop.pass_time(3.0)
    assert dropped == [live.index - 2]
    assert node.destination.known.archived == 0
    live.close()


def test_what_is_added_behind_a_claim_is_not_said_to_be_archived(tmp_path: Path) -> None:
    """Between two looks for a later epoch an uploader adds to its own: nobody would restore that,
    so a write that waits for the archive must not be acknowledged by it."""
    live = filled(tmp_path)
    ended: list[Exception] = []
    node = Uploader(live, tmp_path / "hashes", "n1", "follower")
    node.destination._superseded = ended.append
    node.loop.pass_time(10.0)
    before = live.index
    assert node.destination.known.archived == before
    node.destination._active = True
    node.destination._next_epoch_check_s = node.loop.now_s + 1000.0
    claim(live, 2, SECOND, before)
    live.run(("INSERT INTO t(x) VALUES (1)",))
    node.loop.pass_time(2.0)
    assert node.destination.known.archived == before
    assert isinstance(ended[0], SupersededError)
    live.close()


def test_what_was_added_while_an_epoch_was_claimed_is_restored(tmp_path: Path) -> None:
    """It was acknowledged as archived by an uploader that could not see the claim yet."""
    live = filled(tmp_path)
    live.segment() if live.tail.archived < live.index else None
    found = open_destinations([live.store.url], KEYS, newest=True)
    point = found.sources.last()
    live.run(("INSERT INTO t(x) VALUES (1)",))
    live.segment()
    found, now = claim_newest(found, point, HistoryId(SECOND), RealClock())
    assert now == Point(live.index) > point
    claims = live.archive.claims()
    assert [(one.parent, one.fork_index) for one in claims[1:]] == [
        (1, point.index),
        (1, live.index),
    ]
    assert [int(index) for _name, index, _position in lineage_of(found, now)] == [live.index]
    assert open_destinations([live.store.url], KEYS).sources.last() == now
    live.close()


def test_a_restore_that_was_given_up_hides_nothing(tmp_path: Path) -> None:
    """It had claimed an epoch at an earlier moment: what was left out is named, and can be had."""
    live = filled(tmp_path)
    last = live.tail.archived
    claim(live, 2, SECOND, 9)
    for options in ({}, {"newest": True}):
        found = open_destinations([live.store.url], KEYS, **options)  # type: ignore[arg-type]
        assert found.sources.last() == Point(9)
        assert not found.damage
        assert any(f"--index {last} restores it" in str(one) for one in found.problems)
    named = open_destinations([live.store.url], KEYS, near=Near(index=last))
    _plan, done = restored(named.sources, tmp_path / "work", Point(last))
    assert done.content == live.hashes[max(key for key in live.hashes if key[0] == last)]
    claim_epoch(named, Point(last), HistoryId(THIRD), RealClock())
    assert live.archive.claims()[-1].parent == 1
    found = open_destinations([live.store.url], KEYS)
    assert found.sources.last() == Point(last)
    assert not found.problems
    # Once something was written under an epoch, nothing behind its fork is had by its number.
    claim(live, 4, SECOND, 9)
    write(live, SECOND, 9, entries(10, 2))
    named = open_destinations([live.store.url], KEYS, near=Near(index=last))
    assert named.sources.last() == Point(11)


def test_a_directory_that_is_not_mounted_any_more_takes_nothing(tmp_path: Path) -> None:
    """The mount point is a directory too: what is made there is in no archive."""
    live = filled(tmp_path)
    live.run(("INSERT INTO t(x) VALUES (1)",))
    place, away = tmp_path / "archive", tmp_path / "away"
    place.rename(away)
    place.mkdir()
    with pytest.raises(ArchiveUnavailableError, match="the archive that was there is not there"):
        live.segment()
    assert not any(place.iterdir())
    place.rmdir()
    away.rename(place)
    live.segment()
    assert sources(live.store).last() == Point(live.index)
    live.close()


def test_status_says_what_unreferenced_objects_are(tmp_path: Path) -> None:
    live = filled(tmp_path)
    shown = status(open_destinations([live.store.url], KEYS), RealClock())
    assert shown["destinations"][0]["unreferenced"] == 0
    assert not any("no manifest names" in one for one in shown["notes"])
    for number in range(2):
        live.writer.put_base(base_record(3 + number), live.tail.sequence)
    shown = status(open_destinations([live.store.url], KEYS), RealClock())
    assert shown["destinations"][0]["unreferenced"] == 2
    assert any(
        "2 objects that no manifest names: uploads that lost" in one for one in shown["notes"]
    )
    assert not shown["problems"]
    live.close()


def test_a_destination_that_missed_a_claim_is_not_said_to_be_ahead(tmp_path: Path) -> None:
    """Nodes of the second history ask one that knows the first alone; and the other way round."""
    live = filled(tmp_path)
    with pytest.raises(ConfigError, match="never heard of") as missed:
        find_archives([live.archive], CLUSTER, SECOND)
    assert missed.value.code == "archive_of_another"
    claim(live, 2, SECOND, 12)
    assert find_archives([live.archive], CLUSTER, SECOND).parents == (2,)
    with pytest.raises(ConfigError, match="goes on elsewhere, from entry 12") as left:
        find_archives([live.archive], CLUSTER, HISTORY)
    assert left.value.code == "superseded"
    live.close()
