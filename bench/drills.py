"""Drills, many times: how many acknowledged writes were missing, and how long recovery took.

`raftdb drill` does it all; this records it. Each drill founds a cluster of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from bench import command
from bench.errors import BenchError
from bench.lab import Say
from raftdb.drill import SCENARIOS, Options, load_objectives
from raftdb.drill import run as run_drills
from raftdb.drill.report import distribution

RTO_S = {"region-loss": 5.0, "leader-kill": 1.0, "node-loss": 1.0}
RPO_S = {"total-loss": 1.0}
"""Writes of so long may be missing; of the other drills, none."""
ANY_RTO_S = 60.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What is rehearsed."""

    drills: tuple[str, ...] = ("region-loss",)
    times: int = 100
    nodes: int = 3
    seconds: float = 0.5
    """Of load before the disaster, and after the recovery."""


QUICK = Settings(times=1, seconds=0.3)


def run(place: Path, settings: Settings, say: Say) -> dict[str, Any]:
    """All of them. Raises BenchError when a promise is broken."""
    results = []
    bounds = load_objectives(None, tuple(SCENARIOS))
    for number in range(settings.times):
        options = Options(settings.nodes, settings.seconds, directory=place / str(number))
        done = run_drills(settings.drills, options, bounds)
        results += done
        for one in done:
            say(f"{number + 1}/{settings.times} {one.scenario}: {one.verdict}, RTO {one.rto_s}")
            if one.broken:
                raise BenchError(f"{one.scenario}: {one.broken[0]}")
    return {
        "drills": [
            {
                **one,
                "broken": sum(bool(result.broken) for result in results),
                "rto_limit_s": RTO_S.get(one["scenario"], ANY_RTO_S),
                "rpo_limit_s": RPO_S.get(one["scenario"]),
            }
            for one in distribution(results)
        ],
        "rto_s": {
            name: [round(one.rto_s or 0.0, 3) for one in results if one.scenario == name]
            for name in settings.drills
        },
    }


@click.command("drills")
@click.option(
    "--drill",
    "names",
    type=click.Choice(sorted(SCENARIOS)),
    multiple=True,
    help="Which; repeatable.  [default: region-loss]",
)
@click.option("--times", default=100, type=click.IntRange(1, 10_000), show_default=True)
@click.option("--nodes", default="3", type=click.Choice(["3", "5"]), show_default=True)
@click.option("--seconds", default=0.5, type=click.FloatRange(0.1, 600), show_default=True)
@command.outputs("drills")
def drills(names: tuple[str, ...], times: int, nodes: str, seconds: float, **outputs: Any) -> None:
    """The loss of the leader's region, or other drills, many times: RPO and the spread of RTO.

    \b
      python -m bench drills
      python -m bench drills --drill total-loss --drill total-loss-archived --times 20
    """
    settings = Settings(names or QUICK.drills, times, int(nodes), seconds)
    if outputs["quick"]:
        settings = QUICK
    command.measure(
        "drills",
        command.as_settings(settings),
        lambda place, say: run(place, settings, say),
        **outputs,
    )
