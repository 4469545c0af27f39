"""What a person reads: the table of drills, and how they went over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from raftdb.drill.result import BROKEN, MET, Result

_COLORS = {MET: "green", BROKEN: "bold red"}
_COLUMNS = ("drill", "verdict", "RPO", "RTO", "whole", "silence", "rows", "failed")
PIPED_WIDTH = 120
_LEGEND = (
    "RPO: acknowledged writes that are missing, and since when. RTO: until a write was committed."
    "\nwhole: until nothing was lacking. silence: the longest time without a commit. failed: tries."
)


def make_console() -> Console:
    """The standard output; where it is no terminal, tables have all the room that they want."""
    console = Console()
    return console if console.is_terminal else Console(width=PIPED_WIDTH)


def show(console: Console, results: Sequence[Result]) -> None:
    """The table, and below it what was missed or broken."""
    table = _table("Recovery, measured")
    for result in results:
        facts = result.as_dict(timeline=False)
        table.add_row(*_cells(facts), f"{facts['acknowledged']:,}", str(facts["failed_tries"]))
    console.print(table)
    console.print(_LEGEND, highlight=False)
    for result in results:
        for text in result.missed:
            console.print(f"[yellow]MISSED[/] {result.scenario}: {text}", highlight=False)
        if result.not_run:
            console.print(f"[yellow]NOT RUN[/] {result.scenario}: ", end="", highlight=False)
            console.print(result.not_run, markup=False, highlight=False)
        for text in result.broken:
            console.print(f"[bold red]BROKEN[/] {result.scenario}: ", end="", highlight=False)
            console.print(text, markup=False, highlight=False)
    if len(results) > len({result.scenario for result in results}):
        console.print(_distribution(results))


def show_history(console: Console, drills: Sequence[Mapping[str, Any]]) -> None:
    """One line each, oldest first."""
    table = _table("Drills", "when")
    for facts in drills:
        table.add_row(
            *_cells(facts),
            f"{facts['acknowledged']:,}",
            str(facts["failed_tries"]),
            str(facts["started"]),
        )
    console.print(table)


def summary(facts: Mapping[str, Any]) -> str:
    """One drill in a line, for `raftdb status`."""
    return (
        f"{facts['scenario']} {facts['verdict']} at {facts['started']}: RPO {_loss(facts)},"
        f" RTO {_seconds(facts['rto_s'])}, whole again {_seconds(facts['full_s'])}"
    )


def quantile(values: Sequence[float], share: float) -> float:
    """The nearest rank; 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def distribution(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Of drills that were repeated: the spread of RTO, for each scenario."""
    found = []
    for name in dict.fromkeys(result.scenario for result in results):
        of = [result for result in results if result.scenario == name]
        times = [one.rto_s for one in of if one.rto_s is not None]
        found.append(
            {
                "scenario": name,
                "drills": len(of),
                "met": sum(one.verdict == MET for one in of),
                "rpo_writes_max": max(one.rpo_writes or 0 for one in of),
                "rpo_max_s": round(max(one.rpo_s or 0.0 for one in of), 3),
                "rto_p50_s": round(quantile(times, 0.5), 3),
                "rto_p99_s": round(quantile(times, 0.99), 3),
                "rto_max_s": round(max(times, default=0.0), 3),
            }
        )
    return found


def _distribution(results: Sequence[Result]) -> Table:
    rows = distribution(results)
    table = Table(title="Together", title_justify="left")
    for name in rows[0]:
        table.add_column(name, justify="left" if name == "scenario" else "right")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    return table


def _table(title: str, *more: str) -> Table:
    table = Table(title=title, title_justify="left")
    for name in (*_COLUMNS, *more):
        left = name in ("drill", "verdict", "when")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    return table


def _cells(facts: Mapping[str, Any]) -> list[str]:
    color = _COLORS.get(str(facts["verdict"]), "yellow")
    return [
        str(facts["scenario"]),
        f"[{color}]{facts['verdict']}[/]",
        _loss(facts),
        _seconds(facts["rto_s"]),
        _seconds(facts["full_s"]),
        _seconds(facts["silence_s"]),
    ]


def _loss(facts: Mapping[str, Any]) -> str:
    if facts["rpo_writes"] is None:
        return "-"
    if not facts["rpo_writes"]:
        return "0"
    return f"{facts['rpo_writes']}, {_seconds(facts['rpo_s'])}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"
