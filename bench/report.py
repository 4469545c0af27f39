"""Tables and verdicts from recorded results. Pure, apart from the console that draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.figures import Spread, paired_ratio, spread
from bench.load import Measurement
from bench.profile import Profile
from bench.timeline import STEPS, Timeline

Results = dict[str, Any]
Pick = Callable[[dict[str, Any]], float]
US = 1e6


def _per_commit_us(seconds: float, run: dict[str, Any], window_s: float) -> float:
    return seconds * US / (float(run["measurement"]["commits_per_s"]) * window_s)


def metrics(window_s: float) -> dict[str, Pick]:
    """The figures of one run, by name."""
    return {
        "p50_ms": lambda run: float(run["measurement"]["latency"]["p50_ms"]),
        "p99_ms": lambda run: float(run["measurement"]["latency"]["p99_ms"]),
        "commits_per_s": lambda run: float(run["measurement"]["commits_per_s"]),
        "nodes_us": lambda run: _per_commit_us(
            sum(run["measurement"]["node_cpu_s"]), run, window_s
        ),
        "busiest_us": lambda run: _per_commit_us(
            max(run["measurement"]["node_cpu_s"]), run, window_s
        ),
        "load_us": lambda run: _per_commit_us(run["measurement"]["load_cpu_s"], run, window_s),
        "load_cores": lambda run: float(run["measurement"]["load_cpu_s"]) / window_s,
        "rss_mb": lambda run: float(max(run["measurement"]["node_rss_mb"])),
        "peak_rss_mb": lambda run: float(max(run["measurement"]["node_peak_rss_mb"])),
        "flushes": lambda run: (
            float(run["measurement"]["disk_flushes"]) / run["measurement"]["latency"]["count"]
        ),
        "retries": lambda run: (
            float(run["measurement"]["retries"]) / run["measurement"]["latency"]["count"]
        ),
    }


def values(results: Results, target: str, connections: int, metric: str) -> list[float]:
    """One figure of one target, in the order of rounds."""
    pick = metrics(results["settings"]["seconds"])[metric]
    chosen = [
        run
        for run in results["runs"]
        if run["target"] == target and run["connections"] == connections
    ]
    return [pick(run) for run in sorted(chosen, key=lambda run: int(run["round"]))]


def targets(results: Results) -> list[str]:
    """Names in order of appearance, raftdb first."""
    found = list(dict.fromkeys(run["target"] for run in results["runs"]))
    return sorted(found, key=lambda name: name != "raftdb")


@dataclass(frozen=True)
class Verdict:
    """One goal and what came of it."""

    text: str
    peer: str
    ratio: Spread
    goal: float
    needed: float
    more_is_better: bool

    @property
    def word(self) -> str:
        """`goal`, `needed` or `missed`, by the median."""
        for word, bound in (("goal", self.goal), ("needed", self.needed)):
            if (self.ratio.median >= bound) if self.more_is_better else self.ratio.median <= bound:
                return word
        return "missed"


def best_peer(results: Results, connections: int, metric: str, more_is_better: bool) -> str | None:
    """The peer with the best median; None without a peer."""
    peers = [name for name in targets(results) if name != "raftdb"]
    ranked = sorted(
        peers,
        key=lambda name: spread(values(results, name, connections, metric)).median,
        reverse=more_is_better,
    )
    return ranked[0] if ranked else None


def verdicts(results: Results) -> list[Verdict]:
    """raftdb against the best peer, for the goals whose connections were measured."""
    found: list[Verdict] = []
    for text, connections, metric, goal, needed, more in (
        ("p50 of a commit, 1 connection", 1, "p50_ms", 0.7, 1.0, False),
        ("commits/s, 64 connections", 64, "commits_per_s", 3.0, 1.5, True),
    ):
        if connections not in results["settings"]["connections"]:
            continue
        peer = best_peer(results, connections, metric, more)
        if peer is None or "raftdb" not in targets(results):
            continue
        ratio = paired_ratio(
            values(results, "raftdb", connections, metric),
            values(results, peer, connections, metric),
        )
        found.append(Verdict(text, peer, ratio, goal, needed, more))
    return found


def _cell(items: Sequence[float], digits: int) -> str:
    s = spread(items)
    if len(items) == 1:
        return f"{s.median:,.{digits}f}"
    return f"{s.median:,.{digits}f}\n{s.low:,.{digits}f}-{s.high:,.{digits}f}"


COLUMNS = (
    ("p50\nms", "p50_ms", 2),
    ("p99\nms", "p99_ms", 2),
    ("commits/s", "commits_per_s", 0),
    ("CPU us\n3 nodes", "nodes_us", 0),
    ("CPU us\nbusiest", "busiest_us", 0),
    ("CPU us\nload", "load_us", 0),
    ("RSS\nMB", "rss_mb", 0),
    ("flushes", "flushes", 2),
    ("retries", "retries", 1),
)


def table(results: Results) -> Table:
    """Medians, with the range over all rounds below."""
    settings = results["settings"]
    drawn = Table(
        title=f"Durable single-row commits: median of {settings['rounds']} rounds, and the range",
        caption="Per commit: CPU of all nodes, of the busiest one, of the load process; flushes of "
        "the disk\n(by all nodes, and by whatever else runs); retries. RSS of the largest node, "
        "10^6 bytes.",
    )
    drawn.add_column("conn.", justify="right")
    drawn.add_column("system")
    for title, _, _ in COLUMNS:
        drawn.add_column(title, justify="right")
    for connections in settings["connections"]:
        for name in targets(results):
            cells = [
                _cell(values(results, name, connections, metric), digits)
                for _, metric, digits in COLUMNS
            ]
            drawn.add_row(str(connections), name, *cells)
        drawn.add_section()
    return drawn


def markdown(results: Results) -> str:
    """The table for a document: medians, ranges in brackets."""
    heads = ["connections", "system", *(title.replace("\n", " ") for title, _, _ in COLUMNS)]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for connections in results["settings"]["connections"]:
        for name in targets(results):
            cells = []
            for _, metric, digits in COLUMNS:
                median, _, limits = _cell(
                    values(results, name, connections, metric), digits
                ).partition("\n")
                cells.append(f"{median} ({limits})" if limits else median)
            lines.append("| " + " | ".join([str(connections), name, *cells]) + " |")
    return "\n".join(lines)


def show(results: Results, console: Console) -> None:
    """Print the table, the context and the verdicts."""
    console.print(table(results))
    for moment, probe in results["fdatasync"].items():
        console.print(
            f"fdatasync of 512 bytes {moment}: p50 {probe['p50_ms']:.2f} ms, "
            f"p99 {probe['p99_ms']:.2f} ms, worst {probe['max_ms']:.1f} ms",
            highlight=False,
        )
    versions = ", ".join(f"{name} {value}" for name, value in results["versions"].items())
    disk, machine = results["disk"], results["machine"]
    console.print(
        f"{versions}; {machine['cores']} cores, {machine['cpu']}; {disk['file_system']} on "
        f"{disk['device']}; load average at the end {machine['load_average'][0]:.1f}",
        highlight=False,
    )
    for item in verdicts(results):
        sign = ">=" if item.more_is_better else "<="
        console.print(
            f"{item.text}: {item.ratio.median:.2f} x {item.peer} "
            f"({item.ratio.low:.2f}-{item.ratio.high:.2f}); goal {sign} {item.goal:g}, "
            f"needed {sign} {item.needed:g}: {item.word}",
            highlight=False,
        )


def show_profile(found: Profile, console: Console, functions: int = 40) -> None:
    """Print where the busiest node's time goes, in microseconds of CPU per commit."""
    for word, measured in (("sampled by py-spy", found.sampled), ("then", found.plain)):
        p50 = measured.latency.p50_ms
        console.print(
            f"{word}: {measured.commits_per_s:,.0f} commits/s, p50 {p50:.2f} ms", highlight=False
        )
    console.print(f"busiest node: {found.node_us:.0f} us of CPU per commit", highlight=False)
    for title, rows in (
        ("CPU by thread (the kernel's accounting)", found.threads),
        ("CPU by thread and library (perf)", found.libraries),
        ("holding the interpreter lock, by room (py-spy)", found.rooms),
        ("the same, by innermost Python function", found.functions[:functions]),
    ):
        if not rows:
            continue
        drawn = Table(title=title)
        drawn.add_column("thread")
        drawn.add_column("where")
        drawn.add_column("us/commit", justify="right")
        for row in rows:
            if row.us >= 0.3:
                drawn.add_row(row.thread, row.where, f"{row.us:.1f}")
        console.print(drawn)


def show_timeline(measured: Measurement, found: Timeline, console: Console) -> None:
    """Print where one commit's latency goes."""
    drawn = Table(
        title="One connection: where a commit's latency goes",
        caption=f"medians of {found.commits} of {found.seen} traced commits; "
        f"fdatasync of any node: {found.sync:.0f} us",
    )
    drawn.add_column("step")
    drawn.add_column("us", justify="right")
    for name, us in zip(STEPS, found.steps, strict=True):
        drawn.add_row(name, f"{us:.0f}")
    drawn.add_section()
    drawn.add_row("all of it", f"{found.total:.0f}")
    console.print(drawn)
    console.print(f"p50 while tracing: {measured.latency.p50_ms:.2f} ms", highlight=False)
