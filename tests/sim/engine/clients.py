"""Clients of the cluster: writes with session and sequence, and linearizable reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack

from raftdb.consensus import Applied, NotApplied, ProposalOutcome, ReadOutcome, ReadReady
from tests.sim.engine.cluster import Cluster
from tests.sim.engine.nodes import SimNode
from tests.sim.engine.toy import pack_operation
from tests.sim.world import World

ATTEMPT_S = (0.1, 2.0)
"""A client that hears nothing for about this long tries elsewhere, with the same sequence."""


class Clients:
    """Many clients, each with one write under way at a time; and readers."""

    def __init__(self, world: World, cluster: Cluster, count: int, *, pause_s: float) -> None:
        self._world = world
        self._cluster = cluster
        self._pause_s = pause_s
        self.acknowledged: dict[int, int] = dict.fromkeys(range(count), 0)
        self.writes = self.reads = self.retries = 0
        self._attempts = [0] * count
        self._busy: set[int] = set()
        self._finished: dict[int, Callable[[], None]] = {}
        self._running = True
        self.max_padding = 60

    def start(self) -> None:
        """Begin to write and read."""
        for client in self.acknowledged:
            self._world.at(self._world.random.uniform(0, 0.5), self._write, client)
            self._world.at(self._world.random.uniform(0, 0.5), self._read_sometime)

    def stop(self) -> None:
        """No new operations."""
        self._running = False

    def write_once(self, client: int, finished: Callable[[], None]) -> None:
        """One more write of a client, or the one under way, tried until it is acknowledged."""
        self._finished[client] = finished
        if client not in self._busy:
            self._begin(client, 0)

    def _begin(self, client: int, padding: int) -> None:
        self._busy.add(client)
        sequence = self.acknowledged[client] + 1
        self._attempt(client, pack_operation(client, sequence, padding), sequence)

    # -- writes ----------------------------------------------------------------------------------

    def _write(self, client: int) -> None:
        if not self._running:
            return
        draw = self._world.random
        padding = draw.randrange(self.max_padding) if draw.random() < 0.9 else 1500
        self._begin(client, padding)

    def _next(self, client: int) -> None:
        self._world.at(self._world.random.expovariate(1 / self._pause_s), self._write, client)

    def _attempt(self, client: int, payload: bytes, sequence: int) -> None:
        self._attempts[client] += 1
        attempt = self._attempts[client]
        world = self._world

        def retry(after_s: float) -> None:
            if self._attempts[client] == attempt:
                self._attempts[client] += 1
                self.retries += 1
                world.at(after_s, self._attempt, client, payload, sequence)

        def heard(outcome: ProposalOutcome) -> None:
            if self._attempts[client] != attempt:
                return
            if not isinstance(outcome, Applied):
                retry(0.05)
                return
            got = msgpack.unpackb(outcome.reply)
            assert tuple(got[:2]) == (client, sequence), f"reply {got} for {client, sequence}"
            self._attempts[client] += 1
            self.acknowledged[client] = sequence
            self.writes += 1
            for checker in self._cluster.checkers:
                checker.on_acknowledged(client, sequence, outcome.index)
            self._busy.discard(client)
            finished = self._finished.pop(client, None)
            if finished is None:
                self._next(client)
            else:
                finished()

        node = self._choose()
        world.at(world.random.uniform(*ATTEMPT_S), retry, 0.0)
        if node is not None:
            self._call(node, node.propose, payload, lambda outcome: self._reply(heard, outcome))
        elif self._attempts[client] == attempt:
            retry(0.1)

    # -- reads -----------------------------------------------------------------------------------

    def _read_sometime(self) -> None:
        if not self._running:
            return
        pause_s = max(self._pause_s, 0.1)
        self._world.at(self._world.random.expovariate(1 / pause_s), self._read_sometime)
        node = self._choose(leading=0.5)
        if node is not None:
            self._read(node)

    def on_new_leader(self, node: SimNode) -> None:
        """Those who waited for a leader ask it at once."""
        if self._running:
            for _ in range(3):
                self._read(node)

    def _read(self, node: SimNode) -> None:
        before = dict(self.acknowledged)

        def heard(outcome: ReadOutcome) -> None:
            # In the node's own process: what the machine shows at this very moment.
            if isinstance(outcome, ReadReady):
                self.reads += 1
                for checker in self._cluster.checkers:
                    checker.on_read(node.name, node.machine.last_sequence, before)
            else:
                assert isinstance(outcome, NotApplied)

        self._call(node, node.read_index, heard)

    # -- helpers ---------------------------------------------------------------------------------

    def _choose(self, leading: float = 0.9) -> SimNode | None:
        """Mostly a node that believes to lead, sometimes just any (followers read too)."""
        draw = self._world.random
        leaders = self._cluster.leaders()
        if leaders and draw.random() < leading:
            return draw.choice(leaders)
        live = self._cluster.live()
        return draw.choice(live) if live else None

    def _call(self, node: SimNode, call: Callable[..., None], *arguments: Any) -> None:
        delay_s = self._world.random.uniform(0.0001, 0.001)
        host = self._cluster.hosts[node.name]
        life = host.life
        if life is not None:
            life.later(delay_s, call, *arguments)

    def _reply(self, heard: Callable[[Any], None], outcome: Any) -> None:
        self._world.at(self._world.random.uniform(0.0001, 0.001), heard, outcome)
