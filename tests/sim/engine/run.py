"""One seed, one run: a swarm draws sizes and faults, the checkers watch, then all must heal."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from raftdb.base.limits import Limits
from raftdb.consensus import Timing
from raftdb.consensus.wall import Wall
from raftdb.journal import RetentionBounds
from tests.sim.checkers import Broken, Checker, NodeView, all_checkers
from tests.sim.engine.clients import Clients
from tests.sim.engine.cluster import Cluster
from tests.sim.engine.faults import Nemesis, Plan
from tests.sim.engine.network import Weather
from tests.sim.engine.toy_copies import ToyCopies
from tests.sim.world import World

SETTLE_S = 10.0
"""After healing, everything must have converged within this time."""


@dataclass
class Result:
    """What one run did and found."""

    seed: int
    digest: str
    broken: str = ""
    invariant: str = ""
    events: int = 0
    simulated_s: float = 0.0
    writes: int = 0
    reads: int = 0
    retries: int = 0
    terms: int = 0
    copies: int = 0
    """Installed ones."""
    settled_s: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Settings:
    """What a run is made of."""

    nodes: int
    duration_s: float
    clients: int
    pause_s: float
    timing: Timing
    limits: Limits
    weather: Weather
    plan: Plan
    padding_max: int
    retention: RetentionBounds


FAULTS = {
    "partition": 3.0,
    "one_way": 1.0,
    "isolate_leader": 1.5,
    "heal": 2.0,
    "reset": 2.0,
    "linger": 2.0,
    "kill": 2.0,
    "power": 2.0,
    "power_all": 0.5,
    "power_in_write": 1.0,
    "failing_sync": 1.0,
    "pause": 1.5,
    "slow_disk": 2.0,
    "slow_election": 1.0,
    "transfer": 1.0,
}


def draw_settings(seed: int, nodes: int | None = None) -> Settings:
    """Each seed has its own mix of sizes and faults."""
    draw = random.Random(f"settings {seed}")
    weights = {name: weight for name, weight in FAULTS.items() if draw.random() < 0.7}
    weights = weights or {"kill": 1.0}
    timing = Timing(
        election_min_s=0.4,
        election_max_s=0.8,
        heartbeat_s=draw.choice((0.1, 0.15)),
        leader_timeout_s=draw.choice((0.8, 1.2)),
        connect_timeout_s=0.5,
        reconnect_s=0.05,
    )
    latency_s = draw.choice(((0.0002, 0.002), (0.001, 0.02), (0.02, 0.06)))
    far = latency_s[0] >= 0.02
    small = draw.random() < 0.8
    limits = Limits(
        entry_bytes_max=300 if small else 4096,
        entry_requests_max=draw.choice((1, 3, 64)),
        append_bytes_max=draw.choice((150, 400, 65536)),
        append_inflight_bytes_max=draw.choice((20_000,) if far else (1500, 6000, 1 << 20)),
        peer_part_bytes=draw.choice((1000, 65536) if far else (300, 1000, 65536)),
        journal_segment_bytes=draw.choice((2048, 8192, 1 << 20)),
        journal_cache_bytes_max=draw.choice((2000, 1 << 20)),
    )
    slow = draw.choice((0.0, 0.02, 0.1))
    return Settings(
        nodes=nodes or draw.choice((3, 3, 3, 5)),
        duration_s=draw.choice((6.0, 12.0)),
        clients=draw.choice((2, 6, 16)),
        pause_s=draw.choice((0.01, 0.05, 0.2)),
        timing=timing,
        limits=limits,
        weather=Weather(latency_s=latency_s, slow_chance=slow),
        plan=Plan(every_s=draw.choice((0.25, 0.6, 1.5)), weights=weights),
        padding_max=draw.choice((2, 60, 400)),
        retention=RetentionBounds(
            keep_bytes=draw.choice((0, 3000, 30_000, 1 << 30)),
            pinned_bytes_max=draw.choice((10_000, 1 << 30)),
        ),
    )


class _Announcer(Checker):
    """Tells the clients of each new leader."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._known: set[tuple[str, int]] = set()

    def after_event(self, node: NodeView) -> None:
        if node.role == "leader" and (node.name, node.term) not in self._known:
            self._known.add((node.name, node.term))
            self._clients.on_new_leader(node)  # type: ignore[arg-type]


class Simulation:
    """One seed."""

    def __init__(
        self,
        seed: int,
        *,
        nodes: int | None = None,
        wall: Wall | None = None,
        trace: bool = False,
        without: type[Checker] | None = None,
        copies: type[ToyCopies] = ToyCopies,
    ) -> None:
        self.settings = settings = draw_settings(seed, nodes)
        self.world = World(seed)
        if trace:
            self.world.trace = print
        self.checkers = all_checkers(without=without)
        self.cluster = Cluster(
            self.world,
            count=settings.nodes,
            timing=settings.timing,
            limits=settings.limits,
            wall=wall or Wall(),
            weather=settings.weather,
            checkers=self.checkers,
            retention=settings.retention,
            copies=copies,
        )
        self.clients = Clients(self.world, self.cluster, settings.clients, pause_s=settings.pause_s)
        self.clients.max_padding = settings.padding_max
        self.checkers.append(_Announcer(self.clients))
        self.nemesis = Nemesis(self.world, self.cluster, settings.plan)
        self.settled_s = 0.0

    def run(self) -> Result:
        """Everything; never raises for a broken invariant."""
        broken = invariant = ""
        try:
            self._run()
        except Broken as error:
            broken, invariant = str(error), error.invariant
        except Exception as error:
            broken, invariant = f"{type(error).__name__}: {error}", type(error).__name__
            if self.world.trace is not None:
                raise
        nodes = self.cluster.live()
        return Result(
            seed=self.world.seed,
            digest=self.world.digest(),
            broken=broken,
            invariant=invariant,
            events=self.world.events,
            simulated_s=self.world.now_s - 1000.0,
            writes=self.clients.writes,
            reads=self.clients.reads,
            retries=self.clients.retries,
            terms=max((node.term for node in nodes), default=0),
            settled_s=self.settled_s,
            copies=self.cluster.copies_installed,
            faults=self.nemesis.counts,
            notes=list(self.world.notes),
        )

    def _run(self) -> None:
        for name in self.cluster.hosts:
            self.cluster.start(name)
        self.clients.start()
        self.nemesis.start()
        self.world.run_for(self.settings.duration_s)
        self.world.note("all faults end")
        self.nemesis.stop()
        self.cluster.fabric.weather.slow_chance = 0.0
        self.world.run_for(1.0)
        self.clients.stop()
        self._settle()
        for checker in self.checkers:
            checker.at_end({node.name: node.machine.history for node in self.cluster.live()})

    def _settle(self) -> None:
        """One write of every client must be acknowledged, and all nodes must become equal."""
        waiting = set(self.clients.acknowledged)
        for client in sorted(waiting):
            self.clients.write_once(client, lambda client=client: waiting.discard(client))
        while self.settled_s < SETTLE_S:
            self.world.run_for(0.25)
            self.settled_s += 0.25
            applied = {node.status().applied_index for node in self.cluster.live()}
            if not waiting and len(applied) == 1:
                return
        states = [
            (s.node_id, s.role, s.term, s.last_index, s.commit_index, s.applied_index)
            for s in (node.status() for node in self.cluster.live())
        ]
        raise Broken("convergence", f"not within {SETTLE_S:g} s: {len(waiting)} writes, {states}")


def run_seed(
    seed: int,
    *,
    nodes: int | None = None,
    wall: Wall | None = None,
    trace: bool = False,
    without: type[Checker] | None = None,
    copies: type[ToyCopies] = ToyCopies,
) -> Result:
    """Run one seed."""
    simulation = Simulation(
        seed, nodes=nodes, wall=wall, trace=trace, without=without, copies=copies
    )
    return simulation.run()
