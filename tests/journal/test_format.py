"""The bytes: what is bound to what."""

from __future__ import annotations

import itertools
import random
import struct
from zlib import crc32

import pytest

from raftdb.base.ids import Index, NodeId, Term
from raftdb.journal import HardState, LogEntry
from raftdb.journal.format import (
    BATCH_HEADER_BYTES,
    ENTRY,
    RECORD_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    FormatError,
    Mark,
    Operation,
    SegmentHeader,
    decode_batch,
    decode_mark,
    decode_segment_header,
    encode_batch,
    encode_mark,
    encode_segment_header,
    seed_of,
    segment_name,
    segment_number,
)
from tests.journal.support import DIRECTORY, entry, sim_bench, vote

SEED = seed_of(b"j" * 16, 1)


def test_the_chain_value_depends_on_everything_in_a_batch() -> None:
    """A CRC taken over bytes and their own CRC is the same for all bytes: the trap to avoid."""
    base = ([Operation(ENTRY, 5, 2, b"abcd"), Operation(ENTRY, 6, 2, b"efgh")], 9, 4, 77, SEED)
    variants = [
        base,
        ([Operation(ENTRY, 5, 2, b"abcx"), base[0][1]], *base[1:]),
        ([base[0][0], Operation(ENTRY, 6, 2, b"efgx")], *base[1:]),
        ([base[0][0], Operation(ENTRY, 6, 3, b"efgh")], *base[1:]),
        ([base[0][0], Operation(ENTRY, 7, 2, b"efgh")], *base[1:]),
        ([base[0][0]], *base[1:]),
        (base[0], 8, 4, 77, SEED),
        (base[0], 9, 3, 77, SEED),
        (base[0], 9, 4, 78, SEED),
        (base[0], 9, 4, 77, SEED + 1),
    ]
    chains = [encode_batch(*variant)[1] for variant in variants]
    for one, other in itertools.combinations(chains, 2):
        assert one != other


def test_records_cannot_move_between_batches_of_the_same_shape() -> None:
    one, _ = encode_batch([Operation(ENTRY, 5, 2, b"abcd")], 9, 4, 77, SEED)
    other, _ = encode_batch([Operation(ENTRY, 5, 2, b"zzzz")], 9, 4, 77, SEED)
    start, end = BATCH_HEADER_BYTES, BATCH_HEADER_BYTES + RECORD_HEADER_BYTES + 4
    mixed = one[:start] + other[start:end] + one[end:]
    assert len(mixed) == len(one)
    with pytest.raises(FormatError, match="do not match its trailer"):
        decode_batch(mixed, 0, SEED)


def test_a_batch_byte_by_byte() -> None:
    """As drawn in DESIGN.md, computed here by hand."""
    data = b"hello"
    raw, chain = encode_batch([Operation(ENTRY, 5, 2, data)], 9, 4, 77, SEED)
    record = struct.pack("<B3xIQQI", 1, 5, 5, 2, crc32(data, SEED))
    header = b"\xf7RJb" + struct.pack("<IQQQI", 1, 9, 4, 37, 77)
    check = crc32(header, SEED)
    trailer = b"\xf7RJt" + struct.pack("<IQQI", crc32(record, SEED), 9, 37, check)
    expected = header + struct.pack("<I", check)
    expected += record + struct.pack("<I", crc32(record, SEED)) + data
    expected += trailer + struct.pack("<I", crc32(trailer, SEED))
    assert raw == expected
    assert chain == crc32(trailer, SEED)


def test_a_sealed_segment_read_by_the_document_alone() -> None:
    """DESIGN.md's tables, followed by hand: no code of the journal reads here."""
    bench = sim_bench(journal_segment_bytes=900)
    journal = bench.open()
    journal.set_hard_state(vote(4, "n2"))
    for index in range(2, 12):
        journal.append([entry(index, 1 + index // 4)])
        bench.executor.settle()
    bench.close(journal)
    raw = bench.files.read_file(f"{DIRECTORY}/00000000000000000002.segment")
    assert raw[:8] == b"RAFTDBJ\n"
    assert struct.unpack_from("<HHI", raw, 8) == (1, 256, 2)
    number, oldest, batch, next_index, _, _, term = struct.unpack_from("<7Q", raw, 32)
    assert (number, oldest, term, raw[92:94]) == (2, 1, 4, b"n2")
    assert crc32(raw[:252]) == struct.unpack_from("<I", raw, 252)[0]
    seed = crc32(raw[16:32] + struct.pack("<Q", number))
    tail = raw[-128:]
    assert tail[:8] == b"RAFTDBF\n"
    numbers = struct.unpack_from("<9Q", tail, 8)
    assert numbers[0] == 2
    first, last, _, last_term, index_at, count, terms, next_batch = numbers[1:]
    chain, index_check = struct.unpack_from("<II", tail, 80)
    assert crc32(tail[:124], seed) == struct.unpack_from("<I", tail, 124)[0]
    table = raw[index_at:-128]
    assert crc32(table, seed) == index_check
    assert len(table) == count * 12 + terms * 16
    assert (first, last) == (next_index, next_index + count - 1)
    offsets = struct.unpack_from(f"<{count}Q", table)
    lengths = struct.unpack_from(f"<{count}I", table, count * 8)
    for position, (offset, length) in enumerate(zip(offsets, lengths, strict=True)):
        kind, size, index, entry_term, check = struct.unpack_from("<B3xIQQI", raw, offset)
        data = raw[offset + 32 : offset + 32 + length]
        assert (kind, size, index) == (1, length, first + position)
        assert LogEntry(Index(index), Term(entry_term), data) == entry(index, 1 + index // 4)
        assert check == crc32(data, seed)
    assert entry_term == last_term
    position, previous = 256, struct.unpack_from("<I", raw, 88)[0]
    while position < index_at:
        magic, _, found, _, body, before = struct.unpack_from("<4sIQQQI", raw, position)
        assert (magic, found, before) == (b"\xf7RJb", batch, previous)
        previous = struct.unpack_from("<I", raw, position + 40 + body + 28)[0]
        position, batch = position + 40 + body + 32, batch + 1
    assert (position, batch, previous) == (index_at, next_batch, chain)


def test_headers_and_marks_come_back() -> None:
    draw = random.Random(1)
    for node in (None, NodeId("n1"), NodeId("x" * 32)):
        header = SegmentHeader(
            draw.randbytes(16), 7, 3, 100, 5000, 12, 4990, HardState(Term(13), node), 0xFFFFFFFF
        )
        raw = encode_segment_header(header)
        assert len(raw) == SEGMENT_HEADER_BYTES
        assert decode_segment_header(raw) == header
    mark = Mark(draw.randbytes(16), 7, 120, 6000, 5)
    assert len(encode_mark(mark)) == 64
    assert decode_mark(encode_mark(mark)) == mark


def test_names() -> None:
    assert segment_name(12) == "00000000000000000012.segment"
    assert segment_number(segment_name(12)) == 12
    for name in ("lock", "mark", "12.segment", "00000000000000000012.segment.new"):
        assert segment_number(name) is None
