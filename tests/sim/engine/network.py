"""The Network port over a simulated fabric: ordered streams that break.

A connection is two one-way streams. Data arrives in order, after a latency; what is under way when
its sender aborts may still arrive later, as with TCP. A blocked direction holds data until the
block ends (retransmission) or the connection does. A killed process resets its connections; a
machine without power says nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from raftdb.base.ids import Address, NodeId
from raftdb.base.ports import ExpectedPeer, Handler, Listener, Peer
from tests.sim.world import Life, World


@dataclass
class Weather:
    """How the fabric treats data."""

    latency_s: tuple[float, float] = (0.0002, 0.002)
    slow_chance: float = 0.02
    slow_s: tuple[float, float] = (0.01, 0.3)
    split_chance: float = 0.05


class Fabric:
    """All machines, the wires between them, and who may talk to whom."""

    def __init__(self, world: World, weather: Weather) -> None:
        self.world = world
        self.weather = weather
        self.blocked: set[tuple[str, str]] = set()
        self.listening: dict[Address, SimNetwork] = {}
        self.streams: list[Stream] = []

    def latency_s(self) -> float:
        draw, weather = self.world.random, self.weather
        low, high = weather.slow_s if draw.random() < weather.slow_chance else weather.latency_s
        return draw.uniform(low, high)

    def block(self, pairs: set[tuple[str, str]]) -> None:
        """From now on exactly these directions are blocked."""
        self.blocked = pairs
        for stream in list(self.streams):
            stream.flush()

    def open_streams(self, name: str) -> list[Stream]:
        """Streams from or to a machine."""
        return [s for s in self.streams if name in (s.source, s.target)]


class Stream:
    """One direction of one connection."""

    def __init__(self, fabric: Fabric, source: str, target: str) -> None:
        self.fabric = fabric
        self.source = source
        self.target = target
        self.receiver: SimConnection | None = None
        self._held: list[tuple[str, bytes]] = []
        self._last_at_s = 0.0
        self.extra_s = 0.0
        """A lingering wire: added to everything from now on."""
        self.closed = False
        fabric.streams.append(self)

    def push(self, kind: str, data: bytes) -> None:
        """Put on the wire: `data`, `fin` or `rst`."""
        if self.closed:
            return
        if (self.source, self.target) in self.fabric.blocked:
            self._held.append((kind, data))
        else:
            self._transmit(kind, data)

    def flush(self) -> None:
        """A block may have ended: retransmit."""
        if (self.source, self.target) not in self.fabric.blocked and self._held:
            held, self._held = self._held, []
            for kind, data in held:
                self._transmit(kind, data)

    def _transmit(self, kind: str, data: bytes) -> None:
        world = self.fabric.world
        at_s = max(world.now_s + self.fabric.latency_s() + self.extra_s, self._last_at_s)
        self._last_at_s = at_s
        if len(data) > 1 and world.random.random() < self.fabric.weather.split_chance:
            cut = world.random.randrange(1, len(data))
            world.at(at_s - world.now_s, self._arrive, kind, data[:cut])
            data = data[cut:]
        world.at(at_s - world.now_s, self._arrive, kind, data)

    def _arrive(self, kind: str, data: bytes) -> None:
        if self.receiver is not None and not self.closed:
            self.receiver.arrive(kind, data)
        if kind != "data":
            self.end()

    def end(self) -> None:
        """Nothing more will come out."""
        self.closed = True
        if self in self.fabric.streams:
            self.fabric.streams.remove(self)


class SimConnection:
    """One end."""

    def __init__(
        self, life: Life, handler: Handler, peer: Peer, incoming: Stream, outgoing: Stream
    ) -> None:
        self._life = life
        self._handler = handler
        self._peer = peer
        self._incoming = incoming
        self._outgoing = outgoing
        self._open = True
        incoming.receiver = self

    @property
    def peer(self) -> Peer:
        return self._peer

    def write(self, data: bytes) -> None:
        if self._open and self._life.alive:
            self._outgoing.push("data", bytes(data))

    def unsent_bytes(self) -> int:
        return 0

    def close(self) -> None:
        self._finish("fin", "closed here")

    def abort(self) -> None:
        self._finish("rst", "aborted here")

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def die(self, *, silently: bool) -> None:
        """The process is gone; the system resets the connection, or nobody does."""
        if self._open:
            self._open = False
            self._incoming.receiver = None
            if not silently:
                self._outgoing.push("rst", b"")

    def arrive(self, kind: str, data: bytes) -> None:
        self._life.run(self._on_arrival, kind, data)

    def _on_arrival(self, kind: str, data: bytes) -> None:
        if not self._open:
            return
        if kind == "data":
            self._handler.data_received(data)
        else:
            self._open = False
            self._outgoing.push("fin", b"")
            self._handler.connection_lost("closed by the other side" if kind == "fin" else "reset")

    def _finish(self, kind: str, reason: str) -> None:
        if self._open:
            self._open = False
            self._outgoing.push(kind, b"")
            self._life.later(0.0, self._handler.connection_lost, reason)


class _SimListener:
    def __init__(self, network: SimNetwork, address: Address) -> None:
        self._network = network
        self._address = address

    @property
    def address(self) -> Address:
        return self._address

    def close(self) -> None:
        self._network.unlisten(self._address)


class SimNetwork:
    """The Network port of one life on one machine."""

    def __init__(self, life: Life, fabric: Fabric) -> None:
        self.life = life
        self._fabric = fabric
        self._accepts: dict[Address, Callable[[], Handler]] = {}
        self._connections: list[SimConnection] = []

    def listen(
        self,
        purpose: str,
        address: Address,
        accept: Callable[[], Handler],
        ready: Callable[[Listener | None, BaseException | None], None],
    ) -> None:
        self._accepts[address] = accept
        self._fabric.listening[address] = self
        self.life.later(0.0, ready, _SimListener(self, address), None)

    def unlisten(self, address: Address) -> None:
        if self._fabric.listening.get(address) is self:
            del self._fabric.listening[address]
        self._accepts.pop(address, None)

    def connect(
        self,
        purpose: str,
        address: Address,
        expect: ExpectedPeer,
        handler: Handler,
        timeout_s: float,
        failed: Callable[[str], None],
    ) -> None:
        fabric, here = self._fabric, self.life.name
        there = address.host
        both = {(here, there), (there, here)}
        if both & fabric.blocked:
            self.life.later(timeout_s, failed, "no answer in time")
        else:
            self.life.later(2 * fabric.latency_s(), self._reach, address, handler, failed)

    def _reach(self, address: Address, handler: Handler, failed: Callable[[str], None]) -> None:
        fabric, here, there = self._fabric, self.life.name, address.host
        host = fabric.listening.get(address)
        if {(here, there), (there, here)} & fabric.blocked:
            failed("no answer in time")
            return
        if host is None or not host.life.alive:
            failed("connection refused")
            return
        ways = Stream(fabric, here, there), Stream(fabric, there, here)
        mine = SimConnection(self.life, handler, _peer(there), ways[1], ways[0])
        theirs_handler = host._accepts[address]()
        theirs = SimConnection(host.life, theirs_handler, _peer(here), ways[0], ways[1])
        self._connections.append(mine)
        host._connections.append(theirs)
        # Their side first: what this side sends at once finds a handler there.
        host.life.run(theirs_handler.connection_made, theirs)
        handler.connection_made(mine)

    def die(self, *, silently: bool) -> None:
        """The process is gone."""
        for address in list(self._accepts):
            self.unlisten(address)
        for connection in self._connections:
            connection.die(silently=silently)

    def connections(self) -> list[SimConnection]:
        """Those that are open."""
        self._connections = [c for c in self._connections if c._open]
        return self._connections


def _peer(name: str) -> Peer:
    return Peer("node", NodeId(name), None, f"{name}:0")
