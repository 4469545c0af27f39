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
    near = [one["over_ms"] for one in results["distances"] if not one["round_trip_ms"]]
    for one in results["distances"]:
        far = one["round_trip_ms"]
        without = f", against {near[0]:.1f} without a distance" if far and near else ""
        if far and "without_line_ms" in one:
            idle_ms = one["without_line_ms"]
            without = f"; a commit without a distance, after as long a pause: {idle_ms:.1f}"
        found.append(
            Row(
                f"commit at a round trip of {far} ms to the nearest majority, p50",
                "" if not far else "round trip + ≤ 3 ms",
                f"{one['p50_ms']:.1f} ms: {one['over_ms']:.1f} more than {one['proxied_ms']:.1f}"
                f" through the proxy alone{without} ({one['commits']} commits)",
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


RESUME_MS = {
    "kill": (600, 1_000),
    "hand-over": (None, 300),
}
"""p50 and p99 of the time without a commit; of partitions p95 is judged."""
PARTITION_MS = 1_200
"""Two election time-outs (timing.election_max_ms)."""
FAR_MS = 2_500
CHANGES_PER_MINUTE = 3.0
WAYS = {
    "kill": "kill -9 of the leader",
    "hand-over": "planned hand-over",
    "stop": "SIGSTOP of the leader",
    "black-hole": "the leader in a black hole",
    "unheard": "the leader is not heard",
    "deaf": "the leader does not hear",
    "flapping": "the leader's paths flap",
}


def _failover(results: Results) -> list[Row]:
    far = int(results["settings"]["round_trip_ms"])
    where = f", {far} ms round trip" if far else ""
    found = []
    for one in results["ways"]:
        name = one["how"]
        said = f"p50 {one['p50_ms']:,}, p95 {one['p95_ms']:,}, p99 {one['p99_ms']:,} ms"
        said += f", longest {one['max_ms']:,} ms; {one['times']} times"
        if far:
            goal, met = (f"p99 ≤ {FAR_MS:,} ms", one["p99_ms"] <= FAR_MS)
            if name != "kill":
                goal, met = "", None
        elif name in RESUME_MS:
            p50_ms, p99_ms = RESUME_MS[name]
            goal = (
                f"p99 ≤ {p99_ms:,} ms" if p50_ms is None else f"p50 ≤ {p50_ms}, p99 ≤ {p99_ms:,} ms"
            )
            met = one["p99_ms"] <= p99_ms and (p50_ms is None or one["p50_ms"] <= p50_ms)
        else:
            goal, met = f"p95 ≤ {PARTITION_MS:,} ms", one["p95_ms"] <= PARTITION_MS
        found.append(Row(f"{WAYS[name]}{where}: time without a commit", goal, said, met))
        if one["held_s"]:
            changes = 60 * one["held_leader_changes"] / one["held_s"]
            found.append(
                Row(
                    f"{WAYS[name]} for {one['held_s']:.0f} s: leader changes a minute",
                    "≤ 3",
                    f"{changes:.1f}; longest time without a commit {one['held_silence_ms']:,} ms",
                    changes <= CHANGES_PER_MINUTE,
                )
            )
    counts = (
        f"{results['requests']:,} writes and {results['reads']:,} linearizable reads:"
        f" {results['failed']} failed, {results['stale_reads']} stale,"
        f" {len(results['broken'])} broken promises"
    )
    what = "failed requests, stale reads, lost or repeated writes in all of these"
    met = not (results["failed"] or results["stale_reads"] or results["broken"])
    return [*found, Row(f"{what}{where}", "0", counts, met), rss(results, "its leader is lost")]


def _regions(results: Results) -> list[Row]:
    found = []
    for one in results["drills"]:
        limit_s = one["rto_limit_s"]
        writes, seconds = one["rpo_writes_max"], one["rpo_max_s"]
        allowed_s = one["rpo_limit_s"]
        found.append(
            Row(
                f"{one['scenario']}, {one['drills']} drills: acknowledged writes missing (RPO)",
                "0" if allowed_s is None else f"≤ {allowed_s:g} s",
                f"{writes} at most" + (f", of the last {seconds:.2f} s" if writes else ""),
                (writes == 0) if allowed_s is None else seconds <= allowed_s,
            )
        )
        found.append(
            Row(
                f"{one['scenario']}: until a write is committed (RTO)",
                f"p99 ≤ {limit_s:g} s",
                f"p50 {one['rto_p50_s']:.2f}, p99 {one['rto_p99_s']:.2f},"
                f" longest {one['rto_max_s']:.2f} s",
                one["rto_p99_s"] <= limit_s and one["broken"] == 0,
            )
        )
    return found


def _total_loss(results: Results) -> list[Row]:
    size = amount(round(results["database_bytes"] / 1e6))
    each_s = results["rto_s"] * 1e9 / results["database_bytes"]
    return [
        Row(
            f"everything lost but the archive, {size}: until a write is committed (RTO)",
            "≤ 60 s per GB",
            f"{results['rto_s']:.1f} s: {each_s:.1f} s per GB"
            f" (restore {results['restore_s']:.1f} s)",
            each_s <= 60.0 and results["equal"],
        ),
        rss(results, f"{size} archived and restored"),
    ]


def _archive(results: Results) -> list[Row]:
    points, whole = results["points"], results["whole"]
    return [
        Row(
            f"random moments of {points['moments']:,}, each restored anew, whose content hash is"
            " the one recorded live",
            "all",
            f"{points['equal']} of {points['restored']}",
            points["equal"] == points["restored"],
        ),
        Row(
            f"restore of one copy of {amount(round(whole['database_bytes'] / 1e6))}",
            "",
            f"{whole['seconds']:.1f} s: {whole['seconds_per_gb']:.1f} s per GB;"
            f" {whole['requests_replayed']:,} requests replayed in {whole['replay_s']:.1f} s",
            None,
        ),
    ]


def _archive_cost(results: Results) -> list[Row]:
    return [
        Row(
            "CPU of all nodes for a commit that is archived too, against without",
            "≤ 5 % more",
            f"{results['more_median']:+.1%}"
            f" ({span(results['without_us'])} and {span(results['with_us'])} us)",
            results["more_median"] <= 0.05,
        ),
        Row(
            "commits/s with an archive, one client that pipelines 50",
            "≤ 5 % fewer",
            f"{-results['fewer_commits_median']:+.1%}",
            results["fewer_commits_median"] <= 0.05,
        ),
        Row(
            "p99 of a batch of 50 with an archive",
            "≤ 5 % more",
            f"{results['p99_with_ms'] / results['p99_without_ms'] - 1:+.1%}"
            f" ({results['p99_without_ms']:.1f} and {results['p99_with_ms']:.1f} ms)",
            results["p99_with_ms"] <= 1.05 * results["p99_without_ms"],
        ),
    ]


def _archive_faults(results: Results) -> list[Row]:
    found = []
    for one in results["objects"]:
        found.append(
            Row(
                f"an object is {one['fault']}",
                "found and named, 100 %",
                f"{one['found']} of {one['tried']}, {one['kinds']} kinds of objects",
                one["found"] == one["tried"],
            )
        )
    for one in results["stores"]:
        found.append(
            Row(
                f"the store: {one['fault']}",
                "alarm in ≤ 60 s, then drains by itself",
                f"alarm after {one['alarm_s']:.0f} s; drained, restores to the same content",
                one["alarm_s"] <= 60.0,
            )
        )
    found.append(
        Row(
            "two uploaders at once",
            "one whole chain",
            "whole" if results["two_uploaders"] else "broken",
            bool(results["two_uploaders"]),
        )
    )
    return found


def _flights(results: Results) -> list[Row]:
    found = []
    for name, what in (("loaded", "by `raftdb load`"), ("one_by_one", "a request for each row")):
        one = results[name]
        found.append(
            Row(
                f"bytes of archive for each byte of log, {one['rows']:,} flights, {what}",
                "≤ 0.5" if name == "loaded" else "",
                f"{one['ratio']:.2f}: segments {one['segments'] / 1e6:.1f}, manifests"
                f" {one['manifests'] / 1e6:.2f}, log {one['log'] / 1e6:.1f} MB",
                one["ratio"] <= 0.5 if name == "loaded" else None,
            )
        )
    return [*found, rss(results, "the flights loaded and archived")]


JUDGES: dict[str, Callable[[Results], list[Row]]] = {
    "size": _size,
    "copying": _copying,
    "rejoin": _rejoin,
    "connections": _connections,
    "wan": _wan,
    "failover": _failover,
    "drills": _regions,
    "total-loss": _total_loss,
    "archive": _archive,
    "archive-cost": _archive_cost,
    "archive-faults": _archive_faults,
    "flights": _flights,
}
"""By benchmark, in the order of the document."""


TITLES = {
    "size": "what a larger database costs",
    "copying": "writes while the database is copied to a new member",
    "rejoin": "nodes that come back",
    "connections": "what more connections cost",
    "wan": "commits across long lines",
    "failover": "when the leader is lost",
    "drills": "recovery drills",
    "total-loss": "everything lost but the archive",
    "archive": "restores to any moment",
    "archive-cost": "what archiving costs",
    "archive-faults": "faults of an archive",
    "flights": "size of the archive",
}
COMMANDS = {name: f"python -m bench {name}" for name in TITLES} | {
    "failover": "python -m chaos failover",
}


def variant(results: Results) -> str:
    """Results of one benchmark that stand beside each other differ in this."""
    settings = results["settings"]
    match results["benchmark"]:
        case "size":
            return str(settings["nodes"])
        case "failover":
            ways = ",".join(one["how"] for one in results["ways"])
            return f"{settings['round_trip_ms']:06} {ways}"
        case "drills":
            return ",".join(one["scenario"] for one in results["drills"])
    return ""


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
