"""Read a stopped node's journal, damaged or not, and change nothing.

`open` stops at the first thing that does not verify. This reads on behind damage, so that a
report can name all of it and what is left can be read.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from raftdb.base.errors import ConfigError
from raftdb.base.ids import Index, Term
from raftdb.base.ports import Files
from raftdb.journal.format import (
    DROP,
    ENTRY,
    FOOTER_TAIL_BYTES,
    FORMAT_VERSION,
    HARD_STATE,
    RECORD_HEADER_BYTES,
    RESET,
    SEGMENT_HEADER_BYTES,
    TRUNCATE,
    Batch,
    FooterTail,
    FormatError,
    HardState,
    LogEntry,
    Mark,
    Record,
    SegmentHeader,
    UnknownVersionError,
    decode_batch,
    decode_entry,
    decode_footer_tail,
    decode_hard_state,
    decode_index,
    decode_mark,
    decode_segment_header,
    index_bytes,
    seed_of,
    segment_name,
    segment_number,
)
from raftdb.journal.problems import format_problem
from raftdb.journal.recovery import MARK_NAME
from raftdb.journal.scan import Cursor, check_torn, find_batch

__all__ = [
    "Damage",
    "JournalReport",
    "SegmentReport",
    "inspect_journal",
    "read_entries",
    "read_on",
]


_NO_FLOOR = 1 << 64


@dataclass(frozen=True, slots=True)
class Damage:
    """Something that does not verify."""

    file: str
    offset: int
    text: str


@dataclass(frozen=True, slots=True)
class SegmentReport:
    """One segment file."""

    name: str
    number: int
    bytes: int
    batches: int
    first_index: int
    last_index: int
    """Entries of it that count and can be read; `first_index - 1` when there is none."""
    sealed: bool
    damage: tuple[Damage, ...]


@dataclass(frozen=True, slots=True)
class JournalReport:
    """A journal as it lies there."""

    directory: str
    format_version: int
    journal_id: str
    hard_state: HardState | None
    """None when no header of a segment can be read."""
    first_index: Index
    last_index: Index
    first_term: Term
    last_term: Term
    durable_index: Index
    """The highest index that is known to have been durable (a marker or the mark says so)."""
    segments: tuple[SegmentReport, ...]
    damage: tuple[Damage, ...]
    """All of it; empty means that a start would work. It may still cut `torn`."""
    torn: Damage | None
    """An unfinished write at the end, as a crash leaves it: harmless, the next start cuts it."""


@dataclass(slots=True)
class _Segment:
    """What one file holds, read as far as it can be."""

    number: int
    path: str
    size: int
    header: SegmentHeader | None = None
    tail: FooterTail | None = None
    batches: int = 0
    next_batch: int = 0
    chain: int = 0
    end: int = SEGMENT_HEADER_BYTES
    """Where the last batch that verifies ends."""
    floor: int | None = None
    """Lowest index that this segment says anything about: older entries from it on are gone."""
    records: dict[int, Record] = field(default_factory=dict)
    hard_state: HardState | None = None
    oldest: int = 1
    durable_index: int = 0
    damage: list[Damage] = field(default_factory=list)
    torn: Damage | None = None
    complete: bool = True
    """False once anything in it could not be read."""

    def note(self, offset: int, text: str) -> None:
        self.damage.append(Damage(self.path, offset, text))


def inspect_journal(files: Files, directory: str) -> JournalReport:
    """Read everything. Raises ConfigError when there is no journal or a later release wrote it,
    OSError when the system refuses."""
    numbers = _numbers(files, directory)
    mark, damage = _read_mark(files, directory)
    journal_id = _journal_id(files, directory, numbers, mark)
    segments = [
        _read_segment(files, directory, number, numbers[-1], journal_id, mark)[0]
        for number in numbers
    ]
    oldest = max(segment.oldest for segment in segments)
    segments = [segment for segment in segments if segment.number >= oldest]
    damage += _missing(directory, oldest, numbers)
    _check_neighbours(segments)
    _trim(segments)
    reports = tuple(_report(segment) for segment in segments)
    damage += [one for report in reports for one in report.damage]
    damage += _check_mark(segments[-1], mark)
    live = [segment for segment in segments if segment.records]
    first = min(live[0].records) if live else segments[-1].floor or 1
    last = max(live[-1].records) if live else first - 1
    states = [segment.hard_state for segment in segments if segment.hard_state is not None]
    return JournalReport(
        directory=directory,
        format_version=FORMAT_VERSION,
        journal_id=journal_id.hex(),
        hard_state=states[-1] if states else None,
        first_index=Index(first),
        last_index=Index(last),
        first_term=Term(live[0].records[first].term if live else 0),
        last_term=Term(live[-1].records[last].term if live else 0),
        durable_index=Index(_durable_index(segments, mark)),
        segments=reports,
        damage=tuple(damage),
        torn=segments[-1].torn,
    )


def read_entries(files: Files, directory: str) -> Iterator[LogEntry]:
    """Yield the entries that count and verify, in order; a gap in the indexes is damage (see
    `inspect_journal`). Two segments at most are in memory at a time. Raises like it."""
    for segment, data, floor, seed in _each(files, directory):
        for index in sorted(segment.records):
            if index < floor:
                yield decode_entry(data, segment.records[index].offset, index, seed)


def read_on(files: Files, directory: str, index: int, term: int) -> Iterator[LogEntry]:
    """The entries that follow the one of that index and term, up to the first damage that was
    written after them: what the log was before. None when it has another entry there."""
    expected = index + 1
    before: _Segment | None = None
    """The last one that entries were taken from, or that they may go on from."""
    for segment, data, floor, seed in _each(files, directory):
        since = 0
        if before is not None and not _follows(before, segment):
            return
        for at in sorted(segment.records):
            record = segment.records[at]
            if at >= floor:
                break
            if at == index and record.term != term:
                return
            if at < expected:
                continue
            if at != expected:
                return
            if before is None:
                before, since = segment, record.offset
            if any(since <= one.offset <= record.offset for one in segment.damage):
                return
            yield decode_entry(data, record.offset, at, seed)
            expected += 1
        if before is not None:
            if any(one.offset >= since for one in segment.damage):
                return
            before = segment


def _follows(before: _Segment, after: _Segment) -> bool:
    header = after.header
    return (
        header is not None
        and after.number == before.number + 1
        and (header.first_batch, header.chain) == (before.next_batch, before.chain)
    )


def _each(files: Files, directory: str) -> Iterator[tuple[_Segment, bytes, int, int]]:
    """Each segment that counts, in order: what it holds, its bytes, from which index on its entries
    were replaced by later segments, and its seed."""
    numbers = _numbers(files, directory)
    mark, _ = _read_mark(files, directory)
    journal_id = _journal_id(files, directory, numbers, mark)
    floors: dict[int, int] = {}
    floor = None
    oldest = 1
    for number in reversed(numbers):
        segment, _ = _read_segment(files, directory, number, numbers[-1], journal_id, mark)
        oldest = max(oldest, segment.oldest)
        if floor is not None:
            floors[number] = floor
        if segment.floor is not None:
            floor = segment.floor if floor is None else min(floor, segment.floor)
    for number in numbers:
        if number < oldest:
            continue
        segment, data = _read_segment(files, directory, number, numbers[-1], journal_id, mark)
        yield segment, data, floors.get(number, _NO_FLOOR), seed_of(journal_id, number)


# -- one segment --------------------------------------------------------------------------------


def _numbers(files: Files, directory: str) -> list[int]:
    try:
        names = files.list_directory(directory)
    except (FileNotFoundError, NotADirectoryError):
        names = []
    numbers = sorted(filter(None, map(segment_number, names)))
    if not numbers:
        raise ConfigError(
            f"there is no journal in {directory}",
            code="journal_missing",
            hint="give the directory that holds the .segment files",
        )
    return numbers


def _read_mark(files: Files, directory: str) -> tuple[Mark | None, list[Damage]]:
    path = posixpath.join(directory, MARK_NAME)
    try:
        return decode_mark(files.read_file(path)), []
    except FileNotFoundError:
        return None, [Damage(path, 0, "the file is missing")]
    except UnknownVersionError as problem:
        raise format_problem(path, problem) from None
    except FormatError as problem:
        return None, [Damage(path, problem.offset, problem.text)]


def _journal_id(files: Files, directory: str, numbers: list[int], mark: Mark | None) -> bytes:
    """From the mark, or else from the first segment that tells."""
    if mark is not None:
        return mark.journal_id
    for number in numbers:
        try:
            path = posixpath.join(directory, segment_name(number))
            return decode_segment_header(files.read_file(path)).journal_id
        except FormatError:
            continue
    return bytes(16)


def _read_segment(
    files: Files, directory: str, number: int, last: int, journal_id: bytes, mark: Mark | None
) -> tuple[_Segment, bytes]:
    path = posixpath.join(directory, segment_name(number))
    data = files.read_file(path)
    segment = _Segment(number, path, len(data))
    seed = seed_of(journal_id, number)
    _read_header(segment, data, journal_id)
    segment.tail = decode_footer_tail(data[-FOOTER_TAIL_BYTES:], seed)
    end = len(data) if segment.tail is None else segment.tail.index_offset
    cursor = None
    if segment.header is not None:
        cursor = Cursor.at_start(segment.header)
        segment.next_batch, segment.chain = cursor.number, cursor.chain
    _read_batches(segment, data, cursor, seed, end, mark if number == last else None)
    if number == last and segment.tail is not None:
        segment.note(segment.tail.index_offset, "it is sealed, but the next segment is missing")
    if segment.tail is not None:
        _check_footer(segment, segment.tail, data, seed)
    return segment, data


def _read_header(segment: _Segment, data: bytes, journal_id: bytes) -> None:
    try:
        header = decode_segment_header(data)
    except UnknownVersionError as problem:
        raise format_problem(segment.path, problem) from None
    except FormatError as problem:
        segment.note(problem.offset, problem.text)
        segment.complete = False
        return
    if header.number != segment.number:
        segment.note(0, f"this is segment {header.number} under another name")
    elif header.journal_id != journal_id:
        segment.note(0, "the segment belongs to another journal")
    else:
        segment.header = header
        segment.floor = header.next_index
        segment.hard_state = header.hard_state
        segment.oldest = header.oldest
        segment.durable_index = header.durable_index
        return
    segment.complete = False


def _read_batches(
    segment: _Segment,
    data: bytes,
    cursor: Cursor | None,
    seed: int,
    end: int,
    mark: Mark | None,
) -> None:
    """All batches that verify. `mark` is given for the last segment, where a torn end may be."""
    offset = SEGMENT_HEADER_BYTES
    while offset < end:
        try:
            batch = decode_batch(data, offset, seed)
            if cursor is not None and (batch.header.number, batch.header.previous_chain) != (
                cursor.number,
                cursor.chain,
            ):
                raise FormatError(offset, "the batch does not follow from the one before it")
        except FormatError as problem:
            if mark is not None and _is_torn(segment, data, cursor, mark, problem):
                segment.torn = Damage(segment.path, offset, problem.text)
                return
            segment.complete = False
            segment.note(problem.offset, problem.text)
            found = find_batch(data[:end], offset + 1, seed)
            if found is None:
                return
            offset, cursor = found, None
            continue
        _apply(segment, batch, data)
        offset = batch.end
        cursor = Cursor(offset, batch.header.number + 1, batch.chain)
        segment.next_batch, segment.chain, segment.end = cursor.number, cursor.chain, offset


def _is_torn(
    segment: _Segment, data: bytes, cursor: Cursor | None, mark: Mark, problem: FormatError
) -> bool:
    if cursor is None or segment.header is None or segment.tail is not None:
        return False
    if mark.segment == segment.number and cursor.number <= mark.batch:
        return False
    try:
        check_torn(data, segment.header, cursor, problem)
    except FormatError:
        return False
    return True


def _apply(segment: _Segment, batch: Batch, data: bytes) -> None:
    segment.batches += 1
    segment.durable_index = batch.header.durable_index
    for record in batch.records:
        if record.kind in (TRUNCATE, RESET):
            segment.durable_index = min(segment.durable_index, record.entry_index - 1)
        start = record.offset + RECORD_HEADER_BYTES
        body = data[start : start + record.length] if record.kind != ENTRY else b""
        if record.kind == ENTRY:
            segment.records[record.entry_index] = record
            if segment.floor is None:
                segment.floor = record.entry_index
        elif record.kind == TRUNCATE:
            for index in [one for one in segment.records if one >= record.entry_index]:
                del segment.records[index]
            segment.floor = min(segment.floor or record.entry_index, record.entry_index)
        elif record.kind == HARD_STATE:
            segment.hard_state = decode_hard_state(record.term, body)
        elif record.kind == DROP:
            segment.oldest = max(segment.oldest, int.from_bytes(body, "little"))
        elif record.kind == RESET:
            segment.records = {}
            segment.floor = record.entry_index + 1
            segment.oldest = segment.number


def _check_footer(segment: _Segment, tail: FooterTail, data: bytes, seed: int) -> None:
    index = data[tail.index_offset : tail.index_offset + index_bytes(tail)]
    try:
        offsets, _, _ = decode_index(index, tail, seed)
    except FormatError as problem:
        segment.note(problem.offset, problem.text)
        return
    if not segment.complete:
        return
    expected = [segment.records[one].offset for one in sorted(segment.records)]
    if list(offsets) != expected or (tail.next_batch, tail.chain) != (
        segment.next_batch,
        segment.chain,
    ):
        segment.note(tail.index_offset, "the footer does not describe the batches before it")


# -- all of them together -----------------------------------------------------------------------


def _missing(directory: str, oldest: int, numbers: list[int]) -> list[Damage]:
    have = set(numbers)
    return [
        Damage(posixpath.join(directory, segment_name(number)), 0, "the segment is missing")
        for number in range(oldest, numbers[-1])
        if number not in have
    ]


def _check_neighbours(segments: list[_Segment]) -> None:
    for before, after in pairwise(segments):
        header = after.header
        if after.number != before.number + 1 or header is None:
            continue
        fits = (header.first_batch, header.chain) == (before.next_batch, before.chain)
        if after is segments[-1] and after.batches == 0 and fits:
            # Sealing was under way: the footer may be missing or torn, the next start writes it.
            before.damage = [one for one in before.damage if one.offset < before.end]
            continue
        if before.tail is None:
            offset = max(0, before.size - FOOTER_TAIL_BYTES)
            before.note(offset, "the footer of a sealed segment does not verify")
        if before.complete and not fits:
            before.note(before.end, f"it does not end where segment {after.number} begins")


def _trim(segments: list[_Segment]) -> None:
    """Entries that a later segment truncated do not count."""
    floor: int | None = None
    for segment in reversed(segments):
        if floor is not None:
            for index in [one for one in segment.records if one >= floor]:
                del segment.records[index]
        if segment.floor is not None:
            floor = segment.floor if floor is None else min(floor, segment.floor)


def _check_mark(last: _Segment, mark: Mark | None) -> list[Damage]:
    if mark is None:
        return []
    if mark.segment > last.number:
        text = f"it ends at segment {last.number}, but segment {mark.segment} was durable"
    elif mark.segment == last.number and mark.batch >= last.next_batch and last.complete:
        text = f"it ends before batch {mark.batch}, which was durable by the mark"
    else:
        return []
    return [Damage(last.path, last.size, text)]


def _durable_index(segments: list[_Segment], mark: Mark | None) -> int:
    """By the newest that says anything: a truncation may have lowered it since."""
    last = segments[-1]
    if mark is not None and mark.segment == last.number and mark.batch >= last.next_batch - 1:
        return mark.durable_index
    return last.durable_index


def _report(segment: _Segment) -> SegmentReport:
    first = min(segment.records, default=segment.floor or 0)
    return SegmentReport(
        name=segment_name(segment.number),
        number=segment.number,
        bytes=segment.size,
        batches=segment.batches,
        first_index=first,
        last_index=max(segment.records, default=first - 1),
        sealed=segment.tail is not None,
        damage=tuple(segment.damage),
    )
