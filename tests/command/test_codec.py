"""What is encoded is decoded equal, and damage is a CodecError."""

from __future__ import annotations

import msgpack
import pytest

from raftdb.command import (
    CodecError,
    Commit,
    Execute,
    Key,
    Outcome,
    Recorded,
    Reference,
    Request,
    Statement,
    decode_request,
    encode_request,
)
from raftdb.command.requests import Stamp

STAMP = Stamp(1_700_000_000_000, b"12345678")
PLAIN = Statement("INSERT INTO t VALUES (?, :b)", ((1, None), {"b": b"x"}))
REFERRING = Statement("x", ((None,),), (Reference(0, 0, 3, "id", 2), Reference(0, "n", 1)))
KEY = Key("order-42", 77)
REQUESTS: tuple[Request, ...] = (
    Execute(STAMP, 7, 3, 2, (PLAIN,)),
    Execute(STAMP, 7, 3, 2, (PLAIN, REFERRING), False),
    Execute(STAMP, 7, 3, 2, (PLAIN,), True, KEY),
    Commit(STAMP, 7, 3, 0, (Recorded(5, PLAIN, b"d" * 16), Recorded(6, PLAIN, b"e" * 16)), False),
    Commit(STAMP, 7, 3, 0, (Recorded(5, PLAIN, b"d" * 16),), True, KEY),
    Outcome(STAMP, 7, 3),
    Outcome(STAMP, 0, 0, KEY),
)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda one: type(one).__name__)
def test_there_and_back(request_: Request) -> None:
    data = encode_request(request_)
    assert decode_request(data) == request_
    for end in range(len(data)):
        with pytest.raises(CodecError):
            decode_request(data[:end])


def test_requests_without_key_and_references_are_as_they_were() -> None:
    data = encode_request(Execute(STAMP, 7, 3, 2, (PLAIN,)))
    sets = [[1, None], {"b": b"x"}]
    assert msgpack.unpackb(data) == [1, 3, *vars_of(STAMP), 7, 3, 2, True, [[PLAIN.sql, sets]]]


def vars_of(stamp: Stamp) -> tuple[int, bytes]:
    return stamp.time_ms, stamp.seed


@pytest.mark.parametrize(
    "fields",
    [
        (5, 7, 3, 2, True, [["x", [[]]]], "", 0),
        (5, 7, 3, 2, True, [["x", [[]]]], "k" * 201, 0),
        (5, 7, 3, 2, True, [["x", [[]]]], "k", -1),
        (3, 7, 3, 2, True, [["x", [[None]], [[0, 0, -1, None, 0]]]]),
        (3, 7, 3, 2, True, [["x", [[None]], [[0, 0, 0, None]]]]),
        (3, 7, 3, 2, True, [["x", [[None]], [[0, b"", 0, None, 0]]]]),
        (6, 7, 3, 2, True, [[5, b"short", "x", [[]]]], None, 0),
        (7, 7, "3", None, 0),
    ],
)
def test_wrong_fields_are_refused(fields: tuple[object, ...]) -> None:
    kind, *rest = fields
    with pytest.raises(CodecError):
        decode_request(msgpack.packb([1, kind, *vars_of(STAMP), *rest]))
