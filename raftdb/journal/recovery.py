"""Founding a journal, and making sense of one after a stop of any kind (rules J1 to J5).

The order matters. What a start finds may live only in the page cache (killed before its sync
returned, or a sync that failed), so nothing is told to the caller before the last segment has
been rewritten to a new file, synced, renamed, and the directory synced. Everything before the last
segment was synced before the first batch of the last segment was written; where there is no such
batch yet, the segment before is rewritten too.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from raftdb.base.atomic import NEW_SUFFIX, make_directory_durably, replace_file
from raftdb.base.errors import ConfigError, FatalError, JournalCorruptError
from raftdb.base.ids import Term
from raftdb.base.ports import File, Files, Log, Random
from raftdb.journal.format import (
    DROP,
    ENTRY,
    FOOTER_TAIL_BYTES,
    RESET,
    SEGMENT_HEADER_BYTES,
    FooterTail,
    FormatError,
    HardState,
    Mark,
    Operation,
    SegmentHeader,
    decode_footer_tail,
    decode_mark,
    decode_segment_header,
    encode_batch,
    encode_mark,
    encode_segment_header,
    seed_of,
    segment_name,
    segment_number,
)
from raftdb.journal.problems import (
    corrupt,
    format_problem,
    io_problem,
    opening_problem,
)
from raftdb.journal.scan import Cursor, Replay, check_torn, read_batches
from raftdb.journal.segments import SealedSegment, SegmentReader, Segments

__all__ = [
    "LOCK_NAME",
    "MARK_NAME",
    "Recovered",
    "Salvage",
    "create_journal",
    "recover_journal",
    "refound_journal",
]

LOCK_NAME = "lock"
MARK_NAME = "mark"
FIRST_SEGMENT = 1
FIRST_INDEX = 1
JOURNAL_ID_BYTES = 16


class Salvage(NamedTuple):
    """What may be given up of a damaged log, before its last segment."""

    segment: int
    """All up to this one in any case; 0: only what is found to be damaged, and what lies before."""
    stored: int
    """Entries up to this one at most: the database has them, so they are committed. Of what lies
    behind nobody knows whether it is committed, and which leader's it was: to go on without it
    would be to acknowledge, in its place, what never was here."""


@dataclass(slots=True)
class Recovered:
    """A journal that is durable as described here, locked, and ready to be written on."""

    journal_id: bytes
    segments: Segments
    hard_state: HardState
    size: int
    """Bytes of the active segment."""
    batches: int
    """Batches in the active segment."""
    next_batch: int
    chain: int
    release: Callable[[], None]


def create_journal(
    files: Files,
    directory: str,
    random: Random,
    base: tuple[int, int] = (FIRST_INDEX, 0),
    *,
    behind: bool = False,
) -> None:
    """Found an empty journal: the base entry (index and term as in `base`, no data), its term, no
    vote. A database that was restored goes with the base that it has applied. `behind`: without
    that entry; the log goes on behind it, as after a reset.

    Durable on return, the directory's own name included. Raises ConfigError when there is one
    already or another process works there, FatalError when the system refuses.
    """
    try:
        make_directory_durably(files, directory)
        release = _lock(files, directory)
        try:
            if any(segment_number(name) for name in files.list_directory(directory)):
                raise ConfigError(
                    f"{directory} already holds a journal",
                    hint="start the node, or give it another directory",
                )
            _found(files, directory, random.randbytes(JOURNAL_ID_BYTES), *base, behind)
        finally:
            release()
    except OSError as error:
        raise io_problem(f"creating a journal in {directory}", error) from error


def refound_journal(files: Files, directory: str, random: Random, behind: tuple[int, int]) -> None:
    """Give up whatever is there, damaged or not, and found a log that goes on behind that entry
    (index, term), in its term and without a vote. Only for a member on whose promises nothing rests
    any more. Durable on return; cut short, it is done again: until the first segment is there, what
    is left is a damaged journal or none. Raises ConfigError, FatalError."""
    try:
        make_directory_durably(files, directory)
        release = _lock(files, directory)
        try:
            names = [name for name in files.list_directory(directory) if name != LOCK_NAME]
            # The mark first: without it nothing that is left can be taken for a journal.
            for name in sorted(names, key=lambda name: (name != MARK_NAME, name)):
                files.remove(posixpath.join(directory, name))
                if name == MARK_NAME:
                    files.sync_directory(directory)
            files.sync_directory(directory)
            _found(files, directory, random.randbytes(JOURNAL_ID_BYTES), *behind, True)
        finally:
            release()
    except OSError as error:
        raise io_problem(f"founding the journal in {directory} anew", error) from error


def _found(
    files: Files, directory: str, journal_id: bytes, index: int, term: int, behind: bool
) -> None:
    """The first segment's appearance is what founds; all else is there before."""
    seed = seed_of(journal_id, FIRST_SEGMENT)
    header = SegmentHeader(
        journal_id=journal_id,
        number=FIRST_SEGMENT,
        oldest=FIRST_SEGMENT,
        first_batch=1,
        next_index=index + behind,
        previous_term=0,
        durable_index=0,
        hard_state=HardState(Term(term), None),
        chain=0,
    )
    first = Operation(RESET if behind else ENTRY, index, term, b"")
    batch, chain = encode_batch([first], 1, 0, 0, seed)
    mark = Mark(journal_id, FIRST_SEGMENT, 1, index, chain)
    replace_file(files, posixpath.join(directory, MARK_NAME), encode_mark(mark))
    path = posixpath.join(directory, segment_name(FIRST_SEGMENT))
    replace_file(files, path, encode_segment_header(header) + batch)


def recover_journal(
    files: Files, directory: str, log: Log, salvage: Salvage | None = None
) -> Recovered:
    """Lock, verify, make durable. Raises JournalCorruptError, ConfigError, FatalError.

    With `salvage` what lies before the last segment is given up as far as it is damaged, or nothing
    where that is more than may be (JournalCorruptError). The log then begins later; where it ends,
    and what was voted, is as it was.
    """
    try:
        names = files.list_directory(directory)
    except (FileNotFoundError, NotADirectoryError):
        names = []
    except OSError as error:
        raise opening_problem(f"opening the journal in {directory}", error) from error
    if not any(segment_number(name) for name in names):
        raise ConfigError(
            f"there is no journal in {directory}",
            code="journal_missing",
            hint="an empty directory is not a member: `raftdb init` founds a cluster, a join adds "
            "a member with a new node id. If a disk was lost, do not reuse its node id",
        )
    try:
        release = _lock(files, directory)
    except OSError as error:
        raise opening_problem(f"locking the journal in {directory}", error) from error
    try:
        return _Recovery(files, directory, log, salvage).run(release)
    except BaseException as error:
        release()
        # A read that the system refused has been told already, without saying that it is a start.
        told = type(error) is FatalError and error.code == "journal_io"
        cause = error.__cause__ if told else error
        if isinstance(cause, OSError):
            raise opening_problem(f"opening the journal in {directory}", cause) from cause
        raise


def _lock(files: Files, directory: str) -> Callable[[], None]:
    try:
        return files.lock(posixpath.join(directory, LOCK_NAME))
    except BlockingIOError:
        raise ConfigError(
            f"another process has the journal in {directory}",
            code="journal_locked",
            hint="stop the node that runs there, or give this one its own directory",
        ) from None


@dataclass(slots=True)
class _Scanned:
    """One segment, read as a whole."""

    header: SegmentHeader
    data: bytes
    replay: Replay
    cursor: Cursor
    problem: FormatError | None

    @property
    def batches(self) -> int:
        return self.cursor.number - self.header.first_batch


class _Recovery:
    def __init__(self, files: Files, directory: str, log: Log, salvage: Salvage | None) -> None:
        self._salvage = salvage
        self._files = files
        self._directory = directory
        self._log = log
        self._mark = self._read_mark()

    def run(self, release: Callable[[], None]) -> Recovered:
        files, directory = self._files, self._directory
        names = files.list_directory(directory)
        numbers = sorted(filter(None, map(segment_number, names)))
        last = self._scan_last(numbers[-1])
        header = last.header
        if self._salvage is not None:
            sealed = self._sound_suffix(last, self._salvage.segment)
            self._give_up_before(last, sealed, self._salvage.stored)
            oldest = last.replay.oldest
        else:
            oldest = last.replay.oldest
            self._check_complete(numbers, oldest, last)
            self._settle_seal(last)
            sealed = self._read_sealed(oldest, header)
        self._trim_sealed(sealed, last.replay.index.first)
        path = self._path(header.number)
        replace_file(files, path, last.data[: last.cursor.offset])
        self._remove_leftovers(names, oldest)
        files.sync_directory(posixpath.dirname(directory))
        file = files.open(path)
        self._write_mark(last)
        seed = seed_of(header.journal_id, header.number)
        active = SegmentReader(path, file, last.replay.index, seed)
        return Recovered(
            journal_id=header.journal_id,
            segments=Segments(files, directory, header.journal_id, sealed, active),
            hard_state=last.replay.hard_state,
            size=last.cursor.offset,
            batches=last.batches,
            next_batch=last.cursor.number,
            chain=last.cursor.chain,
            release=release,
        )

    def _path(self, number: int) -> str:
        return posixpath.join(self._directory, segment_name(number))

    def _mark_path(self) -> str:
        return posixpath.join(self._directory, MARK_NAME)

    def _read_mark(self) -> Mark:
        path = self._mark_path()
        try:
            return decode_mark(self._files.read_file(path))
        except FileNotFoundError:
            raise corrupt(path, 0, "the file is missing") from None
        except FormatError as problem:
            raise format_problem(path, problem) from None

    def _write_mark(self, last: _Scanned) -> None:
        mark = Mark(
            last.header.journal_id,
            last.header.number,
            last.cursor.number - 1,
            last.replay.index.last,
            last.cursor.chain,
        )
        if mark != self._mark:
            replace_file(self._files, self._mark_path(), encode_mark(mark))

    # -- the last segment ---------------------------------------------------------------------

    def _scan_last(self, number: int) -> _Scanned:
        path = self._path(number)
        data = self._files.read_file(path)
        header = self._decode_header(number, data[:SEGMENT_HEADER_BYTES])
        seed = seed_of(header.journal_id, number)
        if decode_footer_tail(data[-FOOTER_TAIL_BYTES:], seed) is not None:
            text = "it is missing, though the segment before it was sealed"
            raise corrupt(self._path(number + 1), 0, text)
        scanned = self._scan(header, data, len(data))
        self._check_mark(path, scanned)
        if scanned.problem is not None:
            self._judge_tail(path, scanned)
        return scanned

    def _judge_tail(self, path: str, scanned: _Scanned) -> None:
        """Cut what a crash tore (by remembering where to), or raise."""
        cursor, problem = scanned.cursor, scanned.problem
        assert problem is not None
        try:
            check_torn(scanned.data, scanned.header, cursor, problem)
        except FormatError as rotten:
            raise format_problem(path, rotten) from None
        self._log.warning(
            "journal_tail_cut",
            file=path,
            offset=cursor.offset,
            bytes=len(scanned.data) - cursor.offset,
            reason=f"a write was cut short by a crash: {problem.text}",
        )

    def _scan(self, header: SegmentHeader, data: bytes, end: int) -> _Scanned:
        """Replay all batches up to `end`. What does not verify is kept as the problem; what
        verifies and is impossible raises."""
        replay, cursor = Replay.from_header(header), Cursor.at_start(header)
        path = self._path(header.number)
        marked = self._mark if self._mark.segment == header.number else None
        problem = None
        batches = iter(read_batches(data, header, cursor, end))
        while True:
            try:
                batch = next(batches, None)
            except FormatError as found:
                problem = found
                break
            if batch is None:
                break
            try:
                replay.apply_batch(batch, data)
            except FormatError as nonsense:
                raise format_problem(path, nonsense) from None
            if marked and batch.header.number == marked.batch and batch.chain != marked.chain:
                raise corrupt(path, batch.offset, "the batch is not the one that the mark names")
        return _Scanned(header, data, replay, cursor, problem)

    def _check_mark(self, path: str, last: _Scanned) -> None:
        """J2: nothing that the mark says was durable may be gone."""
        mark = self._mark
        if mark.segment > last.header.number:
            text = f"the segment is missing, though the mark names its batch {mark.batch}"
            raise corrupt(self._path(mark.segment), 0, text)
        if mark.segment == last.header.number and mark.batch >= last.cursor.number:
            problem = last.problem or FormatError(last.cursor.offset, "the segment ends here")
            text = f"{problem.text}, but the mark says that batch {mark.batch} was durable"
            raise corrupt(path, problem.offset, text)
        if mark.segment < last.header.number and mark.batch >= last.header.first_batch:
            raise corrupt(path, 0, f"batch {mark.batch} should lie in segment {mark.segment}")

    def _decode_header(self, number: int, data: bytes) -> SegmentHeader:
        path = self._path(number)
        try:
            header = decode_segment_header(data)
        except FormatError as problem:
            raise format_problem(path, problem) from None
        if header.number != number:
            raise corrupt(path, 0, f"this is segment {header.number} under another name")
        if header.journal_id != self._mark.journal_id:
            raise corrupt(path, 0, "the segment belongs to another journal")
        return header

    # -- the segments before ------------------------------------------------------------------

    def _check_complete(self, numbers: list[int], oldest: int, last: _Scanned) -> None:
        have = set(numbers)
        for number in range(oldest, last.header.number):
            if number not in have:
                raise corrupt(self._path(number), 0, "the segment is missing")

    def _settle_seal(self, last: _Scanned) -> None:
        if last.batches == 0 and last.header.number > last.replay.oldest:
            # The successor's name may live in the page cache only: killed before its directory was
            # synced. It has to be durable before the seal that speaks of it.
            self._files.sync_directory(self._directory)
            self._finish_seal(last.header)

    def _sound_suffix(self, last: _Scanned, given_up: int) -> list[SealedSegment]:
        """The sealed segments right before the last one, as many as are sound."""
        sealed: list[SealedSegment] = []
        successor = last.header
        if given_up >= successor.number:
            # The last one itself, which has just been read as a whole.
            given_up = 0
        for number in range(successor.number - 1, max(last.replay.oldest - 1, given_up), -1):
            try:
                if not sealed:
                    self._settle_seal(last)
                header, tail = self._read_ends(number)
            except (JournalCorruptError, FileNotFoundError):
                break
            if _broken_chain(tail, successor):
                break
            sealed.append(SealedSegment(tail, tail.last_index))
            successor = header
        sealed.reverse()
        firsts = [*(one.first for one in sealed[1:]), last.replay.index.first]
        while sealed and sealed[0].first > min(firsts):
            # Truncated by what came later: the log's first entries are not in there.
            sealed.pop(0)
            firsts.pop(0)
        return sealed

    def _give_up_before(self, last: _Scanned, sealed: list[SealedSegment], stored: int) -> None:
        """Record, in the last segment, that the log begins with what is left."""
        index, cursor = last.replay.index, last.cursor
        if sealed:
            oldest, first, term = sealed[0].number, sealed[0].first, sealed[0].tail.previous_term
        else:
            oldest, first, term = index.number, index.first, index.previous_term
        if first - 1 > stored:
            text = f"entries up to {first - 1} are lost with it, and the database ends at {stored}"
            raise corrupt(self._path(oldest - 1), 0, text)
        if oldest == last.replay.oldest:
            return
        seed = seed_of(last.header.journal_id, index.number)
        drop = Operation(DROP, first, term, oldest.to_bytes(8, "little"))
        data, chain = encode_batch([drop], cursor.number, index.last, cursor.chain, seed)
        last.data = last.data[: cursor.offset] + data
        last.replay.oldest = oldest
        last.cursor = Cursor(len(last.data), cursor.number + 1, chain)
        self._log.warning("journal_given_up", directory=self._directory, first_index=first)

    def _finish_seal(self, successor: SegmentHeader) -> None:
        """Nothing was written behind the last segment's header yet, so the footer of the segment
        before may be missing, torn, or only in the page cache: write that segment again."""
        number = successor.number - 1
        path = self._path(number)
        data = self._files.read_file(path)
        header = self._decode_header(number, data[:SEGMENT_HEADER_BYTES])
        seed = seed_of(header.journal_id, number)
        tail = decode_footer_tail(data[-FOOTER_TAIL_BYTES:], seed)
        scanned = self._scan(header, data, len(data) if tail is None else tail.index_offset)
        cursor = scanned.cursor
        if (cursor.number, cursor.chain) != (successor.first_batch, successor.chain):
            where = scanned.problem or FormatError(cursor.offset, "the segment ends too early")
            raise format_problem(path, where)
        footer = scanned.replay.index.footer(cursor.offset, cursor.number, cursor.chain, seed)
        replace_file(self._files, path, data[: cursor.offset] + footer)

    def _read_sealed(self, oldest: int, last: SegmentHeader) -> list[SealedSegment]:
        """J4: of sealed segments a start reads header and footer only."""
        sealed: list[SealedSegment] = []
        successor = last
        for number in range(last.number - 1, oldest - 1, -1):
            header, tail = self._read_ends(number)
            problem = _broken_chain(tail, successor)
            if problem:
                raise corrupt(self._path(number), tail.index_offset, problem)
            sealed.append(SealedSegment(tail, tail.last_index))
            successor = header
        sealed.reverse()
        return sealed

    def _read_ends(self, number: int) -> tuple[SegmentHeader, FooterTail]:
        path = self._path(number)
        file: File = self._files.open(path)
        try:
            size = file.size()
            header = self._decode_header(number, file.read_at(0, SEGMENT_HEADER_BYTES))
            offset = max(0, size - FOOTER_TAIL_BYTES)
            tail_bytes = file.read_at(offset, FOOTER_TAIL_BYTES)
        finally:
            file.close()
        tail = decode_footer_tail(tail_bytes, seed_of(header.journal_id, number))
        if tail is None or tail.number != number:
            raise corrupt(path, offset, "the footer of a sealed segment does not verify")
        return header, tail

    def _trim_sealed(self, sealed: list[SealedSegment], floor: int) -> None:
        """Entries that a later segment truncated do not count."""
        for segment in reversed(sealed):
            segment.last = min(segment.last, floor - 1)
            floor = min(floor, segment.first)

    def _remove_leftovers(self, names: list[str], oldest: int) -> None:
        """Segments that were dropped, and files whose writing a crash interrupted."""
        for name in names:
            number = segment_number(name)
            if (number is not None and number < oldest) or name.endswith(NEW_SUFFIX):
                path = posixpath.join(self._directory, name)
                if self._files.exists(path):
                    self._files.remove(path)
        self._files.sync_directory(self._directory)


def _broken_chain(tail: FooterTail, successor: SegmentHeader) -> str:
    """Why a sealed segment and its successor do not fit together; empty when they do."""
    if (tail.chain, tail.next_batch) != (successor.chain, successor.first_batch):
        return f"its last batch is not the one that segment {successor.number} follows"
    if (tail.last_index + 1, tail.last_term) != (successor.next_index, successor.previous_term):
        return f"its last entry is not the one that segment {successor.number} follows"
    return ""
