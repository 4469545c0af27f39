"""how long a cluster commits nothing when its leader is lost, as a distribution"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from bench import host
from bench.command import RESULTS, save
from chaos.cluster import ChaosCluster
from chaos.links import CLIENTS, Links, both_ways, latency
from chaos.server import ToxiproxyServer
from chaos.watch import Watch
from raftdb.base.errors import ConfigError, Error, OperationalError
from raftdb.base.ports import Clock
from raftdb.demo.check import broken_promises, check_nodes
from raftdb.demo.ledger import Ledger
from raftdb.demo.workload import DEADLINE_S, SCHEMA, LoadClient
from raftdb.drill.report import quantile
from raftdb.runtime.clock import RealClock

CLIENT_COUNT = 6
BEFORE_S, AFTER_S, FLAP_S = 0.2, 0.3, 5.0
WHOLE_S = 60.0
KILLS, QUICK_KILLS = 20, 1
DEFAULT_HOW, QUICK_HOW = "kill", "kill,hand-over"
HAND_OVERS_MAX = 10
"""So often one is asked for, when it is refused."""
TEXT = (
    "CREATE VIRTUAL TABLE airports_text USING fts5 (name)",
    "INSERT INTO airports_text VALUES ('international regional field island lake')",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own."""
    parser.add_argument("--kills", type=int, help="how often each way is tried (default: 20)")
    parser.add_argument(
        "--how", help=f"of {','.join(WAYS)}; separated by commas (default: {DEFAULT_HOW})"
    )
    parser.add_argument("--nodes", type=int, choices=(3, 5), default=3)
    parser.add_argument("--round-trip-ms", type=int, default=0, help="between all, by toxiproxy")
    parser.add_argument(
        "--hold",
        type=float,
        default=0.0,
        help="let each partition last so many seconds once more: how often does leadership move?",
    )
    parser.add_argument("--svg", type=Path, help="draw the distribution there")
    parser.add_argument("--directory", help="where data goes, on a real disk (default: /var/tmp)")
    parser.add_argument(
        "--output", type=Path, help="results as JSON (default: bench/results/failover-DATE.json)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"one of each (default: {QUICK_HOW}): it runs; not recorded",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


@dataclass(slots=True)
class Way:
    """One way of losing a leader, tried many times."""

    name: str
    silences_s: list[float] = field(default_factory=list)
    leader_changes: int = 0
    seconds: float = 0.0
    held_s: float = 0.0
    """How long the fault lasted at a stretch, to see whether leadership rests."""
    held_leader_changes: int = 0
    held_silence_s: float = 0.0
    refused: int = 0
    """Hand-overs that failed, and were asked for again."""

    def as_dict(self) -> dict[str, Any]:
        """Figures."""
        ordered = sorted(self.silences_s)
        return {
            "how": self.name,
            "times": len(ordered),
            "p50_ms": round(quantile(ordered, 0.5) * 1000),
            "p95_ms": round(quantile(ordered, 0.95) * 1000),
            "p99_ms": round(quantile(ordered, 0.99) * 1000),
            "max_ms": round(max(ordered, default=0.0) * 1000),
            "leader_changes": self.leader_changes,
            "seconds": round(self.seconds, 1),
            "held_s": round(self.held_s, 1),
            "held_leader_changes": self.held_leader_changes,
            "held_silence_ms": round(self.held_silence_s * 1000),
            "refused": self.refused,
        }


Undo = Callable[[], None]


def _kill(cluster: ChaosCluster, leader: str) -> Undo:
    cluster.take_down(leader)
    return lambda: cluster.bring_up(leader)


def _hand_over(cluster: ChaosCluster, leader: str) -> Undo:
    try:
        with cluster.connect_to(leader) as connection:
            connection.transfer_leadership()
    except Error as error:
        # On a busy machine another one may have been elected meanwhile: it is lost all the same.
        if error.code == "transfer" or cluster.wait_for_leader() == leader:
            raise
    return lambda: None


def _stop(cluster: ChaosCluster, leader: str) -> Undo:
    cluster.pause(leader, paused=True)
    return lambda: cluster.pause(leader, paused=False)


def _cut(cluster: ChaosCluster, pairs: list[tuple[str, str]]) -> Undo:
    cluster.links.cut(pairs)
    return lambda: cluster.links.mend(pairs)


def _others(cluster: ChaosCluster, leader: str) -> list[str]:
    return [name for name in cluster.node_ids if name != leader]


def _black_hole(cluster: ChaosCluster, leader: str) -> Undo:
    others = [*_others(cluster, leader), CLIENTS]
    return _cut(cluster, both_ways([(leader, other) for other in others]))


def _unheard(cluster: ChaosCluster, leader: str) -> Undo:
    return _cut(cluster, [(leader, other) for other in _others(cluster, leader)])


def _deaf(cluster: ChaosCluster, leader: str) -> Undo:
    return _cut(cluster, [(other, leader) for other in _others(cluster, leader)])


def _flap(cluster: ChaosCluster, leader: str) -> Undo:
    over, draw = threading.Event(), random.Random(leader)
    pairs = both_ways([(leader, other) for other in _others(cluster, leader)])

    def run() -> None:
        on = False
        while not over.wait(draw.uniform(0.2, 1.0)):
            on = not on
            (cluster.links.cut if on else cluster.links.mend)(pairs)
        cluster.links.mend(pairs)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    over.wait(FLAP_S)

    def undo() -> None:
        over.set()
        thread.join()

    return undo


WAYS: dict[str, Callable[[ChaosCluster, str], Undo]] = {
    "kill": _kill,
    "hand-over": _hand_over,
    "stop": _stop,
    "black-hole": _black_hole,
    "unheard": _unheard,
    "deaf": _deaf,
    "flapping": _flap,
}


LASTING = ("stop", "black-hole", "unheard", "deaf", "flapping")
"""Faults that can last while the others go on."""


class Measuring:
    """A cluster under the demo's load, whose leader is lost again and again."""

    def __init__(self, cluster: ChaosCluster, clock: Clock, watch: Watch) -> None:
        self._cluster = cluster
        self._clock = clock
        self._watch = watch
        self.ledger = Ledger(CLIENT_COUNT)
        self._stop = threading.Event()
        self._clients = [
            LoadClient(
                record,
                self.ledger,
                lambda: cluster.connect(timeout=DEADLINE_S),
                ["MAD"],
                self._stop,
            )
            for record in self.ledger.records
        ]

    def begin(self) -> None:
        """Tables, and the load."""
        with self._cluster.connect(timeout=30.0) as connection:
            for statement in (*SCHEMA, *TEXT):
                connection.execute(statement)
        for client in self._clients:
            client.start()

    def lose(self, way: Way, times: int, say: Callable[[str], None]) -> None:
        """Lose the leader so many times, that way."""
        cluster, clock = self._cluster, self._clock
        for number in range(1, times + 1):
            leader = cluster.wait_for_leader()
            self._stop.wait(AFTER_S)
            begin_s = clock.monotonic_s()
            undo = self._begin(way, leader)
            try:
                self._until_committed()
            finally:
                undo()
            self._stop.wait(AFTER_S)
            end_s = clock.monotonic_s()
            way.silences_s.append(self.ledger.longest_silence_s(begin_s - BEFORE_S, end_s))
            cluster.wait_for("a whole cluster", cluster.whole, WHOLE_S)
            way.leader_changes += self._watch.leader_changes(begin_s, end_s)
            way.seconds += end_s - begin_s
            say(f"{way.name} {number}: {leader}, {way.silences_s[-1] * 1000:.0f} ms")

    def _begin(self, way: Way, leader: str) -> Undo:
        """Lose it. A hand-over may take longer than it has on a busy machine, and is given up:
        that is counted, and it is asked for again."""
        while True:
            try:
                return WAYS[way.name](self._cluster, leader)
            except OperationalError as error:
                way.refused += error.code == "transfer"
                if error.code != "transfer" or way.refused > HAND_OVERS_MAX:
                    raise

    def hold(self, way: Way, seconds: float, say: Callable[[str], None]) -> None:
        """The same fault for a long time."""
        cluster, clock = self._cluster, self._clock
        leader = cluster.wait_for_leader()
        self._stop.wait(AFTER_S)
        begin_s = clock.monotonic_s()
        undo = WAYS[way.name](cluster, leader)
        try:
            self._stop.wait(max(0.0, begin_s + seconds - clock.monotonic_s()))
            end_s = clock.monotonic_s()
        finally:
            undo()
        way.held_s = end_s - begin_s
        way.held_leader_changes = self._watch.leader_changes(begin_s, end_s)
        way.held_silence_s = self.ledger.longest_silence_s(begin_s - BEFORE_S, end_s)
        cluster.wait_for("a whole cluster", cluster.whole, WHOLE_S)
        say(f"{way.name} for {way.held_s:.0f} s: {way.held_leader_changes} leader changes")

    def _until_committed(self) -> None:
        """Writes flow again: not the last breath of the old leader."""
        begin_s = self._clock.monotonic_s()

        def flows() -> bool:
            now_s = self._clock.monotonic_s()
            if now_s - begin_s < 1.5:
                return False
            return all(
                self.ledger.commits_between(now_s - 0.1 * (i + 1), now_s - 0.1 * i) > 0
                for i in range(3)
            )

        self._cluster.wait_for("commits", flows, WHOLE_S)

    def end(self) -> list[str]:
        """Broken promises."""
        self._stop.set()
        for client in self._clients:
            client.join(15.0)
        verdicts = check_nodes(self.ledger, self._cluster.node_ids, self._cluster.connect_to)
        return broken_promises(self.ledger, verdicts) + self._watch.broken


def planned(options: argparse.Namespace) -> tuple[int, list[Way]]:
    """How often, and in which ways; what was asked for goes before --quick. Raises ConfigError."""
    kills = options.kills or (QUICK_KILLS if options.quick else KILLS)
    how = options.how or (QUICK_HOW if options.quick else DEFAULT_HOW)
    names = [name.strip() for name in how.split(",")]
    for name in names:
        if name not in WAYS:
            raise ConfigError(f"there is no way {name!r}", hint="of " + ", ".join(WAYS))
    return kills, [Way(name) for name in names]


def run(options: argparse.Namespace) -> int:
    """The command; returns the exit code."""
    kills, ways = planned(options)

    def say(text: str) -> None:
        if not options.json:
            print(text, flush=True)

    home, disk = host.work_directory(options.directory)
    begun = host.record("failover", disk)
    try:
        counts = _measure(home, ways, kills, options, say)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    results = {
        **begun,
        "quick": options.quick,
        "settings": {
            "nodes": options.nodes,
            "round_trip_ms": options.round_trip_ms,
            "hold_s": options.hold,
            "clients": CLIENT_COUNT,
        },
        "ways": [way.as_dict() for way in ways],
        **counts,
    }
    if options.svg is not None:
        options.svg.write_text(picture(ways, options.round_trip_ms), "utf-8")
    if options.output is not None or not options.quick:
        path = options.output or RESULTS / host.file_name(results)
        save(results, path)
        say(f"results in {path}")
    _show(results, options)
    return 4 if results["broken"] else 0


def _show(results: dict[str, Any], options: argparse.Namespace) -> None:
    if options.json:
        print(json.dumps(results, indent=2))
        return
    for one in results["ways"]:
        print(", ".join(f"{name} {value}" for name, value in one.items()))
    for text in results["broken"]:
        print(f"BROKEN {text}")


def _measure(
    home: Path,
    ways: Sequence[Way],
    kills: int,
    options: argparse.Namespace,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """A cluster behind toxiproxy, from its founding to the verdict; what the clients counted."""
    clock = RealClock()
    counts: dict[str, Any] = {}
    with ToxiproxyServer(home / "toxiproxy.log") as server:
        cluster = ChaosCluster(home, clock, options.nodes, Links(server.api))
        try:
            counts = _lose_leaders(cluster, clock, ways, kills, options, say)
        except Error as error:
            counts["broken"] = [str(error)]
        finally:
            cluster.close()
    return counts


def _lose_leaders(
    cluster: ChaosCluster,
    clock: Clock,
    ways: Sequence[Way],
    kills: int,
    options: argparse.Namespace,
    say: Callable[[str], None],
) -> dict[str, Any]:
    cluster.start()
    cluster.wait_for("a whole cluster", cluster.whole, WHOLE_S)
    if options.round_trip_ms:
        names = [*cluster.node_ids, CLIENTS]
        for pair in both_ways([(one, other) for one in names for other in names if one < other]):
            cluster.links.put(*pair, latency(options.round_trip_ms // 2))
    with Watch(cluster, clock) as watch:
        measuring = Measuring(cluster, clock, watch)
        measuring.begin()
        try:
            for way in ways:
                measuring.lose(way, kills, say)
                if options.hold and way.name in LASTING:
                    measuring.hold(way, options.hold, say)
        finally:
            broken = measuring.end()
    totals = measuring.ledger.totals()
    return {
        "broken": broken,
        "acknowledged": totals.acknowledged,
        "requests": totals.requests,
        "reads": totals.reads,
        "failed": totals.failed,
        "stale_reads": totals.stale_reads,
        "rss_mb": round(watch.rss_bytes_max / 1e6, 1),
    }


# The picture

WIDTH, LEFT, ROW = 860, 120, 64
_COLORS = "#2f7d5b"


def picture(ways: Sequence[Way], round_trip_ms: int = 0) -> str:
    """Each loss of a leader as a dot, row by row; p50, p99 and the longest are marked."""
    longest_ms = max((s * 1000 for way in ways for s in way.silences_s), default=1.0)
    step = next(one for one in (100, 200, 500, 1000, 2000, 5000, 10**9) if longest_ms / one <= 9)
    highest = (int(longest_ms / step) + 1) * step
    height = ROW * len(ways) + 70
    draw = random.Random("dots")

    def x(ms: float) -> float:
        return round(LEFT + (WIDTH - LEFT - 20) * ms / highest, 1)

    far = f", {round_trip_ms} ms round trip" if round_trip_ms else ""
    shapes = [
        f'<text x="{LEFT}" y="18" font-weight="600">Time without a commit when the leader is lost'
        f"{escape(far)}</text>"
    ]
    for ms in range(0, highest + 1, step):
        shapes.append(
            f'<line x1="{x(ms)}" y1="30" x2="{x(ms)}" y2="{height - 34}" stroke="#d6dae0"/>'
            f'<text x="{x(ms)}" y="{height - 18}" text-anchor="middle">{ms} ms</text>'
        )
    for number, way in enumerate(ways):
        middle = 30 + ROW * number + ROW // 2
        facts = way.as_dict()
        shapes.append(
            f'<text x="{LEFT - 10}" y="{middle}" text-anchor="end">{escape(way.name)}</text>'
            f'<text x="{LEFT - 10}" y="{middle + 14}" text-anchor="end" fill="#68707a">'
            f"{facts['times']} times</text>"
        )
        for silence_s in way.silences_s:
            shapes.append(
                f'<circle cx="{x(silence_s * 1000)}" cy="{middle + draw.uniform(-14, 14):.1f}" '
                f'r="2.6" fill="{_COLORS}" fill-opacity="0.45"/>'
            )
        for place, name in enumerate(("p50", "p99", "max")):
            ms = facts[f"{name}_ms"]
            shapes.append(
                f'<line x1="{x(ms)}" y1="{middle - 20}" x2="{x(ms)}" y2="{middle + 20}" '
                'stroke="#c9372c" stroke-width="1.5"/>'
                f'<text x="{x(ms) + 3}" y="{middle - 12 + 13 * place}" fill="#c9372c">'
                f"{name} {ms}</text>"
            )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        'font-family="system-ui, sans-serif" font-size="11" role="img" '
        'aria-label="distribution of failover times">'
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>' + "".join(shapes) + "</svg>\n"
    )
