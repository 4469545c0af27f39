"""What a cluster does when it is asked for more than it can do: `python -m bench overload`.

A load process of its own (overload_load) finds the peak by a closed loop, then offers multiples of
it at fixed rates. Goodput is what was answered within the deadline.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.errors import BenchError
from bench.processes import Supervisor, die_with_parent
from bench.targets import ALL, Options
from bench.targets.base import Cluster
from bench.targets.raftdb import REPOSITORY

GOAL = 0.8
NODES = 3


@dataclass(frozen=True)
class Settings:
    """What is offered."""

    kind: str = "write"
    levels: tuple[float, ...] = (1, 2, 5, 10)
    seconds: float = 4.0
    connections: int = 256
    closed_loop: int = 64
    work: int = 2_500
    """Rows that each statement makes for itself: so few of them are a load that the generator,
    on the same machine, can offer ten times what the cluster can do."""
    deadline_ms: int = 2_000


class Overload:
    """One measurement on one cluster."""

    def __init__(self, settings: Settings, options: Options, directory: Path) -> None:
        self.settings = settings
        self.options = options
        self.directory = directory

    def run(self, progress: Callable[[str], None]) -> dict[str, Any]:
        """The peak, and each level."""
        target = ALL["raftdb"](self.options)
        with Supervisor(self.directory) as supervisor:
            cluster = target.start(self.directory, supervisor)
            found = self._load(cluster, supervisor, progress)
            found["logs"] = self._elections(supervisor)
        return found

    def _load(
        self, cluster: Cluster, supervisor: Supervisor, progress: Callable[[str], None]
    ) -> dict[str, Any]:
        specification = vars(self.settings) | {
            "workload": "overload",
            "addresses": cluster.addresses,
            "ca": cluster.ca,
            "certificate": cluster.certificate,
            "key": cluster.key,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.overload_load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        levels: list[dict[str, Any]] = []
        try:
            json.dump(specification, process.stdin)
            process.stdin.close()
            before: list[float] = []
            for line in process.stdout:
                event = json.loads(line)
                supervisor.check()
                if event["event"] == "failed":
                    raise BenchError(f"the load process failed: {event['message']}")
                if event["event"] == "note":
                    progress(f"  {event['message']}")
                elif event["event"] == "begin":
                    before = [node.cpu_s() for node in cluster.nodes]
                elif event["event"] == "end":
                    levels.append(self._level(event["figures"], cluster, before))
                    progress(_line(levels[-1]))
                elif event["event"] == "done":
                    return {"levels": levels, **{k: event[k] for k in ("acknowledged", "found")}}
            raise BenchError("the load process ended without a word")
        finally:
            process.kill()
            process.wait()

    def _level(
        self, figures: dict[str, Any], cluster: Cluster, before: list[float]
    ) -> dict[str, Any]:
        memory = [node.memory_mb() for node in cluster.nodes]
        cpu = [node.cpu_s() - was for node, was in zip(cluster.nodes, before, strict=True)]
        return figures | {
            "nodes_cpu": sum(cpu) / self.settings.seconds,
            "leader_cpu": max(cpu) / self.settings.seconds,
            "load_cpu": figures["load_cpu_s"] / self.settings.seconds,
            "rss_mb": max(now for now, _peak in memory),
        }

    def _elections(self, supervisor: Supervisor) -> dict[str, int]:
        """How often each node said that it leads: one of them, once, when heartbeats held."""
        return {
            service.name: service.log_path.read_text(errors="replace").count("role=leader")
            for service in supervisor.services
        }


def _line(level: dict[str, Any]) -> str:
    what = f"{level['times']:g} x" if level["times"] else "peak, closed loop"
    return (
        f"{what}: offered {level['offered_per_s']:,.0f}/s, good {level['good_per_s']:,.0f}/s,"
        f" refused {level['refused_per_s']:,.0f}/s, held back {level['held_back_per_s']:,.0f}/s"
    )


def verdict(found: dict[str, Any], kind: str) -> dict[str, Any]:
    """Whether what was promised held."""
    peak, *levels = found["levels"]
    worst = min(level["good_per_s"] for level in levels) / peak["good_per_s"]
    per_cpu = [level["good_per_s"] / max(level["leader_cpu"], 0.01) for level in found["levels"]]
    return {
        "goodput_of_peak": worst,
        "per_leader_cpu_of_peak": min(per_cpu[1:]) / per_cpu[0],
        "goal": GOAL,
        "leader_changes": sum(found["logs"].values()) - 1,
        "rss_growth_mb": max(level["rss_mb"] for level in levels) - peak["rss_mb"],
        "missing": max(0, found["acknowledged"] - found["found"]) if kind == "write" else 0,
        "met": worst >= GOAL and sum(found["logs"].values()) == 1,
    }


def show(results: dict[str, Any], console: Console) -> None:
    """Print the figures."""
    drawn = Table(title=f"Open loop, {results['settings']['kind']}s; rates per second")
    for title in ("offered", "times", "good", "p50 ms", "p99 ms", "refused", "after ms"):
        drawn.add_column(title, justify="right")
    for title in ("held back", "late", "CPU leader", "3 nodes", "load", "RSS MB"):
        drawn.add_column(title, justify="right")
    for level in results["levels"]:
        drawn.add_row(
            f"{level['offered_per_s']:,.0f}" if level["times"] else "closed loop",
            f"{level['times']:g}" if level["times"] else "peak",
            f"{level['good_per_s']:,.0f}",
            *(_ms(level[name]) for name in ("good_p50_ms", "good_p99_ms")),
            f"{level['refused_per_s']:,.0f}",
            _ms(level["refused_p50_ms"]),
            f"{level['held_back_per_s']:,.0f}",
            f"{level['late_per_s']:,.0f}",
            *(f"{level[name]:.2f}" for name in ("leader_cpu", "nodes_cpu", "load_cpu")),
            f"{level['rss_mb']:,.0f}",
        )
    console.print(drawn)
    said = results["verdict"]
    console.print(
        f"least goodput: {said['goodput_of_peak']:.0%} of the peak (goal {GOAL:.0%}), and for each"
        f" second of the leader's CPU {said['per_leader_cpu_of_peak']:.0%}; leader"
        f" changes: {said['leader_changes']}; RSS of the largest node grew by"
        f" {said['rss_growth_mb']:,.0f} MB; acknowledged writes missing: {said['missing']}",
        highlight=False,
    )


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"
