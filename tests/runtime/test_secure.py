"""TLS over a plain transport: whole data, farewells, alerts."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from raftdb.base.ids import ClusterId, NodeId
from raftdb.runtime import new_event_loop
from raftdb.runtime.secure import SecureTransport
from raftdb.runtime.tls import TlsPaths, dialler_context, server_context
from raftdb.security import found_certificates
from tests.runtime.harness import Recorder

WAIT_S = 10.0


class Above(asyncio.Protocol):
    """The protocol over the TLS layer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.received = bytearray()
        self.lost: asyncio.Future[Exception | None] = loop.create_future()
        self.transport: SecureTransport | None = None
        self.wanted = 0
        self.enough: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, SecureTransport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        assert self.transport._reading, "nothing comes while reading is paused"
        self.received += data
        if self.wanted and len(self.received) >= self.wanted and not self.enough.done():
            self.enough.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = new_event_loop(Recorder(lambda: None))
    yield loop
    loop.close()


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pki")
    found_certificates(str(root), ClusterId("c" * 32), [NodeId("n1"), NodeId("n2")])
    found_certificates(str(root / "other"), ClusterId("d" * 32), [NodeId("n1")])
    return root


def paths(directory: Path) -> TlsPaths:
    files = [str(directory / "tls" / name) for name in ("ca.crt", "node.crt", "node.key")]
    return TlsPaths(*files)


async def pair(
    loop: asyncio.AbstractEventLoop, server: ssl.SSLContext, dialler: ssl.SSLContext
) -> tuple[Above, SecureTransport, Above, SecureTransport]:
    """Two ends on a real connection; the handshakes are under way."""
    inside, outside = Above(loop), Above(loop)
    accepted = SecureTransport(loop, server, inside, server_side=True, handshake_timeout_s=WAIT_S)
    dialled = SecureTransport(loop, dialler, outside, server_side=False, handshake_timeout_s=WAIT_S)
    port = await loop.create_server(lambda: accepted, "127.0.0.1", 0)
    address = port.sockets[0].getsockname()
    await loop.create_connection(lambda: dialled, *address)
    port.close()
    return inside, accepted, outside, dialled


async def good_pair(loop: asyncio.AbstractEventLoop, pki: Path) -> tuple[Above, Above]:
    contexts = server_context(paths(pki / "n1")), dialler_context(paths(pki / "n2"))
    inside, accepted, outside, dialled = await pair(loop, *contexts)
    await asyncio.gather(accepted.shaken(), dialled.shaken())
    return inside, outside


def test_much_data_comes_whole_and_rests_when_asked_to(
    loop: asyncio.AbstractEventLoop, pki: Path
) -> None:
    sent = bytes(range(256)) * 40_000

    async def run() -> None:
        inside, outside = await good_pair(loop, pki)
        assert inside.transport is not None
        assert outside.transport is not None
        inside.wanted = len(sent)
        rests = 0
        take = inside.data_received

        def take_and_rest(data: bytes) -> None:
            nonlocal rests
            take(data)
            if len(inside.received) // 1_000_000 > rests:
                rests += 1
                inside.transport.pause_reading()
                loop.call_later(0.005, inside.transport.resume_reading)

        inside.data_received = take_and_rest  # type: ignore[method-assign]
        for start in range(0, len(sent), 100_000):
            outside.transport.write(sent[start : start + 100_000])
        await asyncio.wait_for(inside.enough, WAIT_S)
        assert bytes(inside.received) == sent
        assert rests >= 9
        outside.transport.abort()
        await asyncio.wait_for(asyncio.gather(inside.lost, outside.lost), WAIT_S)

    loop.run_until_complete(run())


def test_what_was_written_before_closing_arrives_although_the_other_end_talks_on(
    loop: asyncio.AbstractEventLoop, pki: Path
) -> None:
    async def run() -> None:
        inside, outside = await good_pair(loop, pki)
        assert inside.transport is not None
        assert outside.transport is not None
        inside.transport.pause_reading()
        outside.transport.write(b"unread" * 10_000)
        inside.transport.write(b"last words" * 10_000)
        inside.transport.close()
        inside.transport.write(b"too late")
        assert await asyncio.wait_for(outside.lost, WAIT_S) is None
        assert await asyncio.wait_for(inside.lost, WAIT_S) is None
        assert bytes(outside.received) == b"last words" * 10_000
        assert bytes(inside.received) == b""

    loop.run_until_complete(run())


def test_a_refused_certificate_is_named_on_both_ends(
    loop: asyncio.AbstractEventLoop, pki: Path
) -> None:
    async def run() -> None:
        server = server_context(paths(pki / "n1"))
        stranger = dialler_context(paths(pki / "other" / "n1"))
        stranger.load_verify_locations(str(pki / "n1" / "tls" / "ca.crt"))
        _, accepted, outside, dialled = await pair(loop, server, stranger)
        with pytest.raises(ssl.SSLCertVerificationError):
            await accepted.shaken()
        await dialled.shaken()
        told = await asyncio.wait_for(outside.lost, WAIT_S)
        assert isinstance(told, ssl.SSLError)
        assert "ALERT" in str(told).upper()

    loop.run_until_complete(run())


def test_a_silent_end_does_not_hold_the_handshake(
    loop: asyncio.AbstractEventLoop, pki: Path
) -> None:
    async def run() -> None:
        context = server_context(paths(pki / "n1"))
        secure = SecureTransport(
            loop, context, Above(loop), server_side=True, handshake_timeout_s=0.05
        )
        port = await loop.create_server(lambda: secure, "127.0.0.1", 0)
        _reader, writer = await asyncio.open_connection(*port.sockets[0].getsockname())
        with pytest.raises(TimeoutError, match="no TLS handshake within"):
            await asyncio.wait_for(secure.shaken(), WAIT_S)
        writer.close()
        port.close()

    loop.run_until_complete(run())


def test_whoever_gives_up_waiting_leaves_no_connection(
    loop: asyncio.AbstractEventLoop, pki: Path
) -> None:
    async def run() -> None:
        context = server_context(paths(pki / "n1"))
        secure = SecureTransport(
            loop, context, Above(loop), server_side=True, handshake_timeout_s=WAIT_S
        )
        port = await loop.create_server(lambda: secure, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*port.sockets[0].getsockname())
        waiting = loop.create_task(secure.shaken())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), WAIT_S) == b""
        writer.close()
        port.close()

    loop.run_until_complete(run())
