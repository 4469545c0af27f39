"""Digests of the last commits, and how much of the tables' sums is kept beside them."""

from __future__ import annotations

from raftdb.base.ids import Index
from raftdb.machine.samples import DETAILED_MAX, MARK_EVERY, RECENT_MAX, SUMS_MAX, Samples


def samples_of(tables: int) -> Samples:
    sums = {f"table {number}": b"s" * 16 for number in range(tables)}
    return Samples(lambda: dict(sums))


def sums_kept(samples: Samples) -> int:
    kept = {id(one): one for one in (*samples._recent.values(), *samples._marks.values())}
    return sum(len(one.tables) for one in kept.values() if one.tables is not None)


def test_with_many_tables_few_samples_have_their_sums() -> None:
    """Sums of 10,000 tables in each of 1,280 samples would be two gigabytes."""
    samples = samples_of(20_000)
    samples.detailed = True
    for index in range(1, 40 * MARK_EVERY, 8):
        samples.add(Index(index), index, bytes(16))
    for index in range(MARK_EVERY, 40 * MARK_EVERY, MARK_EVERY):
        samples.add(Index(index), index, bytes(16))
    assert 0 < sums_kept(samples) <= 2 * SUMS_MAX
    newest = samples.at(39 * MARK_EVERY)
    assert newest is not None
    assert newest.tables is not None
    # All digests are there still.
    assert len(samples._recent) == RECENT_MAX
    assert len(samples._marks) == 39


def test_with_few_tables_the_newest_of_both_kinds_have_them() -> None:
    samples = samples_of(3)
    samples.detailed = True
    last = 100 * MARK_EVERY + 5
    for index in range(1, last + 1):
        samples.add(Index(index), index, bytes(16))
    for index in (last, last - 20, 100 * MARK_EVERY, 60 * MARK_EVERY):
        sample = samples.at(index)
        assert sample is not None
        assert sample.tables is not None, index
    assert sums_kept(samples) <= 2 * 3 * DETAILED_MAX


def test_the_last_ones_sums_come_later_for_both_kinds() -> None:
    samples = samples_of(3)
    samples.add(Index(MARK_EVERY), 1, bytes(16))
    samples.detail_last()
    samples.detail_last()
    for _ in range(RECENT_MAX + 1):
        samples.add(Index(samples.last().index + 1), 1, bytes(16))  # type: ignore[union-attr]
    sample = samples.at(MARK_EVERY)
    assert sample is not None
    assert sample.tables is not None
