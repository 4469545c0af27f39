"""Old segments made one: every moment restores as before, nothing that is missing is silent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from raftdb.archive import Archive, Near, Point, load_near, load_points, load_timeline
from raftdb.archive import merged as merging
from raftdb.archive.merged import MergedRanges, Merger
from raftdb.archive.plan import Sources
from raftdb.archive.retention import DAY_MS, Retention, carry_out, plan_pruning
from raftdb.archive.verify import verify_objects
from tests.archive.support import HISTORY, Live, filled, restored, sealer, sources
from tests.machine.support import START_MS

LATER_MS = START_MS + 3 * DAY_MS
KEEP_ALL = Retention(35, 90, 365, 1_826)


def long_one(directory: Path) -> Live:
    """Bases, some segments after each, a mark among them."""
    live = filled(directory)
    for number in range(12):
        live.run((f"INSERT INTO t(x) VALUES ({number})",))
        live.segment()
        if number == 4:
            live.tail = live.writer.mark(live.tail, live.term, live.index, 0, "here")
        if number in (6, 9):
            live.base()
    return live


def merge(live: Live, *, dry_run: bool = False) -> Merger:
    merger = Merger(Archive.open(live.store, sealer()), 1, HISTORY, os.urandom)
    merger.run(1, START_MS, START_MS, dry_run=dry_run)
    return merger


def settle(live: Live, now_ms: int = LATER_MS) -> list[str]:
    """What pruning takes once a merging is a day old."""
    for path in Path(live.store.url.removeprefix("file://")).rglob("*"):
        # The store's time is that of its newest object.
        made_ms = now_ms if path.parent.name == "epochs" else START_MS
        os.utime(path, (made_ms / 1000, made_ms / 1000))
    timeline = load_timeline(Archive.open(live.store, sealer()))
    plan = plan_pruning(timeline, KEEP_ALL, now_ms)
    carry_out(timeline, plan, live.store)  # type: ignore[arg-type]
    return list(plan.doomed)


@pytest.fixture
def live(tmp_path: Path) -> Live:
    found = long_one(tmp_path)
    found.close()
    return found


def _plans(found: Sources, last: int) -> list[tuple[int, int, int]]:
    plans = [found.plan(Point(index)) for index in range(2, last + 1)]
    return [(one.target.index, one.base_index, one.requests) for one in plans]


def test_every_moment_restores_as_before(live: Live, tmp_path: Path) -> None:
    before = sources(live.store)
    last = before.last().index
    assert merge(live, dry_run=True).objects == 3
    assert merge(live).segments == 11
    # Nothing is changed, and until it is a day old nothing goes.
    assert settle(live, START_MS + 1000) == []
    doomed = settle(live)
    assert len([one for one in doomed if "manifests" in one]) == 11
    assert len([one for one in doomed if "segments" in one]) == 11
    found = sources(live.store)
    assert found.problems == []
    assert verify_objects(found.timelines[0]) == []
    assert len(found.timelines[0].chains[0].links) < len(before.timelines[0].chains[0].links) - 6
    bases = [(index, base) for index, base, _requests in _plans(found, last)]
    assert bases == [(index, base) for index, base, _requests in _plans(before, last)]
    for number, index in enumerate((3, 9, 14, 24, last)):
        _plan, done = restored(found, tmp_path / f"moment-{number}", Point(index))
        assert done.proven
        assert done.index == index
        assert done.content == live.hashes[index, max(p for i, p in live.hashes if i == index)]
    # Again: there is nothing left to merge, and nothing to prune.
    assert merge(live).segments == 0
    assert settle(live) == []


def test_one_moment_and_the_summary_need_not_read_all(live: Live) -> None:
    merge(live)
    settle(live)
    archive = Archive.open(live.store, sealer())
    whole = sources(live.store)
    last = whole.last().index
    [claim] = archive.claims()
    near = 0
    for index in range(3, last + 1):
        chain = load_near(archive, claim, Near(index=index))
        if chain is not None:
            near += 1
            found = Sources([load_timeline(archive, part=lambda *_, chain=chain: chain)])
            plan, other = found.plan(Point(index)), whole.plan(Point(index))
            assert plan.segments[-1].link.manifest.last >= index
            assert plan.base.link.manifest.last <= other.base.link.manifest.last
    assert near > last // 2
    points = load_points(archive, claim)
    assert points is not None
    assert [one.manifest.note for one in points.of_kind("mark")] == ["here"]


def test_what_is_lost_of_it_is_named(live: Live) -> None:
    merge(live)
    settle(live)
    ranges = MergedRanges(Archive.open(live.store, sealer()), 1).ranges
    root = Path(live.store.url.removeprefix("file://"))
    for one in ranges:
        data = (root / one.name).read_bytes()
        (root / one.name).unlink()
        problems = [str(problem) for problem in sources(live.store).problems]
        assert any(one.name in text for text in problems), problems
        (root / one.name).write_bytes(data[:-3])
        problems = [str(problem) for problem in sources(live.store).problems]
        assert any(one.name in text and "changed" in text for text in problems), problems
        (root / one.name).write_bytes(data)
    assert sources(live.store).problems == []


def test_damage_is_not_merged(live: Live) -> None:
    root = Path(live.store.url.removeprefix("file://"))
    victim = sorted((root / "e00000001" / "segments").iterdir())[4]
    victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.raises(merging.ArchiveDamagedError, match=victim.name):
        merge(live)
    assert sources(live.store).problems == []
