"""What a larger database costs: CPU per commit, and the restart of a node that was killed.

Two clusters run at the same time, a small one and one that is grown from size to size; the same
load goes to the one and to the other in turn, so that whatever else the machine does falls on both.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from bench import command
from bench.lab import TABLE, Lab, Say, Usage, lab, summary
from raftdb.base.errors import Error
from raftdb.base.ports import Clock
from raftdb.runtime.clock import RealClock

SMALL_MB = 1
SENT_SHARE, SENT_MB_MAX = 0.2, 64
"""Of what a database grows by, this much goes through the log as values."""
TRY_S = 0.5
RESTARTED_S = 120.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What is measured."""

    megabytes: tuple[int, ...] = (100, 1_000)
    nodes: int = 3
    rounds: int = 5
    seconds: float = 2.0
    connections: int = 64
    restarts: int = 5


QUICK = Settings(megabytes=(4,), nodes=1, rounds=1, seconds=0.4, connections=8, restarts=1)


def pairs(small: Lab, large: Lab, settings: Settings, *, grow: bool) -> dict[str, Any]:
    """Loads on both in turn; CPU of all nodes per commit, and their ratio pair by pair. `grow`:
    rows at random places of an index of the large table; else at the end of another table."""
    found: dict[str, list[dict[str, Any]]] = {"small": [], "large": []}
    for number in range(settings.rounds):
        both = [("small", small), ("large", large)]
        for name, one in both if number % 2 else reversed(both):
            measured, _ = one.load(settings.connections, settings.seconds, grow=grow)
            found[name].append(summary(measured))
    ratios = [
        large["cpu_us"] / small["cpu_us"]
        for small, large in zip(found["small"], found["large"], strict=True)
    ]
    return {**found, "ratios": [round(one, 3) for one in ratios]}


class Restart:
    """Kills a node under load and times what it does when it is started again."""

    def __init__(self, one: Lab, clock: Clock) -> None:
        self._lab = one
        self._clock = clock

    def run(self, node_id: str) -> dict[str, float]:
        """`read_s`: from the start of the process to an answered local read; `vote_s`: to the
        first committed write, which needs the node's vote and its acknowledgement: of three nodes
        one other is down meanwhile. `cpu_s`: what its process had taken by then."""
        cluster = self._lab.cluster
        self._lab.load(8, 0.3, grow=True, warmup_s=0.0)
        down = [node_id, *[name for name in cluster.node_ids if name != node_id][:1]]
        self._lab.kill(*down)
        begin_s = self._clock.monotonic_s()
        cluster.start(node_id)
        times: dict[str, float] = {}

        def note(name: str, step: Callable[[], None]) -> None:
            while self._clock.monotonic_s() < begin_s + RESTARTED_S:
                try:
                    step()
                except Error:
                    self._lab.rest(0.01)
                else:
                    times[name] = round(self._clock.monotonic_s() - begin_s, 3)
                    return

        reader = threading.Thread(target=note, args=("read_s", lambda: self._read(node_id)))
        reader.start()
        note("vote_s", self._write)
        reader.join()
        pid = cluster.node(node_id).pid
        assert pid is not None
        times["cpu_s"] = Usage(pid).cpu_s()
        if down[1:]:
            cluster.start(*down[1:])
        cluster.wait_for("a whole cluster", cluster.whole, RESTARTED_S)
        if len(times) < 3:
            raise TimeoutError(f"{node_id} did not come back within {RESTARTED_S:g} s: {times}")
        return times

    def _read(self, node_id: str) -> None:
        with self._lab.cluster.connect_to(node_id, timeout=TRY_S) as connection:
            connection.execute(f"SELECT v FROM {TABLE} WHERE id = 1").fetchall()

    def _write(self) -> None:
        cluster = self._lab.cluster
        leader = cluster.leader()
        if leader is None:
            raise Error("nobody leads yet")
        with cluster.connect_to(leader, timeout=TRY_S) as connection:
            connection.execute(f"INSERT INTO {TABLE} (k, v) VALUES ('restart', x'00')")


def run(place: Path, settings: Settings, say: Say) -> dict[str, Any]:
    """All sizes, from the smallest on."""
    clock, sizes = RealClock(), []
    with (
        lab(place / "small", settings.nodes) as small,
        lab(place / "large", settings.nodes) as large,
    ):
        for one in (small, large):
            one.create()
            one.fill(SMALL_MB)
        small_bytes = small.database_bytes()
        for megabytes in settings.megabytes:
            begin_s = clock.monotonic_s()
            sent = min(megabytes * SENT_SHARE, SENT_MB_MAX)
            large.fill(megabytes, sent_megabytes=sent)
            filled_s = clock.monotonic_s() - begin_s
            say(f"{megabytes} MB: filled in {filled_s:.0f} s")
            cost = pairs(small, large, settings, grow=False)
            random = pairs(small, large, settings, grow=True)
            say(
                f"{megabytes} MB: CPU per commit x {statistics.median(cost['ratios']):.2f};"
                f" into a random place x {statistics.median(random['ratios']):.2f}"
            )
            restarts = []
            for number in range(settings.restarts):
                names = large.cluster.node_ids
                restarts.append(Restart(large, clock).run(names[number % len(names)]))
                say(f"{megabytes} MB: restarted, {restarts[-1]}")
            sizes.append(
                {
                    "megabytes": megabytes,
                    "database_bytes": large.database_bytes(),
                    "fill_s": round(filled_s, 1),
                    "cost": cost,
                    "random": random,
                    "restarts": restarts,
                    "rss_mb": round(large.look(), 1),
                }
            )
        return {
            "small_bytes": small_bytes,
            "small_end_bytes": small.database_bytes(),
            "sizes": sizes,
            "rss_mb": round(large.look(), 1),
        }


@click.command("size")
@click.option(
    "--megabytes", default="100,1000", show_default=True, help="Sizes to grow to, ascending."
)
@click.option("--nodes", default="3", type=click.Choice(["1", "3"]), show_default=True)
@click.option("--rounds", default=5, type=click.IntRange(1, 100), show_default=True, help="Pairs.")
@click.option("--seconds", default=2.0, type=click.FloatRange(0.2, 600), help="Of one load.")
@click.option("--restarts", default=5, type=click.IntRange(1, 100), show_default=True)
@command.outputs("size")
def size(
    megabytes: str, nodes: str, rounds: int, seconds: float, restarts: int, **outputs: Any
) -> None:
    """CPU per commit and restart after kill -9, by the size of the database.

    \b
      python -m bench size
      python -m bench size --megabytes 10000 --nodes 1
    """
    sizes = tuple(sorted(int(one) for one in megabytes.split(",")))
    settings = Settings(sizes, int(nodes), rounds, seconds, restarts=restarts)
    if outputs["quick"]:
        settings = QUICK
    command.measure(
        "size",
        command.as_settings(settings),
        lambda place, say: run(place, settings, say),
        **outputs,
    )
