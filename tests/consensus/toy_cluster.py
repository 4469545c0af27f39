"""Real engines and journals over toy databases, on the simulation's machines and wires: starting,
killing, cutting power, and looking from outside. Nothing happens here but what a test asks for."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from raftdb.base.errors import Error
from raftdb.base.limits import Limits
from raftdb.base.ports import Ports
from raftdb.consensus import Timing
from raftdb.consensus.membership import LEARNER
from raftdb.consensus.wall import Wall
from raftdb.journal import Journal, RetentionBounds
from tests.consensus.toy import ToyStore
from tests.consensus.toy_copies import Again, ToyCopies
from tests.consensus.toy_nodes import (
    CLUSTER,
    DIRECTORY,
    EngineNode,
    Gone,
    Machine,
    NodeSettings,
    SimNode,
    member_of,
    members_of,
)
from tests.sim.checkers import Broken, Checker
from tests.sim.disk import SimFiles
from tests.sim.network import Fabric, SimNetwork, Weather
from tests.sim.ports import SimClock, SimExecutor, SimLog, SimRandom
from tests.sim.world import Life, World

NodeFactory = Callable[
    [Machine, NodeSettings, Ports, random.Random, Callable[[BaseException], None]], SimNode
]


class Host:
    """One machine, and the process that may run on it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.lives = 0
        self.life: Life | None = None
        self.network: SimNetwork | None = None
        self.node: SimNode | None = None
        self.disk_slow_s = 0.0
        self.excused = False
        """Its disk was made to fail, so that stopping is what it should do."""
        self.removed = False
        """Its node is no member any more, and knows it."""


class Cluster:
    """`count` machines and their processes."""

    def __init__(
        self,
        world: World,
        *,
        count: int,
        timing: Timing,
        limits: Limits,
        wall: Wall,
        weather: Weather,
        checkers: Sequence[Checker],
        factory: NodeFactory = EngineNode,
        slow_apply_chance: float = 0.05,
        retention: RetentionBounds | None = None,
        copies: type[ToyCopies] = ToyCopies,
    ) -> None:
        self.world = world
        self.fabric = Fabric(world, weather)
        self.timing = timing
        self._factory = factory
        self._slow_apply_chance = slow_apply_chance
        self._settings = NodeSettings(
            members_of(count), timing, limits, wall, checkers, retention, copies
        )
        self.checkers = checkers
        self._seen: dict[SimNode, tuple[str, int, int]] = {}
        self.hosts: dict[str, Host] = {}
        self.copies_installed = 0
        for member in self._settings.members:
            self._make_host(str(member.node_id))

    def _make_host(self, name: str) -> None:
        files = SimFiles(random.Random(f"{self.world.seed} disk {name}"))
        Journal.create(files, DIRECTORY, SimRandom(f"{self.world.seed} found {name}"))
        self.fabric.places[name] = name
        self.hosts[name] = Host(Machine(name, files, ToyStore()))

    def join(self, name: str) -> None:
        """Start a new node with an empty disk, which knows the founders and takes itself for a
        learner; whether it is one the others decide."""
        self._make_host(name)
        self.start(name)

    # -- processes -------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Start the node's process, unless it runs."""
        host, world = self.hosts[name], self.world
        if host.life is not None or host.removed:
            return
        host.lives += 1
        life = host.life = Life(world, name, host.lives)
        host.network = SimNetwork(life, self.fabric, "node", CLUSTER)
        host.excused = False
        tag = f"{world.seed} {name} {host.lives}"
        draw = random.Random(f"{tag} node")
        ports = Ports(
            clock=SimClock(world),
            random=SimRandom(f"{tag} port"),
            executor=SimExecutor(life, lambda lane: self._lane_latency_s(host, lane), draw),
            files=host.machine.files,
            network=host.network,
            log=SimLog(life),
        )

        def on_fatal(error: BaseException) -> None:
            self._on_fatal(host, error)

        world.note(f"{name} starts")
        settings = self._settings
        if all(member.node_id != name for member in settings.members):
            own = member_of(name, role=LEARNER)
            settings = replace(settings, members=[*settings.members, own])
        node = host.node = self._factory(host.machine, settings, ports, draw, on_fatal)
        life.after_each = lambda: self._look(node)
        life.run(node.start)

    def kill(self, name: str, *, power: bool) -> None:
        """SIGKILL, or the machine loses power."""
        host = self.hosts[name]
        self.world.note(f"{name} {'loses power' if power else 'is killed'}")
        if host.life is not None and host.network is not None:
            host.life.end()
            host.network.die(silently=power)
        host.life = host.network = host.node = None
        if power:
            host.machine.files.crash()
            host.machine.store.lose_power(self.world.random)
        else:
            host.machine.files.kill()

    def live(self) -> list[SimNode]:
        """Nodes whose process runs (paused ones too)."""
        return [host.node for host in self.hosts.values() if host.node is not None]

    def leaders(self) -> list[SimNode]:
        """Nodes that believe to lead."""
        return [node for node in self.live() if node.role == "leader"]

    def call(self, name: str, call: Callable[..., None], *arguments: Any) -> None:
        """From outside into the node's process, if it runs."""
        life = self.hosts[name].life
        if life is not None:
            life.run(call, *arguments)

    # -- observation -----------------------------------------------------------------------------

    def _look(self, node: SimNode) -> None:
        seen = (node.role, node.term, node.commit_index)
        if self._seen.get(node) == seen:
            return
        self._seen[node] = seen
        for checker in self.checkers:
            checker.after_event(node)

    def _on_fatal(self, host: Host, error: BaseException) -> None:
        self.world.note(f"{host.machine.name} stops: {error!r}")
        if isinstance(error, Again):
            self.copies_installed += 1
            self.world.at(0.0, self._again, host, host.lives)
            return
        if isinstance(error, Gone):
            host.removed = True
            self.world.at(0.0, self._gone, host, host.lives)
            return
        if not host.excused:
            code = error.code if isinstance(error, Error) else type(error).__name__
            self.world.fail(
                Broken("no node stops by itself", f"{host.machine.name}: {code}: {error!r}")
            )

    def _again(self, host: Host, number: int) -> None:
        """A copy was installed: the owner of the process makes a new node."""
        if host.life is not None and host.lives == number:
            self.kill(host.machine.name, power=False)
            self.start(host.machine.name)

    def _gone(self, host: Host, number: int) -> None:
        if host.life is not None and host.lives == number:
            self.kill(host.machine.name, power=False)

    def _lane_latency_s(self, host: Host, lane: str) -> float:
        draw = self.world.random
        if lane == "journal":
            return draw.uniform(0.0003, 0.004) + host.disk_slow_s
        if draw.random() < self._slow_apply_chance:
            return draw.uniform(0.01, 0.2)
        return draw.uniform(0.0001, 0.002)
