"""Members that come and go while faults happen (row 19), on whatever side of a split believes to
lead: additions, promotions, demotions, removals (of the leader too), disks that are lost for good.

`python -m tests.sim.engine members --seeds 0:200` runs seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from raftdb.base.ids import NodeId
from raftdb.consensus.membership import (
    Add,
    Configuration,
    Demote,
    MemberChange,
    Promote,
    Remove,
)
from raftdb.consensus.port import Changed, ChangeOutcome
from raftdb.consensus.wall import Wall
from tests.sim.checkers import Broken
from tests.sim.engine.cluster import Cluster
from tests.sim.engine.nodes import member_of
from tests.sim.engine.run import Result, Simulation
from tests.sim.world import World

MEMBERS_MAX = 7
VOTERS_MIN = 2
HEAL_S = 12.0
"""With the last fault gone, whoever was removed knows it within this time."""


class MembersChanges:
    """Asks for changes, of everybody who believes to lead, until it is stopped."""

    def __init__(self, world: World, cluster: Cluster, every_s: float) -> None:
        self._world = world
        self._cluster = cluster
        self._every_s = every_s
        self._running = True
        self._made = 0
        self.lost: set[str] = set()
        """Members whose disks are gone for good."""
        self.gone: set[str] = set()
        """Members whose removal was acknowledged."""
        self.done: dict[str, int] = {}

    def start(self) -> None:
        self._world.at(0.8, self._next)

    def stop(self) -> None:
        self._running = False

    def _next(self) -> None:
        if not self._running:
            return
        draw = self._world.random
        self._world.at(draw.expovariate(1 / self._every_s), self._next)
        leaders = self._cluster.leaders()
        for node in leaders if draw.random() < 0.5 else leaders[:1]:
            change = self._draw(node)
            if change is not None:
                self._ask(node, change)

    # -- what to ask for -------------------------------------------------------------------------

    def _draw(self, node: Any) -> MemberChange | None:
        draw, known = self._world.random, configuration_of_node(node)
        lost = sorted(self.lost.intersection(known.voters))
        if lost:
            return Remove(NodeId(lost[0]))
        kind = draw.choice(
            ("add", "add", "promote", "promote", "remove", "demote", "again", "disk")
        )
        voters, learners = list(known.voters), list(known.learners)
        if kind == "add" and len(known.members) < MEMBERS_MAX:
            return self._new()
        if kind == "promote" and learners:
            return Promote(NodeId(draw.choice(learners)))
        if kind == "demote" and len(voters) > VOTERS_MIN:
            return Demote(NodeId(draw.choice(voters)), force=draw.random() < 0.3)
        if kind == "remove":
            names = learners + (voters if len(voters) > VOTERS_MIN else [])
            if names:
                name = node.name if draw.random() < 0.3 else draw.choice(names)
                if name in names:
                    return Remove(NodeId(name), force=draw.random() < 0.3)
        if kind == "again" and self.gone:
            return Add(member_of(draw.choice(sorted(self.gone))))
        if kind == "disk":
            self._lose_disk()
        return None

    def _new(self) -> Add:
        """A new node with an empty disk, on a machine of its own."""
        self._made += 1
        name = f"x{self._made}"
        self._cluster.join(name)
        return Add(member_of(name))

    def _lose_disk(self) -> None:
        """Only where every log there is leaves a majority without it, whatever is rolled back."""
        known = [configuration_of_node(node) for node in self._cluster.live()]
        names = [set(one.voters) for one in known]
        away = any(host.life is None and not host.removed for host in self._cluster.hosts.values())
        if self.lost or away or not names or min(len(one) for one in names) < 4:
            return
        if len({one.voters for one in known}) > 1:
            return
        name = self._world.random.choice(sorted(names[0]))
        self._world.note(f"{name} loses its disk")
        self._cluster.kill(name, power=True)
        self._cluster.hosts[name].removed = True
        self.lost.add(name)

    # -- asking ----------------------------------------------------------------------------------

    def _ask(self, node: Any, change: MemberChange) -> None:
        what = type(change).__name__
        member = change.member.node_id if isinstance(change, Add) else change.node_id
        self._world.note(f"{node.name} is asked: {what} {member}")

        def done(outcome: ChangeOutcome) -> None:
            if not isinstance(outcome, Changed):
                return
            self._world.note(f"{what} {member} is done at {outcome.index}")
            self.done[what] = self.done.get(what, 0) + 1
            if isinstance(change, Add) and member in self.gone:
                raise Broken("removed for good", f"{member} was added again")
            if isinstance(change, Remove):
                self.gone.add(str(member))

        self._cluster.call(node.name, node.change, change, done)


def configuration_of_node(node: Any) -> Configuration:
    """In force there."""
    latest: Configuration = node.engine._core.electorate.configurations.latest
    return latest


class MembersSimulation(Simulation):
    """One seed."""

    def __init__(self, seed: int, **options: Any) -> None:
        super().__init__(seed, **options)
        every_s = self.world.random.choice((0.15, 0.5, 1.2))
        self.changes = MembersChanges(self.world, self.cluster, every_s)

    def _run(self) -> None:
        self.changes.start()
        self.world.at(self.settings.duration_s, self.changes.stop)
        super()._run()

    def _settle(self) -> None:
        """Who is no member in the end is none of the cluster's business, and knows it."""
        self._until(self._agreed, "who the members are")
        members = {str(one.node_id) for one in configuration_of_node(self._leader()).members}
        removed = set(configuration_of_node(self._leader()).removed)
        for name, host in self.cluster.hosts.items():
            if name not in members and name not in removed and host.life is not None:
                self.cluster.kill(name, power=False)
        self._until(lambda: all(node.name in members for node in self.cluster.live()), "removed")
        for name in self.changes.gone:
            if name in members:
                raise Broken("removed for good", f"{name} is a member")
        super()._settle()

    def _leader(self) -> Any:
        leaders = self.cluster.leaders()
        return max(leaders, key=lambda node: node.term) if leaders else None

    def _agreed(self) -> bool:
        leader = self._leader()
        if leader is None:
            return False
        known = leader.engine._core.electorate.configurations
        latest = {
            configuration_of_node(node)
            for node in self.cluster.live()
            if known.latest.member(node.name) is not None
        }
        return known.next_index == 0 and latest == {known.latest}

    def _until(self, true: Callable[[], bool], what: str) -> None:
        waited_s = 0.0
        while not true():
            if waited_s >= HEAL_S:
                states = [
                    (node.name, node.role, node.term, configuration_of_node(node).voters)
                    for node in self.cluster.live()
                ]
                raise Broken("convergence", f"{what}: not within {HEAL_S:g} s: {states}")
            self.world.run_for(0.25)
            waited_s += 0.25


def run_members_seed(
    seed: int, *, nodes: int | None = None, wall: Wall | None = None, trace: bool = False
) -> Result:
    """Run one seed."""
    simulation = MembersSimulation(seed, nodes=nodes, wall=wall, trace=trace)
    result = simulation.run()
    return replace(result, faults={**result.faults, **simulation.changes.done})
