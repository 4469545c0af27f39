"""The nemesis: draws faults and lets them happen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.sim.disk import Fault
from tests.sim.engine.cluster import Cluster
from tests.sim.engine.network import Stream
from tests.sim.world import World


@dataclass
class Plan:
    """Which faults a run has, and how often."""

    every_s: float = 0.7
    weights: dict[str, float] = field(default_factory=dict)


class Nemesis:
    """Faults, one after the other, until it is stopped; then everything is healed."""

    def __init__(self, world: World, cluster: Cluster, plan: Plan) -> None:
        self._world = world
        self._cluster = cluster
        self._plan = plan
        self._running = True
        self.counts: dict[str, int] = {}
        self._faults: dict[str, Callable[[], None]] = {
            "partition": self.partition,
            "one_way": self.one_way,
            "isolate_leader": self.isolate_leader,
            "heal": self.heal,
            "reset": self.reset,
            "linger": self.linger,
            "kill": self.kill,
            "power": self.power,
            "power_all": self.power_all,
            "power_in_write": self.power_in_write,
            "failing_sync": self.failing_sync,
            "pause": self.pause,
            "slow_disk": self.slow_disk,
            "slow_election": self.slow_election,
            "transfer": self.transfer,
        }

    def start(self) -> None:
        self._world.at(1.0, self._next)

    def stop(self) -> None:
        """No more faults; heal, resume and start everything."""
        self._running = False
        self.heal()
        for host in self._cluster.hosts.values():
            host.disk_slow_s = 0.0
            if host.life is not None and host.life.paused:
                host.life.resume()
            if host.life is not None and host.excused:
                self._cluster.kill(host.machine.name, power=True)
            self._cluster.start(host.machine.name)

    def _next(self) -> None:
        if not self._running:
            return
        draw, weights = self._world.random, self._plan.weights
        self._world.at(draw.expovariate(1 / self._plan.every_s), self._next)
        name = draw.choices(sorted(weights), [weights[key] for key in sorted(weights)])[0]
        self.counts[name] = self.counts.get(name, 0) + 1
        self._faults[name]()

    # -- network ---------------------------------------------------------------------------------

    def partition(self) -> None:
        names = list(self._cluster.hosts)
        draw = self._world.random
        draw.shuffle(names)
        cut = draw.randint(1, len(names) - 1)
        pairs = {(a, b) for a in names[:cut] for b in names[cut:]}
        self._world.note(f"partition {sorted(names[:cut])} | {sorted(names[cut:])}")
        self._block(pairs | {(b, a) for a, b in pairs})

    def one_way(self) -> None:
        draw, names = self._world.random, list(self._cluster.hosts)
        pairs = {(a, b) for a in names for b in names if a != b and draw.random() < 0.3}
        self._world.note(f"one-way {sorted(pairs)}")
        self._block(pairs)

    def isolate_leader(self) -> None:
        leaders = self._cluster.leaders()
        if leaders:
            name = self._world.random.choice(leaders).name
            pairs = {(name, other) for other in self._cluster.hosts if other != name}
            self._world.note(f"isolate the leader {name}")
            self._block(pairs | {(b, a) for a, b in pairs})

    def heal(self) -> None:
        if self._cluster.fabric.blocked:
            self._world.note("heal")
        self._cluster.fabric.block(set())

    def _block(self, pairs: set[tuple[str, str]]) -> None:
        draw = self._world.random
        self._cluster.fabric.block(pairs)
        self._world.at(
            draw.choice((draw.uniform(0.1, 1), draw.uniform(1, 4))), self._heal_if, pairs
        )

    def _heal_if(self, pairs: set[tuple[str, str]]) -> None:
        if self._cluster.fabric.blocked == pairs:
            self.heal()

    def reset(self) -> None:
        """A middlebox resets a connection: what is in flight is lost at both ends."""
        streams = self._cluster.fabric.streams
        if streams:
            victim = self._world.random.choice(streams)
            self._world.note(f"reset {victim.source} - {victim.target}")
            for stream in self._pair(victim):
                connection = stream.receiver
                stream.end()
                if connection is not None:
                    connection.arrive("rst", b"")

    def linger(self) -> None:
        """One end gives up a connection whose data is still under way, for long."""
        streams = self._cluster.fabric.streams
        if streams:
            victim = self._world.random.choice(streams)
            self._world.note(f"linger {victim.source} > {victim.target}")
            victim.extra_s = self._world.random.uniform(0.05, 2.0)
            for stream in self._pair(victim):
                if stream is not victim and stream.receiver is not None:
                    stream.receiver.arrive("rst", b"")

    def _pair(self, victim: Stream) -> list[Stream]:
        mine = victim.receiver
        pair = [victim]
        if mine is not None:
            pair.append(mine._outgoing)
        return pair

    # -- processes and machines ------------------------------------------------------------------

    def kill(self) -> None:
        self._down(power=False)

    def power(self) -> None:
        self._down(power=True)

    def power_all(self) -> None:
        self._world.note("power loss of all")
        for name in self._cluster.hosts:
            self._stop(name, power=True)

    def power_in_write(self) -> None:
        """The power goes in the middle of a disk write."""
        draw = self._world.random
        name = draw.choice(list(self._cluster.hosts))
        host = self._cluster.hosts[name]
        if host.life is None:
            return
        self._world.note(f"{name} is about to lose power in a write")
        host.excused = True
        host.machine.files.power_off_after(draw.randrange(6))
        self._world.at(draw.uniform(0.01, 0.3), self._stop_life, name, host.lives)

    def failing_sync(self) -> None:
        """A write or a sync fails; what was dirty may be lost although the cache shows it. The
        node must stop by itself, and comes back when the device does."""
        draw = self._world.random
        name = draw.choice(list(self._cluster.hosts))
        host = self._cluster.hosts[name]
        if host.life is None:
            return
        kind = draw.choice(("sync", "sync", "write"))
        self._world.note(f"{name} has a {kind} that fails")
        host.excused = True
        host.machine.files.inject(Fault(kind, draw.randint(1, 3), partial=draw.random()))
        self._world.at(draw.uniform(0.1, 1.0), self._replace_process, name, host.lives)

    def _replace_process(self, name: str, number: int) -> None:
        host = self._cluster.hosts[name]
        if host.life is not None and host.lives == number:
            self._stop(name, power=self._world.random.random() < 0.5)

    def _stop_life(self, name: str, number: int) -> None:
        host = self._cluster.hosts[name]
        if host.life is not None and host.lives == number:
            self._stop(name, power=True)

    def _down(self, *, power: bool) -> None:
        draw = self._world.random
        up = [name for name, host in self._cluster.hosts.items() if host.life is not None]
        if not up:
            return
        leaders = [node.name for node in self._cluster.leaders()]
        if leaders and draw.random() < 0.5:
            victims = [draw.choice(leaders)]
        elif draw.random() < 0.2:
            victims = draw.sample(up, draw.randint(1, len(up)))
        else:
            victims = [draw.choice(up)]
        for name in victims:
            self._stop(name, power=power)

    def _stop(self, name: str, *, power: bool) -> None:
        draw = self._world.random
        self._cluster.kill(name, power=power)
        after_s = draw.choice((draw.uniform(0.02, 0.4), draw.uniform(0.4, 3)))
        self._world.at(after_s, self._restart, name, self._cluster.hosts[name].lives)

    def _restart(self, name: str, number: int) -> None:
        if self._cluster.hosts[name].lives == number:
            self._cluster.start(name)

    def pause(self) -> None:
        """SIGSTOP, and SIGCONT later."""
        draw = self._world.random
        host = self._cluster.hosts[draw.choice(list(self._cluster.hosts))]
        life = host.life
        if life is not None and not life.paused:
            self._world.note(f"{life.name} pauses")
            life.pause()
            self._world.at(
                draw.choice((draw.uniform(0.05, 0.3), draw.uniform(0.3, 2.5))), self._resume, life
            )

    def _resume(self, life: object) -> None:
        for host in self._cluster.hosts.values():
            if host.life is life and host.life.paused:
                self._world.note(f"{host.life.name} resumes")
                host.life.resume()

    def slow_election(self) -> None:
        """The leader dies while the disks of all others are slow, and one of those loses power
        before, while or after it votes."""
        draw = self._world.random
        leaders = [node.name for node in self._cluster.leaders()]
        if not leaders:
            return
        gone = draw.choice(leaders)
        self._world.note(f"slow election without {gone}")
        others = [host for name, host in self._cluster.hosts.items() if name != gone]
        for host in others:
            host.disk_slow_s = draw.uniform(0.05, 0.5)
            self._world.at(1.5, setattr, host, "disk_slow_s", 0.0)
        self._stop(gone, power=True)
        victim = draw.choice(others)
        self._world.at(draw.uniform(0.0, 1.2), self._stop_life, victim.machine.name, victim.lives)

    def slow_disk(self) -> None:
        draw = self._world.random
        leaders = [node.name for node in self._cluster.leaders()]
        names = leaders if leaders and draw.random() < 0.5 else list(self._cluster.hosts)
        host = self._cluster.hosts[draw.choice(names)]
        host.disk_slow_s = draw.choice((0.0, draw.uniform(0.01, 0.1), draw.uniform(0.1, 1.0)))
        self._world.note(f"{host.machine.name} disk +{host.disk_slow_s:.3f} s")
        self._world.at(draw.uniform(0.5, 2), setattr, host, "disk_slow_s", 0.0)
        if draw.random() < 0.3:
            # What hangs on this disk now is what a power cut takes.
            self._world.at(draw.uniform(0.05, 1), self._stop_life, host.machine.name, host.lives)

    def transfer(self) -> None:
        for node in self._cluster.leaders():
            self._world.note(f"transfer from {node.name}")
            self._cluster.call(node.name, node.transfer, _ignore)


def _ignore(_reason: str) -> None:
    pass
