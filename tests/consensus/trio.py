"""Whole engines, journals and toy machines on the simulated fabric, without faults of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raftdb.base.limits import Limits
from raftdb.consensus import EngineStatus, ProposalOutcome, ReadOutcome, Timing
from raftdb.consensus.wall import Wall
from raftdb.journal import RetentionBounds
from tests.consensus.toy import pack_operation
from tests.consensus.toy_cluster import Cluster, NodeFactory
from tests.consensus.toy_copies import ToyCopies
from tests.consensus.toy_nodes import EngineNode, SimNode
from tests.sim.checkers import (
    AppliedEqual,
    CommittedStays,
    LeaderCompleteness,
    LogMatching,
    OneLeader,
    PromiseDurable,
)
from tests.sim.network import Weather
from tests.sim.world import World

CHECKERS = (
    OneLeader,
    LogMatching,
    CommittedStays,
    LeaderCompleteness,
    AppliedEqual,
    PromiseDurable,
)


class Trio:
    """A cluster that starts at once. Time passes only by `run`."""

    def __init__(
        self,
        count: int = 3,
        *,
        limits: Limits | None = None,
        timing: Timing | None = None,
        wall: Wall | None = None,
        latency_s: float = 0.0005,
        factory: NodeFactory = EngineNode,
        seed: int = 1,
        retention: RetentionBounds | None = None,
        copies: type[ToyCopies] = ToyCopies,
    ) -> None:
        self.world = World(seed)
        self.cluster = Cluster(
            self.world,
            count=count,
            timing=timing or Timing(),
            limits=limits or Limits(),
            wall=wall or Wall(),
            weather=Weather(2 * latency_s, jitter=0.0, slow_chance=0.0),
            checkers=[kind() for kind in CHECKERS],
            factory=factory,
            slow_apply_chance=0.0,
            retention=retention,
            copies=copies,
        )
        self._sequences: dict[int, int] = {}
        for name in self.cluster.hosts:
            self.cluster.start(name)

    def run(self, seconds: float) -> None:
        self.world.run_for(seconds)

    def run_until(self, true: Callable[[], bool], within_s: float = 10.0) -> float:
        """Virtual seconds until it held."""
        start_s = self.world.now_s
        while not true():
            assert self.world.now_s < start_s + within_s, "it never came true"
            self.run(0.005)
        return self.world.now_s - start_s

    def node(self, name: str) -> Any:
        """The live node of that name."""
        node = self.cluster.hosts[name].node
        assert node is not None
        return node

    def leader(self) -> Any:
        """Wait for exactly one leader whom all that live follow."""

        def agreed() -> bool:
            found = {node.status().leader for node in self.cluster.live()}
            return len(found) == 1 and None not in found

        self.run_until(agreed)
        return self.node(str(self.cluster.live()[0].status().leader))

    def followers(self) -> list[Any]:
        leader = self.leader()
        return [node for node in self.cluster.live() if node is not leader]

    def operation(self, client: int, padding: int = 0) -> bytes:
        """The next request of a client."""
        self._sequences[client] = self._sequences.get(client, 0) + 1
        return pack_operation(client, self._sequences[client], padding)

    def propose(self, node: SimNode, client: int = 1, padding: int = 0) -> list[ProposalOutcome]:
        """A list that the outcome is put into; twice, if it comes twice."""
        outcomes: list[ProposalOutcome] = []
        payload = self.operation(client, padding)
        self.cluster.call(node.name, node.propose, payload, outcomes.append)
        return outcomes

    def read(self, node: SimNode) -> list[ReadOutcome]:
        """A list that the outcome is put into."""
        outcomes: list[ReadOutcome] = []
        self.cluster.call(node.name, node.read_index, outcomes.append)
        return outcomes

    def statuses(self) -> list[EngineStatus]:
        return [node.status() for node in self.cluster.live()]
