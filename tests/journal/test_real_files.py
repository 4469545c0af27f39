"""The journal on the real file system, with real processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from raftdb.base.errors import ConfigError
from raftdb.base.limits import Limits
from raftdb.journal import inspect_journal, read_entries
from raftdb.runtime.files import RealFiles
from tests.journal.support import Bench, contents, entry, run_of, vote

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
