"""The journal on the real file system, with real processes."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from raftdb.base.errors import ConfigError
from raftdb.base.limits import Limits
from raftdb.journal import Journal, inspect_journal, read_entries
from raftdb.runtime.executor import LoopExecutor
from raftdb.runtime.files import RealFiles
from tests.journal.support import Bench, ListLog, contents, entry, run_of, vote

WRITER = """
import sys
from tests.journal.support import Bench, entry
from raftdb.runtime.files import RealFiles
from raftdb.base.limits import Limits
bench = Bench(RealFiles(), Limits(journal_segment_bytes=20_000), sys.argv[1])
journal = bench.open()
while True:
    journal.append([entry(journal.last_index + 1, 1, bytes([journal.last_index % 256]) * 500)])
    bench.executor.settle()
    print(journal.durable_index, flush=True)
"""


def real_bench(tmp_path: Path, **limits: int) -> Bench:
    return Bench(RealFiles(), Limits(**limits), str(tmp_path / "node" / "journal"))


def test_round_trip(tmp_path: Path) -> None:
    bench = real_bench(tmp_path, journal_segment_bytes=5000, journal_cache_bytes_max=3000).create()
    journal = bench.open()
    journal.set_hard_state(vote(2, "n1"))
    for index in range(2, 60):
        journal.append([entry(index, 2, bytes([index]) * 300)])
        bench.executor.settle()
    journal.truncate_from(40)
    journal.append(run_of(40, 45, term=3))
    journal.drop_prefix(20)
    bench.executor.settle()
    before = contents(journal)
    assert journal.first_index > 5
    assert bench.close(journal) is None
    again = bench.open()
    assert contents(again) == before
    assert again.hard_state == vote(2, "n1")
    assert bench.close(again) is None
    assert list(read_entries(bench.files, bench.directory)) == before
    assert inspect_journal(bench.files, bench.directory).damage == ()
    for path in (tmp_path / "node" / "journal").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_second_process_is_refused_and_a_killed_one_leaves_all_it_reported(
    tmp_path: Path,
) -> None:
    bench = real_bench(tmp_path).create()
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, bench.directory], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        reported = [int(child.stdout.readline()) for _ in range(150)]
        with pytest.raises(ConfigError, match="another process has the journal") as caught:
            bench.open()
        assert bench.directory in str(caught.value)
        child.send_signal(signal.SIGKILL)
        child.wait(30)
        reported += [int(line) for line in child.stdout.read().split()]
        child.stdout.close()
    finally:
        child.kill()
        child.wait(30)
    journal = bench.open()
    assert journal.last_index >= reported[-1] >= 151
    assert [one.data[:1] for one in contents(journal)[1:]] == [
        bytes([(one.index - 1) % 256]) for one in contents(journal)[1:]
    ]
    assert len(journal._segments.sealed) > 2
    assert bench.close(journal) is None


async def write_with_threads(bench: Bench, count: int) -> None:
    """Appends, truncations and reads of old entries on the loop while the lane's thread writes."""
    loop = asyncio.get_running_loop()
    crashes: list[BaseException] = []
    executor = LoopExecutor(loop, crashes.append)
    journal = Journal.open(bench.files, bench.directory, executor, bench.limits, ListLog())
    progress = asyncio.Event()
    journal.wake(progress.set, crashes.append)
    while journal.last_index < count and not crashes:
        first = journal.last_index + 1
        journal.append([entry(index, 1, b"%06d" % index * 20) for index in range(first, first + 7)])
        if first % 5 == 0:
            journal.truncate_from(first + 5)
        old = journal.entry(1 + first * 7 % (journal.last_index - 1) + 1)
        assert old.data == b"%06d" % old.index * 20
        assert len(journal.entries(2, journal.last_index, 3000)) == min(
            3000 // 152, journal.last_index - 1
        )
        if first % 3 == 0:
            progress.clear()
            await asyncio.wait_for(progress.wait(), 30)
    closed = loop.create_future()
    journal.close(closed.set_result)
    assert await asyncio.wait_for(closed, 30) is None
    assert crashes == []
    assert executor.close() == []


def test_with_a_real_loop_and_a_real_lane(tmp_path: Path) -> None:
    bench = real_bench(tmp_path, journal_segment_bytes=9000, journal_cache_bytes_max=2000).create()
    asyncio.run(write_with_threads(bench, 2000))
    journal = bench.open()
    assert journal.last_index >= 2000
    for one in contents(journal)[1:]:
        assert one.data == b"%06d" % one.index * 20
    assert bench.close(journal) is None
