"""Faults: each is begun, lasts for a while, and is undone; the seed draws which come when."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from chaos.cluster import ChaosCluster
from chaos.links import CLIENTS, Toxic, both_ways, latency
from raftdb.base.errors import Error

Pairs = list[tuple[str, str]]


class Fault:
    """One fault. Subclasses say what it does; `draw` is the round's own source of chance."""

    name: ClassVar[str]
    lasts_s: ClassVar[tuple[float, float]] = (0.5, 4.0)

    def __init__(self, cluster: ChaosCluster, draw: random.Random) -> None:
        self.cluster = cluster
        self.draw = draw

    def begin(self) -> str:
        """Do it; returns what was done in a few words."""
        raise NotImplementedError

    def end(self) -> None:
        """Undo it."""
        raise NotImplementedError

    def some(self) -> list[str]:
        """A minority of the nodes, at least one."""
        names = self.cluster.node_ids
        return sorted(self.draw.sample(names, self.draw.randint(1, (len(names) - 1) // 2)))

    def leader(self) -> str:
        """The leader; any node while there is none."""
        try:
            return self.cluster.leader() or self.draw.choice(self.cluster.node_ids)
        except Error:
            return self.draw.choice(self.cluster.node_ids)

    def others(self, names: list[str]) -> list[str]:
        """All but these."""
        return [name for name in self.cluster.node_ids if name not in names]


class Kill(Fault):
    """SIGKILL of a minority, or of the leader."""

    name = "kill"
    lasts_s = (0.1, 3.0)

    def begin(self) -> str:
        self._names = [self.leader()] if self.draw.random() < 0.5 else self.some()
        self.cluster.take_down(*self._names)
        return f"kill -9 {', '.join(self._names)}"

    def end(self) -> None:
        self.cluster.bring_up(*self._names)


class KillAll(Fault):
    """SIGKILL of every node."""

    name = "kill-all"
    lasts_s = (0.1, 1.0)

    def begin(self) -> str:
        self.cluster.take_down(*self.cluster.node_ids)
        return "kill -9 of all nodes"

    def end(self) -> None:
        self.cluster.bring_up(*self.cluster.node_ids)


class Restart(Fault):
    """SIGTERM of one node: it hands over, ends, and is started again."""

    name = "restart"
    lasts_s = (0.0, 0.5)

    def begin(self) -> str:
        self._name = self.draw.choice([self.leader(), *self.cluster.node_ids])
        self.cluster.stopped.add(self._name)
        code = self.cluster.node(self._name).stop(15.0)
        return f"SIGTERM to {self._name}, exit code {code}"

    def end(self) -> None:
        self.cluster.bring_up(self._name)


class Pause(Fault):
    """SIGSTOP and SIGCONT of a minority, or of the leader."""

    name = "pause"
    lasts_s = (0.3, 5.0)

    def begin(self) -> str:
        self._names = [self.leader()] if self.draw.random() < 0.6 else self.some()
        for name in self._names:
            self.cluster.pause(name, paused=True)
        return f"SIGSTOP {', '.join(self._names)}"

    def end(self) -> None:
        for name in self._names:
            self.cluster.pause(name, paused=False)


class Repeating(Fault):
    """Something on and off again, by a thread."""

    def begin(self) -> str:
        self._over = threading.Event()
        text = self.prepare()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return text

    def _run(self) -> None:
        on = False
        while not self._over.wait(self.step_s(on)):
            on = not on
            self.switch(on)
        if on:
            self.switch(False)

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def prepare(self) -> str:
        """Choose; returns what was chosen in words."""
        raise NotImplementedError

    def step_s(self, on: bool) -> float:
        """How long it stays so."""
        raise NotImplementedError

    def switch(self, on: bool) -> None:
        """On, or off."""
        raise NotImplementedError


class Starve(Repeating):
    """One node gets a fraction of the CPU: stopped for most of each tenth of a second."""

    name = "cpu-starved"

    def prepare(self) -> str:
        self._name = self.draw.choice([self.leader(), *self.cluster.node_ids])
        self._share = self.draw.choice((0.1, 0.3))
        return f"{self._name} gets {self._share:.0%} of the CPU"

    def step_s(self, on: bool) -> float:
        return 0.1 * ((1 - self._share) if on else self._share)

    def switch(self, on: bool) -> None:
        self.cluster.pause(self._name, paused=on)


class Partition(Fault):
    """Base of the partitions: pairs of which the first is not heard by the second."""

    def pairs(self) -> tuple[Pairs, str]:
        """What is cut, and in words."""
        raise NotImplementedError

    def begin(self) -> str:
        self._pairs, text = self.pairs()
        self.cluster.links.cut(self._pairs)
        return text

    def end(self) -> None:
        self.cluster.links.mend(self._pairs)


class Split(Partition):
    """Two sides that do not hear each other."""

    name = "split"

    def pairs(self) -> tuple[Pairs, str]:
        side = self.some()
        cut = [(one, other) for one in side for other in self.others(side)]
        return both_ways(cut), f"split: {', '.join(side)} from the others"


class LeaderIsolated(Partition):
    """The leader hears nobody and is heard by nobody, clients included or not."""

    name = "leader-isolated"

    def pairs(self) -> tuple[Pairs, str]:
        leader = self.leader()
        others = self.others([leader])
        clients = self.draw.random() < 0.5
        cut = [(leader, other) for other in (*others, *([CLIENTS] if clients else []))]
        return both_ways(cut), f"{leader} isolated{', from clients too' if clients else ''}"


class OneWay(Partition):
    """One node hears the others and is not heard, or the other way round."""

    name = "one-way"

    def pairs(self) -> tuple[Pairs, str]:
        node = self.leader() if self.draw.random() < 0.6 else self.draw.choice(self.some())
        others = self.others([node])
        if self.draw.random() < 0.5:
            return [(node, other) for other in others], f"{node} is not heard by the others"
        return [(other, node) for other in others], f"{node} does not hear the others"


class Bridge(Partition):
    """Two sides that only one node hears."""

    name = "bridge"

    def pairs(self) -> tuple[Pairs, str]:
        names = self.cluster.node_ids
        self.draw.shuffle(names)
        middle, rest = names[0], names[1:]
        half = len(rest) // 2
        cut = [(one, other) for one in rest[:half] for other in rest[half:]]
        return both_ways(cut), f"bridge: only {middle} hears both sides"


class Ring(Partition):
    """Each node hears its two neighbours only; of three nodes, a chain."""

    name = "ring"

    def pairs(self) -> tuple[Pairs, str]:
        names = self.cluster.node_ids
        self.draw.shuffle(names)
        count = len(names)
        near = {frozenset((names[i], names[(i + 1) % count])) for i in range(count)}
        if count == 3:
            near.remove(frozenset((names[0], names[2])))
        cut = [
            (one, other)
            for one in names
            for other in names
            if one != other and frozenset((one, other)) not in near
        ]
        return cut, f"ring {'-'.join(names)}"


class Flapping(Repeating):
    """The leader's paths break and mend again and again."""

    name = "flapping"

    def prepare(self) -> str:
        leader = self.leader()
        self._pairs = both_ways([(leader, other) for other in self.others([leader])])
        return f"the paths of {leader} flap"

    def step_s(self, on: bool) -> float:
        return self.draw.uniform(0.1, 0.9)

    def switch(self, on: bool) -> None:
        (self.cluster.links.cut if on else self.cluster.links.mend)(self._pairs)


class ClientsCut(Partition):
    """Clients reach only some of the nodes."""

    name = "clients-cut"

    def pairs(self) -> tuple[Pairs, str]:
        names = [self.leader()] if self.draw.random() < 0.6 else self.some()
        return both_ways([(CLIENTS, one) for one in names]), f"no client reaches {', '.join(names)}"


class Toxics(Fault):
    """Base of what makes paths worse without cutting them."""

    def toxic(self) -> Toxic:
        """Which."""
        raise NotImplementedError

    def begin(self) -> str:
        self._toxic = self.toxic()
        names = [*self.cluster.node_ids, CLIENTS]
        if self.draw.random() < 0.4:
            node = self.leader()
            pairs = [(node, other) for other in names if other != node]
            text = f"paths of {node}"
        else:
            pairs = [(one, other) for one in names for other in names if one < other]
            text = "all paths"
        self._pairs = both_ways(pairs)
        for source, target in self._pairs:
            self.cluster.links.put(source, target, self._toxic)
        return f"{text}: {self._toxic}"

    def end(self) -> None:
        for source, target in self._pairs:
            self.cluster.links.take(source, target, self._toxic.kind)


class Latency(Toxics):
    """Longer ways, with jitter."""

    name = "latency"

    def toxic(self) -> Toxic:
        ms = self.draw.choice((5, 20, 50, 120))
        return latency(ms, ms // 3)


class Bandwidth(Toxics):
    """Narrow ways."""

    name = "bandwidth"

    def toxic(self) -> Toxic:
        return Toxic("bandwidth", (("rate", self.draw.choice((20, 100, 500))),))


class Slicer(Toxics):
    """Bytes come in small pieces."""

    name = "slicer"

    def toxic(self) -> Toxic:
        size = self.draw.choice((5, 40, 300))
        return Toxic(
            "slicer", (("average_size", size), ("size_variation", size // 2), ("delay", 50))
        )


class Reset(Toxics):
    """Connections are reset."""

    name = "reset"
    lasts_s = (0.05, 1.0)

    def toxic(self) -> Toxic:
        return Toxic("reset_peer", (("timeout", self.draw.choice((0, 20, 200))),))


class ClockMoved(Fault):
    """The wall clock of one node jumps, for a while."""

    name = "clock"

    def begin(self) -> str:
        self._name = self.draw.choice([self.leader(), *self.cluster.node_ids])
        seconds = self.draw.choice((-86_400, -60, -2, 2, 60, 86_400))
        self.cluster.move_clock(self._name, seconds)
        return f"the clock of {self._name} is off by {seconds} s"

    def end(self) -> None:
        self.cluster.move_clock(self._name, 0)


class ArchiveOutage(Fault):
    """The archive cannot be written."""

    name = "archive-outage"

    def begin(self) -> str:
        self._away = self.cluster.archive.with_name("archive.away")
        self.cluster.archive.rename(self._away)
        self.cluster.archive.write_text("no directory any more")
        return "the archive cannot be reached"

    def end(self) -> None:
        self.cluster.archive.unlink()
        self._away.rename(self.cluster.archive)


class DiskFull(Fault):
    """The disk of one node has no room. A node that stops for it is started again afterwards."""

    name = "disk-full"
    lasts_s = (1.0, 4.0)

    def begin(self) -> str:
        self._name = self.draw.choice(self.cluster.small)
        self.cluster.stopped.add(self._name)
        self.cluster.fill_disk(self._name, full=True)
        return f"the disk of {self._name} is full"

    def end(self) -> None:
        self.cluster.fill_disk(self._name, full=False)
        self.cluster.bring_up(self._name)


class DiskLoss(Fault):
    """One node is killed and its data deleted: a new member takes its place."""

    name = "disk-loss"
    lasts_s = (0.1, 3.0)

    def begin(self) -> str:
        self._name: str | None = None
        places = self.cluster.can_lose()
        if not places:
            return "every disk was lost often enough"
        leader = self.leader()
        lost = leader in places and self.draw.random() < 0.5
        self._name = leader if lost else self.draw.choice(places)
        self.cluster.lose_disk(self._name)
        empty = self.draw.random() < 0.3
        if empty:
            self.cluster.try_empty(self._name)
        return f"the disk of {self._name} is lost{', and it refuses to start' if empty else ''}"

    def end(self) -> None:
        if self._name is not None:
            self.cluster.replace_member(self._name)


class LinkDown(Fault):
    """The cable of one node is pulled, clients' way to it included: nobody answers for it."""

    name = "link-down"

    def begin(self) -> str:
        self._name = self.leader() if self.draw.random() < 0.6 else self.draw.choice(self.some())
        assert self.cluster.namespaces is not None, "the runner asked for them"
        self.cluster.namespaces.unplug(self._name)
        return f"the cable of {self._name} is pulled"

    def end(self) -> None:
        assert self.cluster.namespaces is not None
        self.cluster.namespaces.plug(self._name)


class PacketsLost(Fault):
    """A partition of some kind in which packets are lost, ACKs with them."""

    name = "packets-lost"

    def begin(self) -> str:
        kind = self.draw.choice((Split, OneWay, Bridge, Ring))
        self._pairs, text = kind(self.cluster, self.draw).pairs()
        self.cluster.lose_packets(self._pairs, lost=True)
        return f"packets lost, {text}"

    def end(self) -> None:
        self.cluster.lose_packets(self._pairs, lost=False)


class OtherRelease(Fault):
    """One node is stopped, or killed, and goes on with the other release (with --mixed)."""

    name = "other-release"
    lasts_s = (0.0, 1.0)

    def begin(self) -> str:
        self._name = self.draw.choice([self.leader(), *self.cluster.node_ids])
        self.cluster.stopped.add(self._name)
        release = self.cluster.other_release(self._name)
        if self.draw.random() < 0.3:
            self.cluster.kill(self._name)
            text = "kill -9"
        else:
            text = f"SIGTERM, exit code {self.cluster.node(self._name).stop(15.0)}"
        self.cluster.become(self._name, release)
        return f"{self._name} becomes {release.version}: {text}"

    def end(self) -> None:
        self.cluster.bring_up(self._name)


FAULTS: dict[str, type[Fault]] = {
    kind.name: kind
    for kind in (
        Kill,
        KillAll,
        Restart,
        Pause,
        Starve,
        Split,
        LeaderIsolated,
        OneWay,
        Bridge,
        Ring,
        Flapping,
        ClientsCut,
        Latency,
        Bandwidth,
        Slicer,
        Reset,
        ClockMoved,
        ArchiveOutage,
        DiskFull,
        DiskLoss,
        LinkDown,
        PacketsLost,
    )
}
"""Of any cluster; their names are drawn from."""
IN_NAMESPACES = (LinkDown.name, PacketsLost.name)
"""Those that need each node to have a network interface of its own."""
ALL: dict[str, type[Fault]] = {**FAULTS, OtherRelease.name: OtherRelease}
"""Those of mixed clusters too."""


@dataclass
class Nemesis:
    """Brings faults of some kinds over a cluster, one at a time, for a while."""

    cluster: ChaosCluster
    kinds: list[str]
    draw: random.Random
    note: Callable[[str], None]

    def __post_init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._current: Fault | None = None

    def run(self, seconds: float, now_s: Callable[[], float]) -> None:
        """Faults and pauses between them; all undone at the end."""
        end_s = now_s() + seconds
        rest = threading.Event()
        try:
            while (left_s := end_s - now_s()) > 0:
                rest.wait(min(left_s, self.draw.uniform(0.3, 2.0)))
                left_s = end_s - now_s()
                if left_s <= 0:
                    break
                kind = ALL[self.draw.choice(self.kinds)]
                fault = kind(self.cluster, self.draw)
                lasts_s = self.draw.uniform(*kind.lasts_s)
                self._current = fault
                self.note(fault.begin())
                self.counts[kind.name] = self.counts.get(kind.name, 0) + 1
                rest.wait(min(lasts_s, max(left_s, 0.1)))
                self._undo()
        finally:
            self._undo()
            self.cluster.heal()

    def _undo(self) -> None:
        fault, self._current = self._current, None
        if fault is not None:
            fault.end()
