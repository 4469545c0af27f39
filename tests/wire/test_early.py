"""What is read of a request that is turned away: never more than its head, never a wrong number."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftdb import wire
from raftdb.base.errors import Error, OverloadedError
from raftdb.command import Statement
from raftdb.wire.codec import encode
from raftdb.wire.early import HEAD_BYTES_MAX, glance
from tests.wire.messages import opened, replies, requests

MAY_BE = (wire.Execute, wire.OpenSession, wire.Query, wire.OpenCursor)
BIG = (1 << 63) - 1


def too_many(retry_ms: int) -> Error:
    return OverloadedError("busy", detail={"retry_after_ms": retry_ms})


@given(st.one_of(requests, replies))
def test_the_head_says_what_decoding_would(message: Any) -> None:
    found = glance(encode(message))
    if type(message) not in MAY_BE:
        assert found is None
    else:
        assert found == (type(message), message.request_id, getattr(message, "sequence", 0))


@given(st.binary(max_size=40) | st.binary(max_size=12).map(lambda rest: b"\x99\x05" + rest))
def test_whatever_stands_there_it_is_read_or_left(body: bytes) -> None:
    found = glance(body)
    if found is not None:
        kind, request_id, sequence = found
        assert kind in MAY_BE
        assert 0 < request_id <= BIG
        assert 0 <= sequence <= BIG
    assert glance(memoryview(body)) == found


@pytest.mark.parametrize(
    "fields", [(5, 0, 1), (5, -1, 1), (5, BIG + 1, 1), (5, 1, 0), (5, 1, BIG + 1), (5, 1.0, 1)]
)
def test_numbers_that_cannot_be_are_left_to_decode(fields: tuple[Any, ...]) -> None:
    assert glance(msgpack.packb((*fields, 0, 1000, True, []))) is None


def test_no_more_than_the_head_is_looked_at() -> None:
    body = encode(wire.Execute(BIG, BIG, 0, 1, ()))[:HEAD_BYTES_MAX]
    assert glance(body + b"\xc1" * 1_000_000) == (wire.Execute, BIG, BIG)
    assert glance(body[:-1]) is None


def test_an_answer_at_the_door_is_that_of_an_ordinary_refusal() -> None:
    client, server = opened()
    asked: list[tuple[type, int, int]] = []

    def door(*found: Any) -> bool:
        asked.append(found)
        return True

    server.door, server.pressed = door, True
    request = wire.Query(7, wire.LOCAL, 1000, (Statement("SELECT 1"),))
    assert server.receive(client.send(request)) == []
    assert asked == [(wire.Query, 7, 0)]
    assert server.open_requests == 0
    frame = wire.error_frame(7, wire.packed_error(too_many, 50))
    assert client.receive(frame) == [wire.ErrorMessage.of(7, too_many(50))]
    assert client.open_requests == 0


def test_what_may_not_be_said_is_blamed_at_the_door_as_well() -> None:
    client, server = opened()
    ask = client.send(wire.Query(7, wire.LOCAL, 1000, (Statement("SELECT 1"),)))
    assert len(server.receive(ask)) == 1
    server.door, server.pressed = (lambda *_found: True), True
    with pytest.raises(wire.RemoteProtocolError, match="open already"):
        server.receive(ask)
    stranger = wire.ServerSide()
    stranger.door, stranger.pressed = (lambda *_found: True), True
    with pytest.raises(wire.RemoteProtocolError, match="not allowed"):
        stranger.receive(ask)


def test_what_stands_behind_another_message_has_its_turn() -> None:
    client, server = opened()
    server.door, server.pressed = (lambda *_found: True), True
    query = wire.Query(8, wire.LOCAL, 1000, (Statement("SELECT 1"),))
    assert server.receive(client.send(wire.Ping(7)) + client.send(query)) == [wire.Ping(7), query]
