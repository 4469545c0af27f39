"""What one client does to itself must not be done to the node, nor to the others."""

from __future__ import annotations

import struct
from typing import Any

import pytest

import raftdb.wire as wire
from raftdb.base.cluster import ClusterSettings
from raftdb.base.errors import ConfigError, OverloadedError
from raftdb.base.ids import Address
from raftdb.base.limits import Limits
from raftdb.command import Reference, Statement
from raftdb.node import Answer, cursor_gone
from raftdb.node.membership import Membership
from raftdb.server import ClientListener
from raftdb.server.listener import SLOW_FRAME_S
from tests.server.test_listener import Client, FakeConnection, long_read, refused_ms, rows, second

BEGUN = struct.pack(">I", 30_000_000)
"""The header of a request that will never come wholly."""


ASKED = (
    {"change": "add", "node": "n4", "location": "eu", "peer": "h:" + "1" * 5_000, "client": "h:1"},
    {"change": "add", "node": "n4", "location": "eu", "peer": "h:1", "client": "[" * 70_000 + ":1"},
    {"change": "move", "node": "n1", "peer": "h:" + "9" * 4_301},
    {"change": "add", "node": 4},
    {"change": {"add": 1}},
    {"change": "x" * 100_000, "node": "n1"},
    {"change": "remove", "node": "n1", "force": 1},
)
"""Of `members`."""


class Budget(Client):
    """A node whose clients may have a million bytes of requests."""

    def __init__(self) -> None:
        super().__init__(Limits(client_requests_bytes_max=1_000_000))

    def hoard(self) -> list[FakeConnection]:
        """All of it is held by who begins requests and does not go on."""
        found = []
        for _ in range(3):
            handler, connection, _side = second(self)
            handler.data_received(BEGUN + b"x" * 330_000)
            assert not connection.closed
            found.append(connection)
        assert self.listener.requests_bytes > 990_000
        return found


def test_a_thousand_questions_for_the_status_are_a_few_looks() -> None:
    """In one piece they kept the loop for a third of a second."""
    looks: list[int] = []

    def describe() -> dict[str, Any]:
        looks.append(1)
        client.bench.loop.now_s += 0.001
        return {"node_id": "n1", "looks": len(looks)}

    client = Client()
    client.listener = ClientListener(
        replica=client.bench.replica,
        ports=client.bench.ports,
        limits=client.bench.limits,
        describe=describe,
    )
    client.listener.open(Address("127.0.0.1", 1), lambda error: None)
    client.handler = client.accept()
    client.handler.connection_made(client.connection)
    client.hello()
    told = client.raw(b"".join(client.wire.send(wire.Status(n)) for n in range(1, 1_001)))
    assert told == [wire.Info(n, {"node_id": "n1", "looks": 1}) for n in range(1, 1_001)]
    client.bench.loop.pass_time(0.02)
    assert client.say(wire.Status(2_000)) == [wire.Info(2_000, {"node_id": "n1", "looks": 2})]


# ---- half a request


def test_who_does_not_go_on_with_a_request_gives_way() -> None:
    client = Budget()
    client.hello()
    hoarders = client.hoard()
    # At first nobody knows who is slow: who comes last is refused.
    refused_ms(client.say(long_read(1))[0])
    client.bench.loop.pass_time(SLOW_FRAME_S + 0.1)
    assert client.say(long_read(2, 300_000)) == []
    assert len(client.bench.engine.reads) == 1, "it is taken"
    assert [one.closed for one in hoarders] == [True, False, False], "no more than is needed"
    told = wire.ServerSide().limits
    assert struct.unpack(">I", hoarders[0].sent[:4])[0] < told.hello_frame_bytes_max
    assert b"busy" in hoarders[0].sent
    assert client.listener.requests_bytes < 1_100_000


def test_a_bit_of_a_short_request_is_not_what_takes_too_much() -> None:
    client = Budget()
    client.hello()
    client.hoard()
    client.raw(client.wire.send(long_read(1))[:300_000])
    assert client.connection.closed, "a long one has to wait"
    handler, connection, side = second(client)
    ping = side.send(wire.Ping(1)) + side.send(wire.Ping(2))
    handler.data_received(ping[:7])
    handler.data_received(ping[7:])
    client.bench.loop.run()
    assert not connection.closed
    assert side.receive(connection.sent) == [wire.Pong(1), wire.Pong(2)]


def test_who_goes_on_is_not_disturbed_while_there_is_room() -> None:
    client = Budget()
    client.hello()
    data = client.wire.send(long_read(1))
    for start in range(0, len(data), 50_000):
        client.raw(data[start : start + 50_000])
        client.bench.loop.pass_time(SLOW_FRAME_S)
    assert not client.connection.closed
    assert len(client.bench.engine.reads) == 1


def test_the_end_of_a_stranger_that_said_half_a_hello_is_said_once() -> None:
    """The time for the hello passes while the connection is being closed."""
    client = Budget()
    client.hello()
    client.hoard()
    client.raw(client.wire.send(long_read(1))[:300_000])
    handler, connection = client.accept(), FakeConnection()
    handler.connection_made(connection)
    handler.data_received(struct.pack(">I", 4_000) + b"x")
    client.bench.loop.pass_time(client.bench.limits.handshake_timeout_ms / 1000 + 0.1)
    assert connection.closed


def test_who_is_refused_for_its_bytes_before_its_hello_is_not_told_again() -> None:
    client = Client(Limits(client_requests_bytes_max=1, hello_frame_bytes_max=100_000))
    client.handler.data_received(struct.pack(">I", 90_000) + b"x" * 70_000)
    assert client.connection.closed
    client.bench.loop.pass_time(client.bench.limits.handshake_timeout_ms / 1000 + 0.1)


def test_what_waits_to_be_read_counts_although_its_client_has_gone() -> None:
    client = Client(Limits(client_requests_bytes_max=1_000_000))
    client.hello()
    gone = [second(client) for _ in range(3)]
    for handler, _connection, side in gone:
        handler.data_received(side.send(wire.Execute(1, 1, 0, 5000, rows(20_000))))
        handler.connection_lost("gone")
    assert client.listener.requests_bytes > 800_000, "it waits in memory"
    lanes = client.bench.loop.lanes
    assert lanes.count("decode") == 3
    decoded: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("raftdb.server.listener.read_long", lambda *one: decoded.append(one))
        client.bench.loop.run()
    assert decoded == [], "for nobody"
    assert client.listener.requests_bytes == 0


# ---- answers that nobody reads


def test_who_has_most_unread_answers_is_cut_not_who_is_answered_last() -> None:
    client = Client(Limits(client_unsent_bytes_max=10_000_000))
    client.hello()
    handler, hoarder, side = second(client)
    hoarder.unsent = 9_000_000
    handler.data_received(side.send(wire.Ping(1)))
    client.connection.unsent = 2_000_000
    client.say(wire.Ping(1))
    assert hoarder.closed
    assert not client.connection.closed


# ---- frames


def test_a_frame_is_never_smaller_than_a_piece_of_an_answer() -> None:
    """An answer in pieces that do not fit is an error after it was answered."""
    with pytest.raises(ConfigError, match="client_frame_bytes_max"):
        Limits(client_frame_bytes_max=2 * wire.LONG_REQUEST_BYTES)


def test_the_least_frame_takes_the_pieces_of_an_answer() -> None:
    limits = Limits(client_frame_bytes_max=512 * 1024)
    client = Client(limits)
    client.hello()
    client.bench.machine.rows = ((b"x" * 600_000,),)
    messages = client.say(wire.Query(1, wire.LOCAL, 5000, (Statement("SELECT 1"),)))
    assert [type(one) for one in messages] == [wire.Rows] * 3


# ---- cursors


def test_a_page_that_was_cancelled_at_once_is_never_begun(client: Client) -> None:
    """It would have run for an hour: nobody was left to stop it."""
    begun: list[Any] = []
    client.bench.replica._reading.cursors.fetch = (  # type: ignore[method-assign]
        lambda *arguments: begun.append(arguments)  # type: ignore[assignment,return-value]
    )
    closed: list[int] = []
    client.bench.replica.close_cursor = closed.append  # type: ignore[method-assign]
    client.bench.replica._reading.cursors.close = closed.append  # type: ignore[method-assign]
    client.handler._dispatcher._cursors.add(7)
    data = client.wire.send(wire.FetchCursor(1, 7, 5000, 10)) + client.wire.send(wire.Cancel(1))
    (message,) = client.raw(data)
    assert isinstance(message, wire.ErrorMessage)
    assert message.exception().code == "cancelled"
    assert begun == []
    assert 7 in closed, "which rows came is not known: the rest is of no use"


@pytest.fixture
def client() -> Client:
    found = Client()
    found.hello()
    return found


# ---- numbers and texts


def test_a_column_before_the_first_is_not_logged(client: Client) -> None:
    """In the log it would have ended every node that applies it, at each start."""
    client.attach()
    referring = Statement("SELECT ?", ((None,),), (Reference(0, 0, 0, -9, 0),))
    (message,) = client.say(wire.Execute(1, 1, 0, 5000, (Statement("SELECT 1"), referring)))
    assert isinstance(message, wire.ErrorMessage)
    assert "columns count from 0" in message.exception().hint
    assert client.bench.engine.proposals == []


@pytest.mark.parametrize("arguments", ASKED)
def test_a_question_with_nonsense_in_it_is_refused(client: Client, arguments: Any) -> None:
    """What is not an error of ours would have ended the node."""
    client.bench.replica.members_asked = Membership(
        client.bench.replica,
        client.bench.engine,  # type: ignore[arg-type]
        ClusterSettings,
    ).ask
    (message,) = client.say(wire.Ask(1, "members", arguments, 5000))
    assert isinstance(message, wire.ErrorMessage)
    assert not client.connection.closed


def test_cursors_that_were_read_to_their_ends_leave_nothing_at_their_connection(
    client: Client,
) -> None:
    replica, dispatcher = client.bench.replica, client.handler._dispatcher
    ends: list[Any] = []
    replica.fetch = lambda *given: ends.append(given[-1])  # type: ignore[method-assign,assignment]
    dispatcher._cursors.update((7, 8, 9))
    for number in (7, 8, 9):
        assert client.say(wire.FetchCursor(number, number, 5000, 10)) == []
    ends[0](Answer(b"page", 1, cursor=7), None)
    ends[1](Answer(b"the last", 1), None)
    ends[2](None, cursor_gone())
    assert dispatcher._cursors == {7}


def test_busy_is_an_error_of_the_class_that_says_so() -> None:
    client = Budget()
    client.hello()
    client.hoard()
    (message,) = client.say(long_read(1))
    assert isinstance(message, wire.ErrorMessage)
    assert isinstance(message.exception(), OverloadedError)
