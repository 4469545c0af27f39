"""Reading a sealed segment as a whole, to see whether all of it is as it was written."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from raftdb.base.ports import Files
from raftdb.journal.format import (
    FOOTER_TAIL_BYTES,
    SEGMENT_HEADER_BYTES,
    Batch,
    FooterTail,
    FormatError,
    decode_footer_tail,
    decode_index,
    decode_segment_header,
    index_bytes,
    seed_of,
    segment_number,
)
from raftdb.journal.problems import corrupt, io_problem
from raftdb.journal.scan import Cursor, read_batches

__all__ = ["SegmentCheck", "sealed_segments"]


def sealed_segments(files: Files, directory: str) -> list[str]:
    """Paths of all segments but the last, the oldest first."""
    names = [name for name in files.list_directory(directory) if segment_number(name)]
    return [posixpath.join(directory, name) for name in sorted(names)[:-1]]


class SegmentCheck:
    """Step by step, on a lane."""

    def __init__(self, files: Files, path: str) -> None:
        self._files = files
        self._path = path
        self._batches: Iterator[Batch] | None = None
        self._cursor = Cursor(0, 0, 0)
        self._tail: FooterTail | None = None
        self.size = 0
        """Bytes of the file, once it was read."""

    def step(self, batches_max: int) -> bool:
        """Verify some more; whether all of it is verified. A segment that was dropped meanwhile
        is. Raises JournalCorruptError, and FatalError when the system refuses."""
        try:
            if self._batches is None:
                self._batches = self._begin()
            for _number, _batch in zip(range(batches_max), self._batches, strict=False):
                pass
            if self._tail is not None and self._cursor.offset < self._tail.index_offset:
                return False
            self._end()
        except FileNotFoundError:
            return True
        except FormatError as problem:
            raise corrupt(self._path, problem.offset, problem.text) from None
        except OSError as error:
            raise io_problem(f"reading {self._path}", error) from error
        return True

    def _begin(self) -> Iterator[Batch]:
        data = self._files.read_file(self._path)
        self.size = len(data)
        header = decode_segment_header(data[:SEGMENT_HEADER_BYTES])
        seed = seed_of(header.journal_id, header.number)
        tail = decode_footer_tail(data[-FOOTER_TAIL_BYTES:], seed)
        if tail is None:
            text = "the footer of a sealed segment does not verify"
            raise FormatError(max(0, len(data) - FOOTER_TAIL_BYTES), text)
        index = data[tail.index_offset : tail.index_offset + index_bytes(tail)]
        decode_index(index, tail, seed)
        self._tail, self._cursor = tail, Cursor.at_start(header)
        return iter(read_batches(data, header, self._cursor, tail.index_offset))

    def _end(self) -> None:
        tail, cursor = self._tail, self._cursor
        if tail is not None and (cursor.number, cursor.chain) != (tail.next_batch, tail.chain):
            raise FormatError(cursor.offset, "its batches are not those that its footer names")
