"""One HTML page, complete in itself: tables, and each drill's timeline as a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from raftdb.drill.result import BUCKET_S, Result

WIDTH, LEFT, PLOT, GAP = 960, 56, 110, 34
LABELS_MAX = 40
LABEL = 15.0
"""Room for a number."""
_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #68707a; --line: #d6dae0;
  --commit: #2f7d5b; --late: #b4632a; --lost: #c9372c22; --good: #2f7d5b; --bad: #c9372c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #98a1ac; --line: #3a4048;
  --commit: #5fb78d; --late: #e0965f; --lost: #e0685f33; --good: #5fb78d; --bad: #e0685f; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); max-width: 1000px;
  margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { text-align: right; padding: .25rem .8rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
.met { color: var(--good); } .missed, .broken { color: var(--bad); font-weight: 600; }
svg { width: 100%; height: auto; } svg text { font: 11px system-ui, sans-serif; fill: var(--soft); }
li { margin: .1rem 0; }
""".strip()


def render(results: Sequence[Result], title: str = "Recovery drills") -> str:
    """The page."""
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"/><title>{escape(title)}</title>',
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        _summary(results),
        *(_section(result) for result in results),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _summary(results: Sequence[Result]) -> str:
    head = ("drill", "verdict", "RPO", "objective", "RTO", "objective", "whole again", "objective")
    rows = []
    for one in results:
        objective = one.objective
        loss = "0" if one.rpo_writes == 0 else "-"
        if one.rpo_writes:
            loss = f"{one.rpo_writes} writes, {one.rpo_s or 0:.2f} s"
        allowed = _bound(objective.rpo_writes, " writes") or _bound(objective.rpo_s, " s")
        cells = (
            escape(one.scenario),
            f'<span class="{one.verdict}">{one.verdict}</span>',
            loss,
            allowed,
            _seconds(one.rto_s),
            _bound(objective.rto_s, " s"),
            _seconds(one.full_s),
            _bound(objective.full_s, " s"),
        )
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    heads = "".join(f"<th>{name}</th>" for name in head)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _section(result: Result) -> str:
    lines = [
        f"<h2>{escape(result.scenario)}: "
        f'<span class="{result.verdict}">{result.verdict}</span></h2>',
        f"<p>{escape(result.started)}, {result.nodes} nodes, {result.acknowledged:,} acknowledged"
        f" rows, {result.failed_tries} failed tries, longest time without a commit"
        f" {result.silence_s:.2f} s.</p>",
    ]
    not_run = [result.not_run] if result.not_run else []
    for text in (*not_run, *result.missed, *result.broken):
        lines.append(f'<p class="missed">{escape(text)}</p>')
    if result.timeline:
        lines.append(picture(result))
    items = "".join(
        f"<li>{number}. {phase.at_s:.2f} s: {escape(phase.name)}</li>"
        for number, phase in enumerate(result.phases, 1)
    )
    lines.append(f'<ul style="list-style: none; padding: 0">{items}</ul>')
    checks = "".join(
        f'<li class="{"met" if one.ok else "broken"}">{"✓" if one.ok else "✗"} '
        f"{escape(one.name)}{': ' + escape(one.found) if one.found else ''}</li>"
        for one in result.checks
    )
    lines.append(f'<ul style="list-style: none; padding: 0">{checks}</ul>')
    return "\n".join(lines)


def picture(result: Result) -> str:
    """Commits per second and the slowest write of each tenth of a second, phases marked."""
    buckets = result.timeline
    span_s = max(len(buckets) * BUCKET_S, BUCKET_S)
    width = WIDTH - LEFT - 8
    height = 2 * PLOT + 2 * GAP
    commits_max = max(1, *(one.commits for one in buckets))
    late_max = max(1.0, *(one.latency_max_ms for one in buckets))

    def x(at_s: float) -> float:
        return round(LEFT + width * min(at_s, span_s) / span_s, 1)

    step = width * BUCKET_S / span_s
    shapes = [_loss(result, x)]
    for top, label, highest in (
        (GAP, "commits/s", f"{commits_max / BUCKET_S:,.0f}"),
        (2 * GAP + PLOT, "slowest, ms", f"{late_max:,.0f}"),
    ):
        bottom = top + PLOT
        shapes.append(
            f'<line x1="{LEFT}" y1="{bottom}" x2="{WIDTH - 8}" y2="{bottom}" '
            'stroke="var(--line)"/>'
            f'<text x="{LEFT - 6}" y="{top + 10}" text-anchor="end">{highest}</text>'
            f'<text x="{LEFT - 6}" y="{bottom}" text-anchor="end">0</text>'
            f'<text x="{LEFT + 4}" y="{top - 4}">{label}</text>'
        )
    for one in buckets:
        for top, share, color in (
            (GAP, one.commits / commits_max, "commit"),
            (2 * GAP + PLOT, one.latency_max_ms / late_max, "late"),
        ):
            if share:
                tall = round(PLOT * share, 1)
                shapes.append(
                    f'<rect x="{x(one.at_s)}" y="{top + PLOT - tall}" width="{max(step, 0.6):.1f}" '
                    f'height="{tall}" fill="var(--{color})"/>'
                )
    moments = [x(phase.at_s) for phase in result.phases[:LABELS_MAX]]
    for number, (at, label_at) in enumerate(zip(moments, _apart(moments), strict=True), 1):
        shapes.append(
            f'<line x1="{at}" y1="{GAP}" x2="{at}" y2="{height}" '
            'stroke="var(--soft)" stroke-dasharray="3 3"/>'
            f'<text x="{label_at}" y="12" text-anchor="middle">{number}</text>'
        )
    shapes.append(
        f'<text x="{WIDTH - 8}" y="{height + 14}" text-anchor="end">{span_s:.1f} s</text>'
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {height + 20}" role="img" '
        f'aria-label="timeline of {escape(result.scenario)}">' + "".join(shapes) + "</svg>"
    )


def _apart(moments: list[float]) -> list[float]:
    """Where labels stand that none covers another, none leaves the picture, and each is near its
    moment; moments do not run backwards."""
    places: list[float] = []
    for at in moments:
        places.append(max(at, places[-1] + LABEL) if places else at)
    right = WIDTH - LABEL / 2
    for number in range(len(places) - 1, -1, -1):
        places[number] = round(min(places[number], right), 1)
        right = places[number] - LABEL
    return places


def _loss(result: Result, x: Callable[[float], float]) -> str:
    """The time from the disaster to the first committed write, shaded."""
    if result.rto_s is None or result.disaster_at_s is None:
        return ""
    first, last = x(result.disaster_at_s), x(result.disaster_at_s + result.rto_s)
    return (
        f'<rect x="{first}" y="{GAP}" width="{max(last - first, 1):.1f}" '
        f'height="{2 * PLOT + GAP}" fill="var(--lost)"/>'
    )


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def _bound(value: float | None, unit: str) -> str:
    return "" if value is None else f"≤ {value:g}{unit}"
