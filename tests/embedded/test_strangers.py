"""Bytes that nobody should send, at every port: the node goes on, and nothing is unpickled."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import msgpack
import pytest

import raftdb
import raftdb.wire as wire
from raftdb.base.ids import Address
from raftdb.command import SessionId
from raftdb.wire.codec import encode
from tests.embedded.conftest import Members
from tests.server.test_listener import FakeConnection
from tests.wire.messages import REQUESTS

UNPICKLED: list[str] = []


class Bomb:
    """Unpickling it would call this."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.putenv, ("RAFTDB_WAS_UNPICKLED=1",)


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if event == "pickle.find_class":
        UNPICKLED.append(str(arguments))


def _payloads() -> list[bytes]:
    chance = random.Random(7)
    bombs = [pickle.dumps(Bomb(), protocol) for protocol in range(2, 6)]
    framed = [struct.pack(">I", len(bomb)) + bomb for bomb in bombs]
    inside = [msgpack.packb([kind, bomb]) for kind in range(12) for bomb in bombs[-1:]]
    return [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">I", 1 << 30) + b"x" * 100,
        struct.pack(">I", 0),
        b"\x00" * 5000,
        b"\xff" * 5000,
        *bombs,
        *framed,
        *(struct.pack(">I", len(body)) + body for body in inside),
        *(chance.randbytes(chance.randrange(1, 4000)) for _ in range(20)),
    ]


def _context(members: Members, who: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    tls = members.directory / "client" if who == "client" else members.directory / who / "tls"
    name = "client" if who == "client" else "node"
    context.load_verify_locations(tls / "ca.crt")
    context.load_cert_chain(tls / f"{name}.crt", tls / f"{name}.key")
    return context


def _send(address: Address, payload: bytes, context: ssl.SSLContext | None) -> None:
    """Send, and read until the other side closes or has nothing more to say."""
    with contextlib.suppress(OSError):
        stream = socket.create_connection((address.host, address.port), 2.0)
        with stream:
            if context is not None:
                stream = context.wrap_socket(stream)
            with stream:
                stream.sendall(payload)
                stream.settimeout(0.05)
                while stream.recv(65536):
                    pass


@pytest.mark.parametrize("who", ["nobody", "client", "n2"])
def test_garbage_and_pickles_at_every_port(members: Members, who: str) -> None:
    members.leader()
    sys.addaudithook(_audit)
    pickle.loads(pickle.dumps(Address("seen", 1)))
    assert UNPICKLED, "the audit hook does not see anything"
    UNPICKLED.clear()
    target = members.nodes["n1"]
    context = None if who == "nobody" else _context(members, who)
    for payload in _payloads():
        _send(target.config.peer_listen, payload, context)
        _send(target.config.client_listen, payload, context)
    assert UNPICKLED == []
    assert "RAFTDB_WAS_UNPICKLED" not in os.environ
    assert target.running
    with raftdb.connect(members.founded.url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS still (a)")
        connection.execute("INSERT INTO still VALUES (1)")
    assert all(node.running for node in members.nodes.values())


NONSENSE: tuple[Any, ...] = (
    (None, True, 0, -1, 2**31, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 0.5, float("inf")),
    (float("nan"), "", "\0", "x" * 70_000, "h:" + "1" * 5_000, "r1." + "_" * 38, b"", bytes(40)),
    ((), {}, {"a": {"b": (None,)}}, ((((((((((1,),),),),),),),),),), "local", "locations=64"),
    (msgpack.ExtType(5, b"x"), tuple(range(2_000)), (("SELECT ?", ((1,), {"a": 1})),)),
)
"""For any field of any message."""
REFERRING = (
    (("SELECT 1, 2", ((),)), ("SELECT ?", ((None,),), ((0, 0, 0, -9, 0),))),
    (("SELECT 1, 2", ((),)), ("SELECT ?", ((None,),), ((0, 1 << 63, 0, 1, 0),))),
    (("SELECT 1, 2", ((),)), ("SELECT :a", ({"a": None},), ((0, 5, 0, 0, 2**63),))),
)
"""To what is not there."""
MEMBER = {"change": "add", "node": "n9", "location": "eu", "peer": "h:1", "client": "h:2"}
ASKED = (
    "token",
    "durability",
    "change",
    "node",
    "peer",
    "client",
    "changes",
    "raise_to",
    "release",
)
VALUES = tuple(value for group in NONSENSE for value in group)


def _spoilt(chance: random.Random, value: Any) -> Any:
    """The same with nonsense somewhere in it."""
    if isinstance(value, tuple | list) and value and chance.random() < 0.8:
        place = chance.randrange(len(value))
        return (*value[:place], _spoilt(chance, value[place]), *value[place + 1 :])
    return chance.choice(VALUES)


def _messages(session: bytes, last: Callable[[], int]) -> Iterator[bytes]:
    chance = random.Random(11)
    # Nothing that moves the leader or the members: that would be obeyed.
    found = [one for one in REQUESTS if not isinstance(one, wire.Transfer | wire.AttachSession)]
    bodies = [msgpack.unpackb(encode(one), use_list=False) for one in found]
    statements = (("SELECT 1", ((),)), ("SELECT ?", ((None,),), ((0, 0, 0, 0, 0),)))
    for number in range(1, 1_201):
        kind = chance.randrange(3)
        if kind == 0:
            asked = {chance.choice(ASKED): chance.choice(VALUES) for _ in range(3)}
            if chance.random() < 0.5:
                asked = MEMBER | {chance.choice(("peer", "client")): chance.choice(VALUES)}
            what = ("members", "settings", "release", "await_durable", "compatibility")
            body: Any = (15, number, chance.choice(what), asked, 50)
        elif kind == 1:
            spoilt = _spoilt(chance, statements)
            body = (5, number, last() + 1, 0, 50, True, chance.choice((spoilt, *REFERRING)))
        else:
            body = _spoilt(chance, chance.choice(bodies))
        yield msgpack.packb(body)


def test_nonsense_in_any_field_ends_nothing_but_its_connection(members: Members) -> None:
    """Well framed, from a client that may speak: what is no error of ours would end the node."""
    leader, ended = members.leader(), threading.Event()
    with raftdb.connect(members.founded.url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS still (a)")
        connection.execute("INSERT INTO still VALUES (0)")
        opened = connection._core.session
        assert opened is not None
        session = opened.session_id
        number = SessionId.from_bytes(session).number
        assembly: Any = leader._assembly
        sessions = assembly.machine._applier.sessions
        messages = _messages(session, lambda: sessions.last_sequence(number))
        problems: list[BaseException] = []
        spoken: list[Any] = []

        def speak() -> None:
            """A few of them, on the node's loop, as its network would."""
            try:
                for body in islice(messages, 20):
                    if not spoken or spoken[-1][1].closed:
                        handler, client = assembly.listener._accept(), FakeConnection()
                        handler.connection_made(client)
                        side = wire.ClientSide()
                        handler.data_received(side.send(wire.Hello((1,), "strange")))
                        attach = encode(wire.AttachSession(1 << 40, session))
                        handler.data_received(struct.pack(">I", len(attach)) + attach)
                        spoken.append((handler, client))
                    spoken[-1][0].data_received(struct.pack(">I", len(body)) + body)
            except BaseException as error:
                problems.append(error)
            ended.set()

        for _ in range(60):
            ended.clear()
            leader._loop.call_soon_threadsafe(speak)
            assert ended.wait(60)
            assert problems == []
        assert next(messages, None) is None
        assert len(spoken) > 100, "many of them end their connections"
        for handler, _client in spoken:
            leader._loop.call_soon_threadsafe(handler.connection_lost, "gone")
    with raftdb.connect(members.founded.url) as connection:
        connection.execute("INSERT INTO still VALUES (1)")
    assert all(node.running for node in members.nodes.values())


def test_a_clients_certificate_opens_no_peer_port(members: Members) -> None:
    address = members.nodes["n1"].config.peer_listen
    context = _context(members, "client")

    def speak() -> bytes:
        with (
            socket.create_connection((address.host, address.port), 2.0) as plain,
            context.wrap_socket(plain) as stream,
        ):
            stream.sendall(b"\x00\x00\x00\x01x")
            return stream.recv(10)

    with contextlib.suppress(OSError):
        assert speak() == b""
