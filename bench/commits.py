"""Durable single-row commits, side by side: rounds, runs, results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import host
from bench.errors import Missing
from bench.load import Measurement, Specification, run
from bench.processes import Supervisor
from bench.targets import Target


@dataclass(frozen=True)
class Settings:
    """How long and how wide."""

    rounds: int = 5
    seconds: float = 5.0
    warmup_s: float = 1.0
    connections: tuple[int, ...] = (1, 16, 64)
    value_bytes: int = 100


@dataclass(frozen=True)
class Run:
    """One load on one fresh cluster."""

    round: int
    target: str
    connections: int
    measurement: Measurement


def require(targets: Sequence[Target]) -> None:
    """Raise Missing, naming everything that is not installed for any of the targets."""
    lines = [f"  {t.name} needs {what}" for t in targets for what in t.missing()]
    if lines:
        wanted = ",".join(t.name for t in targets if not t.missing())
        hint = f"\nor measure without: --targets {wanted}" if wanted else ""
        raise Missing("not installed on this machine:\n" + "\n".join(lines) + hint)


def measure(
    targets: Sequence[Target],
    settings: Settings,
    directory: Path,
    progress: Callable[[str], None],
) -> list[Run]:
    """All rounds. Each round starts a fresh cluster of each target, one after the other, so that
    what else the machine does falls on all alike; the order rotates from round to round."""
    runs: list[Run] = []
    for number in range(settings.rounds):
        shift = number % len(targets)
        for target in [*targets[shift:], *targets[:shift]]:
            place = directory / f"{number}-{target.name}"
            place.mkdir()
            with Supervisor(place) as supervisor:
                progress(f"round {number + 1}/{settings.rounds}: {target.name} starts")
                cluster = target.start(place, supervisor)
                for connections in settings.connections:
                    specification = Specification(
                        addresses=cluster.addresses,
                        connections=connections,
                        seconds=settings.seconds,
                        warmup_s=settings.warmup_s,
                        value_bytes=settings.value_bytes,
                        prefix=f"r{number}c{connections}",
                        samples_path=str(place / f"samples-{connections}"),
                        ca=cluster.ca,
                        certificate=cluster.certificate,
                        key=cluster.key,
                        extra=cluster.extra,
                    )
                    found = run(
                        cluster.load_command,
                        specification,
                        cluster.nodes,
                        supervisor,
                        cluster.working,
                    )
                    runs.append(Run(number, target.name, connections, found))
                    progress(
                        f"round {number + 1}/{settings.rounds}: {target.name}, {connections} "
                        f"connections: p50 {found.latency.p50_ms:.2f} ms, "
                        f"{found.commits_per_s:,.0f} commits/s"
                    )
    return runs


def record(
    runs: Sequence[Run],
    settings: Settings,
    versions: dict[str, str],
    disk: host.Disk,
    fdatasync: dict[str, Any],
    options: dict[str, Any],
) -> dict[str, Any]:
    """Everything worth keeping, as JSON values."""
    return {
        **host.record("commits", disk),
        "fdatasync": fdatasync,
        "settings": asdict(settings),
        "options": options,
        "versions": versions,
        "runs": [asdict(item) for item in runs],
    }
