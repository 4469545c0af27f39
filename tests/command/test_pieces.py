"""Long requests are read and packed in pieces, and nobody can tell from the bytes."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Any

import msgpack
import pytest

from raftdb import wire
from raftdb.base import packing
from raftdb.base.errors import DataError
from raftdb.base.limits import Limits
from raftdb.command import (
    Execute,
    Key,
    Reference,
    ReplyBuilder,
    Results,
    Statement,
    StatementResult,
    decode_request,
    encode_reply,
    encode_request,
    pack_statements,
)
from raftdb.command.requests import Stamp
from raftdb.node.admission import Admission
from raftdb.wire.codec import encode

STAMP = Stamp(1_700_000_000_000, b"12345678")
ROWS = 3_000
SETS = tuple((number, "x" * 40) for number in range(ROWS))


@pytest.mark.parametrize("count", [0, 1, 15, 16, 499, 500, 501, 65_535, 65_536, 65_537])
def test_arrays_in_pieces_are_those_of_msgpack(count: int) -> None:
    assert packing.pack_array(list(range(count))) == msgpack.packb(list(range(count)))
    assert packing.pack_array([(n, "é") for n in range(count)]) == msgpack.packb(
        [(n, "é") for n in range(count)]
    )


ROWS_OF_REPLIES: list[list[tuple[Any, ...]]] = [
    [],
    [(1, "x", None), (2.5, b"y", "é")],
    [(1, "é" * packing.LONG_BYTES, b"z" * (packing.LONG_BYTES + 1))],
    [(1, "x"), ("y" * (packing.LONG_BYTES + 1), 2), (3, b""), (b"b" * (packing.LONG_BYTES + 1),)],
]


@pytest.mark.parametrize("rows", ROWS_OF_REPLIES, ids=["none", "short", "long", "mixed"])
def test_a_reply_made_row_by_row_is_the_same(rows: list[tuple[Any, ...]]) -> None:
    builder = ReplyBuilder()
    results = []
    for columns in (("a",), ("b", "c")):
        sizes = [builder.add_row(row) for row in rows]
        assert sizes == [len(msgpack.packb(row)) for row in rows]
        builder.end_statement(columns, len(rows))
        results.append(StatementResult(columns, tuple(rows), 0, 0))
    assert builder.encode() == encode_reply(Results(tuple(results)))


def test_a_long_value_of_a_reply_is_copied_once() -> None:
    value = b"x" * (8 << 20)
    builder = ReplyBuilder()
    tracemalloc.start()
    try:
        builder.add_row((1, value))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        builder.end_statement(("a", "b"), 1)
        builder.encode()
        assert tracemalloc.get_traced_memory()[1] < len(value) + (1 << 20)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("key", [None, Key("order-42", 77)])
@pytest.mark.parametrize(
    "statements",
    [
        (Statement("x"),),
        (Statement("INSERT INTO t VALUES (?, :b)", ((1, None), {"b": b"x"})),) * 17,
        (Statement("x", SETS), Statement("y", ((None,),), (Reference(0, "n", 0, "id", 2),))),
    ],
    ids=["bare", "many statements", "many rows"],
)
def test_what_was_packed_before_is_the_same_request(
    statements: tuple[Statement, ...], key: Key | None
) -> None:
    request = Execute(STAMP, 1 << 40, 3, 2, statements, False, key)
    data = encode_request(request, pack_statements(statements))
    assert data == encode_request(request)
    assert decode_request(data) == request


def test_what_cannot_be_stored_is_said_wherever_it_is_packed() -> None:
    with pytest.raises(DataError, match="cannot be stored"):
        pack_statements((Statement("x", ((1 << 64,),)),))


def test_admission_packs_once_for_the_log() -> None:
    admission = Admission(Limits())
    statements = admission.checked((Statement("x", SETS),), for_log=True)
    request = Execute(STAMP, 7, 3, 2, statements)
    plain = encode_request(Execute(STAMP, 7, 3, 2, (Statement("x", SETS),)))
    assert admission.encode(request) == plain
    assert admission.encode(request) == plain, "also when it comes again"


@pytest.mark.parametrize("rid", [1, 127, 1 << 16, (1 << 63) - 1])
def test_a_long_request_goes_into_the_log_as_it_came(rid: int) -> None:
    statements = (Statement("x", SETS), Statement("y", ({"a": 1.5},)))
    sent = wire.Execute(rid, rid, rid - 1, 86_400_000, statements)
    body = encode(sent)
    packed = wire.packed_statements(body)
    assert packed == pack_statements(statements)
    admission = Admission(Limits())
    message = wire.decode(body, 1_000_000)
    assert isinstance(message, wire.Execute)
    checked = admission.checked(message.statements, for_log=True, packed=packed)
    request = Execute(STAMP, 7, 3, 2, statements)
    assert admission.encode(Execute(STAMP, 7, 3, 2, checked)) == encode_request(request)
    # What stands behind the statements is not theirs.
    for other in (replace(sent, key=Key("k", 1)), replace(sent, durability="locations=2")):
        assert wire.packed_statements(encode(other)) == b""


def test_another_clients_way_to_write_msgpack_is_read_the_same_by_all() -> None:
    """Numbers and lengths in more bytes than they need."""
    long_form = bytes.fromhex("97 05 cf0000000000000009 cd0003 02 ce00001388 c3")
    statements = bytes.fromhex(
        "dd00000001 dc0002 da0001 78 dd00000001 dd00000001 d30000000000000005"
    )
    message = wire.decode(long_form + statements, 1_000)
    assert isinstance(message, wire.Execute)
    assert message.statements == (Statement("x", ((5,),)),)
    assert wire.packed_statements(long_form + statements) == statements
    admission = Admission(Limits())
    checked = admission.checked(message.statements, for_log=True, packed=statements)
    read = decode_request(admission.encode(Execute(STAMP, 7, 3, 2, checked)))
    assert read == Execute(STAMP, 7, 3, 2, message.statements)


def test_other_threads_have_their_turn_at_each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[Any] = []
    monkeypatch.setattr(packing, "give_way", lambda array: turns.append(len(array)) or array)
    statement = Statement("x", SETS)
    decode_request(encode_request(Execute(STAMP, 7, 3, 2, (statement,))))
    assert len(turns) >= ROWS
    turns.clear()
    wire.decode(encode(wire.Execute(1, 3, 2, 5_000, (statement,))), 1_000_000)
    assert len(turns) >= ROWS
    turns.clear()
    sizes: list[int] = []
    monkeypatch.setattr(
        packing, "pack", lambda value: sizes.append(len(value)) or msgpack.packb(value)
    )
    pack_statements((statement,))
    assert max(sizes) <= packing.PIECE
    assert sum(sizes) >= ROWS
    # A short one is not worth it.
    decode_request(encode_request(Execute(STAMP, 7, 3, 2, (Statement("x", SETS[:100]),))))
    assert turns == []
