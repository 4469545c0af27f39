"""Reads by primary key over the network, at each level, and batches: `python -m bench reads`.

Interleaved rounds of raftdb and, where RQLITED names its binary, rqlite, on three nodes each, and
of an echo over TLS: the floor that this machine gives.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.echo import Echo
from bench.errors import BenchError
from bench.figures import spread
from bench.processes import Supervisor, die_with_parent
from bench.targets import ALL, Options, Target
from bench.targets.base import Cluster
from bench.targets.raftdb import REPOSITORY

SYSTEMS: dict[str, type[Target]] = {
    "raftdb": ALL["raftdb"],
    "rqlite": ALL["rqlite"],
    Echo.name: Echo,
}
GOALS = {
    "linearizable, 1 client": ("p50_ms", 0.6, "<="),
    "session, 1 client": ("p50_ms", 0.2, "<="),
    "local, 1 client": ("p50_ms", 0.2, "<="),
    "linearizable, 64 clients": ("per_s", 10_000.0, ">="),
    "batch of 1,000 rows, 1 client": ("per_s", 100.0, ">="),
}
"""Phase of raftdb to figure, bound, and which side of it is good. A batch is 1,000 rows."""


@dataclass(frozen=True)
class Reads:
    """One phase of one round."""

    round: int
    system: str
    name: str
    per_s: float
    p50_ms: float
    p99_ms: float
    nodes_cpu_us: float
    """CPU of the three nodes for each request."""
    busiest_cpu_us: float
    load_cpu_us: float


def run(
    systems: list[str],
    rounds: int,
    seconds: float,
    directory: Path,
    progress: Callable[[str], None],
) -> list[Reads]:
    """Each round begins with a fresh cluster of each."""
    found: list[Reads] = []
    for number in range(rounds):
        for system in systems if number % 2 == 0 else systems[::-1]:
            place = directory / f"{number}-{system}"
            place.mkdir()
            target = SYSTEMS[system](Options())
            target.prepare()
            with Supervisor(place) as supervisor:
                cluster = target.start(place, supervisor)
                phases = _load(system, cluster, supervisor, seconds, number)
            found += phases
            for one in phases:
                progress(
                    f"round {number + 1}/{rounds}, {system}: {one.name}: p50 {one.p50_ms:.2f} ms,"
                    f" {one.per_s:,.0f}/s, {one.nodes_cpu_us:,.0f} us of CPU"
                )
    return found


def _leader(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/nodes", timeout=5) as answer:
        nodes = json.load(answer)
    for node in nodes.values():
        if node.get("leader"):
            return str(node["api_addr"]).removeprefix("http://")
    raise BenchError("rqlite has no leader")


def _load(
    system: str, cluster: Cluster, supervisor: Supervisor, seconds: float, number: int
) -> list[Reads]:
    specification = {
        "workload": "reads",
        "system": system,
        "seconds": seconds,
        "addresses": cluster.addresses,
        "leader": _leader(cluster.addresses[0]) if system == "rqlite" else "",
        "ca": cluster.ca,
        "certificate": cluster.certificate,
        "key": cluster.key,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.read_load"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    found: list[Reads] = []
    cpu: list[float] = []
    try:
        json.dump(specification, process.stdin)
        process.stdin.close()
        for line in process.stdout:
            event = json.loads(line)
            supervisor.check()
            if event["event"] == "failed":
                raise BenchError(f"the load process failed: {event['message']}")
            if event["event"] == "begin":
                cpu = [node.cpu_s() for node in cluster.nodes]
            elif event["event"] == "end":
                cpu = [node.cpu_s() - was for node, was in zip(cluster.nodes, cpu, strict=True)]
            elif event["event"] == "phase":
                each = 1e6 / event["count"]
                figures = {key: event[key] for key in ("name", "per_s", "p50_ms", "p99_ms")}
                found.append(
                    Reads(
                        round=number,
                        system=system,
                        nodes_cpu_us=sum(cpu) * each,
                        busiest_cpu_us=max(cpu) * each,
                        load_cpu_us=event["load_cpu_us"],
                        **figures,
                    )
                )
            elif event["event"] == "done":
                return found
        raise BenchError("the load process ended without a word")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def show(found: list[Reads], console: Console) -> None:
    """Print the figures: median and range of the rounds."""
    drawn = Table(title="By primary key, over the network; median and range")
    drawn.add_column("what")
    drawn.add_column("system")
    for title in ("p50 ms", "p99 ms", "per s", "CPU us 3 nodes", "busiest", "load", "goal"):
        drawn.add_column(title, justify="right")
    for name in dict.fromkeys(one.name for one in found):
        for system in dict.fromkeys(one.system for one in found if one.name == name):
            mine = [one for one in found if (one.name, one.system) == (name, system)]
            drawn.add_row(
                name,
                system,
                *(_cell([getattr(one, field) for one in mine]) for field in _FIELDS),
                _judge(name, system, mine),
            )
    console.print(drawn)


_FIELDS = ("p50_ms", "p99_ms", "per_s", "nodes_cpu_us", "busiest_cpu_us", "load_cpu_us")


def _cell(values: list[float]) -> str:
    one = spread(values)
    digits = 2 if one.median < 100 else 0
    return f"{one.median:,.{digits}f} ({one.low:,.{digits}f}-{one.high:,.{digits}f})"


def _judge(name: str, system: str, mine: list[Reads]) -> str:
    if system != "raftdb" or name not in GOALS:
        return ""
    field, bound, side = GOALS[name]
    median = spread([getattr(one, field) for one in mine]).median
    met = median <= bound if side == "<=" else median >= bound
    return f"{side} {bound:,g}: {'met' if met else 'missed'}"
