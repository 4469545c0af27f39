"""What pruning takes, and that all it leaves can be restored."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from raftdb.archive import Archive, NotRestorableError, Point, layout, load_timeline
from raftdb.archive.retention import DAY_MS, Retention, carry_out, plan_pruning
from raftdb.archive.stores import open_store
from raftdb.archive.verify import verify_objects
from raftdb.base.errors import ConfigError
from tests.archive.support import Live, restored, sealer, sources
from tests.machine.support import START_MS

DAYS = 60


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A base and two segments a day, for sixty days."""
    directory = tmp_path_factory.mktemp("retention")
    found = Live(directory, open_store(f"file://{directory}/archive"))
    found.run(("CREATE TABLE t(id INTEGER PRIMARY KEY, x)",))
    for day in range(DAYS):
        found.writer._wall_ms = lambda day=day: START_MS + day * DAY_MS
        found.base()
        for number in range(2):
            found.run((f"INSERT INTO t(x) VALUES ('{day}-{number}')",))
            found.segment()
    yield found
    found.close()


@pytest.fixture
def live(built: Live, tmp_path: Path) -> Live:
    """The same, with an archive of its own."""
    shutil.copytree(built.directory / "archive", tmp_path / "archive")
    built.store = open_store(f"file://{tmp_path}/archive")
    return built


NOW_MS = START_MS + DAYS * DAY_MS
SHORT = Retention(point_in_time_days=10, daily_days=15, weekly_days=30, monthly_days=59)


def test_the_window_stays_whole_and_older_bases_thin_out(live: Live, tmp_path: Path) -> None:
    timeline = load_timeline(Archive.open(live.store, sealer()))
    bases = [link.manifest for link in timeline.links("base")]
    plan = plan_pruning(timeline, SHORT, NOW_MS)
    before = {one.name for one in live.store.listing("")}
    assert set(plan.doomed) < before
    carry_out(timeline, plan, live.store)  # type: ignore[arg-type]
    after = {one.name for one in live.store.listing("")}
    assert before - after == set(plan.doomed)
    found = sources(live.store)
    assert found.problems == []
    assert verify_objects(found.timelines[0]) == []
    left = [link.manifest for link in found.timelines[0].links("base")]
    ages = [round((NOW_MS - one.created_ms) / DAY_MS) for one in left]
    assert ages[-11:] == [*range(11, 0, -1)][-11:]
    assert 12 <= len(left) <= 24
    # Every moment of the window, and each older base as it was.
    first = plan.oldest_index
    for number, index in enumerate((first, first + 1, first + 7, live.index)):
        _plan, done = restored(found, tmp_path / f"window-{number}", Point(index))
        assert done.proven
    for number, one in enumerate(left[:2]):
        _plan, done = restored(found, tmp_path / f"old-{number}", Point(one.last))
        assert done.content == one.content
    with pytest.raises(NotRestorableError):
        found.plan(Point(left[0].last + 1))
    removed = next(one for one in bases if one.last not in {kept.last for kept in left})
    assert removed.object not in after
    # Again: there is nothing left to do, also when the first try stopped in the midst.
    timeline = load_timeline(Archive.open(live.store, sealer()))
    assert plan_pruning(timeline, SHORT, NOW_MS).doomed == ()


def test_a_window_that_begins_before_its_base_is_whole(tmp_path: Path) -> None:
    """While the window's base was made the log went on; an older base stands alone before it."""
    live = Live(tmp_path, open_store(f"file://{tmp_path}/archive"))
    live.run(("CREATE TABLE t(id INTEGER PRIMARY KEY, x)",))

    def log() -> None:
        live.run(("INSERT INTO t(x) VALUES (1)",))
        live.segment()

    for day in range(3):
        live.writer._wall_ms = lambda day=day: START_MS + day * DAY_MS
        live.base(meanwhile=(lambda: None) if not day else log)
        log()
    live.close()
    timeline = load_timeline(Archive.open(live.store, sealer()))
    plan = plan_pruning(timeline, Retention(0, 9, 0, 0), START_MS + 3 * DAY_MS)
    carry_out(timeline, plan, live.store)  # type: ignore[arg-type]
    found = sources(live.store)
    assert plan.kept_bases == 3
    assert verify_objects(found.timelines[0]) == []


def test_keeping_longer_than_before_takes_nothing(live: Live) -> None:
    """Older bases stand alone by then: they stay, and no window begins with them."""
    timeline = load_timeline(Archive.open(live.store, sealer()))
    short = plan_pruning(timeline, SHORT, NOW_MS)
    carry_out(timeline, short, live.store)  # type: ignore[arg-type]
    timeline = load_timeline(Archive.open(live.store, sealer()))
    longer = plan_pruning(timeline, Retention(), NOW_MS)
    assert longer.doomed == ()
    assert longer.records == ()
    assert (longer.oldest_index, longer.kept_bases) == (short.oldest_index, short.kept_bases)


def test_what_was_archived_while_the_oldest_base_was_made_stays(tmp_path: Path) -> None:
    """A large base takes a while, and the log goes on: it is replayed from before its manifest."""
    live = Live(tmp_path, open_store(f"file://{tmp_path}/archive"))
    live.run(("CREATE TABLE t(id INTEGER PRIMARY KEY, x)",))

    def log() -> None:
        live.run(("INSERT INTO t(x) VALUES (1)",))
        live.segment()

    for day in range(6):
        live.writer._wall_ms = lambda day=day: START_MS + day * DAY_MS
        live.base(meanwhile=(lambda: None) if not day else log)
        log()
    timeline = load_timeline(Archive.open(live.store, sealer()))
    plan = plan_pruning(timeline, Retention(2, 0, 0, 0), START_MS + 5 * DAY_MS)
    assert plan.doomed
    carry_out(timeline, plan, live.store)  # type: ignore[arg-type]
    found = sources(live.store)
    assert found.problems == []
    for index in range(plan.oldest_index, live.index + 1):
        _plan, done = restored(found, tmp_path / f"at-{index}", Point(index))
        assert done.proven or index == plan.oldest_index
    live.close()


def test_an_interrupted_pruning_harms_nothing(live: Live, tmp_path: Path) -> None:
    timeline = load_timeline(Archive.open(live.store, sealer()))
    plan = plan_pruning(timeline, SHORT, NOW_MS)
    for stop in (0, 1, len(plan.doomed) // 2, len(plan.doomed) - 1):
        carry_out(timeline, replace(plan, doomed=plan.doomed[:stop]), live.store)  # type: ignore[arg-type]
        found = sources(live.store)
        assert [one for one in found.problems if not one.harmless] == []
    _plan, done = restored(found, tmp_path / "work")
    assert done.content == live.machine.content_hash().total


def test_a_lost_beginning_is_not_taken_for_a_pruned_one(live: Live) -> None:
    timeline = load_timeline(Archive.open(live.store, sealer()))
    plan = plan_pruning(timeline, SHORT, NOW_MS)
    carry_out(timeline, plan, live.store)  # type: ignore[arg-type]
    kept = sources(live.store).timelines[0].links("base")
    for link in (kept[0], kept[-11]):
        store = live.store
        data = store.get(link.name)
        assert data is not None
        store.delete(link.name)  # type: ignore[attr-defined]
        assert any(one.object == link.name for one in sources(store).problems)
        store.put(link.name, data)
    live.store.delete(kept[-5].name)  # type: ignore[attr-defined]
    timeline = load_timeline(Archive.open(live.store, sealer()))
    with pytest.raises(ConfigError, match="is missing"):
        plan_pruning(timeline, SHORT, NOW_MS)


def test_a_legal_hold_stops_everything(live: Live) -> None:
    live.store.put("holds/case-7", b"")
    timeline = load_timeline(Archive.open(live.store, sealer()))
    plan = plan_pruning(timeline, SHORT, NOW_MS)
    assert plan.holds == ("case-7",)
    with pytest.raises(ConfigError, match="case-7"):
        carry_out(timeline, plan, live.store)  # type: ignore[arg-type]
    assert sources(live.store).problems == []


def test_a_base_of_a_clock_that_is_years_behind_begins_no_window(tmp_path: Path) -> None:
    live = Live(tmp_path, open_store(f"file://{tmp_path}/archive"))
    live.run(("CREATE TABLE t(id INTEGER PRIMARY KEY, x)",))
    first = 0
    for day, shown in ((0, 0), (1, 1), (2, -9_000), (3, 3)):
        live.writer._wall_ms = lambda shown=shown: START_MS + shown * DAY_MS
        live.database.tick(START_MS + day * DAY_MS)
        live.base()
        first = first or live.index
        live.run((f"INSERT INTO t(x) VALUES ({day})",))
        live.segment()
    live.close()
    timeline = load_timeline(Archive.open(live.store, sealer()))
    now_ms = START_MS + 4 * DAY_MS
    assert plan_pruning(timeline, Retention(10, 0, 0, 0), now_ms).oldest_index == first
    window = plan_pruning(timeline, Retention(3, 0, 0, 0), now_ms)
    carry_out(timeline, window, live.store)  # type: ignore[arg-type]
    # Three days back is the second base, whatever the third one's clock said.
    assert window.oldest_index == first + 2
    _plan, done = restored(sources(live.store), tmp_path / "work", Point(first + 3))
    assert done.proven


def test_what_is_being_uploaded_for_days_stays(tmp_path: Path) -> None:
    """A large base at a bounded rate; and the clock of whoever prunes is days ahead."""
    live = Live(tmp_path, open_store(f"file://{tmp_path}/archive"))
    live.run(("CREATE TABLE t(id INTEGER PRIMARY KEY, x)",))
    live.base()
    live.close()
    hour_ms = DAY_MS // 24
    for path in (tmp_path / "archive").rglob("*"):
        os.utime(path, (START_MS / 1000, START_MS / 1000))

    def upload(kind: str, mark: str, hours: int) -> str:
        name = f"{layout.folder(1, kind)}{mark}"
        assert live.store.put(name, b"x")
        os.utime(tmp_path / "archive" / name, ((START_MS + hours * hour_ms) / 1000,) * 2)
        return name

    stopped = [upload("packs", f"old{hours}", hours) for hours in (0, 6)]
    coming = [upload("packs", f"new{hours}", hours) for hours in range(48, 100, 10)]
    lost = upload("segments", "lost", 60)

    def doomed(hours: int) -> set[str]:
        timeline = load_timeline(Archive.open(live.store, sealer()))
        return set(plan_pruning(timeline, Retention(), START_MS + hours * hour_ms).doomed)

    assert doomed(99) == {*stopped, lost}
    assert doomed(1000) == {*stopped, lost}
    # Two days later nothing has followed: it was given up.
    upload("segments", "another", 148)
    assert doomed(149) == {*stopped, *coming, lost}
