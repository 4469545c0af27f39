"""Faults of the network: partitions of every shape, lost connections, slow directions."""

from __future__ import annotations

import random

from tests.sim.faults import Kind, Nemesis
from tests.sim.network import Stream

Pairs = set[tuple[str, str]]


def both_ways(pairs: Pairs) -> Pairs:
    """Each pair in both directions."""
    return pairs | {(b, a) for a, b in pairs}


def _last(n: Nemesis, draw: random.Random) -> float:
    return n.seconds(draw, (0.1, 1.0), (1.0, 4.0))


def partition(n: Nemesis, draw: random.Random, number: int) -> None:
    """Two halves that do not hear each other."""
    names = n.names
    draw.shuffle(names)
    cut = draw.randint(1, len(names) - 1)
    n.note(f"partition {sorted(names[:cut])} | {sorted(names[cut:])}", number)
    pairs = {(a, b) for a in names[:cut] for b in names[cut:]}
    n.block(number, both_ways(pairs), _last(n, draw))


def isolate_leader(n: Nemesis, draw: random.Random, number: int) -> None:
    """Who leads is alone; clients may still reach it."""
    leaders = n.cluster.leaders()
    if leaders:
        name = draw.choice(leaders).name
        n.note(f"isolate the leader {name}", number)
        pairs = {(name, other) for other in n.names if other != name}
        n.block(number, both_ways(pairs), _last(n, draw))


def split(n: Nemesis, draw: random.Random, number: int) -> None:
    """The network falls apart, and each client is on one side: the leader may be on the small one,
    with some who go on asking it."""
    leaders = [node.name for node in n.cluster.leaders()]
    names = [name for name in n.names if name not in leaders]
    draw.shuffle(names)
    cut = draw.randint(0, max(0, (len(n.names) - 1) // 2 - len(leaders)))
    near = {*leaders, *names[:cut]} or {names[0]}
    clients = [client.name for client in n.clients]
    near |= {name for name in clients if draw.random() < 0.5}
    far = {*n.names, *clients} - near
    n.note(f"split {sorted(near)} | {sorted(far)}", number)
    pairs = {(a, b) for a in sorted(near) for b in sorted(far)}
    n.block(number, both_ways(pairs), n.seconds(draw, (0.3, 1.5), (1.0, 3.0)))


def lost_replies(n: Nemesis, draw: random.Random, number: int) -> None:
    """Some clients reach everybody and hear nobody, for about as long as they wait."""
    clients = [client.name for client in n.clients if draw.random() < 0.6]
    n.note(f"clients {clients} hear nothing", number)
    pairs = {(name, client) for name in n.names for client in clients}
    n.block(number, pairs, n.cluster.sizes.timeout_s * draw.uniform(0.3, 1.5))


def one_way(n: Nemesis, draw: random.Random, number: int) -> None:
    """Some directions are lost, the others not."""
    names = n.names
    pairs = {(a, b) for a in names for b in names if a != b and draw.random() < 0.3}
    n.note(f"one-way {sorted(pairs)}", number)
    n.block(number, pairs, _last(n, draw))


def lost_acks(n: Nemesis, draw: random.Random, number: int) -> None:
    """The leader is heard and hears nothing (or the other way round)."""
    leaders = n.cluster.leaders()
    if leaders:
        name = draw.choice(leaders).name
        pairs = {(other, name) for other in n.names if other != name}
        if draw.random() < 0.3:
            pairs = {(b, a) for a, b in pairs}
        n.note(f"one-way around the leader {name}: {sorted(pairs)}", number)
        n.block(number, pairs, _last(n, draw))


def bridge(n: Nemesis, draw: random.Random, number: int) -> None:
    """Two halves that hear each other by one node only."""
    names = n.names
    draw.shuffle(names)
    middle, rest = names[0], names[1:]
    cut = max(1, len(rest) // 2)
    n.note(f"bridge {sorted(rest[:cut])} - {middle} - {sorted(rest[cut:])}", number)
    pairs = {(a, b) for a in rest[:cut] for b in rest[cut:]}
    n.block(number, both_ways(pairs), _last(n, draw))


def ring(n: Nemesis, draw: random.Random, number: int) -> None:
    """Everybody hears two neighbours: every node sees a majority of its own (from five on)."""
    names = n.names
    draw.shuffle(names)
    size = len(names)
    near = {(names[i], names[(i + 1) % size]) for i in range(size)}
    near = both_ways(near)
    n.note(f"ring {names}", number)
    pairs = {(a, b) for a in names for b in names if a != b and (a, b) not in near}
    n.block(number, pairs, _last(n, draw))


def flapping(n: Nemesis, draw: random.Random, number: int) -> None:
    """A link or a node that comes and goes."""
    names = n.names
    one = draw.choice(names)
    others = [name for name in names if name != one]
    if draw.random() < 0.5:
        others = [draw.choice(others)]
    pairs = both_ways({(one, other) for other in others})
    n.note(f"flapping {one} - {others}", number)
    rounds = draw.randint(3, 8)
    at_s = 0.0
    for _ in range(rounds):
        down_s = n.seconds(draw, (0.02, 0.5))
        n.after(at_s, n.block, number, pairs, down_s)
        at_s += down_s + n.seconds(draw, (0.02, 0.5))


def client_cut(n: Nemesis, draw: random.Random, number: int) -> None:
    """Clients do not reach some node, or do and hear nothing."""
    name = n.some_host(draw, leader_chance=0.6).name
    clients = [client.name for client in n.clients if draw.random() < 0.7]
    kind = draw.choice(("both", "answers", "questions"))
    n.note(f"clients {clients} cut off {name}: {kind}", number)
    asked = {(client, name) for client in clients}
    answered = {(name, client) for client in clients}
    pairs = {"both": asked | answered, "answers": answered, "questions": asked}[kind]
    n.block(number, pairs, _last(n, draw))


def reset(n: Nemesis, draw: random.Random, number: int) -> None:
    """A middlebox resets a connection: what is in flight is lost at both ends."""
    stream = _some_stream(n, draw)
    if stream is not None:
        n.note(f"reset {stream.source} - {stream.target}", number)
        for one in _pair(stream):
            connection = one.receiver
            one.end()
            if connection is not None:
                connection.arrive("rst", b"")


def linger(n: Nemesis, draw: random.Random, number: int) -> None:
    """One end gives up a connection whose data is still under way, for long."""
    stream = _some_stream(n, draw)
    if stream is not None:
        n.note(f"linger {stream.source} > {stream.target}", number)
        stream.extra_s = n.seconds(draw, (0.05, 2.0))
        for one in _pair(stream):
            if one is not stream and one.receiver is not None:
                one.receiver.arrive("rst", b"")


def slow_ways(n: Nemesis, draw: random.Random, number: int) -> None:
    """Some directions get slow: acknowledgements come late, data does not, or all does."""
    name = n.some_host(draw, leader_chance=0.6).name
    extra_s = n.seconds(draw, (0.005, 0.05), (0.05, 0.4))
    into = draw.random() < 0.5
    ways = [(other, name) if into else (name, other) for other in n.names if other != name]
    slow = n.cluster.fabric.slow
    for way in ways:
        slow[way] = extra_s
    n.note(f"{extra_s:.3f} s more {'to' if into else 'from'} {name}", number)

    def end() -> None:
        for way in ways:
            slow.pop(way, None)

    n.after(_last(n, draw), end)


def _some_stream(n: Nemesis, draw: random.Random) -> Stream | None:
    among = set(n.names)
    if draw.random() < 0.3:
        among |= {client.name for client in n.clients}
    streams = n.cluster.fabric.streams_between(among)
    return draw.choice(streams) if streams else None


def _pair(stream: Stream) -> list[Stream]:
    mine = stream.receiver
    return [stream] if mine is None else [stream, mine.outgoing]


KINDS = {
    "partition": Kind(partition, 3.0),
    "isolate-leader": Kind(isolate_leader, 1.5),
    "split": Kind(split, 3.0),
    "one-way": Kind(one_way, 1.0),
    "lost-acks": Kind(lost_acks, 1.0),
    "bridge": Kind(bridge, 0.7),
    "ring": Kind(ring, 0.5),
    "flapping": Kind(flapping, 0.7),
    "client-cut": Kind(client_cut, 1.5),
    "lost-replies": Kind(lost_replies, 1.5),
    "reset": Kind(reset, 2.0),
    "linger": Kind(linger, 2.0),
    "slow-ways": Kind(slow_ways, 1.5),
}
