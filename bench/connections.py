"""CPU per commit, from one connection to a thousand.

Two figures. With so many connections that all write: more of them share each log entry, so a commit
costs less and less; what must not happen is that it costs more again. And with connections that
are only open: 64 write while the others say nothing. Loads alternate on one cluster.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from bench import command
from bench.lab import Say, lab, summary

BASE = 64
"""What the others are compared with."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is measured."""

    connections: tuple[int, ...] = (1, 16, 256, 1_000)
    rounds: int = 5
    seconds: float = 2.0


QUICK = Settings(connections=(1, 80), rounds=1, seconds=0.4)


def run(place: Path, settings: Settings, say: Say) -> dict[str, Any]:
    """All rounds; in each, every load once, the 64 at its beginning and in its middle."""
    cases = [("writing", count) for count in settings.connections]
    cases.append(("open", max(settings.connections)))
    found: dict[str, list[dict[str, Any]]] = {f"{kind} {count}": [] for kind, count in cases}
    base: dict[str, list[dict[str, Any]]] = {name: [] for name in found}
    with lab(place) as one:
        for number in range(settings.rounds):
            for kind, count in cases if number % 2 else reversed(cases):
                writing, idle = (count, 0) if kind == "writing" else (BASE, count - BASE)
                name = f"{kind} {count}"
                base[name].append(summary(one.load(BASE, settings.seconds)[0]))
                found[name].append(summary(one.load(writing, settings.seconds, idle=idle)[0]))
                say(
                    f"round {number + 1}/{settings.rounds}: {name}: {found[name][-1]['cpu_us']:.0f}"
                    f" us beside {base[name][-1]['cpu_us']:.0f} of {BASE}"
                )
        return {
            "cases": [
                {"kind": kind, "connections": count, "base": base[name], "runs": found[name]}
                for kind, count in cases
                for name in (f"{kind} {count}",)
            ],
            "rss_mb": round(one.look(), 1),
        }


@click.command("connections")
@click.option("--connections", "counts", default="1,16,256,1000", show_default=True)
@click.option("--rounds", default=5, type=click.IntRange(1, 100), show_default=True, help="Pairs.")
@click.option("--seconds", default=2.0, type=click.FloatRange(0.2, 600), help="Of one load.")
@command.outputs("connections")
def connections(counts: str, rounds: int, seconds: float, **outputs: Any) -> None:
    """CPU per commit by the number of connections, each beside 64 of them.

    \b
      python -m bench connections
    """
    settings = Settings(tuple(int(one) for one in counts.split(",")), rounds, seconds)
    if outputs["quick"]:
        settings = QUICK
    command.measure(
        "connections",
        command.as_settings(settings),
        lambda place, say: run(place, settings, say),
        **outputs,
    )
