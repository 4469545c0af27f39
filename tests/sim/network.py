"""The Network port over a simulated fabric: ordered streams that break, between places.

A connection is two one-way streams. Data arrives in order, after the latency between the two
places, some jitter, and the time that its bytes take on the line; what is under way when its sender
aborts may still arrive later, as with TCP. A blocked direction holds data until the block ends
(retransmission) or the connection does. A killed process resets its connections; a machine without
power says nothing.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from raftdb.base.ids import Address, ClusterId, NodeId
from raftdb.base.ports import ExpectedPeer, Handler, Listener, Peer
from tests.sim.world import Life, World

SILENCE = "no answer in time"
"""Why a dial failed that nobody answered."""
BUFFER_BYTES_MAX = 4 << 20
"""What a blocked stream holds; then its sender gives the connection up."""


@dataclass
class Weather:
    """How the fabric treats data."""

    round_trip_s: float = 0.001
    """Between two places; within one place it is a tenth of that, 0.5 ms at most."""
    jitter: float = 0.3
    """Up to that share is added to each way."""
    slow_chance: float = 0.02
    slow_s: tuple[float, float] = (0.01, 0.3)
    """A retransmission."""
    split_chance: float = 0.05
    bytes_per_s: float = 0.0
    """Of one stream; 0: no bound."""


class Fabric:
    """All machines, the wires between them, and who may talk to whom."""

    def __init__(self, world: World, weather: Weather) -> None:
        self.world = world
        self.weather = weather
        self.random = random.Random(f"{world.seed} fabric")
        self.places: dict[str, str] = {}
        """Machine to place."""
        self.blocked: set[tuple[str, str]] = set()
        self.slow: dict[tuple[str, str], float] = {}
        """Directions that take so much longer, in seconds."""
        self.residents: dict[str, str] = {}
        """Host of an address to the node that lives there, where it is not of the node's name."""
        self.listening: dict[Address, SimNetwork] = {}
        self.streams: dict[int, Stream] = {}
        """Open ones, by number: in the order of their making."""
        self._count = 0

    def register(self, stream: Stream) -> int:
        """A number for a new stream."""
        self._count += 1
        self.streams[self._count] = stream
        return self._count

    def resident(self, host: str) -> str:
        """Who answers at an address."""
        return self.residents.get(host, host)

    def latency_s(self, source: str, target: str) -> float:
        """Of one piece of data, this time."""
        draw, weather = self.random.random, self.weather
        way_s = weather.round_trip_s / 2
        if self.places.get(source) == self.places.get(target):
            way_s = min(way_s / 10, 0.00025)
        way_s *= 1 + weather.jitter * draw()
        if weather.slow_chance and draw() < weather.slow_chance:
            low, high = weather.slow_s
            way_s += low + (high - low) * draw()
        if self.slow:
            way_s += self.slow.get((source, target), 0.0)
        return way_s

    def block(self, pairs: set[tuple[str, str]]) -> None:
        """From now on exactly these directions are blocked."""
        self.blocked = pairs
        for stream in list(self.streams.values()):
            stream.flush()

    def streams_between(self, names: set[str]) -> list[Stream]:
        """Open streams with both ends among `names`."""
        return [s for s in self.streams.values() if s.source in names and s.target in names]


class Stream:
    """One direction of one connection."""

    def __init__(self, fabric: Fabric, source: str, target: str) -> None:
        self.fabric = fabric
        self.source = source
        self.target = target
        self._way = (source, target)
        self.receiver: SimConnection | None = None
        self._held: list[tuple[str, bytes]] = []
        self.held_bytes = 0
        self._last_at_s = 0.0
        self.extra_s = 0.0
        """A lingering wire: added to everything from now on."""
        self.closed = False
        self._number = fabric.register(self)

    def push(self, kind: str, data: bytes) -> None:
        """Put on the wire: `data`, `fin` or `rst`."""
        if self.closed:
            return
        if self._way in self.fabric.blocked:
            self._held.append((kind, data))
            self.held_bytes += len(data)
        else:
            self._transmit(kind, data)

    def flush(self) -> None:
        """A block may have ended: retransmit."""
        if self._held and self._way not in self.fabric.blocked:
            held, self._held = self._held, []
            self.held_bytes = 0
            for kind, data in held:
                self._transmit(kind, data)

    def forget_held(self) -> None:
        """What was not on the wire yet is lost with its sender."""
        self._held.clear()
        self.held_bytes = 0

    def _transmit(self, kind: str, data: bytes) -> None:
        fabric = self.fabric
        world, weather = fabric.world, fabric.weather
        at_s = world.now_s + fabric.latency_s(self.source, self.target) + self.extra_s
        if at_s < self._last_at_s:
            at_s = self._last_at_s
        if weather.bytes_per_s:
            at_s += len(data) / weather.bytes_per_s
        self._last_at_s = at_s
        if len(data) > 1 and fabric.random.random() < weather.split_chance:
            cut = fabric.random.randrange(1, len(data))
            world.at(at_s - world.now_s, self._arrive, kind, data[:cut])
            data = data[cut:]
        world.at(at_s - world.now_s, self._arrive, kind, data)

    def queued_bytes(self) -> int:
        """What the line has not taken yet."""
        rate = self.fabric.weather.bytes_per_s
        waiting_s = self._last_at_s - self.fabric.world.now_s
        return self.held_bytes + (int(waiting_s * rate) if rate and waiting_s > 0.2 else 0)

    def _arrive(self, kind: str, data: bytes) -> None:
        if self.receiver is not None and not self.closed:
            self.receiver.arrive(kind, data)
        if kind != "data":
            self.end()

    def end(self) -> None:
        """Nothing more will come out."""
        self.closed = True
        self.fabric.streams.pop(self._number, None)


class SimConnection:
    """One end."""

    def __init__(
        self, network: SimNetwork, handler: Handler, peer: Peer, incoming: Stream, outgoing: Stream
    ) -> None:
        self._network = network
        self._life = network.life
        self._handler = handler
        self._peer = peer
        self._incoming = incoming
        self.outgoing = outgoing
        self.open = True
        self._paused = False
        self._unread: deque[tuple[str, bytes]] = deque()
        incoming.receiver = self
        network.connections[id(self)] = self

    @property
    def peer(self) -> Peer:
        return self._peer

    def write(self, data: bytes) -> None:
        if self.open and self._life.alive:
            self.outgoing.push("data", bytes(data))
            if self.outgoing.held_bytes > BUFFER_BYTES_MAX:
                self._finish("rst", "takes nothing")

    def unsent_bytes(self) -> int:
        return self.outgoing.queued_bytes()

    def close(self) -> None:
        self._finish("fin", "closed here")

    def abort(self) -> None:
        self._finish("rst", "aborted here")

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        while self._unread and not self._paused and self.open:
            self._life.later(0.0, self._on_arrival, *self._unread.popleft())

    def die(self, *, silently: bool) -> None:
        """The process is gone; the system resets the connection, or nobody does."""
        if self.open:
            self.open = False
            self._incoming.end()
            if silently:
                # A machine without power sends nothing again.
                self.outgoing.forget_held()
            else:
                self.outgoing.push("rst", b"")

    def arrive(self, kind: str, data: bytes) -> None:
        """From the stream."""
        self._life.run(self._on_arrival, kind, data)

    def _on_arrival(self, kind: str, data: bytes) -> None:
        if not self.open:
            return
        if kind == "data":
            if self._paused or self._unread:
                self._unread.append((kind, data))
                return
            self._handler.data_received(data)
        else:
            self._gone()
            self.outgoing.push("fin", b"")
            self._handler.connection_lost("closed by the other side" if kind == "fin" else "reset")

    def _finish(self, kind: str, reason: str) -> None:
        if self.open:
            self._gone()
            self.outgoing.push(kind, b"")
            self._life.later(0.0, self._handler.connection_lost, reason)

    def _gone(self) -> None:
        self.open = False
        self._incoming.end()
        self._network.connections.pop(id(self), None)


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

    def __init__(self, life: Life, fabric: Fabric, role: str, cluster_id: ClusterId) -> None:
        self.life = life
        self._fabric = fabric
        self._me = Peer(role, NodeId(life.name), cluster_id, f"{life.name}:0")
        self._accepts: dict[Address, Callable[[], Handler]] = {}
        self.connections: dict[int, SimConnection] = {}
        """Open ends here, in the order of their making."""

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
        there = fabric.resident(address.host)
        if self._is_blocked(there):
            self.life.later(timeout_s, failed, SILENCE)
            return
        delay_s = fabric.latency_s(here, there) + fabric.latency_s(there, here)
        if delay_s > timeout_s:
            self.life.later(timeout_s, failed, SILENCE)
            return
        self.life.later(delay_s, self._reach, address, expect.node_id, handler, failed)

    def _is_blocked(self, there: str) -> bool:
        here, blocked = self.life.name, self._fabric.blocked
        return (here, there) in blocked or (there, here) in blocked

    def _reach(
        self,
        address: Address,
        expected: NodeId | None,
        handler: Handler,
        failed: Callable[[str], None],
    ) -> None:
        fabric, here = self._fabric, self.life.name
        there = fabric.resident(address.host)
        host = fabric.listening.get(address)
        if self._is_blocked(there):
            failed(SILENCE)
            return
        if host is None or not host.life.alive:
            failed("refused the connection")
            return
        if expected is not None and expected != host.life.name:
            # As TLS does: the certificate is another node's.
            failed(f"node {expected} was expected, {host.life.name} answers")
            return
        ways = Stream(fabric, here, there), Stream(fabric, there, here)
        theirs_handler = host._accepts[address]()
        mine = SimConnection(self, handler, host._me, ways[1], ways[0])
        theirs = SimConnection(host, theirs_handler, self._me, ways[0], ways[1])
        # Their side first: what this side sends at once finds a handler there.
        host.life.run(theirs_handler.connection_made, theirs)
        handler.connection_made(mine)

    def die(self, *, silently: bool) -> None:
        """The process is gone."""
        for address in list(self._accepts):
            self.unlisten(address)
        for connection in list(self.connections.values()):
            connection.die(silently=silently)
        self.connections.clear()
