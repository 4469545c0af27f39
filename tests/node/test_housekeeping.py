"""Checkpoints and compaction, on fakes: when they begin, and what goes when they end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from raftdb.base.errors import FatalError
from raftdb.machine import PAGE_BYTES
from raftdb.node import Housekeeping
from raftdb.node.housekeeping import CHECK_EVERY_S, LOOK_EVERY_S, REST_MAX_S, REST_PAGES
from tests.node.fakes import Bench


class Storage:
    """A machine and a journal: remembers checkpoints and cuts."""

    def __init__(self) -> None:
        self.wal_pages = self.wal_pages_left = 0
        self.checkpoints = 0
        self.durable_index = 0
        self.applied = 50
        self.behind = False
        self.cuts: list[int] = []
        self.error: Exception | None = None
        self.looks = 0

    def checkpoint(self) -> int:
        if self.error is not None:
            raise self.error
        self.checkpoints += 1
        if not self.wal_pages_left:
            self.durable_index, self.wal_pages = self.applied, 0
        return self.durable_index

    def look_at_log(self) -> None:
        if self.error is not None:
            raise self.error
        self.looks += 1

    def wants_checkpoint(self, safe: int) -> bool:
        return self.behind and safe < self.applied

    def compact(self, safe: int) -> None:
        self.cuts.append(safe)


def housekeeping() -> tuple[Bench, Storage]:
    bench, storage = Bench(), Storage()
    made: Any = Housekeeping(
        SimpleNamespace(status=bench.engine.status, tick=lambda: None),  # type: ignore[arg-type]
        storage,  # type: ignore[arg-type]
        storage,  # type: ignore[arg-type]
        bench.ports,
        10 * PAGE_BYTES,
    )
    made.start()
    return bench, storage


def test_the_journal_is_cut_behind_a_checkpoint_and_at_what_is_on_disk() -> None:
    bench, storage = housekeeping()
    storage.wal_pages = 9
    bench.loop.pass_time(1.0)
    assert storage.cuts == []
    storage.wal_pages = 10
    bench.loop.pass_time(1.0)
    assert storage.cuts == [50]


def test_a_journal_that_grows_while_the_database_does_not_brings_a_checkpoint() -> None:
    bench, storage = housekeeping()
    storage.behind = True
    bench.loop.pass_time(1.0)
    assert storage.cuts == [50]
    bench.loop.pass_time(5.0)
    assert storage.cuts == [50], "a checkpoint that would bring nothing is not made"


def test_what_is_in_the_log_alone_is_looked_at_while_no_checkpoint_is_due() -> None:
    bench, storage = housekeeping()
    bench.loop.pass_time(2 * LOOK_EVERY_S + 0.5)
    assert storage.looks == 2
    assert storage.cuts == []
    storage.error = FatalError("frames have changed")
    with pytest.raises(FatalError):
        bench.loop.pass_time(LOOK_EVERY_S)


def test_a_checkpoint_that_readers_keep_from_its_work_comes_again_later() -> None:
    bench, storage = housekeeping()
    storage.wal_pages = storage.wal_pages_left = 8 * REST_PAGES
    bench.loop.pass_time(0.1 + CHECK_EVERY_S)
    assert storage.checkpoints == 1
    bench.loop.pass_time(7 * CHECK_EVERY_S)
    assert storage.checkpoints == 1
    bench.loop.pass_time(2 * CHECK_EVERY_S)
    assert storage.checkpoints == 2
    storage.wal_pages_left = 10_000 * REST_PAGES
    bench.loop.pass_time(3.0)
    assert storage.checkpoints == 3
    looks = storage.looks
    bench.loop.pass_time(REST_MAX_S + CHECK_EVERY_S)
    assert storage.checkpoints == 4, "however long it is"
    assert storage.looks > looks, "meanwhile it is looked at"
    storage.wal_pages_left = 0
    bench.loop.pass_time(REST_MAX_S)
    assert (storage.checkpoints, storage.wal_pages) == (5, 0)


def test_a_checkpoint_that_fails_cuts_nothing_and_stops_the_node() -> None:
    bench, storage = housekeeping()
    storage.wal_pages, storage.error = 99, FatalError("the device is gone")
    with pytest.raises(FatalError):
        bench.loop.pass_time(1.0)
    assert storage.cuts == []
