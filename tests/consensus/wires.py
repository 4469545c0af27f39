"""Connections in memory, by hand: what is written is kept, and handed over when a test says so."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

from raftdb.base.ids import Address, NodeId
from raftdb.base.limits import Limits
from raftdb.base.ports import ExpectedPeer, Handler, Listener, Peer, Ports
from raftdb.consensus.messages import Hello, Message, decode, encode
from raftdb.consensus.port import Greeting, Member, Timing
from raftdb.consensus.transport import Transport
from raftdb.consensus.wall import Wall
from tests.consensus.bench import HalfRandom, HandClock, ListLog

CLUSTER = "c" * 32


def frame(body: bytes) -> bytes:
    """As on the wire."""
    return struct.pack(">I", len(body)) + body


def frames(data: bytes) -> list[Message]:
    """The messages of whole frames."""
    found = []
    while data:
        (size,) = struct.unpack_from(">I", data)
        found.append(decode(data[4 : 4 + size]))
        data = data[4 + size :]
    return found


class HandConnection:
    """One end of a stream; the test is the other end."""

    def __init__(self, handler: Handler, peer: Peer) -> None:
        self.handler = handler
        self._peer = peer
        self.written = b""
        self.open = True

    @property
    def peer(self) -> Peer:
        return self._peer

    def write(self, data: bytes) -> None:
        if self.open:
            self.written += data

    def unsent_bytes(self) -> int:
        return 0

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if self.open:
            self.open = False
            self.handler.connection_lost("aborted here")

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def receive(self, *messages: Message) -> None:
        """The other end sends."""
        self.handler.data_received(b"".join(frame(encode(message)) for message in messages))

    def take(self) -> list[Message]:
        """What was written since the last call."""
        data, self.written = self.written, b""
        return frames(data)


class HandTimer:
    def __init__(self, at_s: float, call: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self.at_s = at_s
        self.call: Callable[..., None] | None = call
        self.arguments = arguments

    def cancel(self) -> None:
        self.call = None


class HandExecutor:
    """Timers and calls happen when the clock is moved by `pass_time`; lanes work at once."""

    def __init__(self, clock: HandClock) -> None:
        self._clock = clock
        self.timers: list[HandTimer] = []

    def call_soon(self, call: Callable[..., None], *arguments: Any) -> None:
        self.call_later(0.0, call, *arguments)

    def call_later(self, delay_s: float, call: Callable[..., None], *arguments: Any) -> HandTimer:
        timer = HandTimer(self._clock.now_s + delay_s, call, arguments)
        self.timers.append(timer)
        return timer

    def call_threadsafe(self, call: Callable[..., None], *arguments: Any) -> None:
        self.call_soon(call, *arguments)

    def submit(self, lane: str, work: Callable[[], Any], done: Callable[..., None]) -> None:
        try:
            result = work()
        except Exception as error:
            self.call_soon(done, None, error)
        else:
            self.call_soon(done, result, None)

    def pass_time(self, seconds: float = 0.0) -> None:
        """Run what becomes due, in order of time."""
        end_s = self._clock.now_s + seconds
        while True:
            due = [timer for timer in self.timers if timer.call and timer.at_s <= end_s]
            if not due:
                break
            timer = min(due, key=lambda item: item.at_s)
            self.timers.remove(timer)
            self._clock.now_s = max(self._clock.now_s, timer.at_s)
            assert timer.call is not None
            timer.call(*timer.arguments)
        self._clock.now_s = end_s


class HandNetwork:
    """Dials are kept; the test answers them."""

    def __init__(self) -> None:
        self.accept: Callable[[], Handler] | None = None
        self.ready: Callable[[Listener | None, BaseException | None], None] | None = None
        self.dials: list[tuple[Address, ExpectedPeer, Handler, Callable[[str], None]]] = []
        self.listening = False

    def listen(
        self,
        purpose: str,
        address: Address,
        accept: Callable[[], Handler],
        ready: Callable[[Listener | None, BaseException | None], None],
    ) -> None:
        assert purpose == "peer"
        self.accept, self.ready = accept, ready
        self.listening = True

    def connect(
        self,
        purpose: str,
        address: Address,
        expect: ExpectedPeer,
        handler: Handler,
        timeout_s: float,
        failed: Callable[[str], None],
    ) -> None:
        assert purpose == "peer"
        self.dials.append((address, expect, handler, failed))

    @property
    def address(self) -> Address:
        return Address("here", 1)

    def close(self) -> None:
        self.listening = False


class Station:
    """A transport of n2 among n1, n2, n3, and all that it touches."""

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        wall: Wall | None = None,
        greeting: Greeting | None = None,
        former: Sequence[str] = (),
    ) -> None:
        self.clock = HandClock()
        self.executor = HandExecutor(self.clock)
        self.network = HandNetwork()
        self.log = ListLog()
        self.ports = Ports(
            self.clock,
            HalfRandom(),
            self.executor,
            None,  # type: ignore[arg-type]
            self.network,
            self.log,
        )
        self.timing = Timing()
        self.events: list[tuple[Any, ...]] = []
        self.fail: BaseException | None = None
        self.members = [
            Member(NodeId(name), "z", Address(name, 1), Address(name, 2))
            for name in ("n1", "n2", "n3")
        ]
        self.transport = Transport(
            me=self.members[1],
            peers=[self.members[0], self.members[2]],
            hello=hello("n2"),
            wall=wall or Wall(),
            ports=self.ports,
            timing=self.timing,
            limits=limits or Limits(),
            events=self,
            greeting=greeting,
            former=former,
        )
        self.transport.start(lambda error: self.events.append(("ready", error)))
        assert self.network.ready is not None
        self.network.ready(self.network, None)  # type: ignore[arg-type]

    # -- TransportEvents

    def on_connected(self, peer: str) -> None:
        self.events.append(("connected", peer))

    def on_disconnected(self, peer: str) -> None:
        self.events.append(("disconnected", peer))

    def on_message(self, peer: str, message: Message) -> None:
        self.events.append((peer, message))
        if self.fail is not None:
            raise self.fail

    def on_superseded(self, peer: str, history: str) -> None:
        self.events.append(("superseded", peer, history))

    def on_bulk(self, peer: str) -> None:
        self.events.append(("bulk", peer))

    def on_copy_open(self, link: Any) -> None:
        self.events.append(("copy", link.peer, link.dialled is not None))

    def on_copy_message(self, link: Any, message: Message) -> None:
        self.events.append(("copy", link.peer, message))

    def on_copy_lost(self, link: Any, reason: str) -> None:
        self.events.append(("copy lost", link.peer, link.dialled))

    # -- the other ends

    def take(self) -> list[tuple[Any, ...]]:
        events, self.events = self.events, []
        return events

    def accepted(self, peer: Peer) -> HandConnection:
        """Somebody dials this node."""
        assert self.network.accept is not None
        handler = self.network.accept()
        connection = HandConnection(handler, peer)
        handler.connection_made(connection)
        return connection

    def join(self, name: str = "n1") -> HandConnection:
        """n1 dials this node and says hello; or n3 answers its dial."""
        if name == "n1":
            connection = self.accepted(node(name))
        else:
            handler = self.network.dials[-1][2]
            connection = HandConnection(handler, node(name))
            handler.connection_made(connection)
        connection.receive(hello(name))
        connection.take()
        return connection


def node(name: str) -> Peer:
    """A peer whose certificate says that it is that node."""
    return Peer("node", name, None, f"{name}:9")


def hello(name: str, **changes: Any) -> Hello:
    """What that node says first."""
    good = Hello(1, CLUSTER, name, "", "0.3.17", b"same")
    return good._replace(**changes)
