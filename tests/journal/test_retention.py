"""What compaction drops, what it spares, and what pins hold."""

from __future__ import annotations

from raftdb.journal import Journal, RetentionBounds
from tests.journal.support import Bench, contents, entry, sim_bench


def filled(bounds: RetentionBounds, entries: int = 60) -> tuple[Bench, Journal]:
    """Segments of seven entries of 100 bytes, the newest not full."""
    bench = sim_bench(journal_segment_bytes=1500)
    bench.retention = bounds
    journal = bench.open()
    for index in range(2, entries + 1):
        journal.append([entry(index, 1, bytes(100))])
        bench.executor.settle()
    return bench, journal


def test_nothing_goes_that_the_database_does_not_hold_on_disk() -> None:
    bench, journal = filled(RetentionBounds(keep_bytes=0))
    journal.compact(0)
    bench.executor.settle()
    assert journal.first_index == 1
    assert journal.wants_checkpoint(0)
    journal.compact(30)
    bench.executor.settle()
    assert 20 < journal.first_index <= 31
    assert not journal.wants_checkpoint(60)


def test_a_tail_stays_however_far_the_database_is() -> None:
    bench, journal = filled(RetentionBounds(keep_bytes=4000))
    before = journal.bytes
    journal.compact(60)
    bench.executor.settle()
    assert 4000 - 1500 < journal.bytes <= 4000 < before
    files = bench.files
    sizes = [
        len(files.read_file(f"{bench.directory}/{name}"))
        for name in files.list_directory(bench.directory)
        if name.endswith(".segment")
    ]
    assert journal.bytes == sum(sizes)
    first, kept = journal.first_index, contents(journal)
    bench.files.crash()
    again = bench.open()
    assert (again.first_index, contents(again)) == (first, kept)
    assert again.bytes == sum(sizes)


def test_a_pin_holds_what_is_from_its_index_on() -> None:
    bench, journal = filled(RetentionBounds(keep_bytes=0))
    pin = journal.pin(25)
    journal.compact(60)
    bench.executor.settle()
    assert 18 <= journal.first_index <= 25
    pin.move_to(45)
    pin.move_to(10)
    journal.compact(60)
    bench.executor.settle()
    assert 38 <= journal.first_index <= 45
    assert not pin.overrun
    pin.release()
    pin.release()
    journal.compact(60)
    bench.executor.settle()
    assert journal.first_index > 50


def test_a_pin_that_needs_more_than_its_bound_is_overrun_and_told() -> None:
    bench, journal = filled(RetentionBounds(keep_bytes=2000, pinned_bytes_max=3000))
    slow, quick = journal.pin(2), journal.pin(55)
    journal.compact(60)
    bench.executor.settle()
    assert slow.overrun
    assert not quick.overrun
    assert journal.bytes <= 5200
    assert journal.first_index <= 55


def test_without_pins_the_bound_for_pins_counts_for_nothing() -> None:
    bench, journal = filled(RetentionBounds(keep_bytes=2000, pinned_bytes_max=1 << 30))
    journal.compact(60)
    bench.executor.settle()
    assert journal.bytes <= 2200
