"""Framing, states and roles of the client protocol."""

from __future__ import annotations

import struct
import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftdb import wire
from raftdb.base.errors import DataError, NotSupportedError, OperationalError
from raftdb.base.limits import CLIENT_FRAME_BYTES_MIN, Limits
from raftdb.command import Statement
from raftdb.wire.connection import TRANSITIONS, WELCOME_FRAME_BYTES_MAX
from tests.wire.messages import (
    HELLO,
    REPLIES,
    REQUESTS,
    WELCOME,
    opened,
    requests,
)

FRAME_BYTES = CLIENT_FRAME_BYTES_MIN
GOODBYE = wire.Goodbye("drains")
REFUSAL = wire.ErrorMessage.of(0, OperationalError("no"))


def frame(*body: Any) -> bytes:
    packed = msgpack.packb(body)
    return struct.pack(">I", len(packed)) + packed


def test_every_request_and_reply_arrives_equal() -> None:
    client, server = opened()
    data = b"".join(client.send(request) for request in REQUESTS)
    assert server.receive(data) == list(REQUESTS)
    assert server.open_requests == client.open_requests == len(REQUESTS)
    data = b"".join(server.send(reply) for reply in REPLIES)
    assert client.receive(data) == list(REPLIES)
    assert server.open_requests == client.open_requests == 0


def test_byte_by_byte() -> None:
    client, server = opened()
    data = b"".join(client.send(request) for request in REQUESTS)
    got: list[wire.Message] = []
    for position in range(len(data)):
        got += server.receive(data[position : position + 1])
    assert got == list(REQUESTS)


@given(st.lists(requests, max_size=6, unique_by=lambda r: r.request_id), st.data())
def test_any_cut_of_the_stream_gives_the_same(messages: list[Any], data: Any) -> None:
    client, server = opened()
    stream = b"".join(client.send(message) for message in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    got: list[wire.Message] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += server.receive(stream[start:end])
    assert got == messages


def test_a_large_frame_in_small_pieces() -> None:
    client, server = opened()
    message = wire.Execute(1, 1, 0, 5000, (Statement("x", ((b"y" * (8 << 20),),)),))
    stream = client.send(message)
    got: list[wire.Message] = []
    for start in range(0, len(stream), 65_536):
        got += server.receive(stream[start : start + 65_536])
    assert got == [message]


# ---- bounds


def test_a_gigabyte_is_refused_on_sight_of_its_header() -> None:
    _, server = opened()
    with pytest.raises(wire.RemoteProtocolError) as caught:
        server.receive(struct.pack(">I", 1 << 30))
    assert caught.value.code == "frame_too_large"
    with pytest.raises(wire.RemoteProtocolError):
        server.receive(b"")


def test_before_the_welcome_only_small_frames() -> None:
    server = wire.ServerSide()
    limit = server.limits.hello_frame_bytes_max
    assert server.receive(struct.pack(">I", limit)) == []
    with pytest.raises(wire.RemoteProtocolError):
        wire.ServerSide().receive(struct.pack(">I", limit + 1))
    with pytest.raises(wire.RemoteProtocolError):
        wire.ClientSide().receive(struct.pack(">I", WELCOME_FRAME_BYTES_MAX + 1))


def test_a_stranger_costs_no_memory() -> None:
    """Megabytes of whatever to a connection that has not said hello."""
    server = wire.ServerSide()
    tracemalloc.start()
    try:
        refused = 0
        for _ in range(64):
            try:
                server.receive(b"\x00\x00\x0f\xff" + b"GET / HTTP/1.1\r\n" * 4096)
            except wire.RemoteProtocolError:
                refused += 1
        assert refused == 64
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()


def test_frames_larger_than_announced_are_not_sent() -> None:
    client, server = wire.ClientSide(), wire.ServerSide(Limits(client_frame_bytes_max=FRAME_BYTES))
    server.receive(client.send(HELLO))
    small = wire.Welcome(
        **{f: getattr(WELCOME, f) for f in WELCOME.__slots__} | {"frame_bytes_max": FRAME_BYTES}
    )
    client.receive(server.send(small))
    with pytest.raises(DataError) as caught:
        client.send(wire.Execute(1, 1, 0, 5, (Statement("x" * FRAME_BYTES),)))
    assert caught.value.code == "too_large"
    assert client.open_requests == 0, "nothing was sent, so nothing is open"
    assert server.receive(client.send(wire.Ping(1))) == [wire.Ping(1)]


def test_a_welcome_promises_no_more_than_the_limits() -> None:
    server = wire.ServerSide(Limits(client_frame_bytes_max=FRAME_BYTES))
    server.receive(wire.ClientSide().send(HELLO))
    with pytest.raises(wire.LocalProtocolError):
        server.send(WELCOME)


def test_too_many_open_requests() -> None:
    limits = Limits(requests_per_connection_max=2)
    client, server = wire.ClientSide(), wire.ServerSide(limits)
    server.receive(client.send(HELLO))
    fields = {name: getattr(WELCOME, name) for name in WELCOME.__slots__}
    client.receive(server.send(wire.Welcome(**fields | {"requests_max": 2})))
    server.receive(client.send(wire.Ping(1)) + client.send(wire.Ping(2)))
    with pytest.raises(wire.LocalProtocolError):
        client.send(wire.Ping(3))
    with pytest.raises(wire.RemoteProtocolError):
        server.receive(frame(8, 3))


# ---- who may say what when


def side_in(state: wire.State, role: type[Any]) -> Any:
    """A side that got into a state by an ordinary conversation."""
    client, server = wire.ClientSide(), wire.ServerSide()
    if state is not wire.State.FRESH:
        server.receive(client.send(HELLO))
    if state in (wire.State.OPEN, wire.State.DRAINING):
        client.receive(server.send(WELCOME))
        server.receive(client.send(wire.Ping(100)))
    if state is wire.State.DRAINING:
        client.receive(server.send(GOODBYE))
    if state is wire.State.CLOSED:
        client.receive(server.send(REFUSAL))
    side = client if role is wire.ClientSide else server
    assert side.state is state
    return side


CLIENT_SAYS = (HELLO, *REQUESTS, wire.Cancel(100))
SERVER_SAYS = (WELCOME, wire.Pong(100), wire.Result(100, 1, b""), GOODBYE)


@pytest.mark.parametrize("state", list(wire.State))
@pytest.mark.parametrize("role", [wire.ClientSide, wire.ServerSide])
def test_the_state_table_is_kept_in_both_directions(state: wire.State, role: type[Any]) -> None:
    own, others = CLIENT_SAYS, SERVER_SAYS
    other_role: type[Any] = wire.ServerSide
    if role is wire.ServerSide:
        own, others, other_role = others, own, wire.ClientSide
    for message in own:
        side = side_in(state, role)
        if type(message) in TRANSITIONS[state]:
            side.send(message)
            assert side.state is TRANSITIONS[state][type(message)]
        else:
            with pytest.raises(wire.LocalProtocolError):
                side.send(message)
            assert side.state is state, "a refused send changes nothing"
    for message in others:
        sender = side_in(state, other_role)
        receiver = side_in(state, role)
        if type(message) in TRANSITIONS[state]:
            assert receiver.receive(sender.send(message)) == [message]
            assert receiver.state is TRANSITIONS[state][type(message)]
        else:
            encoded = wire.connection.encode(message)
            with pytest.raises(wire.RemoteProtocolError):
                receiver.receive(struct.pack(">I", len(encoded)) + encoded)
            assert receiver.state is wire.State.CLOSED


@pytest.mark.parametrize("message", CLIENT_SAYS)
def test_a_server_does_not_speak_as_a_client(message: Any) -> None:
    client, server = opened()
    with pytest.raises(wire.LocalProtocolError):
        server.send(message)
    with pytest.raises(wire.RemoteProtocolError, match="wrong side"):
        client.receive(
            wire.ClientSide.send(opened()[0], message)
            if message is not HELLO
            else wire.ClientSide().send(HELLO)
        )


def test_a_refusal_may_come_at_any_time_and_is_the_end() -> None:
    for state in (wire.State.FRESH, wire.State.GREETED, wire.State.OPEN, wire.State.DRAINING):
        client, server = side_in(state, wire.ClientSide), side_in(state, wire.ServerSide)
        assert client.receive(server.send(REFUSAL)) == [REFUSAL]
        assert client.state is server.state is wire.State.CLOSED
        with pytest.raises(wire.LocalProtocolError):
            server.send(REFUSAL)


def test_a_server_can_say_why_it_hangs_up() -> None:
    client, server = opened()
    with pytest.raises(wire.RemoteProtocolError) as caught:
        server.receive(b"\xff" * 8)
    data = server.send(wire.ErrorMessage.of(0, caught.value))
    (told,) = client.receive(data)
    assert isinstance(told, wire.ErrorMessage)
    assert told.exception().code == "frame_too_large"
    with pytest.raises(wire.LocalProtocolError):
        server.send(wire.Pong(1))


def test_good_messages_ahead_of_a_fault_are_kept() -> None:
    client, server = opened()
    with pytest.raises(wire.RemoteProtocolError) as caught:
        server.receive(client.send(wire.Ping(1)) + b"\xff" * 8)
    assert caught.value.messages == (wire.Ping(1),)


def test_replies_need_an_open_request() -> None:
    client, server = opened()
    with pytest.raises(wire.LocalProtocolError):
        server.send(wire.Pong(1))
    server.receive(client.send(wire.Ping(1)))
    client.receive(server.send(wire.Pong(1)))
    with pytest.raises(wire.LocalProtocolError):
        server.send(wire.Pong(1))
    with pytest.raises(wire.RemoteProtocolError, match="not open"):
        client.receive(frame(68, 1))


def test_request_ids_are_unique_while_open() -> None:
    client, server = opened()
    data = client.send(wire.Ping(1))
    with pytest.raises(wire.LocalProtocolError):
        client.send(wire.Ping(1))
    server.receive(data)
    client.receive(server.send(wire.Pong(1)))
    assert server.receive(client.send(wire.Ping(1))) == [wire.Ping(1)], "free again"
    with pytest.raises(wire.RemoteProtocolError):
        server.receive(data)


def test_rows_keep_their_request_open_until_the_last() -> None:
    client, server = opened()
    query = wire.Query(1, "local", 1, (Statement("SELECT 1"),))
    server.receive(client.send(query))
    pieces = list(wire.rows_messages(1, 5, b"abcdefg", 3))
    assert [(piece.chunk, piece.last) for piece in pieces] == [
        (b"abc", False),
        (b"def", False),
        (b"g", True),
    ]
    for piece in pieces:
        assert client.open_requests == 1
        assert client.receive(server.send(piece)) == [piece]
    assert client.open_requests == server.open_requests == 0


@pytest.mark.parametrize("size", [0, 1, 3, 6])
def test_rows_are_cut_without_loss(size: int) -> None:
    encoded = bytes(range(size))
    pieces = list(wire.rows_messages(1, 5, encoded, 3))
    assert b"".join(piece.chunk for piece in pieces) == encoded
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]


# ---- versions


def test_the_best_common_version_is_chosen() -> None:
    assert wire.choose_version(wire.Hello((9, 1), "x")) == 1
    with pytest.raises(NotSupportedError) as caught:
        wire.choose_version(wire.Hello((9,), "x"))
    assert caught.value.code == "version"


def test_a_version_that_was_not_offered_is_refused() -> None:
    client = wire.ClientSide()
    client.send(wire.Hello((1,), "x"))
    fields = {name: getattr(WELCOME, name) for name in WELCOME.__slots__}
    server = wire.ServerSide()
    server.receive(wire.ClientSide().send(wire.Hello((2,), "x")))
    with pytest.raises(wire.RemoteProtocolError, match="not offered"):
        client.receive(server.send(wire.Welcome(**fields | {"version": 2})))
