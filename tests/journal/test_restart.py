"""What a start reads: the last segment, and of every other one its header and its footer's end."""

from __future__ import annotations

import random

from raftdb.base.limits import Limits
from raftdb.base.ports import File
from raftdb.journal import Journal
from tests.journal.support import Bench, entry
from tests.sim.disk import SimFiles

SEGMENT_BYTES = 8_000


class CountedFile:
    """One open file whose reads are counted."""

    def __init__(self, file: File, files: CountedFiles) -> None:
        self._file = file
        self._files = files

    def read_at(self, offset: int, count: int) -> bytes:
        data = self._file.read_at(offset, count)
        self._files.read_bytes += len(data)
        return data

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)


class CountedFiles(SimFiles):
    """Counts what is read."""

    read_bytes = 0

    def open(self, path: str, *, create: bool = False, exclusive: bool = False) -> File:
        return CountedFile(super().open(path, create=create, exclusive=exclusive), self)  # type: ignore[return-value]

    def read_file(self, path: str) -> bytes:
        data = super().read_file(path)
        self.read_bytes += len(data)
        return data


def start_after(entries: int) -> tuple[int, int]:
    """(bytes read by a start after a kill, sealed segments)."""
    files = CountedFiles(random.Random(1))
    bench = Bench(files, Limits(journal_segment_bytes=SEGMENT_BYTES)).create()
    journal: Journal = bench.open()
    for index in range(2, entries + 2):
        journal.append([entry(index, 1, bytes(500))])
        bench.executor.settle()
    sealed = len(journal._segments.sealed)
    files.kill()
    files.read_bytes = 0
    again = bench.open()
    assert again.last_index == entries + 1
    return files.read_bytes, sealed


def test_a_start_reads_the_logs_tail_and_not_the_log() -> None:
    few, few_sealed = start_after(30)
    many, many_sealed = start_after(1500)
    assert many_sealed > 20 * max(few_sealed, 1)
    assert many <= 3 * SEGMENT_BYTES + 400 * many_sealed
    assert many < 1500 * 500 / 10
    assert few <= 3 * SEGMENT_BYTES + 400 * few_sealed
