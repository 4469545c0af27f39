"""The summary: a table for people, a dict for programs."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from raftdb.demo.check import NodeVerdict
from raftdb.demo.ledger import Ledger


@dataclass(slots=True)
class Kill:
    """One SIGKILL of a leader."""

    node_id: str
    silence_s: float
    """The longest span without any acknowledged write around it."""
    successor: str


@dataclass(slots=True)
class Outcome:
    """All that the demo found."""

    nodes: int = 0
    clients: int = 0
    rows_loaded: int = 0
    load_s: float = 0.0
    loaded_s: float = 0.0
    kills: list[Kill] = field(default_factory=list)
    verdicts: list[NodeVerdict] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


def as_dict(outcome: Outcome, ledger: Ledger) -> dict[str, Any]:
    """For --json."""
    totals = ledger.totals()
    latencies_s = sorted(x for record in ledger.records for x in record.latencies_s)
    return {
        "verdict": "broken" if outcome.broken else "kept",
        "broken_promises": outcome.broken,
        "nodes": outcome.nodes,
        "clients": outcome.clients,
        "rows_loaded": outcome.rows_loaded,
        "load_s": round(outcome.load_s, 2),
        "requests": len(latencies_s),
        "rows_acknowledged": totals.acknowledged,
        "reads": totals.reads,
        "failed_requests": totals.failed,
        "stale_reads": totals.stale_reads,
        "commits_per_s": round(totals.requests / outcome.loaded_s, 1) if outcome.loaded_s else 0,
        "request_p50_ms": round(_quantile(latencies_s, 0.5) * 1000, 2),
        "request_p99_ms": round(_quantile(latencies_s, 0.99) * 1000, 2),
        "longest_pause_ms": round(totals.longest_s * 1000, 1),
        "kills": [
            {
                "node": kill.node_id,
                "without_commits_ms": round(kill.silence_s * 1000, 1),
                "successor": kill.successor,
            }
            for kill in outcome.kills
        ],
        "copies": [
            {
                "node": verdict.node_id,
                "rows": verdict.rows,
                "missing": len(verdict.missing),
                "repeated": len(verdict.repeated),
                "applied_index": verdict.applied_index,
                "content_hash": verdict.content_hash,
                "problem": verdict.problem,
            }
            for verdict in outcome.verdicts
        ],
    }


def show(console: Console, found: dict[str, Any]) -> None:
    """The table and the verdict."""
    table = Table(title="What the clients felt", title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("value", justify="right")
    for label, value in (
        ("nodes, locations, processes", str(found["nodes"])),
        ("airports loaded", f"{found['rows_loaded']:,} rows in {found['load_s']:.1f} s"),
        ("clients", str(found["clients"])),
        ("requests", f"{found['requests']:,}"),
        ("of these, writes per second", f"{found['commits_per_s']:,}"),
        ("request p50, p99", f"{found['request_p50_ms']} ms, {found['request_p99_ms']} ms"),
        ("leaders killed (SIGKILL)", str(len(found["kills"]))),
        ("longest pause any client felt", f"{found['longest_pause_ms']:,.0f} ms"),
        ("failed requests", str(found["failed_requests"])),
        ("stale reads", str(found["stale_reads"])),
    ):
        table.add_row(label, value)
    console.print(table)
    copies = Table(title="What each node holds", title_justify="left")
    for title in ("node", "rows", "lost", "applied twice", "log index", "content hash"):
        copies.add_column(title, justify="left" if title == "node" else "right")
    for copy in found["copies"]:
        copies.add_row(
            copy["node"],
            f"{copy['rows']:,}",
            str(copy["missing"]),
            str(copy["repeated"]),
            f"{copy['applied_index']:,}",
            copy["content_hash"][:16] or copy["problem"],
        )
    console.print(copies)
    if found["broken_promises"]:
        for promise in found["broken_promises"]:
            console.print(f"[bold red]BROKEN[/]: {promise}", highlight=False)
    else:
        console.print(
            f"[bold green]KEPT[/]: all {found['rows_acknowledged']:,} acknowledged rows are on"
            f" all {found['nodes']} nodes exactly once, and the content hashes are equal.",
            highlight=False,
        )


def _quantile(ordered: list[float], share: float) -> float:
    if not ordered:
        return 0.0
    if len(ordered) == 1:
        return ordered[0]
    return statistics.quantiles(ordered, n=1000, method="inclusive")[round(share * 1000) - 1]
