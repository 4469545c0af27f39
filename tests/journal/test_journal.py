"""What the journal promises while nothing goes wrong."""

from __future__ import annotations

import random

import pytest

from raftdb.base.errors import InternalError
from raftdb.base.limits import Limits
from raftdb.journal import HardState, Journal, LogEntry
from tests.journal.model import Model, random_step, state_of
from tests.journal.support import (
    DIRECTORY,
    Bench,
    SeededRandom,
    contents,
    entry,
    indexes,
    run_of,
    sim_bench,
    vote,
)
from tests.sim.disk import SimFiles


def sync_count(bench: Bench) -> int:
    return bench.files.counts.get("sync", 0)


def segment_files(bench: Bench) -> list[str]:
    return [name for name in bench.files.list_directory(DIRECTORY) if name.endswith(".segment")]


# -- round trips ----------------------------------------------------------------------------------


def test_a_new_journal_has_the_base_entry() -> None:
    journal = sim_bench().open()
    assert (journal.first_index, journal.last_index, journal.last_term) == (1, 1, 0)
    assert journal.durable_index == 1
    assert contents(journal) == [entry(1, 0, b"")]
    assert journal.hard_state == HardState(0, None)


def test_what_was_written_is_there_after_a_restart() -> None:
    bench = sim_bench()
    journal = bench.open()
    journal.set_hard_state(vote(3, "n2"))
    journal.append(run_of(2, 20, term=2))
    journal.append(run_of(21, 30, term=3))
    assert journal.durable_index == 1
    bench.executor.settle()
    assert journal.durable_index == 30
    assert journal.durable_sequence == journal.sequence() == 30
    before = contents(journal)
    assert bench.close(journal) is None
    again = bench.open()
    assert contents(again) == before
    assert again.hard_state == vote(3, "n2")
    assert [again.term_at(index) for index in (0, 1, 2, 20, 21, 30)] == [0, 0, 2, 2, 3, 3]


def test_any_bytes_come_back() -> None:
    draw = random.Random(1)
    bench = sim_bench(journal_segment_bytes=4096)
    journal = bench.open()
    written = [
        entry(index, index, draw.randbytes(draw.choice((0, 1, 31, 512, 5000))))
        for index in range(2, 60)
    ]
    for one in written:
        journal.append([one])
        bench.executor.settle()
    bench.close(journal)
    assert contents(bench.open())[1:] == written


def test_a_start_changes_nothing_that_a_second_start_would_notice() -> None:
    bench = sim_bench(journal_segment_bytes=2000)
    journal = bench.open()
    journal.append(run_of(2, 50))
    bench.executor.settle()
    bench.close(journal)
    names = bench.files.list_directory(DIRECTORY)
    before = {name: bench.files.read_file(f"{DIRECTORY}/{name}") for name in names}
    for _ in range(3):
        bench.close(bench.open())
    assert {n: bench.files.read_file(f"{DIRECTORY}/{n}") for n in before} == before


# -- group commit ---------------------------------------------------------------------------------


def test_one_turn_of_the_loop_is_one_batch() -> None:
    bench = sim_bench()
    journal = bench.open()
    before = sync_count(bench)
    journal.set_hard_state(vote(1, "n1"))
    journal.append(run_of(2, 5))
    journal.truncate_from(4)
    journal.append(run_of(4, 6, term=2))
    bench.executor.settle()
    assert sync_count(bench) == before + 1
    assert bench.durable_calls == 1
    assert indexes(contents(journal)) == [1, 2, 3, 4, 5, 6]


def test_what_is_queued_meanwhile_is_the_next_batch_and_only_one_is_under_way() -> None:
    bench = sim_bench()
    journal = bench.open()
    before = sync_count(bench)
    journal.append([entry(2)])
    bench.executor.turn()
    assert len(bench.executor.lane) == 1
    for index in range(3, 10):
        journal.append([entry(index)])
        bench.executor.turn()
    assert len(bench.executor.lane) == 1, "a second write before the first sync returned"
    assert journal.durable_index == 1
    bench.executor.work()
    assert journal.durable_index == 1, "durable before the loop was told"
    bench.executor.turn()
    assert (journal.durable_index, journal.durable_sequence) == (2, 1)
    assert len(bench.executor.lane) == 1
    bench.executor.work()
    bench.executor.turn()
    assert (journal.durable_index, journal.durable_sequence) == (9, 8)
    assert sync_count(bench) == before + 2


def test_nothing_is_reported_before_the_sync_returned() -> None:
    """Power loss at the moment of each report: what was reported is on the device."""
    bench = sim_bench(seed=5)
    journal = bench.open()
    reports = []

    def on_durable() -> None:
        disk = bench.files.clone(random.Random(len(reports)))
        disk.crash()
        reports.append((journal.durable_index, Bench(disk).open().last_index))

    journal.wake(on_durable, bench.fatal.append)
    for index in range(2, 12):
        journal.append([entry(index)])
        bench.executor.settle()
    assert len(reports) == 10
    assert all(found >= promised for promised, found in reports)


def test_a_batch_stays_within_a_segment() -> None:
    bench = sim_bench(journal_segment_bytes=4096)
    journal = bench.open()
    journal.append(run_of(2, 41, size=1000))
    bench.executor.turn()
    sequences = []
    while bench.executor.lane:
        bench.executor.work()
        bench.executor.turn()
        sequences.append((journal.durable_sequence, journal.durable_index))
    assert sequences[0] == (3, 4)
    assert sequences == sorted(sequences)
    assert sequences[-1] == (40, 41)
    sizes = [len(bench.files.read_file(f"{DIRECTORY}/{name}")) for name in segment_files(bench)]
    assert max(sizes) < 4096 + 600


# -- truncation and the durable index -------------------------------------------------------------


def test_truncation_lowers_the_durable_index_at_once() -> None:
    bench = sim_bench()
    journal = bench.open()
    journal.append(run_of(2, 10))
    bench.executor.settle()
    journal.truncate_from(6)
    assert (journal.last_index, journal.last_term, journal.durable_index) == (5, 1, 5)
    journal.append(run_of(6, 12, term=2))
    assert journal.durable_index == 5
    bench.executor.settle()
    assert journal.durable_index == 12
    assert journal.term_at(6) == 2


def test_a_batch_under_way_does_not_vouch_for_what_was_replaced_meanwhile() -> None:
    bench = sim_bench()
    journal = bench.open()
    journal.append(run_of(2, 10))
    bench.executor.turn()
    journal.truncate_from(6)
    journal.append(run_of(6, 10, term=2))
    bench.executor.work()
    bench.executor.turn()
    assert journal.durable_index == 5, "entries 6 to 10 on disk are those of term 1"
    bench.executor.settle()
    assert journal.durable_index == 10


def test_a_partial_batch_does_not_vouch_for_what_a_waiting_truncation_replaces() -> None:
    bench = sim_bench(journal_segment_bytes=2000)
    journal = bench.open()
    journal.append(run_of(2, 9, size=400))
    journal.truncate_from(3)
    journal.append(run_of(3, 9, term=2, size=400))
    bench.executor.turn()
    bench.executor.work()
    bench.executor.turn()
    assert 1 < journal.durable_sequence < 8
    assert journal.durable_index == 2
    bench.executor.settle()
    assert journal.durable_index == 9


def test_truncation_reaches_back_over_segments() -> None:
    bench = sim_bench(journal_segment_bytes=1000)
    journal = bench.open()
    for index in range(2, 40):
        journal.append([entry(index, 1, bytes(100))])
        bench.executor.settle()
    assert len(segment_files(bench)) > 4
    journal.truncate_from(7)
    journal.append(run_of(7, 9, term=5))
    bench.executor.settle()
    expected = [*run_of(2, 6, size=100), *run_of(7, 9, term=5)]
    assert contents(journal)[1:] == expected
    bench.files.kill()
    again = bench.open()
    assert contents(again)[1:] == expected
    assert [again.term_at(index) for index in range(10)] == [0, 0, 1, 1, 1, 1, 1, 5, 5, 5]


def test_truncating_nothing_is_nothing() -> None:
    bench = sim_bench()
    journal = bench.open()
    journal.truncate_from(2)
    assert journal.sequence() == 0


# -- segments -------------------------------------------------------------------------------------


def test_segments_roll_and_are_read_back() -> None:
    bench = sim_bench(journal_segment_bytes=2000, journal_cache_bytes_max=1)
    journal = bench.open()
    for index in range(2, 200):
        journal.append([entry(index, 1 + index // 20)])
        bench.executor.settle()
    expected = [entry(index, 1 + index // 20) for index in range(2, 200)]
    assert len(segment_files(bench)) > 5
    assert [journal.entry(index) for index in range(2, 200)] == expected
    assert [journal.term_at(index) for index in range(2, 200)] == [one.term for one in expected]
    assert contents(journal)[1:] == expected


def test_an_entry_may_be_larger_than_a_segment() -> None:
    bench = sim_bench(journal_segment_bytes=1000, journal_cache_bytes_max=1000)
    journal = bench.open()
    big = entry(3, 1, random.Random(2).randbytes(50_000))
    journal.append([entry(2), big, entry(4)])
    bench.executor.settle()
    assert [journal.entry(index) for index in (2, 3, 4)] == [entry(2), big, entry(4)]
    bench.files.kill()
    assert contents(bench.open())[1:] == [entry(2), big, entry(4)]
    holding = [
        n for n in segment_files(bench) if len(bench.files.read_file(f"{DIRECTORY}/{n}")) > 50_000
    ]
    assert len(holding) == 1


def test_hard_state_survives_the_segment_it_was_written_in() -> None:
    bench = sim_bench(journal_segment_bytes=1000)
    journal = bench.open()
    journal.set_hard_state(vote(7, "n3"))
    for index in range(2, 60):
        journal.append([entry(index, 7, bytes(100))])
        bench.executor.settle()
    journal.drop_prefix(50)
    bench.executor.settle()
    assert segment_files(bench)[0] > "00000000000000000005"
    bench.files.crash()
    assert bench.open().hard_state == vote(7, "n3")


def test_drop_prefix_lets_whole_segments_go() -> None:
    bench = sim_bench(journal_segment_bytes=1000)
    journal = bench.open()
    for index in range(2, 60):
        journal.append([entry(index, 1 + index // 30, bytes(100))])
        bench.executor.settle()
    files = len(segment_files(bench))
    before = contents(journal)
    journal.drop_prefix(40)
    first = journal.first_index
    assert 30 < first <= 40
    assert len(segment_files(bench)) == files, "a file went before its drop was durable"
    bench.executor.settle()
    assert len(segment_files(bench)) < files
    assert contents(journal) == before[first - 1 :]
    assert journal.term_at(first - 1) == 2
    with pytest.raises(InternalError, match="not 3"):
        journal.entry(3)
    bench.files.crash()
    again = bench.open()
    assert (again.first_index, contents(again)) == (first, before[first - 1 :])
    assert again.term_at(first - 1) == 2


def test_drop_prefix_spares_the_open_segment_and_what_is_not_durable() -> None:
    bench = sim_bench(journal_segment_bytes=1000)
    journal = bench.open()
    for index in range(2, 30):
        journal.append([entry(index, 1, bytes(100))])
        bench.executor.settle()
    journal.truncate_from(10)
    journal.append(run_of(10, 60, term=2))
    journal.drop_prefix(60)
    assert journal.first_index <= 10
    bench.executor.settle()
    journal.drop_prefix(1000)
    bench.executor.settle()
    assert journal.last_index == 60
    assert journal.first_index <= 60


def test_reset_leaves_an_index_and_a_term_to_go_on_from() -> None:
    bench = sim_bench(journal_segment_bytes=1000)
    journal = bench.open()
    journal.set_hard_state(vote(4, "n1"))
    for index in range(2, 30):
        journal.append([entry(index, 3, bytes(100))])
        bench.executor.settle()
    journal.reset(100, 4)
    assert (journal.first_index, journal.last_index, journal.last_term) == (101, 100, 4)
    assert journal.term_at(100) == 4
    assert journal.durable_index < 100
    journal.append(run_of(101, 103, term=4))
    bench.executor.settle()
    assert journal.durable_index == 103
    assert len(segment_files(bench)) == 1
    bench.files.crash()
    again = bench.open()
    assert contents(again) == run_of(101, 103, term=4)
    assert (again.first_index, again.term_at(100)) == (101, 4)
    assert again.hard_state == vote(4, "n1")


def test_a_reset_behind_a_drop_keeps_further_drops_waiting() -> None:
    """The drop's own end must not open the door while the reset is still on its way."""
    bench = sim_bench(journal_segment_bytes=1000)
    journal = bench.open()
    for index in range(2, 30):
        journal.append([entry(index, 1, bytes(100))])
        bench.executor.settle()
    journal.drop_prefix(10)
    bench.executor.turn()
    journal.reset(100, 1)
    bench.executor.work()
    bench.executor.turn()
    journal.drop_prefix(25)
    assert journal.first_index == 101
    bench.executor.settle()
    assert (contents(journal), journal.durable_index) == ([], 100)
    bench.files.crash()
    again = bench.open()
    assert (again.first_index, again.last_index, again.last_term) == (101, 100, 1)


# -- reading and memory ---------------------------------------------------------------------------


def test_entries_are_bounded_but_at_least_one() -> None:
    bench = sim_bench(journal_cache_bytes_max=2000, journal_segment_bytes=4000)
    journal = bench.open()
    for index in range(2, 41):
        journal.append([entry(index, 1, bytes(300))])
        bench.executor.settle()
    for first in (2, 10, 35, 40):
        assert indexes(journal.entries(first, 40, 1)) == [first]
        expected = list(range(first, min(first + 3, 41)))
        assert indexes(journal.entries(first, 40, 3 * 332)) == expected
        assert indexes(journal.entries(first, 40, 4 * 332 - 1)) == expected
    assert indexes(journal.entries(5, 7, 1 << 30)) == [5, 6, 7]
    assert journal.entries(41, 50, 1 << 30) == []
    assert indexes(journal.entries(39, 999, 1 << 30)) == [39, 40]


def test_the_cache_is_bounded_and_keeps_what_is_not_durable() -> None:
    bench = sim_bench(journal_cache_bytes_max=20_000)
    journal = bench.open()
    journal.append(run_of(2, 101, size=1000))
    assert len(journal._cache.entries) == 100, "not on disk yet: memory is the only copy"
    bench.executor.settle()
    assert 0 < len(journal._cache.entries) <= 20
    assert journal._cache.bytes <= 20_000
    assert contents(journal)[1:] == run_of(2, 101, size=1000)
    journal.truncate_from(50)
    assert journal._cache.bytes == 0
    assert not journal._cache.entries


def test_memory_per_old_entry_is_small() -> None:
    bench = sim_bench(journal_segment_bytes=64_000, journal_cache_bytes_max=10_000)
    journal = bench.open()
    index = 2
    for _ in range(20):
        journal.append(run_of(index, index + 999, size=10))
        index += 1000
        bench.executor.settle()
    segments = journal._segments
    assert len(segments.sealed) > 10
    assert len(segments._loaded) <= 4
    active = segments.active.index
    assert active.offsets.itemsize + active.lengths.itemsize == 12
    assert len(active.term_starts) <= 1
    assert indexes(journal.entries(2, 1000, 1 << 30)) == list(range(2, 1001))
    assert len(segments._loaded) <= 4


# -- use that makes no sense ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong", [entry(4, 2), entry(2, 2), entry(3, 1)], ids=["gap", "again", "older term"]
)
def test_append_refuses_what_does_not_follow(wrong: LogEntry) -> None:
    bench = sim_bench()
    journal = bench.open()
    journal.append([entry(2, 2)])
    with pytest.raises(InternalError, match="cannot follow"):
        journal.append([wrong])
    assert (journal.last_index, journal.sequence()) == (2, 1)


def test_append_takes_all_or_nothing() -> None:
    journal = sim_bench().open()
    with pytest.raises(InternalError, match="cannot follow"):
        journal.append([entry(2), entry(3), entry(5)])
    assert (journal.last_index, journal.sequence()) == (1, 0)


def test_reading_out_of_bounds_is_refused() -> None:
    journal = sim_bench().open()
    for index in (0, 2):
        with pytest.raises(InternalError, match=f"entries 1 to 1, not {index}"):
            journal.entry(index)
    with pytest.raises(InternalError):
        journal.term_at(2)
    with pytest.raises(InternalError):
        journal.entries(0, 1, 100)


def test_a_vote_that_cannot_be_written_is_refused() -> None:
    journal = sim_bench().open()
    for name in ("", "x" * 65):
        with pytest.raises(ValueError, match="1 to 64 bytes"):
            journal.set_hard_state(vote(1, name))
    assert journal.sequence() == 0


# -- many random changes --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_random_changes_agree_with_a_plain_list(seed: int) -> None:
    draw = random.Random(seed)
    limits = Limits(journal_segment_bytes=2000, journal_cache_bytes_max=3000)
    bench = Bench(SimFiles(draw), limits).create()
    model = Model(bench.open())
    for step in range(300):
        random_step(model, draw)
        for _ in range(draw.randint(0, 3)):
            bench.executor.turn()
            if bench.executor.lane:
                bench.executor.work()
        if step % 10 == 0:
            model.check_memory()
            assert state_of(model.journal) == model.now
        if draw.random() < 0.02:
            bench.executor.settle()
            bench.files.kill()
            journal = bench.open()
            assert state_of(journal) == model.now
            model = Model(journal)


def test_founding_needs_random_ids() -> None:
    """Two journals differ, so that a segment of one cannot pass for one of the other."""
    one, other = SimFiles(random.Random(0)), SimFiles(random.Random(0))
    Journal.create(one, DIRECTORY, SeededRandom(1))
    Journal.create(other, DIRECTORY, SeededRandom(2))
    name = f"{DIRECTORY}/00000000000000000001.segment"
    other.set_content(name, one.read_file(name))
    with pytest.raises(Exception, match="belongs to another journal"):
        Bench(other).open()
