"""Bodies of messages: strict, bounded, and never another exception than the protocol's own."""

from __future__ import annotations

import struct
import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from raftdb import wire
from raftdb.base.errors import DataError
from raftdb.command import Statement
from raftdb.wire.codec import decode, encode
from raftdb.wire.shape import COUNT_BYTES, check_shape
from tests.wire.messages import (
    CLUSTER,
    HELLO,
    HISTORY,
    REPLIES,
    REQUESTS,
    WELCOME,
    opened,
    raw_error,
    replies,
    requests,
)

VALUES_MAX = 1_000_000
ALL = (HELLO, WELCOME, *REQUESTS, *REPLIES, wire.Cancel(1), wire.Goodbye("x"))


@pytest.mark.parametrize("message", ALL, ids=lambda message: type(message).__name__)
def test_round_trip(message: Any) -> None:
    assert decode(encode(message), VALUES_MAX) == message


@given(st.one_of(requests, replies))
def test_round_trip_of_anything(message: Any) -> None:
    assert decode(encode(message), VALUES_MAX) == message


def test_kinds_are_numbers_that_never_change() -> None:
    """Old and new releases must agree on them for ever."""
    kinds = {type(message).__name__: msgpack.unpackb(encode(message))[0] for message in ALL}
    assert kinds == {
        "Hello": 1,
        "OpenSession": 2,
        "AttachSession": 3,
        "CloseSession": 4,
        "Execute": 5,
        "Query": 6,
        "Status": 7,
        "Ping": 8,
        "Transfer": 9,
        "ContentHash": 10,
        "Cancel": 11,
        "OpenCursor": 12,
        "FetchCursor": 13,
        "CloseCursor": 14,
        "Welcome": 64,
        "Begin": 20,
        "Transact": 21,
        "Commit": 22,
        "Rollback": 23,
        "Outcome": 24,
        "Result": 65,
        "Rows": 66,
        "Info": 67,
        "Pong": 68,
        "ErrorMessage": 69,
        "Goodbye": 70,
        "Done": 71,
        "CursorRows": 72,
        "Ask": 15,
    }


BAD: dict[str, tuple[Any, ...]] = {
    "no array": (),
    "unknown kind": (63, 1),
    "kind is no number": ("5", 1),
    "kind is a boolean": (True, 0, "raftdb", [1], "x", None, None),
    "too few fields": (7,),
    "too many fields": (7, 1, 2),
    "request id zero": (7, 0),
    "request id negative": (7, -1),
    "request id beyond 63 bits": (7, 1 << 63),
    "request id is a float": (7, 1.0),
    "request id is true": (7, True),
    "hello with a request id": (1, 1, "raftdb", [1], "x", None, None),
    "hello without the word": (1, 0, "mysql", [1], "x", None, None),
    "hello without versions": (1, 0, "raftdb", [], "x", None, None),
    "hello with many versions": (1, 0, "raftdb", list(range(1, 18)), "x", None, None),
    "hello with version zero": (1, 0, "raftdb", [0], "x", None, None),
    "hello with a long name": (1, 0, "raftdb", [1], "x" * 129, None, None),
    "hello with a bad cluster": (1, 0, "raftdb", [1], "x", CLUSTER.upper(), None),
    "hello with a bad history": (1, 0, "raftdb", [1], "x", None, HISTORY[:-1]),
    "session id too short": (3, 1, bytes(39)),
    "session id is text": (3, 1, "x" * 40),
    "sequence zero": (5, 1, 0, 0, 5, True, [["x", [[]]]]),
    "floor at the sequence": (5, 1, 3, 3, 5, True, [["x", [[]]]]),
    "floor negative": (5, 1, 3, -1, 5, True, [["x", [[]]]]),
    "timeout zero": (5, 1, 1, 0, 0, True, [["x", [[]]]]),
    "timeout of a week": (5, 1, 1, 0, 7 * 86_400_000, True, [["x", [[]]]]),
    "foreign keys is a number": (5, 1, 1, 0, 5, 1, [["x", [[]]]]),
    "no statements": (5, 1, 1, 0, 5, True, []),
    "statement is text": (5, 1, 1, 0, 5, True, ["x"]),
    "statement with three parts": (5, 1, 1, 0, 5, True, [["x", [[]], 1]]),
    "sql is bytes": (5, 1, 1, 0, 5, True, [[b"x", [[]]]]),
    "no parameter set": (5, 1, 1, 0, 5, True, [["x", []]]),
    "parameter set is a number": (5, 1, 1, 0, 5, True, [["x", [1]]]),
    "parameter is an array": (5, 1, 1, 0, 5, True, [["x", [[[1]]]]]),
    "parameter is a boolean": (5, 1, 1, 0, 5, True, [["x", [[True]]]]),
    "parameter is beyond 64 bits": (5, 1, 1, 0, 5, True, [["x", [[1 << 63]]]]),
    "parameter is NaN": (5, 1, 1, 0, 5, True, [["x", [[float("nan")]]]]),
    "parameter is a time stamp": (5, 1, 1, 0, 5, True, [["x", [[msgpack.Timestamp(1)]]]]),
    "parameter is an extension": (5, 1, 1, 0, 5, True, [["x", [[msgpack.ExtType(5, b"")]]]]),
    "parameter's name is bytes": (5, 1, 1, 0, 5, True, [["x", [{b"a": 1}]]]),
    "unknown level": (6, 1, "eventual", 5, 0, [["x", [[]]]]),
    "level is an array": (6, 1, ["local"], 5, 0, [["x", [[]]]]),
    "max_rows negative": (6, 1, "local", 5, -1, [["x", [[]]]]),
    "transfer to a number": (9, 1, 7, 5),
    "index negative": (10, 1, -1, 5),
    "unknown role": (64, 0, 1, CLUSTER, HISTORY, "n", "boss", 1, None, [], 1, 1, "v"),
    "leader is text": (64, 0, 1, CLUSTER, HISTORY, "n", "leader", 1, "n1", [], 1, 1, "v"),
    "many members": (
        64,
        0,
        1,
        CLUSTER,
        HISTORY,
        "n",
        "leader",
        1,
        None,
        [["a", "b"]] * 65,
        1,
        1,
        "v",
    ),
    "reply is text": (65, 1, 1, "x"),
    "last is a number": (66, 1, 1, b"", 1),
    "info is an array": (67, 1, []),
    "info nested deep": (67, 1, {"a": [[[[[[[[[[1]]]]]]]]]]}),
    "info with a number for a key": (67, 1, {1: 2}),
    "error is text": (69, 1, "x"),
    "error without a class": (69, 1, {"code": "x"}),
    "error with a bad outcome": (69, 1, raw_error(outcome="maybe")),
    "error with a bad retryable": (69, 1, raw_error(retryable=1)),
    "error with a bad message": (69, 1, raw_error(message=None)),
    "goodbye with a request id": (70, 1, "x"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_fields_are_refused(name: str) -> None:
    with pytest.raises(wire.RemoteProtocolError):
        decode(msgpack.packb(BAD[name]), VALUES_MAX)


RAW: dict[str, bytes] = {
    "empty": b"",
    "reserved byte": b"\xc1",
    "cut": encode(HELLO)[:-1],
    "bytes to spare": encode(HELLO) + b"\0",
    "bad UTF-8": b"\x92\x01\xa1\xff",
    "map": b"\x81\x01\x02",
    "array that claims 4 G": b"\xdd\xff\xff\xff\xff",
    "map that claims 4 G": b"\xdf\xff\xff\xff\xff",
    "text that claims 4 G": b"\xdb\xff\xff\xff\xff",
    "nested without end": b"\x91" * 4000,
    "nested claims": b"\xdd\x00\x10\x00\x00" * 900,
    "time stamp with bad nanoseconds": b"\x92\x07\xd7\xff" + b"\xff" * 8,
}


@pytest.mark.parametrize("name", RAW)
def test_bad_bytes_are_refused(name: str) -> None:
    with pytest.raises(wire.RemoteProtocolError):
        decode(RAW[name], VALUES_MAX)


@settings(max_examples=300)
@given(st.binary(max_size=200))
@example(b"\x92\x07\xd7\xff" + b"\xff" * 8)
def test_no_bytes_raise_anything_else(body: bytes) -> None:
    try:
        decode(body, VALUES_MAX)
    except wire.RemoteProtocolError:
        pass


@settings(max_examples=300)
@given(st.sampled_from(ALL), st.data())
def test_no_damage_raises_anything_else(message: Any, data: Any) -> None:
    """Good messages with some bytes changed, cut out or put in: nearer to the edges."""
    body = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(body)))
        end = data.draw(st.integers(place, min(len(body), place + 3)))
        body[place:end] = data.draw(st.binary(max_size=4))
    _client, server = opened()
    try:
        server.receive(struct.pack(">I", len(body)))
        server.receive(body)
    except wire.RemoteProtocolError:
        pass


def peak_bytes(body: bytes, values_max: int) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(wire.RemoteProtocolError):
            decode(body, values_max)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_claims_that_nest_cost_no_memory() -> None:
    """900 arrays in each other, each of a million elements by its header: 7 GB if believed."""
    assert peak_bytes(b"\xdd\x00\x10\x00\x00" * 900 + b"\0" * (1 << 17), VALUES_MAX) < 1 << 20
    assert peak_bytes(b"\xdd\x00\x10\x00\x00" * 900 + b"\0" * (1 << 20), VALUES_MAX) < 1 << 20


def test_many_tiny_values_cost_no_memory() -> None:
    """Ten million empty maps: 10 MB on the line, 640 MB once they are built."""
    count = 10_000_000
    body = b"\x97\x05\x01\x01\x00\x05\xc3\x91\x92\xa1x\xdd" + struct.pack(">I", count)
    assert peak_bytes(body + b"\x80" * count, 100_000) < 1 << 20


def test_many_values_within_the_bound_pass() -> None:
    sets = tuple((number, "x") for number in range(60_000))
    message = wire.Execute(1, 1, 0, 5, (Statement("x", sets),))
    body = encode(message)
    assert len(body) > COUNT_BYTES
    assert decode(body, 200_000) == message
    with pytest.raises(wire.RemoteProtocolError, match="more than 100000 values"):
        decode(body, 100_000)


@settings(max_examples=50)
@given(
    st.recursive(
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(-(1 << 63), (1 << 64) - 1),
            st.floats(),
            st.sampled_from([0, 31, 32, 255, 256, 65_535, 65_536]).map(lambda size: b"x" * size),
            st.sampled_from([0, 31, 32, 255, 256, 65_535, 65_536]).map(lambda size: "x" * size),
            st.sampled_from([1, 2, 4, 8, 16, 3, 300]).map(
                lambda size: msgpack.ExtType(5, b"x" * size)
            ),
        ),
        lambda inner: st.one_of(
            st.lists(inner, max_size=20), st.dictionaries(st.integers(0, 9), inner)
        ),
        max_leaves=20,
    )
)
def test_the_walk_knows_all_of_msgpack(value: Any) -> None:
    """Large bodies are walked by hand: it must find the end of everything that msgpack writes."""
    body = msgpack.packb([value, b"x" * COUNT_BYTES])
    check_shape(body, VALUES_MAX)
    for bad in (body[:-1], body + b"\0"):
        with pytest.raises(ValueError):
            check_shape(bad, VALUES_MAX)


@pytest.mark.parametrize(
    "value", [1 << 64, "\ud800", object(), {"x"}], ids=["large", "surrogate", "object", "set"]
)
def test_what_cannot_be_encoded_is_the_callers_fault(value: Any) -> None:
    with pytest.raises(DataError):
        encode(wire.Execute(1, 1, 0, 5, (Statement("x", ((value,),)),)))


def test_errors_come_back_as_they_were() -> None:
    message = REPLIES[9]
    error = decode(encode(message), VALUES_MAX).exception()  # type: ignore[union-attr]
    assert type(error).__name__ == "NotLeaderError"
    assert error.detail == {"leader": "n2", "address": "h:1"}
    assert error.retryable
