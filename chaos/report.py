"""What a person reads: one line per round, and what is broken with the command to see it again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from chaos.run import Round

WIDTH = 140


def command(one: Round) -> str:
    """What runs that round again (real processes decide the rest)."""
    plan = one.plan
    workload = "" if plan.workload is None else f" --workload {plan.workload}"
    mixed = " --mixed" if plan.mixed else ""
    return (
        f"python -m chaos --seed {shlex.quote(plan.seed)} --nodes {one.nodes}{workload}"
        f" --faults {','.join(plan.faults)} --round {plan.seconds:g} --minutes 0{mixed}"
    )


def show(rounds: Sequence[Round], missing: Sequence[str]) -> None:
    """The table."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    table = Table(title="Chaos", title_justify="left")
    for name in ("nodes", "workload", "faults", "operations", "unknown", "refused"):
        table.add_column(name, justify="left" if name in ("workload", "faults") else "right")
    for name in ("silence", "again", "leaders", "verdict"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in rounds:
        faults = " ".join(f"{name}:{count}" for name, count in sorted(one.faults.items()))
        table.add_row(
            str(one.nodes),
            one.plan.workload or "mix",
            faults or "-",
            f"{one.operations:,}",
            str(one.unknown),
            str(one.refused),
            f"{one.silence_s:.2f} s",
            "never" if one.again_s is None else f"{one.again_s:.2f} s",
            str(one.leader_changes),
            "[bold red]BROKEN[/]" if one.broken else "[green]kept[/]",
        )
    console.print(table)
    for text in missing:
        console.print(f"NOT TRIED {text}", markup=False, highlight=False)
    for one in rounds:
        for text in one.broken:
            console.print(f"BROKEN {one.plan.name}: {text}", markup=False, highlight=False)
        if one.broken:
            console.print(f"again: {command(one)}", markup=False, highlight=False, soft_wrap=True)


def as_dict(rounds: Sequence[Round], missing: Sequence[str]) -> dict[str, Any]:
    """For --json."""
    return {
        "verdict": "broken" if any(one.broken for one in rounds) else "kept",
        "rounds": [one.as_dict() for one in rounds],
        "not_tried": list(missing),
    }
