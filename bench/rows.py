"""Goals, and what recorded results say of them: for the terminal and for docs/figures.md."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from bench.figures import percentile

Results = dict[str, Any]
RSS_MB = 150.0


@dataclass(frozen=True, slots=True)
class Row:
    """One figure beside its goal."""

    what: str
    goal: str
    measured: str
    met: bool | None
    """None: it has no goal of its own."""

    @property
    def word(self) -> str:
        """For a table."""
        return "" if self.met is None else "met" if self.met else "missed"


def span(values: Sequence[float], digits: int = 0, unit: str = "") -> str:
    """Median and range."""
    low, middle, high = min(values), statistics.median(values), max(values)
    if low == high:
        return f"{middle:,.{digits}f}{unit}"
    return f"{middle:,.{digits}f}{unit} ({low:,.{digits}f}-{high:,.{digits}f})"


def quantile(values: Sequence[float], per_cent: float) -> float:
    """Nearest rank."""
    return percentile(sorted(values), per_cent)


def amount(megabytes: float) -> str:
    """A size in words."""
    return f"{megabytes / 1000:g} GB" if megabytes >= 1000 else f"{megabytes:g} MB"


def rss(results: Results, what: str) -> Row:
    """The memory of the largest node, whatever happened to it."""
    most = float(results["rss_mb"])
    return Row(f"memory of the largest node: {what}", "≤ 150 MB", f"{most:.0f} MB", most <= RSS_MB)


def _size(results: Results) -> list[Row]:
    nodes = results["settings"]["nodes"]
    on = "one node" if nodes == 1 else f"{nodes} nodes"
    found = []
    for one in results["sizes"]:
        size = amount(one["megabytes"])
        for kind, where in (("cost", ""), ("random", " into a random place of an index")):
            ratios = one[kind]["ratios"]
            small = statistics.median(each["cpu_us"] for each in one[kind]["small"])
            large = statistics.median(each["cpu_us"] for each in one[kind]["large"])
            found.append(
                Row(
                    f"CPU per commit{where}, {size} against 1 MB, {on}",
                    "within 10 %",
                    f"{span(ratios, 2)} times; {large:.0f} against {small:.0f} us",
                    statistics.median(ratios) <= 1.10,
                )
            )
        for name, what in (("vote_s", "a commit that needs its vote"), ("read_s", "a local read")):
            times = [each[name] for each in one["restarts"]]
            found.append(
                Row(
                    f"start of a node of {size} after kill -9 until {what}, {on}",
                    "≤ 2 s",
                    f"{span(times, 2, ' s')}, {len(times)} times",
                    max(times) <= 2.0,
                )
            )
    return [*found, rss(results, f"databases up to {size}, {on}")]


def _copying(results: Results) -> list[Row]:
    during, without = results["during"], results["without"]
    size = amount(round(results["database_bytes"] / 1e6))
    times = during["p99_ms"] / without["p99_ms"]
    changes = int(results["leader_changes"])
    return [
        Row(
            f"p99 of writes while {size} are copied to a new member"
            f" ({results['settings']['rate_per_s']:g} a second)",
            "≤ 20 ms, ≤ 1.5 times without",
            f"{during['p99_ms']:.1f} ms, without {without['p99_ms']:.1f} ms: {times:.2f} times"
            f" (p50 {during['p50_ms']:.1f} and {without['p50_ms']:.1f} ms)",
            during["p99_ms"] <= 20.0 and times <= 1.5,
        ),
        Row(
            f"leader changes meanwhile ({len(results['copy_s'])} copies of"
            f" {span(results['copy_s'], 0, ' s')})",
            "0",
            str(changes),
            changes == 0,
        ),
        rss(results, f"{size} copied, source and target"),
    ]


def _connections(results: Results) -> list[Row]:
    found = []
    for case in results["cases"]:
        count = case["connections"]
        ours = [run["cpu_us"] for run in case["runs"]]
        theirs = [run["cpu_us"] for run in case["base"]]
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        what = (
            f"{count:,} connections write"
            if case["kind"] == "writing"
            else (f"64 of {count:,} connections write")
        )
        few = case["kind"] == "writing" and count < 64
        found.append(
            Row(
                f"CPU per commit when {what}, against 64",
                "" if few else "at most 10 % more",
                f"{span(ratios, 2)} times; {statistics.median(ours):.0f} us",
                None if few else statistics.median(ratios) <= 1.10,
            )
        )
    return [*found, rss(results, "up to 1,000 connections")]


def _wan(results: Results) -> list[Row]:
    found = []
    for one in results["distances"]:
        far = one["round_trip_ms"]
        found.append(
            Row(
                f"commit at a round trip of {far} ms to the nearest majority, p50",
                "" if not far else "round trip + ≤ 3 ms",
                f"{one['p50_ms']:.1f} ms: {one['over_ms']:.1f} more than {one['proxied_ms']:.1f}"
                f" through the proxy alone ({one['commits']} commits)",
                None if not far else one["over_ms"] <= 3.0,
            )
        )
    return found


def _rejoin(results: Results) -> list[Row]:
    found = []
    for name, goal_s in (("divergent", 5.0), ("missing", 10.0)):
        times = results[name]["times"]
        seconds = [one["seconds"] for one in times]
        entries = min(one["entries"] for one in times)
        found.append(
            Row(
                f"a node with {entries:,} {name} entries comes back",
                f"≤ {goal_s:g} s",
                f"{span(seconds, 1, ' s')}, {len(seconds)} times;"
                f" {sum(one['terms'] for one in times)} elections",
                max(seconds) <= goal_s,
            )
        )
    return [*found, rss(results, "nodes that come back")]


JUDGES: dict[str, Callable[[Results], list[Row]]] = {
    "size": _size,
    "copying": _copying,
    "rejoin": _rejoin,
    "connections": _connections,
    "wan": _wan,
}
"""By benchmark, in the order of the document."""


TITLES = {
    "size": "what a larger database costs",
    "copying": "writes while the database is copied to a new member",
    "rejoin": "nodes that come back",
    "connections": "what more connections cost",
    "wan": "commits across long lines",
}
COMMANDS = {name: f"python -m bench {name}" for name in TITLES} | {
    "size": "python -m bench size",
}


def variant(results: Results) -> str:
    """Results of one benchmark that stand beside each other differ in this."""
    return str(results["settings"]["nodes"]) if results["benchmark"] == "size" else ""


def rows(results: Results) -> list[Row]:
    """What one file of results says."""
    return JUDGES[results["benchmark"]](results)


def table(results: Results) -> Table:
    """For the terminal."""
    drawn = Table(title="A quick look: it runs" if results["quick"] else None)
    for title in ("what", "goal", "measured", ""):
        drawn.add_column(title)
    for row in rows(results):
        drawn.add_row(row.what, row.goal, row.measured, row.word)
    return drawn
