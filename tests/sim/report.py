"""What a person reads of runs: the table at the end, and a failure in plain words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.sim.run import Result
from tests.sim.words import plain

LAST_NOTES = 30
TOLD_MAX = 3
"""So many failures are told in full at the end of many runs; the others with their command."""


def command(result: Result, choice: Mapping[str, object], without: Sequence[int] = ()) -> str:
    """What reproduces a run."""
    more = "".join(f" --{name} {value}" for name, value in choice.items() if value is not None)
    if without:
        more += f" --without {','.join(str(number) for number in without)}"
    return f"python -m tests.sim --seed {result.seed}{more} --trace"


def explain(
    result: Result,
    choice: Mapping[str, object],
    without: Sequence[int] = (),
    *,
    told: bool = False,
) -> None:
    """One failure: last events, seed, invariant, and how to see it again."""
    where = f"{result.nodes} nodes, {result.profile}, {result.simulated_s:.1f} simulated seconds"
    if not told and result.notes:
        print(f"last events of seed {result.seed} ({where}):")
        for line in result.notes[-LAST_NOTES:]:
            print("   ", plain(line))
    if result.traceback:
        print(result.traceback.rstrip())
    print(f"seed {result.seed} ({where}): BROKEN {result.broken}")
    print(f"reproduce: {command(result, choice, without)}", flush=True)


def story_file(result: Result, directory: Path) -> Path:
    """Where `write_story` puts it."""
    return directory / f"seed-{result.seed}.txt"


def write_story(result: Result, choice: Mapping[str, object], directory: Path) -> None:
    """A failure's whole story, as far as it was kept, what broke, and how to see it again."""
    lines = [plain(line) for line in result.notes]
    if result.traceback:
        lines.append(result.traceback.rstrip())
    lines += [f"BROKEN {result.broken}", f"reproduce: {command(result, choice)}"]
    story_file(result, directory).write_text("\n".join(lines) + "\n", encoding="utf-8")


def only_reported(
    broken: Sequence[Result], choice: Mapping[str, object], directory: Path | None
) -> None:
    """The last words where fresh seeds broke and that is to fail nothing: loud all the same."""
    rule = "!" * 88
    print(rule)
    print(f"!! {len(broken)} FRESH SEEDS BROKE. This fails nothing here; somebody has to look:")
    for result in broken:
        print(f"!!   seed {result.seed}: {result.broken.splitlines()[0]}")
        print(f"!!     {command(result, choice)}")
        if directory is not None:
            print(f"!!     its story: {story_file(result, directory)}")
    print(rule, flush=True)


def failures(results: Sequence[Result], choice: Mapping[str, object]) -> int:
    """The end of many runs: what broke, the first ones in full. 1 when something did."""
    broken = [result for result in results if result.broken]
    for result in broken[TOLD_MAX:]:
        print(f"seed {result.seed}: BROKEN {result.broken}: {command(result, choice)}")
    for result in broken[:TOLD_MAX]:
        explain(result, choice)
    return 1 if broken else 0


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def undecided(results: Sequence[Result]) -> str:
    """Histories for which no order was found and none was excluded: the search has a bound."""
    open_ = [f"seed {one.seed} ({', '.join(one.undecided)})" for one in results if one.undecided]
    shown = f": {'; '.join(open_[:TOLD_MAX])}" if open_ else ""
    return f"{len(open_)} histories came to the bound of the search for an order{shown}"


def table(results: Sequence[Result], wall_s: float) -> None:
    """Sums and rates of many runs."""
    wall_s = max(wall_s, 1e-9)
    simulated_s = sum(result.simulated_s for result in results)
    cpu_s = sum(result.cpu_s for result in results)
    events = sum(result.events for result in results)
    good = [result for result in results if not result.broken]
    recovered = [result.recovered for result in good]
    settled = [result.settled_s for result in good]
    faults: Counter[str] = Counter()
    changes: Counter[str] = Counter()
    for result in results:
        faults.update(result.faults)
        changes.update(result.changes)
    rows = [
        ("seeds", f"{len(results)}, {len(results) - len(good)} broken"),
        ("simulated", f"{simulated_s / 3600:.2f} cluster-hours in {wall_s:.1f} s"),
        ("speed", f"{len(results) / wall_s:.2f} seeds/s, {simulated_s / wall_s:.0f} x real time"),
        ("events/s", f"{events / wall_s:.0f} ({events / max(cpu_s, 1e-9):.0f} per CPU second)"),
        ("operations", sum(result.operations for result in results)),
        ("acknowledged", sum(result.acknowledged for result in results)),
        ("unknown", sum(result.unknown for result in results)),
        ("terms", sum(result.terms for result in results)),
        (
            "writes again",
            f"median {percentile(recovered, 0.5):.2f}, p99 {percentile(recovered, 0.99):.2f}, "
            f"max {max(recovered, default=0):.2f} election timeouts after healing",
        ),
        ("undecided", undecided(results)),
        ("settled", f"median {percentile(settled, 0.5):.1f} s, max {max(settled, default=0):.1f}"),
        ("members", " ".join(f"{name}:{count}" for name, count in sorted(changes.items()))),
        ("faults", " ".join(f"{name}:{count}" for name, count in sorted(faults.items()))),
    ]
    if len(results) == 1:
        rows.append(("digest", results[0].digest))
    for name, value in rows:
        print(f"{name:>13}  {value}", flush=True)
