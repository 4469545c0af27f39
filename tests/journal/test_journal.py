"""What the journal promises while nothing goes wrong."""

from __future__ import annotations

from raftdb.journal import HardState
from tests.journal.support import contents, entry, run_of, sim_bench, vote


def test_a_new_journal_has_the_base_entry() -> None:
    bench = sim_bench()
    journal = bench.open()
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
