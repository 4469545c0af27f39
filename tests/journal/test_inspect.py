"""What `raftdb inspect` reads of a stopped node's journal."""

from __future__ import annotations

import itertools
import random

import pytest

from raftdb.base.errors import ConfigError
from raftdb.base.limits import Limits
from raftdb.journal import inspect_journal, read_entries
from tests.journal.model import run_script
from tests.journal.support import DIRECTORY, Bench, contents, entry, run_of, sim_bench, vote
from tests.sim.disk import Fault, SimFiles


def test_a_report_of_a_sound_journal() -> None:
    bench = sim_bench(journal_segment_bytes=1500)
    journal = bench.open()
    journal.set_hard_state(vote(3, "n2"))
    for index in range(2, 40):
        journal.append([entry(index, 1 + index // 20, bytes(60))])
        bench.executor.settle()
    journal.drop_prefix(12)
    bench.executor.settle()
    journal.truncate_from(30)
    bench.executor.settle()
    expected = contents(journal)
    durable = journal.durable_index
    bench.close(journal)
    mutations = bench.files.mutations
    report = inspect_journal(bench.files, DIRECTORY)
    assert report.hard_state == vote(3, "n2")
    assert (report.first_index, report.last_index) == (expected[0].index, 29)
    assert (report.first_term, report.last_term) == (1, 2)
    assert report.format_version == 1
    assert report.durable_index == durable == 29
    assert len(report.journal_id) == 32
    assert report.damage == ()
    assert report.torn is None
    assert [segment.sealed for segment in report.segments[:-1]] == [True] * (
        len(report.segments) - 1
    )
    assert not report.segments[-1].sealed
    assert report.segments[0].first_index == expected[0].index
    for before, after in zip(report.segments, report.segments[1:], strict=False):
        assert after.number == before.number + 1
        assert after.first_index <= before.last_index + 1
    assert list(read_entries(bench.files, DIRECTORY)) == expected
    assert bench.files.mutations == mutations, "inspecting changed something"


def test_it_agrees_with_a_start_after_every_crash() -> None:
    """Whatever a crash leaves is no damage, and what is read is what a start finds."""
    limits = Limits(journal_segment_bytes=1500)
    torn = 0
    for seed, operations in itertools.product(range(8), range(10, 160, 5)):
        bench = Bench(SimFiles(random.Random(seed * 1000 + operations)), limits).create()
        bench.files.power_off_after(operations)
        run_script(bench, seed, 40)
        bench.files.crash()
        report = inspect_journal(bench.files, DIRECTORY)
        left = list(read_entries(bench.files, DIRECTORY))
        journal = bench.open()
        assert report.damage == ()
        torn += report.torn is not None
        assert report.hard_state == journal.hard_state
        assert (report.first_index, report.last_index) == (journal.first_index, journal.last_index)
        assert left == contents(journal)
        assert report.durable_index <= journal.last_index
    assert torn >= 3


def test_a_torn_end_is_no_damage() -> None:
    bench = sim_bench()
    journal = bench.open()
    journal.append([entry(2)])
    bench.executor.settle()
    bench.files.inject(Fault("write", 1, partial=0.7))
    journal.append(run_of(3, 9))
    bench.executor.settle()
    bench.files.kill()
    report = inspect_journal(bench.files, DIRECTORY)
    assert report.damage == ()
    assert report.torn is not None
    assert report.torn.file.endswith(".segment")
    assert report.last_index == 2


def test_there_must_be_a_journal() -> None:
    files = SimFiles(random.Random(0))
    with pytest.raises(ConfigError, match="no journal in /nowhere"):
        inspect_journal(files, "/nowhere")
    with pytest.raises(ConfigError, match="no journal in /nowhere"):
        list(read_entries(files, "/nowhere"))


def test_headers_gone_still_gives_a_report() -> None:
    bench = sim_bench(journal_segment_bytes=1000)
    journal = bench.open()
    for index in range(2, 30):
        journal.append([entry(index, 1, bytes(60))])
        bench.executor.settle()
    bench.close(journal)
    names = [name for name in bench.files.list_directory(DIRECTORY) if name.endswith("segment")]
    for name in names[:2]:
        bench.files.overwrite(f"{DIRECTORY}/{name}", 0, bytes(256))
    report = inspect_journal(bench.files, DIRECTORY)
    assert {one.file for one in report.damage} == {f"{DIRECTORY}/{name}" for name in names[:2]}
    assert report.last_index == 29
    assert list(read_entries(bench.files, DIRECTORY))[-1] == entry(29, 1, bytes(60))
    bench.files.remove(f"{DIRECTORY}/mark")
    for name in names:
        bench.files.overwrite(f"{DIRECTORY}/{name}", 0, bytes(256))
    report = inspect_journal(bench.files, DIRECTORY)
    assert report.hard_state is None
    assert len({one.file for one in report.damage}) == len(names) + 1
