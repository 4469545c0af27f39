"""Read a whole segment's bytes: its batches, and what an unreadable end of it means.

Torn or rotten (rules J2, J3)? The journal never writes a batch before the sync of its predecessor
returned. So a crash can have left at most one batch in pieces, and it is the last thing in the
last segment. Whatever verifies behind damage, or proves that something was written behind it,
says that the damaged part was once durable: that is corruption, and nothing is cut.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from raftdb.base.ids import Term
from raftdb.journal.format import (
    BATCH_HEADER_BYTES,
    BATCH_MAGIC,
    DROP,
    ENTRY,
    HARD_STATE,
    RECORD_HEADER_BYTES,
    RESET,
    SEGMENT_HEADER_BYTES,
    TRAILER_BYTES,
    TRAILER_MAGIC,
    TRUNCATE,
    Batch,
    FormatError,
    HardState,
    Operation,
    Record,
    SegmentHeader,
    decode_batch,
    decode_batch_header,
    decode_hard_state,
    decode_trailer,
    seed_of,
)
from raftdb.journal.index import SegmentIndex

__all__ = ["Cursor", "Replay", "check_torn", "find_batch", "read_batches"]


@dataclass(slots=True)
class Cursor:
    """How far a segment has been read: the next batch belongs here."""

    offset: int
    number: int
    chain: int

    @classmethod
    def at_start(cls, header: SegmentHeader) -> Cursor:
        return cls(SEGMENT_HEADER_BYTES, header.first_batch, header.chain)


@dataclass(slots=True)
class Replay:
    """The state of the log as one segment's records build it up from its header."""

    index: SegmentIndex
    hard_state: HardState
    oldest: int
    durable_index: int
    problems: list[FormatError] = field(default_factory=list)

    @classmethod
    def from_header(cls, header: SegmentHeader) -> Replay:
        index = SegmentIndex(header.number, header.next_index, header.previous_term)
        return cls(index, header.hard_state, header.oldest, header.durable_index)

    def apply_batch(self, batch: Batch, data: bytes) -> None:
        """Raises FormatError on a batch that verifies but makes no sense here."""
        if batch.header.durable_index > self.index.last:
            raise FormatError(
                batch.offset,
                f"batch {batch.header.number} says that entry {batch.header.durable_index} was "
                f"durable, but the log ends at {self.index.last} before it",
            )
        self.durable_index = batch.header.durable_index
        for record in batch.records:
            self._apply_record(record, data)

    def _apply_record(self, record: Record, data: bytes) -> None:
        try:
            start = record.offset + RECORD_HEADER_BYTES
            body = b"" if record.kind == ENTRY else data[start : start + record.length]
            self.apply(Operation(record.kind, record.entry_index, record.term, body), record)
        except (ValueError, UnicodeDecodeError) as error:
            raise FormatError(record.offset, f"a record makes no sense here: {error}") from None

    def apply(self, operation: Operation, place: Record) -> None:
        """One operation, recorded at `place`. Raises ValueError when it makes no sense."""
        kind = operation.kind
        if kind == ENTRY:
            self.index.add(operation.entry_index, operation.term, place.offset, place.length)
        elif kind == TRUNCATE:
            self.index.truncate(operation.entry_index, operation.term)
        elif kind == HARD_STATE:
            self.hard_state = decode_hard_state(Term(operation.term), operation.data)
        elif kind == DROP:
            oldest = int.from_bytes(operation.data, "little")
            if not self.oldest <= oldest <= self.index.number:
                raise ValueError(f"segments below {oldest} cannot go")
            self.oldest = oldest
        elif kind == RESET:
            self.index.reset(operation.entry_index, operation.term)
            self.oldest = self.index.number
        else:
            raise ValueError(f"kind {kind} is unknown")


def read_batches(data: bytes, header: SegmentHeader, cursor: Cursor, end: int) -> Iterable[Batch]:
    """Yield the batches from the cursor up to `end`, moving the cursor behind each.

    Raises FormatError at the first that does not verify; the cursor then stands before it.
    """
    seed = seed_of(header.journal_id, header.number)
    while cursor.offset < end:
        batch = decode_batch(data, cursor.offset, seed)
        if batch.header.number != cursor.number:
            raise FormatError(
                cursor.offset, f"expected batch {cursor.number}, found {batch.header.number}"
            )
        if batch.header.previous_chain != cursor.chain:
            raise FormatError(
                cursor.offset, f"batch {cursor.number} does not follow from the one before it"
            )
        cursor.offset = batch.end
        cursor.number += 1
        cursor.chain = batch.chain
        yield batch


def check_torn(data: bytes, header: SegmentHeader, cursor: Cursor, problem: FormatError) -> None:
    """Return when what stands at the cursor can be one batch that a crash tore; raise FormatError
    when something proves that it was once whole and durable."""
    seed = seed_of(header.journal_id, header.number)
    head = decode_batch_header(data, cursor.offset, seed)
    search_from = cursor.offset
    if head is not None:
        end = cursor.offset + BATCH_HEADER_BYTES + head.body_bytes + TRAILER_BYTES
        if (head.number, head.previous_chain) != (cursor.number, cursor.chain):
            raise problem
        if len(data) > end:
            raise FormatError(
                problem.offset, f"{problem.text}, though the file goes on behind that batch"
            )
        # Inside its own bounds a torn batch may hold anything.
        return
    found = _find_evidence(data, search_from, cursor.number, seed)
    if found is not None:
        raise FormatError(problem.offset, f"{problem.text}, but {found}")


def _find_evidence(data: bytes, start: int, number: int, seed: int) -> str | None:
    """Something behind `start` that could not be there if batch `number` had been torn."""
    offset = find_batch(data, start, seed)
    if offset is not None:
        return f"a batch header behind it, at offset {offset}, does"
    offset = data.find(TRAILER_MAGIC, start)
    while offset >= 0:
        trailer = decode_trailer(data, offset, seed)
        if trailer is not None and (trailer[0] != number or offset + TRAILER_BYTES < len(data)):
            return f"the trailer of batch {trailer[0]} behind it, at offset {offset}, does"
        offset = data.find(TRAILER_MAGIC, offset + 1)
    return None


def find_batch(data: bytes, start: int, seed: int) -> int | None:
    """Offset of the next batch header that verifies, from `start` on."""
    offset = data.find(BATCH_MAGIC, start)
    while offset >= 0:
        if decode_batch_header(data, offset, seed) is not None:
            return offset
        offset = data.find(BATCH_MAGIC, offset + 1)
    return None
