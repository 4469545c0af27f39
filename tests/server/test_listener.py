"""One client connection, byte by byte, on a replica of fakes."""

from __future__ import annotations

import struct
from typing import Any

import pytest

import raftdb.wire as wire
from raftdb.base.errors import OverloadedError
from raftdb.base.ids import Address, Index
from raftdb.base.limits import Limits
from raftdb.base.ports import Peer
from raftdb.command import Opened, Results, SessionId, Statement, decode_reply, encode_reply
from raftdb.consensus.port import Applied, NotApplied
from raftdb.node import congestion
from raftdb.node.admission import Admission
from raftdb.server import ClientListener
from raftdb.server.listener import HOLD_S_MAX, PRESSED_S, UNSENT_PAUSE_BYTES
from tests.node.fakes import HISTORY, SESSION, Bench


class FakeConnection:
    """What the network gives a handler."""

    def __init__(self) -> None:
        self.peer = Peer("client", "app", None, "127.0.0.1:5")
        self.sent = b""
        self.unsent = 0
        self.closed = False
        self.paused = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def unsent_bytes(self) -> int:
        return self.unsent

    def close(self) -> None:
        self.closed = True

    abort = close

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Client:
    """A listener with one connection, and the client's side of it."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.bench = Bench(limits)
        network: Any = self
        self.bench.ports.network = network
        self.listener = ClientListener(
            replica=self.bench.replica,
            ports=self.bench.ports,
            limits=self.bench.limits,
            describe=lambda: {"node_id": "n1"},
        )
        self.accept: Any = None
        self.listener.open(Address("127.0.0.1", 1), lambda error: None)
        self.handler = self.accept()
        self.connection = FakeConnection()
        self.handler.connection_made(self.connection)
        self.wire = wire.ClientSide()
        self._next = 0

    def listen(self, purpose: str, address: Address, accept: Any, ready: Any) -> None:
        assert purpose == "client"
        self.accept = accept
        ready(None, None)

    def say(self, message: wire.ClientMessage) -> list[wire.Message]:
        return self.raw(self.wire.send(message))

    def raw(self, data: bytes) -> list[wire.Message]:
        self.handler.data_received(data)
        return self.heard()

    def heard(self) -> list[wire.Message]:
        self.bench.loop.run()
        data, self.connection.sent = self.connection.sent, b""
        return self.wire.receive(data)

    def hello(self) -> wire.Welcome:
        (welcome,) = self.say(wire.Hello((1,), "test"))
        assert isinstance(welcome, wire.Welcome)
        return welcome

    def attach(self) -> None:
        assert self.say(wire.AttachSession(900, SESSION.to_bytes())) == [wire.Done(900)]


@pytest.fixture
def client() -> Client:
    found = Client()
    found.hello()
    return found


def test_the_welcome_says_who_leads_and_where_else_to_go() -> None:
    welcome = Client().hello()
    assert welcome.leader == wire.Endpoint("n1", "10.0.0.1:201")
    assert [one.node_id for one in welcome.members] == ["n1", "n2", "n3"]
    assert welcome.history == HISTORY


@pytest.mark.parametrize(
    ("hello", "code"),
    [
        (wire.Hello((1,), "test", cluster_id="ee" * 16), "wrong_cluster"),
        (wire.Hello((1,), "test", history="ee" * 16), "wrong_history"),
        (wire.Hello((99,), "test"), "version"),
    ],
)
def test_a_hello_that_does_not_fit_is_refused_with_the_reason(hello: wire.Hello, code: str) -> None:
    client = Client()
    (message,) = client.say(hello)
    assert isinstance(message, wire.ErrorMessage)
    assert message.exception().code == code
    assert client.connection.closed


def test_a_connection_without_a_hello_is_closed_in_time() -> None:
    client = Client()
    client.bench.loop.pass_time(client.bench.limits.handshake_timeout_ms / 1000 + 0.1)
    assert client.connection.closed


def test_a_huge_frame_is_refused_at_its_header(client: Client) -> None:
    (message,) = client.raw(struct.pack(">I", 1 << 30))
    assert isinstance(message, wire.ErrorMessage)
    assert message.exception().code == "frame_too_large"
    assert client.connection.closed


def test_what_stood_ahead_of_a_fault_is_carried_out(client: Client) -> None:
    client.attach()
    good = client.wire.send(wire.Execute(1, 1, 0, 5000, (Statement("x"),)))
    client.raw(good + b"\x00\x00\x00\x01\xc1")
    assert len(client.bench.engine.proposals) == 1
    assert client.connection.closed


def test_execute_needs_a_session(client: Client) -> None:
    (message,) = client.say(wire.Execute(1, 1, 0, 5000, (Statement("x"),)))
    assert isinstance(message, wire.ErrorMessage)
    assert message.exception().code == "session_missing"
    assert not client.connection.closed


def test_open_attaches_the_new_session(client: Client) -> None:
    assert client.say(wire.OpenSession(1, "label", 5000)) == []
    session = SessionId(bytes.fromhex(HISTORY), 8 << 16, b"n" * 16)
    reply = encode_reply(Opened(session))
    client.bench.engine.proposals[0][1](Applied(Index(8), 0, reply))
    assert client.heard() == [wire.Result(1, 8, reply)]
    client.say(wire.Execute(2, 1, 0, 5000, (Statement("x"),)))
    assert len(client.bench.engine.proposals) == 2


def test_a_session_id_that_is_none_is_refused(client: Client) -> None:
    forged = SessionId(SESSION.history, SESSION.number, b"f" * 16)
    (message,) = client.say(wire.AttachSession(1, forged.to_bytes()))
    assert isinstance(message, wire.ErrorMessage)
    assert message.exception().code == "session_forged"


def test_requests_are_answered_in_the_order_of_their_outcomes(client: Client) -> None:
    client.attach()
    for number in (1, 2):
        client.say(wire.Execute(number, number, 0, 5000, (Statement("x"),)))
    (_, first), (_, second) = client.bench.engine.proposals
    second(Applied(Index(9), 0, b"b"))
    first(Applied(Index(10), 0, b"a"))
    assert client.heard() == [wire.Result(2, 9, b"b"), wire.Result(1, 10, b"a")]


def test_a_large_result_comes_in_pieces(client: Client) -> None:
    client.bench.machine.rows = ((b"x" * 600_000,),)
    messages = client.say(wire.Query(1, wire.LOCAL, 5000, (Statement("SELECT 1"),)))
    assert len(messages) == 3
    assert all(isinstance(message, wire.Rows) for message in messages)
    body = b"".join(message.chunk for message in messages if isinstance(message, wire.Rows))
    reply = decode_reply(body)
    assert reply.statements[0].rows[0][0] == b"x" * 600_000  # type: ignore[union-attr]


def test_a_client_that_does_not_read_is_not_read_from(client: Client) -> None:
    client.connection.unsent = UNSENT_PAUSE_BYTES + 1
    client.say(wire.Ping(1))
    assert client.connection.paused
    client.bench.loop.pass_time(1.0)
    assert client.connection.paused
    client.connection.unsent = 0
    client.bench.loop.pass_time(1.0)
    assert not client.connection.paused


def test_small_questions(client: Client) -> None:
    assert client.say(wire.Ping(1)) == [wire.Pong(1)]
    assert client.say(wire.Status(2)) == [wire.Info(2, {"node_id": "n1"})]
    client.say(wire.Transfer(3, "n2", 5000))
    client.bench.engine.transfers[0][1]("")
    assert client.heard() == [wire.Done(3)]


def test_outcomes_for_a_client_that_left_go_nowhere(client: Client) -> None:
    client.attach()
    client.say(wire.Execute(1, 1, 0, 5000, (Statement("x"),)))
    client.handler.connection_lost("gone")
    client.bench.engine.proposals[0][1](Applied(Index(9), 0, b"b"))
    client.bench.loop.run()
    assert client.connection.sent == b""
    assert client.listener.connections == 0


def test_goodbye_reaches_every_client(client: Client) -> None:
    client.listener.say_goodbye("stopping")
    assert client.heard() == [wire.Goodbye("stopping")]


# ---- more than can be done


def execute(client: Client, sequence: int) -> wire.Message | None:
    """What is said at once to the write of that sequence."""
    client._next += 1
    heard = client.say(wire.Execute(client._next, sequence, 0, 5000, (Statement("x"),)))
    return heard[0] if heard else None


def busy_client() -> Client:
    """One whose node has let as many writes wait as it may, for half a second."""
    client = Client()
    client.hello()
    client.attach()
    for sequence in range(1, congestion.FLOOR + 1):
        assert execute(client, sequence) is None
    client.bench.loop.pass_time(0.5)
    return client


def refused_ms(message: wire.Message | None) -> int:
    assert isinstance(message, wire.ErrorMessage)
    error = message.exception()
    assert isinstance(error, OverloadedError)
    assert (error.retryable, error.outcome) == (True, "not_applied")
    retry_ms = error.detail["retry_after_ms"]
    assert error.message == f"busy, retry after {retry_ms} ms"
    assert isinstance(retry_ms, int)
    return retry_ms


def test_what_would_wait_for_long_is_refused_early() -> None:
    client = busy_client()
    proposals = client.bench.engine.proposals
    retry_ms = refused_ms(execute(client, congestion.FLOOR + 1))
    assert retry_ms >= congestion.RETRY_MIN_MS
    client.bench.loop.pass_time(retry_ms / 1000)
    (refused,) = client.say(wire.OpenSession(800, "another", 5000))
    refused_ms(refused)
    assert len(proposals) == congestion.FLOOR, "nothing of it reached the log"
    for index, (_payload, done) in enumerate(proposals):
        done(Applied(Index(index), 0, encode_reply(Results(()))))
    client.heard()
    assert execute(client, congestion.FLOOR + 1) is None
    assert client.bench.replica.load() == {
        "writes_waiting": 1,
        "writes_refused": 2,
        "reads_waiting": 0,
        "reads_refused": 0,
    }


def test_what_stands_behind_a_refused_write_is_refused_too() -> None:
    """It would be a gap in its session, for the price of a log entry."""
    client = busy_client()
    proposals = client.bench.engine.proposals
    refused_ms(execute(client, congestion.FLOOR + 1))
    for _payload, done in proposals:
        done(Applied(Index(9), 0, encode_reply(Results(()))))
    client.heard()
    refused_ms(execute(client, congestion.FLOOR + 2))
    assert len(proposals) == congestion.FLOOR
    client.bench.loop.pass_time(1.0)
    assert execute(client, congestion.FLOOR + 1) is None
    assert execute(client, congestion.FLOOR + 2) is None
    assert len(proposals) == congestion.FLOOR + 2


def test_who_does_not_wait_as_asked_is_not_read_from_for_a_while() -> None:
    client = busy_client()
    retry_ms = refused_ms(execute(client, congestion.FLOOR + 1))
    client.bench.loop.pass_time(0.6 * retry_ms / 1000)
    refused_ms(execute(client, congestion.FLOOR + 1))
    assert not client.connection.paused, "half of the time is what clients wait at least"
    refused_ms(execute(client, congestion.FLOOR + 1))
    assert client.connection.paused
    client.bench.loop.pass_time(HOLD_S_MAX)
    assert not client.connection.paused


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The kinds of the requests that are decoded from now on."""
    kinds: list[int] = []

    def decode(body: Any, values_max: int) -> wire.Message:
        if body[1] < 64:
            kinds.append(body[1])
        return wire.decode(body, values_max)

    monkeypatch.setattr("raftdb.wire.connection.decode", decode)
    return kinds


def test_a_busy_node_refuses_without_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    client = busy_client()
    decoded = counted(monkeypatch)
    refused_ms(execute(client, congestion.FLOOR + 1))
    assert len(decoded) == 1, "as long as nothing was refused, nothing is asked at the door"
    refused_ms(execute(client, congestion.FLOOR + 1))
    (opened,) = client.say(wire.OpenSession(801, "another", 5000))
    refused_ms(opened)
    assert len(decoded) == 1
    # What ends something, and what is no write, has its turn.
    assert client.say(wire.Ping(802)) == [wire.Pong(802)]
    for index, (_payload, done) in enumerate(client.bench.engine.proposals):
        done(Applied(Index(index), 0, encode_reply(Results(()))))
    client.heard()
    assert execute(client, congestion.FLOOR + 1) is None, "there is room again"
    client.bench.loop.pass_time(PRESSED_S)
    assert execute(client, congestion.FLOOR + 2) is None
    assert not client.listener.pressed


def test_a_pipeline_is_refused_at_the_door_from_its_first_on() -> None:
    client = busy_client()
    refused_ms(execute(client, congestion.FLOOR + 1))
    data = b""
    for number in range(1, 4):
        write = wire.Execute(700 + number, congestion.FLOOR + number, 0, 5000, (Statement("x"),))
        data += client.wire.send(write)
    refused = client.raw(data)
    assert [one.request_id for one in refused if refused_ms(one)] == [701, 702, 703]
    for _payload, done in client.bench.engine.proposals:
        done(Applied(Index(9), 0, encode_reply(Results(()))))
    client.heard()
    refused_ms(execute(client, congestion.FLOOR + 2))
    assert execute(client, congestion.FLOOR + 1) is None
    assert execute(client, congestion.FLOOR + 2) is None


def test_a_long_request_to_a_busy_node_is_never_decoded() -> None:
    """Not even the first one that is refused."""
    client = busy_client()
    (refused,) = client.say(wire.Execute(700, congestion.FLOOR + 1, 0, 5000, rows(20_000)))
    refused_ms(refused)
    assert "decode" not in client.bench.loop.lanes
    assert not client.connection.paused
    assert client.listener.requests_bytes == 0


def test_reads_are_refused_at_the_door_while_too_many_wait(client: Client) -> None:
    turns = client.bench.replica._reading.turns
    client.listener.press()
    waiting = [object() for _ in range(congestion.FLOOR)]
    for one in waiting:
        turns.entered(one)
    client.bench.loop.pass_time(0.9)
    query = wire.Query(1, wire.LOCAL, 5000, (Statement("SELECT 1"),))
    (refused,) = client.say(query)
    assert refused_ms(refused) == congestion.RETRY_MIN_MS
    for one in waiting:
        turns.left(one)
    (rows_of,) = client.say(query)
    assert isinstance(rows_of, wire.Rows)


# ---- what all clients hold together


def second(client: Client) -> tuple[Any, FakeConnection, wire.ClientSide]:
    """Another connection to the same node, after its hello."""
    handler, connection, side = client.accept(), FakeConnection(), wire.ClientSide()
    handler.connection_made(connection)
    handler.data_received(side.send(wire.Hello((1,), "second")))
    client.bench.loop.run()
    data, connection.sent = connection.sent, b""
    side.receive(data)
    return handler, connection, side


def long_read(request_id: int, size: int = 400_000) -> wire.Query:
    return wire.Query(request_id, "linearizable", 5000, (Statement("SELECT ?", ((b"x" * size,),)),))


def test_the_bytes_of_all_requests_under_way_are_bounded() -> None:
    client = Client(Limits(client_requests_bytes_max=1_000_000))
    client.hello()
    handler, _connection, side = second(client)
    assert client.say(long_read(1)) == []
    handler.data_received(side.send(long_read(1)))
    client.bench.loop.run()
    assert len(client.bench.engine.reads) == 2
    refused_ms(client.say(long_read(2))[0])
    assert client.say(wire.Ping(3)) == [wire.Pong(3)], "short ones are served"
    # One that has not come wholly.
    client.raw(client.wire.send(long_read(4))[:300_000])
    assert client.connection.closed
    client.handler.connection_lost("closed")
    client.bench.engine.reads[1](NotApplied("stopping"))
    client.bench.loop.run()
    assert client.listener.requests_bytes == 0
    handler.data_received(side.send(long_read(2)))
    client.bench.loop.run()
    assert len(client.bench.engine.reads) == 3, "there is room again"


def test_the_answers_that_slow_clients_do_not_read_are_bounded() -> None:
    client = Client(Limits(client_unsent_bytes_max=5_000_000))
    client.hello()
    handler, slow, side = second(client)
    client.connection.unsent = 2_000_000
    client.say(wire.Ping(1))
    assert client.connection.paused
    slow.unsent = 4_000_000
    handler.data_received(side.send(wire.Ping(1)))
    client.bench.loop.run()
    assert slow.closed
    assert not client.connection.closed
    handler.connection_lost("cut")
    assert client.listener.unsent_bytes == 2_000_000
    client.connection.unsent = 0
    client.bench.loop.pass_time(0.1)
    assert client.listener.unsent_bytes == 0
    assert not client.connection.paused


# ---- long requests


def rows(count: int, last: object = "x" * 10) -> tuple[Statement, ...]:
    sets = tuple((number, "x" * 10) for number in range(count - 1))
    return (Statement("INSERT INTO t VALUES (?, ?)", (*sets, (count, last))),)


def test_a_long_request_is_read_on_a_lane_and_what_follows_waits_for_it(client: Client) -> None:
    client.attach()
    data = client.wire.send(wire.Execute(1, 1, 0, 5000, rows(20_000)))
    data += client.wire.send(wire.Ping(2))
    lanes = client.bench.loop.lanes
    client.handler.data_received(data[:-3])
    assert lanes.count("decode") == 1
    assert client.connection.paused
    assert client.listener.requests_bytes >= len(data) - 100, "it counts meanwhile"
    assert client.connection.sent == b""
    client.handler.data_received(data[-3:])
    assert client.heard() == [wire.Pong(2)], "behind it"
    assert len(client.bench.engine.proposals) == 1
    assert not client.connection.paused
    # Short ones cost no lane.
    assert client.say(wire.Ping(3)) == [wire.Pong(3)]
    assert lanes.count("decode") == 1


def test_two_long_requests_keep_their_order(client: Client) -> None:
    client.attach()
    one = client.wire.send(wire.Execute(1, 1, 0, 5000, rows(9_000)))
    client.raw(one + client.wire.send(wire.Execute(2, 2, 0, 5000, rows(9_001))))
    assert client.bench.loop.lanes.count("decode") == 2
    sizes = [len(payload) for payload, _done in client.bench.engine.proposals]
    assert len(sizes) == 2
    assert sizes[0] < sizes[1]


def test_a_long_request_that_is_none_ends_the_connection(client: Client) -> None:
    (error,) = client.raw(struct.pack(">I", 100_000) + b"\xc1" * 100_000 + b"more")
    assert isinstance(error, wire.ErrorMessage)
    assert "does not decode" in error.exception().message
    assert client.connection.closed
    client.handler.connection_lost("closed")
    assert client.listener.requests_bytes == 0


def test_a_client_that_leaves_while_its_request_is_read_is_forgotten(client: Client) -> None:
    client.attach()
    client.handler.data_received(client.wire.send(wire.Execute(1, 1, 0, 5000, rows(9_000))))
    client.handler.connection_lost("closed")
    client.bench.loop.run()
    assert client.bench.engine.proposals == []
    assert client.listener.requests_bytes == 0


@pytest.mark.parametrize(
    ("wrong", "code"),
    [("x" * 2_000, "value_too_large"), ("é" * 900, "value_too_large"), ("é" * 400, "")],
)
def test_what_is_wrong_with_one_row_of_many_is_still_said(wrong: str, code: str) -> None:
    client = Client(Limits(value_bytes_max=1_000))
    client.hello()
    client.attach()
    replies = client.say(wire.Execute(1, 1, 0, 5000, rows(100, wrong)))
    assert [one.exception().code for one in replies if isinstance(one, wire.ErrorMessage)] == (
        [code] if code else []
    )
    assert len(client.bench.engine.proposals) == (0 if code else 1)


def test_what_was_checked_on_the_lane_is_not_looked_at_again(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    monkeypatch.setattr(
        Admission, "_plainly_fits", lambda _self, sets: looked.append(len(sets)) or True
    )
    client.attach()
    client.say(wire.Execute(1, 1, 0, 5000, rows(9_000)))
    assert looked == [9_000]
    assert len(client.bench.engine.proposals) == 1
