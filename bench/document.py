"""docs/figures.md, from the results that are recorded: `python -m bench figures`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from bench import rows
from bench.command import RESULTS
from bench.rows import Results, Row

PATH = Path(__file__).resolve().parents[1] / "docs" / "figures.md"
INTRO = """# Figures

<!-- Written by `python -m bench figures` from bench/results: don't edit. -->

What raftdb is meant to achieve when nodes fail, come back, grow and move, and what was measured on
real processes, everything durable, with mutual TLS. [benchmarks.md](benchmarks.md) compares raftdb
with its peers, and says how loads, rounds and CPU per commit are measured. Each command has
`--quick`, which shows in seconds that it works, and `--help`; without it, results are recorded in
`bench/results` (`make test` fails if this page does not fit them):

```text
{commands}
python -m bench figures         # writes this page anew
```

Several values are given as median (range). CPU does not depend much on what else a machine does;
latencies and recovery times do, which is why each section names its machine's load.
"""
HEAD = "| what | goal | measured | |\n|---|---|---|---|"


def recorded(directory: Path = RESULTS) -> list[Results]:
    """The newest results of each kind, in the document's order. Quick looks don't count."""
    newest: dict[tuple[int, str], Results] = {}
    order = list(rows.JUDGES)
    for path in sorted(directory.glob("*.json")):
        results: Results = json.loads(path.read_text())
        if results["benchmark"] not in rows.JUDGES or results.get("quick"):
            continue
        results["file"] = path.name
        key = (order.index(results["benchmark"]), rows.variant(results))
        if key not in newest or newest[key]["date"] < results["date"]:
            newest[key] = results
    return [newest[key] for key in sorted(newest)]


def cells(row: Row) -> str:
    """One line of a table."""
    word = f"**{row.word}**" if row.met is False else row.word
    return f"| {row.what} | {row.goal} | {row.measured} | {word} |"


def source(results: Results) -> str:
    """Where a section's figures are from."""
    machine = results["machine"]
    changed = " with changes" if results["changed"] else ""
    return (
        f"{results['date'][:10]}, commit {results['commit'][:10]}{changed},"
        f" {machine['cores']} cores ({machine['cpu']}),"
        f" load average before it {machine['load_average'][0]:.1f}:"
        f" `bench/results/{results['file']}`"
    )


def document(found: Sequence[Results]) -> str:
    """The whole page."""
    commands = "\n".join(f"{rows.COMMANDS[name]:<31} # {rows.TITLES[name]}" for name in rows.JUDGES)
    parts = [INTRO.format(commands=commands)]
    for name in rows.JUDGES:
        parts.append(f"## {rows.TITLES[name][0].upper()}{rows.TITLES[name][1:]}\n")
        own = [results for results in found if results["benchmark"] == name]
        if not own:
            parts.append("Not recorded yet.\n")
            continue
        lines = [cells(row) for results in own for row in rows.rows(results)]
        parts.append("\n".join([HEAD, *lines]) + "\n")
        parts.append("\n\n".join(source(results) for results in own) + "\n")
    return "\n".join(parts)


@click.command("figures")
@click.option(
    "--check", is_flag=True, help="Write nothing; exit code 1 if the page is not up to date."
)
def figures(check: bool) -> None:
    """Write docs/figures.md from the recorded results."""
    text = document(recorded())
    if check:
        raise SystemExit(0 if PATH.read_text("utf-8") == text else 1)
    PATH.write_text(text, "utf-8")
    click.echo(f"{PATH} is written")
