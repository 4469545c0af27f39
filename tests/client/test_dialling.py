"""Names of several addresses, some of which lead nowhere, and names that nobody can look up."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import raftdb
import raftdb.aio
from raftdb.base.ids import Address
from raftdb.client.actions import LinkError
from raftdb.client.dialling import Lookups, LookupTimeoutError, connected
from raftdb.client.link import Dialler
from raftdb.client.options import Options
from raftdb.runtime import RealClock
from raftdb.runtime.dialling import answering
from tests.client.server import LOCAL, FakeNode, listening_socket

NAME = "cluster.example"
LONG_S = 30.0


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """A port of loopback that answers nothing: as many as it lets wait are waiting."""
    with contextlib.ExitStack() as held:
        hole = held.enter_context(listening_socket())
        hole.listen(0)
        for _ in range(4):
            filler = held.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(hole.getsockname())
        yield hole.getsockname()[1]


def found(*ports: int) -> list[Any]:
    """What the system finds for a name."""
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (LOCAL, port)) for port in ports]


def resolve(monkeypatch: pytest.MonkeyPatch, *ports: int) -> None:
    """NAME stands for these ports of loopback (whichever port is asked for)."""
    system = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, flags: int = 0, **others: Any) -> Any:
        if host != NAME:
            return system(host, *arguments, flags=flags, **others)
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "not a number")
        return found(*ports)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def url(**options: float) -> str:
    more = "".join(f"&{name}={value}" for name, value in options.items())
    return f"raftdb://{NAME}:7001/?insecure=1{more}"


def test_an_address_that_leads_nowhere_does_not_take_the_others_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = RealClock()
    with black_hole() as hole, contextlib.closing(FakeNode()) as node:
        port = int(str(node.address).rpartition(":")[2])
        resolve(monkeypatch, hole, port)
        until_s = clock.monotonic_s() + LONG_S
        link = Dialler(Options(insecure=True), clock).dial(Address(NAME, 7001), until_s)
        assert clock.monotonic_s() < until_s, "the deadline holds, whatever the name stands for"
        link.close()
        with raftdb.connect(url(timeout=LONG_S, dial_timeout=LONG_S)) as db:
            assert db.ping() == "n1"


def test_the_same_on_an_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio would have tried the first one for as long as there was time."""

    async def run(port: int, hole: int) -> None:
        resolve(monkeypatch, hole, port)
        async with raftdb.aio.connect(url(timeout=LONG_S, dial_timeout=LONG_S / 2)) as db:
            assert await db.ping() == "n1"

    with black_hole() as hole, contextlib.closing(FakeNode()) as node:
        asyncio.run(run(int(str(node.address).rpartition(":")[2]), hole))


def test_a_name_that_is_looked_up_for_ever_does_not_hold_the_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go_on, asked = threading.Event(), []

    def getaddrinfo(host: str, port: int, *, flags: int = 0, **_others: Any) -> Any:
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "not a number")
        asked.append(host)
        assert go_on.wait(LONG_S)
        return found(port)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    clock = RealClock()
    dialler = Dialler(Options(insecure=True), clock)
    for _ in range(2):
        with pytest.raises(LinkError, match="its name is not known in time") as caught:
            dialler.dial(Address(NAME, 7001), clock.monotonic_s() + 0.01)
        assert caught.value.silent
    assert asked == [NAME], "one thread for each name"
    lookups = Lookups()
    with pytest.raises(LookupTimeoutError):
        lookups.find(NAME, 7002, 0.01)
    go_on.set()
    assert lookups.find(NAME, 7002, LONG_S) == found(7002)


def test_one_after_the_other_is_tried_and_the_last_reason_told() -> None:
    ports = []
    for _ in range(2):
        with listening_socket() as closed:
            ports.append(closed.getsockname()[1])
    now_s = RealClock().monotonic_s
    with pytest.raises(ConnectionRefusedError):
        connected(found(*ports), now_s, now_s() + LONG_S)
    with listening_socket() as open_one:
        port = open_one.getsockname()[1]
        with connected(found(*ports, port), now_s, now_s() + LONG_S) as made:
            assert made.getpeername() == (LOCAL, port)
            assert made.gettimeout() is None
    with black_hole() as hole, pytest.raises(TimeoutError):
        connected(found(hole), now_s, now_s() + 0.05)


def test_who_gives_up_leaves_no_socket_behind() -> None:
    """Warnings are errors here: an open socket that is forgotten is one."""

    class Loop:
        def __init__(self, loop: asyncio.AbstractEventLoop, *ports: int) -> None:
            self.ports = ports
            self.create_task = loop.create_task
            self.sock_connect = loop.sock_connect

        async def getaddrinfo(self, *_arguments: Any, **_named: Any) -> Any:
            return found(*self.ports)

    async def run(hole: int, port: int) -> None:
        loop = asyncio.get_running_loop()
        named: Any = Loop(loop, hole, hole)
        task = loop.create_task(answering(named, Address(NAME, 1)))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await task
        await asyncio.sleep(0)
        named = Loop(loop, hole, port)
        assert await answering(named, Address(NAME, 1)) == Address(LOCAL, port)
        # What there is no choice of is not tried before it is dialled.
        named = Loop(loop, hole)
        assert await answering(named, Address(NAME, 1)) == Address(LOCAL, hole)
        assert await answering(loop, Address(LOCAL, port)) == Address(LOCAL, port)
        await asyncio.sleep(0)

    with black_hole() as hole, listening_socket() as open_one:
        asyncio.run(run(hole, open_one.getsockname()[1]))
