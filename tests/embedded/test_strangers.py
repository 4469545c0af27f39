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

import msgpack
import pytest

import raftdb
from raftdb.base.ids import Address
from tests.embedded.conftest import Members

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
