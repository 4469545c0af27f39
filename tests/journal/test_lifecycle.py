"""Founding, opening twice, closing, idling."""

from __future__ import annotations

import errno
import os
import random

import pytest

from raftdb.base.errors import ConfigError, InternalError
from raftdb.base.exits import ExitCode, exit_code
from tests.journal.support import DIRECTORY, Bench, entry, run_of, sim_bench
from tests.sim.disk import SimFiles


def test_an_empty_or_missing_directory_is_not_a_member() -> None:
    bench = Bench(SimFiles(random.Random(0)))
    for prepare in (lambda: None, lambda: bench.files.make_directory(DIRECTORY)):
        prepare()
        with pytest.raises(ConfigError, match="not a member") as caught:
            bench.open()
        assert caught.value.code == "journal_missing"
        assert DIRECTORY in str(caught.value)
    assert bench.files.list_directory(DIRECTORY) == []


def test_a_journal_is_founded_once() -> None:
    bench = sim_bench()
    with pytest.raises(ConfigError, match="already holds a journal"):
        bench.create()


def test_a_second_opening_is_refused_and_closing_allows_it() -> None:
    bench = sim_bench()
    journal = bench.open()
    other = Bench(bench.files)
    with pytest.raises(ConfigError, match=DIRECTORY) as caught:
        other.open()
    assert caught.value.code == "journal_locked"
    with pytest.raises(ConfigError, match="another process"):
        other.create()
    assert bench.close(journal) is None
    assert other.open().last_index == 1


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
@pytest.mark.parametrize("call", ["list_directory", "lock", "open", "read_file"])
def test_what_this_user_may_not_do_is_no_damage_and_no_broken_promise(
    monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    """Files of another user, as a command that was run as root leaves them."""
    bench = sim_bench()
    bench.close(bench.open())

    def refused(path: str, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), path)

    with monkeypatch.context() as patch:
        patch.setattr(bench.files, call, refused)
        with pytest.raises(ConfigError, match=os.strerror(number)) as caught:
            Bench(bench.files).open()
    assert caught.value.code == "journal_access"
    assert exit_code(caught.value) == ExitCode.USAGE
    assert Bench(bench.files).open().last_index == 1


def test_closing_writes_what_is_queued_and_refuses_more() -> None:
    bench = sim_bench()
    journal = bench.open()
    journal.append(run_of(2, 5))
    done: list[object] = []
    journal.close(done.append)
    with pytest.raises(InternalError, match="closed"):
        journal.append([entry(6)])
    bench.executor.settle()
    assert done == [None]
    assert not bench.executor.timers
    journal.close(done.append)
    bench.executor.settle()
    assert done == [None, None]
    bench.files.crash()
    assert bench.open().last_index == 5


def test_closing_with_much_queued_still_writes_one_batch_at_a_time() -> None:
    bench = sim_bench(journal_segment_bytes=1000)
    journal = bench.open()
    journal.append(run_of(2, 40, size=300))
    done: list[object] = []
    journal.close(done.append)
    while bench.executor.soon or bench.executor.lane:
        bench.executor.turn()
        assert len(bench.executor.lane) <= 1
        if bench.executor.lane:
            bench.executor.work()
    assert done == [None]
    assert bench.open().last_index == 40


def test_flush_calls_when_all_before_it_is_durable() -> None:
    bench = sim_bench()
    journal = bench.open()
    calls: list[tuple[str, int]] = []
    journal.flush(lambda: calls.append(("nothing", journal.durable_index)))
    bench.executor.turn()
    journal.append([entry(2)])
    bench.executor.turn()
    journal.append([entry(3)])
    journal.flush(lambda: calls.append(("three", journal.durable_index)))
    bench.executor.work()
    bench.executor.turn()
    assert calls == [("nothing", 1)]
    bench.executor.settle()
    assert calls == [("nothing", 1), ("three", 3)]


def test_the_mark_is_written_once_after_activity_ceases() -> None:
    bench = sim_bench()
    journal = bench.open()
    path = f"{DIRECTORY}/mark"
    before = bench.files.read_file(path)
    for index in range(2, 6):
        journal.append([entry(index)])
        bench.executor.settle()
        bench.executor.advance(0.3)
        bench.executor.settle()
    assert len(bench.executor.timers) == 1, "one timer, however many commits"
    assert bench.files.read_file(path) == before, "while there is work there is no mark"
    for _ in range(3):
        bench.executor.advance(1.0)
        bench.executor.settle()
    marked = bench.files.read_file(path)
    assert marked != before
    operations = bench.files.mutations
    for _ in range(5):
        bench.executor.advance(10.0)
        bench.executor.settle()
    assert not bench.executor.timers
    assert bench.files.mutations == operations, "an idle journal writes nothing"


def test_work_that_comes_while_the_mark_is_written_waits_for_it() -> None:
    bench = sim_bench()
    journal = bench.open()
    journal.append([entry(2)])
    bench.executor.settle()
    bench.executor.advance(1.0)
    assert len(bench.executor.lane) == 1
    journal.append([entry(3)])
    bench.executor.turn()
    assert len(bench.executor.lane) == 1
    bench.executor.settle()
    assert journal.durable_index == 3
