"""Reading entries back: the open segment, and the sealed ones before it.

Every record is verified by its checksums each time it is read from the disk. Of sealed segments
only a few numbers stay in memory; their index is loaded when an entry is asked for, and a few
loaded ones are kept.
"""

from __future__ import annotations

import posixpath
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from raftdb.base.ports import File, Files
from raftdb.journal.format import (
    FOOTER_TAIL_BYTES,
    RECORD_HEADER_BYTES,
    FooterTail,
    FormatError,
    LogEntry,
    decode_entry,
    decode_index,
    index_bytes,
    seed_of,
    segment_name,
)
from raftdb.journal.index import SegmentIndex
from raftdb.journal.problems import corrupt, io_problem

__all__ = ["SealedSegment", "SegmentReader", "Segments"]

_LOADED_SEGMENTS_MAX = 4
_WASTE_BYTES_MAX = 1 << 16
"""A run of entries is read at once unless more than this lies dead between them."""


@dataclass(slots=True)
class SealedSegment:
    """A segment that is never written again."""

    tail: FooterTail
    last: int
    """Last entry of it that counts: later segments may have truncated it, whole or in part."""

    @property
    def number(self) -> int:
        return self.tail.number

    @property
    def first(self) -> int:
        return self.tail.first_index

    @property
    def size(self) -> int:
        """Bytes of its file."""
        return self.tail.index_offset + index_bytes(self.tail) + FOOTER_TAIL_BYTES


class SegmentReader:
    """Entries of one segment by its index."""

    def __init__(self, path: str, file: File, index: SegmentIndex, seed: int) -> None:
        self.path = path
        self.file = file
        self.index = index
        self.seed = seed

    def read(self, first: int, last: int, max_bytes: int) -> list[LogEntry]:
        """Entries first to last, as many as fit into `max_bytes` (each counts its data and
        RECORD_HEADER_BYTES), but at least one."""
        offsets, lengths, base = self.index.offsets, self.index.lengths, self.index.first
        stop = first
        total = 0
        while stop <= last:
            total += lengths[stop - base] + RECORD_HEADER_BYTES
            if total > max_bytes and stop > first:
                break
            stop += 1
        start = offsets[first - base]
        end = offsets[stop - 1 - base] + RECORD_HEADER_BYTES + lengths[stop - 1 - base]
        if stop - first > 1 and end - start > 2 * total + _WASTE_BYTES_MAX:
            return [entry for index in range(first, stop) for entry in self.read(index, index, 0)]
        try:
            data = self.file.read_at(start, end - start)
        except OSError as error:
            raise io_problem(f"reading {self.path}", error) from error
        try:
            return [
                decode_entry(data, offsets[index - base] - start, index, self.seed)
                for index in range(first, stop)
            ]
        except FormatError as problem:
            raise corrupt(self.path, start + problem.offset, problem.text) from None


class Segments:
    """All segments of the journal as the disk has them."""

    def __init__(
        self,
        files: Files,
        directory: str,
        journal_id: bytes,
        sealed: Sequence[SealedSegment],
        active: SegmentReader,
    ) -> None:
        self._files = files
        self._directory = directory
        self._journal_id = journal_id
        self.sealed = list(sealed)
        self.active = active
        self._loaded: OrderedDict[int, SegmentReader] = OrderedDict()

    @property
    def oldest(self) -> int:
        """Number of the oldest segment."""
        return self.sealed[0].number if self.sealed else self.active.index.number

    @property
    def first_index(self) -> int:
        """The first entry that is still there (or comes next)."""
        return self.sealed[0].first if self.sealed else self.active.index.first

    def path_of(self, number: int) -> str:
        """Full path of a segment."""
        return posixpath.join(self._directory, segment_name(number))

    def read(self, first: int, last: int, max_bytes: int) -> list[LogEntry]:
        """Entries from `first` on, up to the end of the segment that holds it at most."""
        if first >= self.active.index.first:
            return self.active.read(first, last, max_bytes)
        segment = self._sealed_with(first)
        return self._load(segment).read(first, min(last, segment.last), max_bytes)

    def term_at(self, index: int) -> int:
        """Term of an entry, or of the one before the first."""
        active = self.active.index
        if index >= active.first - 1:
            return active.term_at(index)
        if index == self.first_index - 1:
            return self.sealed[0].tail.previous_term
        segment = self._sealed_with(index)
        if index == segment.tail.last_index:
            return segment.tail.last_term
        return self._load(segment).index.term_at(index)

    def truncate(self, index: int) -> None:
        """The active segment has recorded that entries from `index` on are gone."""
        for segment in reversed(self.sealed):
            segment.last = min(segment.last, index - 1)
            if segment.first < index:
                break

    def seal_active(self, tail: FooterTail, new_active: SegmentReader) -> None:
        """The active segment got its footer and a successor."""
        old = self.active
        self.sealed.append(SealedSegment(tail, tail.last_index))
        self._keep(old)
        self.active = new_active

    def droppable(self, index: int) -> int:
        """How many of the oldest sealed segments hold nothing at or above `index`."""
        count = 0
        while count < len(self.sealed) and self.sealed[count].last < index:
            count += 1
        return count

    def drop_below(self, oldest: int) -> list[str]:
        """Forget the segments below number `oldest`; returns their paths."""
        gone = [segment.number for segment in self.sealed if segment.number < oldest]
        del self.sealed[: len(gone)]
        for number in gone:
            reader = self._loaded.pop(number, None)
            if reader is not None:
                reader.file.close()
        return [self.path_of(number) for number in gone]

    def close(self) -> None:
        """Close every file."""
        for reader in self._loaded.values():
            reader.file.close()
        self._loaded.clear()
        self.active.file.close()

    def _sealed_with(self, index: int) -> SealedSegment:
        for segment in reversed(self.sealed):
            # The newest that reaches down to it owns it: an older one was truncated by it.
            if segment.first <= index:
                assert index <= segment.last
                return segment
        raise AssertionError(f"no segment holds entry {index}")

    def _load(self, segment: SealedSegment) -> SegmentReader:
        reader = self._loaded.get(segment.number)
        if reader is not None:
            self._loaded.move_to_end(segment.number)
            return reader
        path = self.path_of(segment.number)
        seed = seed_of(self._journal_id, segment.number)
        try:
            file = self._files.open(path)
        except OSError as error:
            raise io_problem(f"reading {path}", error) from error
        try:
            data = file.read_at(segment.tail.index_offset, index_bytes(segment.tail))
            offsets, lengths, starts = decode_index(data, segment.tail, seed)
        except OSError as error:
            file.close()
            raise io_problem(f"reading {path}", error) from error
        except FormatError as problem:
            file.close()
            raise corrupt(path, problem.offset, problem.text) from None
        index = SegmentIndex.from_footer(segment.tail, offsets, lengths, starts)
        reader = SegmentReader(path, file, index, seed)
        self._keep(reader)
        return reader

    def _keep(self, reader: SegmentReader) -> None:
        self._loaded[reader.index.number] = reader
        while len(self._loaded) > _LOADED_SEGMENTS_MAX:
            _, oldest = self._loaded.popitem(last=False)
            oldest.file.close()
