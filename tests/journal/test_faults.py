"""The device refuses: the journal says so once, and never writes again."""

from __future__ import annotations

import errno
import random
from types import SimpleNamespace

import pytest

from raftdb.base.errors import FatalError
from raftdb.base.limits import Limits
from tests.journal.model import State, run_script, state_of
from tests.journal.support import DIRECTORY, Bench, entry, run_of, sim_bench
from tests.sim.disk import MUTATIONS, Fault, SimFiles

LIMITS = Limits(journal_segment_bytes=1500, journal_cache_bytes_max=2000)
KINDS = ("write", "sync", "create", "truncate", "rename", "sync_directory", "remove", "open")


def faulty(kind: str, nth: int, error: int) -> tuple[Bench, Fault, int]:
    """The script with one fault; also how many changing calls there were when it was reported."""
    bench = Bench(SimFiles(random.Random(nth)), LIMITS).create()
    fault = bench.files.inject(
        Fault(kind, nth, error, partial=random.Random(nth).random(), contains="journal")
    )
    at_failure: list[int] = []
    step = bench.files.step

    def counting_step(call: str, path: str) -> Fault | None:
        hit = step(call, path)
        if hit is fault:
            at_failure.append(bench.files.mutations)
        return hit

    bench.files.step = counting_step
    model = run_script(bench, 2, 40)
    if fault.fired and kind != "remove":
        assert bench.files.mutations == at_failure[0], "something was written after the failure"
        assert len(bench.fatal) == 1
    if not fault.fired or kind == "remove":
        assert bench.fatal == []
    del bench.files.step
    for outcome in range(2):
        disk = bench.files.clone(random.Random(outcome))
        if outcome:
            disk.crash()
        else:
            disk.kill()
        found = state_of(Bench(disk, LIMITS).open())
        model.check_recovered(found)
        disk.crash()
        assert state_of(Bench(disk, LIMITS).open()) == found
    return bench, fault, len(model.states)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
def test_every_call_of_every_kind_may_fail(kind: str, error: int) -> None:
    hits = 0
    refused = None
    for nth in range(1, 200):
        try:
            bench, fault, _ = faulty(kind, nth, error)
        except FatalError as problem:
            refused = problem  # While opening.
            continue
        if not fault.fired:
            break
        hits += 1
        if bench.fatal:
            assert isinstance(bench.fatal[0], FatalError)
            assert bench.fatal[0].code == "journal_io"
    assert hits >= 3
    if kind not in ("remove", "create"):
        assert "ing the journal in /data/journal failed" in str(refused)
    assert not fault.fired, "the script is longer than the test"


def test_a_failed_sync_is_final() -> None:
    bench = sim_bench()
    journal = bench.open()
    journal.append([entry(2)])
    bench.executor.settle()
    journal.append([entry(3)])
    bench.executor.turn()
    journal.append([entry(4)])
    called = []
    journal.flush(lambda: called.append("flushed"))
    bench.files.inject(Fault("sync", 1))
    calls = bench.durable_calls
    syncs = bench.files.counts["sync"]
    bench.executor.settle()
    assert len(bench.fatal) == 1
    fatal = bench.fatal[0]
    assert isinstance(fatal, FatalError)
    assert "writing the journal in /data/journal failed" in str(fatal)
    assert "kernel's log" in str(fatal)
    assert fatal.detail["errno"] == errno.EIO
    assert bench.files.counts["sync"] == syncs + 1, "the sync was tried again"
    assert (journal.durable_index, journal.durable_sequence) == (2, 1)
    assert bench.durable_calls == calls
    operations = bench.files.mutations
    for change in (
        lambda: journal.append([entry(5)]),
        lambda: journal.truncate_from(2),
        lambda: journal.set_hard_state(journal.hard_state),
    ):
        with pytest.raises(FatalError, match="writing the journal"):
            change()
    bench.executor.advance(100)
    bench.executor.settle()
    assert bench.close(journal) is fatal
    assert bench.files.mutations == operations
    assert len(bench.fatal) == 1
    assert called == []


def test_a_full_disk_says_what_to_do_and_loses_nothing() -> None:
    bench = sim_bench()
    journal = bench.open()
    journal.append(run_of(2, 5))
    bench.executor.settle()
    bench.files.inject(Fault("write", 1, errno.ENOSPC, partial=0.5))
    journal.append(run_of(6, 9))
    bench.executor.settle()
    assert "free some space" in str(bench.fatal[0])
    assert journal.durable_index == 5
    bench.files.kill()
    again = bench.open()
    assert again.last_index == 5
    assert bench.log.events().count("journal_tail_cut") == 1
    event, fields = bench.log.lines[-1][1:]
    assert event == "journal_tail_cut"
    assert fields["file"].endswith(".segment")
    assert fields["bytes"] > 0


def test_a_full_disk_while_opening() -> None:
    bench = sim_bench()
    bench.files.inject(Fault("write", 1, errno.ENOSPC))
    with pytest.raises(FatalError, match="free some space"):
        bench.open()
    # The lock is free again, and nothing is lost.
    assert bench.open().last_index == 1


def test_who_asks_after_the_failure_is_told_too() -> None:
    bench = sim_bench()
    journal = bench.open()
    journal.append([entry(2)])
    bench.files.inject(Fault("write", 1))
    bench.executor.settle()
    late: list[BaseException] = []
    journal.wake(lambda: None, late.append)
    bench.executor.settle()
    assert late == bench.fatal


def test_an_error_while_reading_old_entries_is_reported() -> None:
    bench = sim_bench(journal_cache_bytes_max=1)
    journal = bench.open()
    journal.append(run_of(2, 5))
    bench.executor.settle()
    bench.files.inject(Fault("read", 1, errno.EIO))
    with pytest.raises(FatalError, match=r"reading .*segment failed"):
        journal.entry(3)


def test_the_mark_failing_is_as_final() -> None:
    bench = sim_bench()
    journal = bench.open()
    journal.append([entry(2)])
    bench.executor.settle()
    bench.files.inject(Fault("sync", 1, contains="mark"))
    bench.executor.advance(1.0)
    journal.append([entry(3)])
    bench.executor.settle()
    assert len(bench.fatal) == 1
    assert journal.durable_index == 2
    bench.files.crash()
    assert bench.open().last_index == 2


def test_states_are_compared_by_value() -> None:
    """The tests above would prove nothing if this did not hold."""
    bench = sim_bench()
    state = state_of(bench.open())
    assert state == State(1, (entry(1, 0, b""),), state.hard_state)
    assert state != State(1, (entry(1, 0, b"x"),), state.hard_state)
    assert "sync" in MUTATIONS
    assert DIRECTORY in bench.files._directories


def test_a_sealed_segment_whose_index_does_not_read_is_closed_again() -> None:
    bench = Bench(SimFiles(random.Random(1)), LIMITS).create()
    journal = bench.open()
    for first in range(2, 62, 5):
        journal.append(run_of(first, first + 4, size=100))
        bench.executor.settle()
    segments = journal._segments
    assert len(segments.sealed) > 2
    while segments._loaded:
        segments._loaded.popitem()[1].file.close()
    opened: list[Unreadable] = []

    class Unreadable:
        closed = False

        def __init__(self) -> None:
            opened.append(self)

        def read_at(self, offset: int, count: int) -> bytes:
            raise OSError(errno.EIO, "no")

        def close(self) -> None:
            self.closed = True

    segments._files = SimpleNamespace(open=lambda _path: Unreadable())  # type: ignore[assignment]
    with pytest.raises(FatalError):
        segments.read(segments.first_index, segments.first_index, 1000)
    [file] = opened
    assert file.closed
