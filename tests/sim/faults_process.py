"""Faults of processes and machines: kills, power cuts, pauses, clocks, slow processors."""

from __future__ import annotations

import random

from tests.sim.disk import SimFiles
from tests.sim.faults import Kind, Nemesis
from tests.sim.hosts import Host
from tests.sim.world import Life

_DAY_MS = 86_400_000


def kill(n: Nemesis, draw: random.Random, number: int) -> None:
    """SIGKILL, of one or several."""
    _down(n, draw, number, power=False)


def power(n: Nemesis, draw: random.Random, number: int) -> None:
    """One or several machines lose power."""
    _down(n, draw, number, power=True)


def power_all(n: Nemesis, draw: random.Random, number: int) -> None:
    """All machines lose power at once."""
    n.note("power loss of all", number)
    for host in n.cluster.hosts.values():
        n.stop_host(host, draw, power=True)


def _down(n: Nemesis, draw: random.Random, number: int, *, power: bool) -> None:
    up = [host for host in n.cluster.hosts.values() if host.life is not None]
    if not up:
        return
    leaders = [node.name for node in n.cluster.leaders()]
    if leaders and draw.random() < 0.5:
        victims = [n.cluster.hosts[draw.choice(leaders)]]
    elif draw.random() < 0.2:
        victims = draw.sample(up, draw.randint(1, len(up)))
    else:
        victims = [draw.choice(up)]
    names = [host.name for host in victims]
    n.note(f"{'power cut of' if power else 'kill'} {names}", number)
    for host in victims:
        n.stop_host(host, draw, power=power)


def terminate(n: Nemesis, draw: random.Random, number: int) -> None:
    """SIGTERM: the node hands over and ends; it is started again."""
    host = n.some_host(draw, leader_chance=0.6)
    n.note(f"terminate {host.name}", number)
    n.cluster.terminate(host.name)


def pause(n: Nemesis, draw: random.Random, number: int) -> None:
    """SIGSTOP, and SIGCONT later."""
    host = n.some_host(draw)
    life = host.life
    if life is not None and not life.paused:
        n.note(f"{host.name} pauses", number)
        life.pause()
        n.after(n.seconds(draw, (0.05, 0.3), (0.3, 2.5)), _resume, n, host, life)


def _resume(n: Nemesis, host: Host, life: Life) -> None:
    if host.life is life and life.paused:
        n.world.note(f"{host.name} resumes")
        life.resume()


def slow_cpu(n: Nemesis, draw: random.Random, number: int) -> None:
    """Each event takes its time for a while, and short work may turn out long."""
    host = n.some_host(draw)
    host.step_s = draw.choice((0.0002, 0.001, 0.005))
    host.look_s = draw.choice((0.0, 0.001, 0.01))
    n.note(f"{host.name}: {host.step_s * 1000:g} ms of processor per event", number)
    _set_speed(host)

    def end() -> None:
        host.step_s = host.look_s = 0.0
        _set_speed(host)

    n.after(n.seconds(draw, (0.5, 4.0)), end)


def _set_speed(host: Host) -> None:
    if host.life is not None:
        host.life.step_s = host.step_s
    if host.node is not None:
        host.node.assembly.cpu_clock.look_s = host.look_s


def clock(n: Nemesis, draw: random.Random, number: int) -> None:
    """The wall clock jumps, drifts, or does both again and again."""
    host = n.some_host(draw, leader_chance=0.7)
    kind = draw.choice(("jump", "drift", "strobe"))
    n.note(f"{host.name}: the clock's {kind}", number)
    if kind == "drift":
        host.clock.drift = draw.uniform(-0.5, 0.5)
        n.after(n.seconds(draw, (1.0, 5.0)), setattr, host.clock, "drift", 0.0)
        return
    far_ms = draw.choice((500, 60_000, _DAY_MS, 400 * _DAY_MS))
    times = 1 if kind == "jump" else 10
    for step in range(times):
        offset_ms = draw.uniform(-far_ms, far_ms)
        n.after(step * 0.1 * n.scale, setattr, host.clock, "offset_ms", offset_ms)


def slow_election(n: Nemesis, draw: random.Random, number: int) -> None:
    """The leader dies while the disks of all others are slow, and one of those loses power before,
    while or after it votes."""
    leaders = [node.name for node in n.cluster.leaders()]
    if not leaders:
        return
    gone = draw.choice(leaders)
    n.note(f"slow election without {gone}", number)
    others = [host for name, host in n.cluster.hosts.items() if name != gone]
    for host in others:
        host.disk_slow_s = n.seconds(draw, (0.05, 0.5))
        n.after(1.5 * n.scale, setattr, host, "disk_slow_s", 0.0)
    n.stop_host(n.cluster.hosts[gone], draw, power=True)
    victim = draw.choice(others)
    lives = victim.lives
    n.after(n.seconds(draw, (0.0, 1.2)), lambda: n.stop_if_same(victim, lives, draw, power=True))


def transfer(n: Nemesis, draw: random.Random, number: int) -> None:
    """Somebody moves leadership."""
    for node in n.cluster.leaders():
        n.note(f"transfer from {node.name}", number)
        n.cluster.call(node.name, node.engine.transfer_leadership, None, _ignore)


def pinned_reader(n: Nemesis, draw: random.Random, number: int) -> None:
    """Somebody reads slowly: a snapshot stays open beside writer and checkpoints."""
    host = n.some_host(draw)
    node = host.node
    if node is not None and not host.excused and not node.pins:
        n.note(f"{host.name}: a snapshot stays open", number)
        node.pin()
        n.world.at(n.seconds(draw, (0.2, 5.0)), node.unpin)


def lost_disk(n: Nemesis, draw: random.Random, number: int) -> None:
    """A machine comes back with an empty disk: its node must refuse to take part."""
    host = n.some_host(draw)
    if not n.may_damage(host):
        return
    n.note(f"{host.name} loses its disk", number)
    n.cluster.kill(host.name, power=True)
    host.damaged = True
    host.files = SimFiles(random.Random(f"{n.world.seed} new disk {host.name}"))
    n.start_later(host, draw)


def client_restart(n: Nemesis, draw: random.Random, number: int) -> None:
    """A client's process dies, and another one takes its place."""
    if n.clients:
        client = draw.choice(n.clients)
        n.note(f"{client.name} is killed", number)
        client.restart()


def _ignore(_reason: str) -> None:
    pass


KINDS = {
    "kill": Kind(kill, 2.0),
    "power": Kind(power, 2.0),
    "power-all": Kind(power_all, 0.5),
    "terminate": Kind(terminate, 1.0),
    "pause": Kind(pause, 1.5),
    "slow-cpu": Kind(slow_cpu, 1.0),
    "clock": Kind(clock, 1.0),
    "slow-election": Kind(slow_election, 1.0),
    "transfer": Kind(transfer, 1.0),
    "pinned-reader": Kind(pinned_reader, 1.0),
    "lost-disk": Kind(lost_disk, 0.3),
    "client-restart": Kind(client_restart, 0.7),
}
