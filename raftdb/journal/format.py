"""The bytes of the journal: encode and decode, no IO. DESIGN.md draws the format byte by byte.

Every check value is CRC-32 (zlib). Inside a segment all of them start from the segment's *seed*,
the CRC-32 of journal id and segment number: bytes of another journal or of another segment, or
bytes that a client sent in the hope to look like a record, do not verify.
"""

from __future__ import annotations

import re
import struct
from array import array
from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

from raftdb.base.frozen import frozen
from raftdb.base.ids import Index, NodeId, Term

__all__ = [
    "BATCH_HEADER_BYTES",
    "BATCH_OVERHEAD_BYTES",
    "DROP",
    "ENTRY",
    "FOOTER_TAIL_BYTES",
    "FORMAT_VERSION",
    "HARD_STATE",
    "RECORD_HEADER_BYTES",
    "RESET",
    "SEGMENT_HEADER_BYTES",
    "BATCH_MAGIC",
    "TRAILER_BYTES",
    "TRAILER_MAGIC",
    "TRUNCATE",
    "UnknownVersionError",
    "Batch",
    "BatchHeader",
    "FooterTail",
    "FormatError",
    "HardState",
    "LogEntry",
    "Mark",
    "Operation",
    "Record",
    "SegmentHeader",
    "decode_batch",
    "decode_batch_header",
    "decode_entry",
    "decode_footer_tail",
    "decode_hard_state",
    "decode_index",
    "decode_mark",
    "decode_segment_header",
    "decode_trailer",
    "encode_batch",
    "encode_footer",
    "encode_hard_state",
    "encode_mark",
    "encode_segment_header",
    "index_bytes",
    "seed_of",
    "segment_name",
    "segment_number",
]

FORMAT_VERSION = 1

SEGMENT_MAGIC = b"RAFTDBJ\n"
FOOTER_MAGIC = b"RAFTDBF\n"
MARK_MAGIC = b"RAFTDBM\n"
BATCH_MAGIC = b"\xf7RJb"
TRAILER_MAGIC = b"\xf7RJt"

ENTRY = 1
TRUNCATE = 2
HARD_STATE = 3
DROP = 4
RESET = 5

_CRC = struct.Struct("<I")
_SEGMENT_HEADER = struct.Struct("<8sHHI16s7QI64s")
_BATCH_HEADER = struct.Struct("<4sIQQQI")
_RECORD = struct.Struct("<BxxxIQQI")
_TRAILER = struct.Struct("<4sIQQI")
_FOOTER_TAIL = struct.Struct("<8s9QII")
_TERM_START = struct.Struct("<QQ")
_MARK = struct.Struct("<8sHHI16sQQQI")

SEGMENT_HEADER_BYTES = 256
BATCH_HEADER_BYTES = _BATCH_HEADER.size + 4
RECORD_HEADER_BYTES = _RECORD.size + 4
TRAILER_BYTES = _TRAILER.size + 4
BATCH_OVERHEAD_BYTES = BATCH_HEADER_BYTES + TRAILER_BYTES
FOOTER_TAIL_BYTES = 128
MARK_BYTES = 64
VOTE_BYTES_MAX = 64

_SEGMENT_NAME = re.compile(r"(\d{20})\.segment")


class FormatError(Exception):
    """Bytes that do not verify: the offset within what was given, and what is wrong there."""

    def __init__(self, offset: int, text: str) -> None:
        super().__init__(text)
        self.offset = offset
        self.text = text


@frozen
class LogEntry:
    """One entry of the Raft log."""

    index: Index
    term: Term
    data: bytes


@frozen
class HardState:
    """What a node must never forget: its term, and whom it voted for in it."""

    term: Term
    vote: NodeId | None


class Operation(NamedTuple):
    """One change of the log, as it is queued and as it becomes a record."""

    kind: int
    entry_index: int
    term: int
    data: bytes


class Record(NamedTuple):
    """Where a decoded record lies: `offset` is its header's, `length` its data's."""

    kind: int
    entry_index: int
    term: int
    offset: int
    length: int


class BatchHeader(NamedTuple):
    """What stands before a batch's records."""

    record_count: int
    number: int
    durable_index: int
    body_bytes: int
    previous_chain: int
    check: int


class Batch(NamedTuple):
    """A batch that verified; `chain` names it in its successor."""

    header: BatchHeader
    offset: int
    end: int
    chain: int
    records: list[Record]


@frozen
class SegmentHeader:
    """What a segment says of itself and of all that went before it."""

    journal_id: bytes
    number: int
    oldest: int
    """Lowest segment number that must exist: files below it are left-overs."""
    first_batch: int
    next_index: int
    previous_term: int
    """Term of the entry before `next_index`."""
    durable_index: int
    hard_state: HardState
    chain: int
    """Chain value of the last batch of the segment before; 0 in the first."""


@frozen
class FooterTail:
    """The end of a sealed segment: what a start reads instead of the whole."""

    number: int
    first_index: int
    last_index: int
    """`first_index - 1` when the segment holds no entry that counts."""
    previous_term: int
    last_term: int
    index_offset: int
    entry_count: int
    term_count: int
    next_batch: int
    chain: int
    index_check: int


@frozen
class Mark:
    """What was certainly on the disk when the journal last fell idle (J2)."""

    journal_id: bytes
    segment: int
    batch: int
    durable_index: int
    chain: int


def segment_name(number: int) -> str:
    """File name of a segment."""
    return f"{number:020d}.segment"


def segment_number(name: str) -> int | None:
    """The number in a segment's file name; None when it is not one."""
    match = _SEGMENT_NAME.fullmatch(name)
    return int(match.group(1)) if match else None


def seed_of(journal_id: bytes, number: int) -> int:
    """Where every check value of one segment starts from."""
    return crc32(journal_id + number.to_bytes(8, "little"))


def _sealed(body: bytes, size: int, seed: int = 0) -> bytes:
    """Pad with zeroes and close with the check value, `size` bytes in all."""
    body = body.ljust(size - 4, b"\0")
    return body + _CRC.pack(crc32(body, seed))


def _verifies(data: bytes, size: int, seed: int = 0) -> bool:
    return len(data) == size and crc32(data[:-4], seed) == _CRC.unpack_from(data, size - 4)[0]


# -- segment header -------------------------------------------------------------------------


def encode_segment_header(header: SegmentHeader) -> bytes:
    """256 bytes."""
    vote = _vote_bytes(header.hard_state)
    body = _SEGMENT_HEADER.pack(
        SEGMENT_MAGIC,
        FORMAT_VERSION,
        SEGMENT_HEADER_BYTES,
        len(vote),
        header.journal_id,
        header.number,
        header.oldest,
        header.first_batch,
        header.next_index,
        header.previous_term,
        header.durable_index,
        header.hard_state.term,
        header.chain,
        vote,
    )
    return _sealed(body, SEGMENT_HEADER_BYTES)


def decode_segment_header(data: bytes) -> SegmentHeader:
    """Read the first 256 bytes of a segment. Raises FormatError, and UnknownVersion as such."""
    data = data[:SEGMENT_HEADER_BYTES]
    if data[:8] != SEGMENT_MAGIC:
        raise FormatError(0, "the segment header does not begin with the journal's magic")
    if not _verifies(data, SEGMENT_HEADER_BYTES):
        raise FormatError(0, "the segment header's checksum does not match")
    fields = _SEGMENT_HEADER.unpack_from(data)
    version, vote_bytes = fields[1], fields[3]
    if version != FORMAT_VERSION:
        raise UnknownVersionError(version)
    vote = fields[13][:vote_bytes].decode() if vote_bytes else None
    return SegmentHeader(
        journal_id=fields[4],
        number=fields[5],
        oldest=fields[6],
        first_batch=fields[7],
        next_index=fields[8],
        previous_term=fields[9],
        durable_index=fields[10],
        hard_state=HardState(Term(fields[11]), NodeId(vote) if vote is not None else None),
        chain=fields[12],
    )


class UnknownVersionError(FormatError):
    """The header verifies, but another release of raftdb wrote it."""

    def __init__(self, version: int) -> None:
        super().__init__(8, f"format version {version}; this raftdb reads {FORMAT_VERSION}")
        self.version = version


# -- hard state -----------------------------------------------------------------------------


def _vote_bytes(hard_state: HardState) -> bytes:
    vote = b"" if hard_state.vote is None else hard_state.vote.encode()
    if len(vote) > VOTE_BYTES_MAX or hard_state.vote == "":
        raise ValueError(f"a vote has 1 to {VOTE_BYTES_MAX} bytes, not {len(vote)}")
    return vote


def encode_hard_state(hard_state: HardState) -> Operation:
    """As the record that goes into a batch."""
    return Operation(HARD_STATE, 0, hard_state.term, _vote_bytes(hard_state))


def decode_hard_state(term: int, vote: bytes) -> HardState:
    """From a record's term and data."""
    return HardState(Term(term), NodeId(vote.decode()) if vote else None)


# -- batches --------------------------------------------------------------------------------


def encode_batch(
    operations: Sequence[Operation], number: int, durable_index: int, chain: int, seed: int
) -> tuple[bytes, int]:
    """The bytes of one batch, and its chain value."""
    parts = [b""]
    records_check = seed
    body_bytes = 0
    for kind, index, term, data in operations:
        head = _RECORD.pack(kind, len(data), index, term, crc32(data, seed))
        # Without the head's own check value: a CRC over bytes and their CRC is a constant.
        records_check = crc32(head, records_check)
        parts.append(head + _CRC.pack(crc32(head, seed)))
        body_bytes += RECORD_HEADER_BYTES
        if data:
            parts.append(data)
            body_bytes += len(data)
    header = _BATCH_HEADER.pack(
        BATCH_MAGIC, len(operations), number, durable_index, body_bytes, chain
    )
    check = crc32(header, seed)
    parts[0] = header + _CRC.pack(check)
    trailer = _TRAILER.pack(TRAILER_MAGIC, records_check, number, body_bytes, check)
    new_chain = crc32(trailer, seed)
    parts.append(trailer)
    parts.append(_CRC.pack(new_chain))
    return b"".join(parts), new_chain


def decode_batch_header(data: bytes, offset: int, seed: int) -> BatchHeader | None:
    """The batch header at `offset`, or None when none verifies there."""
    raw = data[offset : offset + BATCH_HEADER_BYTES]
    if raw[:4] != BATCH_MAGIC or not _verifies(raw, BATCH_HEADER_BYTES, seed):
        return None
    _, count, number, durable_index, body_bytes, previous = _BATCH_HEADER.unpack_from(raw)
    check = _CRC.unpack_from(raw, _BATCH_HEADER.size)[0]
    return BatchHeader(count, number, durable_index, body_bytes, previous, check)


def decode_trailer(data: bytes, offset: int, seed: int) -> tuple[int, int, int, int, int] | None:
    """(number, body bytes, records check, header check, chain) of the trailer at `offset`."""
    raw = data[offset : offset + TRAILER_BYTES]
    if raw[:4] != TRAILER_MAGIC or not _verifies(raw, TRAILER_BYTES, seed):
        return None
    _, records_check, number, body_bytes, header_check = _TRAILER.unpack_from(raw)
    return number, body_bytes, records_check, header_check, _CRC.unpack_from(raw, 28)[0]


def decode_batch(data: bytes, offset: int, seed: int) -> Batch:
    """Read and verify one batch, records' data included. Raises FormatError."""
    header = decode_batch_header(data, offset, seed)
    if header is None:
        raise FormatError(offset, "no batch header verifies here")
    body_end = offset + BATCH_HEADER_BYTES + header.body_bytes
    trailer = decode_trailer(data, body_end, seed)
    if trailer is None:
        raise FormatError(body_end, f"the trailer of batch {header.number} does not verify")
    number, body_bytes, records_check, header_check, chain = trailer
    if (number, body_bytes, header_check) != (header.number, header.body_bytes, header.check):
        raise FormatError(body_end, f"the trailer does not belong to batch {header.number}")
    records: list[Record] = []
    position = offset + BATCH_HEADER_BYTES
    check = seed
    while position < body_end:
        kind, index, term, length = _decode_record(data, position, seed)
        check = crc32(data[position : position + _RECORD.size], check)
        records.append(Record(kind, index, term, position, length))
        position += RECORD_HEADER_BYTES + length
    if position != body_end or len(records) != header.record_count or check != records_check:
        raise FormatError(offset, f"the records of batch {header.number} do not match its trailer")
    return Batch(header, offset, body_end + TRAILER_BYTES, chain, records)


def _decode_record(data: bytes, offset: int, seed: int) -> tuple[int, int, int, int]:
    head = data[offset : offset + RECORD_HEADER_BYTES]
    if not _verifies(head, RECORD_HEADER_BYTES, seed):
        raise FormatError(offset, "a record header's checksum does not match")
    kind, length, index, term, data_check = _RECORD.unpack_from(head)
    start = offset + RECORD_HEADER_BYTES
    body = memoryview(data)[start : start + length]
    if len(body) != length or crc32(body, seed) != data_check:
        raise FormatError(offset, f"the data of record {index} does not match its checksum")
    return kind, index, term, length


def decode_entry(data: bytes, offset: int, index: int, seed: int) -> LogEntry:
    """Read and verify the entry whose record begins at `offset`. Raises FormatError."""
    kind, found, term, length = _decode_record(data, offset, seed)
    if kind != ENTRY or found != index:
        raise FormatError(offset, f"expected entry {index}, found record {found} of kind {kind}")
    start = offset + RECORD_HEADER_BYTES
    return LogEntry(Index(index), Term(term), bytes(data[start : start + length]))


# -- footer of a sealed segment ---------------------------------------------------------------


def encode_footer(
    tail: FooterTail,
    offsets: array[int],
    lengths: array[int],
    term_starts: Sequence[tuple[int, int]],
    seed: int,
) -> bytes:
    """Index and tail; the tail's `index_check` is computed here."""
    index = b"".join(
        (
            _little(offsets).tobytes(),
            _little(lengths).tobytes(),
            *(_TERM_START.pack(first, term) for first, term in term_starts),
        )
    )
    body = _FOOTER_TAIL.pack(
        FOOTER_MAGIC,
        tail.number,
        tail.first_index,
        tail.last_index,
        tail.previous_term,
        tail.last_term,
        tail.index_offset,
        tail.entry_count,
        tail.term_count,
        tail.next_batch,
        tail.chain,
        crc32(index, seed),
    )
    return index + _sealed(body, FOOTER_TAIL_BYTES, seed)


def decode_footer_tail(data: bytes, seed: int) -> FooterTail | None:
    """The last 128 bytes of a segment as its footer, or None when they are none."""
    if data[:8] != FOOTER_MAGIC or not _verifies(data, FOOTER_TAIL_BYTES, seed):
        return None
    return FooterTail(*_FOOTER_TAIL.unpack_from(data)[1:])


def index_bytes(tail: FooterTail) -> int:
    """Size of the index that stands before the tail."""
    return tail.entry_count * 12 + tail.term_count * _TERM_START.size


def decode_index(
    data: bytes, tail: FooterTail, seed: int
) -> tuple[array[int], array[int], list[tuple[int, int]]]:
    """(offsets, lengths, term starts) of a sealed segment. Raises FormatError."""
    if len(data) != index_bytes(tail) or crc32(data, seed) != tail.index_check:
        raise FormatError(tail.index_offset, "the index of a sealed segment does not verify")
    offsets: array[int] = array("Q")
    lengths: array[int] = array("I")
    split = tail.entry_count * 8
    offsets.frombytes(data[:split])
    lengths.frombytes(data[split : split + tail.entry_count * 4])
    starts = data[split + tail.entry_count * 4 :]
    return (
        _little(offsets),
        _little(lengths),
        [(first, term) for first, term in _TERM_START.iter_unpack(starts)],
    )


def _little(values: array[int]) -> array[int]:
    """The array in little-endian order (the array itself on nearly every machine)."""
    if struct.pack("=H", 1) == struct.pack("<H", 1):
        return values
    swapped = values[:]
    swapped.byteswap()
    return swapped


# -- mark -------------------------------------------------------------------------------------


def encode_mark(mark: Mark) -> bytes:
    """64 bytes, the whole of the mark file."""
    body = _MARK.pack(
        MARK_MAGIC,
        FORMAT_VERSION,
        MARK_BYTES,
        0,
        mark.journal_id,
        mark.segment,
        mark.batch,
        mark.durable_index,
        mark.chain,
    )
    return _sealed(body, MARK_BYTES)


def decode_mark(data: bytes) -> Mark:
    """Read the mark file. Raises FormatError."""
    if data[:8] != MARK_MAGIC or not _verifies(data, MARK_BYTES):
        raise FormatError(0, "the mark does not verify")
    fields = _MARK.unpack_from(data)
    if fields[1] != FORMAT_VERSION:
        raise UnknownVersionError(fields[1])
    return Mark(fields[4], fields[5], fields[6], fields[7], fields[8])
