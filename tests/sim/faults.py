"""The nemesis: a schedule of faults, drawn before the run, and what holds while they last.

Every fault draws what it needs from a generator of its own, so that leaving one out (`without`)
changes nothing in the others' choices: that is what makes a failing schedule easy to shrink.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.sim.hosts import Cluster, Host
from tests.sim.world import World


@dataclass(frozen=True)
class FaultEvent:
    """One fault of a schedule."""

    number: int
    at_s: float
    kind: str


@dataclass
class Plan:
    """Which faults a run has, and how often."""

    every_s: float = 0.7
    weights: dict[str, float] = field(default_factory=dict)
    scale: float = 1.0
    """Durations are those of a LAN times this."""

    def schedule(self, seed: int, duration_s: float) -> list[FaultEvent]:
        """Faults from 1 s on until the end."""
        draw = random.Random(f"{seed} schedule")
        kinds = sorted(self.weights)
        weights = [self.weights[kind] for kind in kinds]
        events: list[FaultEvent] = []
        at_s = 1.0
        while kinds:
            at_s += draw.expovariate(1 / self.every_s)
            if at_s >= duration_s:
                break
            events.append(FaultEvent(len(events), at_s, draw.choices(kinds, weights)[0]))
        return events


class Nemesis:
    """Lets the faults happen, one after the other, until it is stopped; then all is healed."""

    def __init__(
        self,
        world: World,
        cluster: Cluster,
        clients: list[Any],
        plan: Plan,
        events: list[FaultEvent],
        without: Collection[int] = (),
    ) -> None:
        self.world = world
        self.cluster = cluster
        self.clients = clients
        self.scale = plan.scale
        self.events = [event for event in events if event.number not in without]
        self.running = True
        self.counts: dict[str, int] = {}
        self._blocks: dict[int, set[tuple[str, str]]] = {}
        self._undo: list[Callable[[], None]] = []
        self.changes: dict[str, int] = {}
        """Of members, that somebody was told to be done."""

    def start(self) -> None:
        """From now on."""
        for event in self.events:
            self.world.at(event.at_s, self._happen, event)

    def _happen(self, event: FaultEvent) -> None:
        if not self.running:
            return
        self.counts[event.kind] = self.counts.get(event.kind, 0) + 1
        draw = random.Random(f"{self.world.seed} fault {event.number}")
        KINDS[event.kind].do(self, draw, event.number)

    def note(self, text: str, number: int) -> None:
        """One fault of the story."""
        self.world.note(f"fault {number}: {text}")
        for checker in self.cluster.checkers:
            checker.on_event("fault", str(number), {"what": text})

    def member_changed(self, order: Mapping[str, Any]) -> None:
        """Somebody was told that this change of members is done."""
        change, name = str(order["change"]), str(order["node"])
        self.changes[change] = self.changes.get(change, 0) + 1
        for checker in self.cluster.checkers:
            checker.on_event(f"{change} done", name, {})

    def stop(self) -> None:
        """No more faults; heal, resume and start everything."""
        self.running = False
        self._blocks.clear()
        self.cluster.fabric.slow.clear()
        self.cluster.fabric.weather.slow_chance = 0.0
        self.cluster.fabric.block(set())
        for undo in self._undo:
            undo()
        for host in self.cluster.hosts.values():
            host.disk_slow_s = host.stalled_until_s = host.step_s = host.look_s = 0.0
            host.call_s = 0.0
            host.held_down = False
            host.clock.drift, host.clock.offset_ms = 0.0, 0.0
            life = host.life
            if life is not None:
                life.step_s = 0.0
                if host.node is not None:
                    host.node.assembly.cpu_clock.call_s = 0.0
                if life.paused:
                    life.resume()
                if host.excused:
                    self.cluster.kill(host.name, power=True)
            self.cluster.start(host.name)

    # -- what faults are made of -----------------------------------------------------------------

    def after(self, delay_s: float, call: Callable[..., None], *arguments: Any) -> None:
        """The fault's second half; never after the end."""

        def happen() -> None:
            if self.running:
                call(*arguments)

        self.world.at(delay_s, happen)

    def seconds(self, draw: random.Random, *ranges: tuple[float, float]) -> float:
        """A duration from one of the ranges, scaled to the cluster's distances."""
        return draw.uniform(*draw.choice(ranges)) * self.scale

    def block(self, number: int, pairs: set[tuple[str, str]], for_s: float) -> None:
        """Block these directions besides what is blocked already."""
        self._blocks[number] = pairs
        self._reblock()
        self.after(for_s, self.unblock, number)

    def unblock(self, number: int) -> None:
        """End one of the blocks."""
        if self._blocks.pop(number, None) is not None:
            self.world.note(f"fault {number} ends")
            self._reblock()

    def _reblock(self) -> None:
        self.cluster.fabric.block(set().union(*self._blocks.values()))

    @property
    def names(self) -> list[str]:
        """Of all machines that there are still."""
        return [name for name, host in self.cluster.hosts.items() if not host.retired]

    def some_host(self, draw: random.Random, *, leader_chance: float = 0.4) -> Host:
        """Any machine, or one whose node believes to lead."""
        leaders = [node.name for node in self.cluster.leaders()]
        if leaders and draw.random() < leader_chance:
            return self.cluster.hosts[draw.choice(leaders)]
        return self.cluster.hosts[draw.choice(self.names)]

    def may_damage(self, host: Host) -> bool:
        """Whether a majority stays undamaged when this one is not."""
        if self.cluster.changes:
            from tests.sim.members import can_lose

            return can_lose(self, host)
        damaged = sum(one.damaged for one in self.cluster.hosts.values())
        return not host.damaged and damaged < (len(self.cluster.hosts) - 1) // 2

    def stop_host(self, host: Host, draw: random.Random, *, power: bool) -> None:
        """Kill or cut the power, and start again later."""
        self.cluster.kill(host.name, power=power)
        self.start_later(host, draw)

    def start_later(self, host: Host, draw: random.Random) -> None:
        """Somebody starts it again after a while."""
        lives = host.lives

        def restart() -> None:
            if host.lives == lives:
                self.cluster.start(host.name)

        self.after(self.seconds(draw, (0.02, 0.4), (0.4, 3.0)), restart)

    def stop_if_same(self, host: Host, lives: int, draw: random.Random, *, power: bool) -> None:
        """Stop it, unless it has another life by now."""
        if host.lives == lives:
            self.stop_host(host, draw, power=power)


@dataclass(frozen=True)
class Kind:
    """One kind of fault."""

    do: Callable[[Nemesis, random.Random, int], None]
    weight: float


def kinds() -> dict[str, Kind]:
    """All, by name."""
    from tests.sim import faults_members, faults_seldom

    return {**ordinary(), **faults_members.KINDS, **faults_seldom.KINDS}


def ordinary() -> dict[str, Kind]:
    """Those that leave the members who they are."""
    from tests.sim import faults_disk, faults_network, faults_process

    return {**faults_network.KINDS, **faults_disk.KINDS, **faults_process.KINDS}


class _Kinds(dict[str, Kind]):
    def __missing__(self, name: str) -> Kind:
        self.update(kinds())
        return self[name]


KINDS = _Kinds()
