"""`python -m tests.powerloss`: crash states of recorded workloads, opened by the recovery code.

python -m tests.powerloss                          5,000 states, as CI does
python -m tests.powerloss --states 50000 --seed 7
python -m tests.powerloss --only rolls/1:254:1 --keep /tmp/state
python -m tests.powerloss planted                  planted bugs, and which states find them
python -m tests.powerloss faults                   system calls that fail under a real node
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.powerloss.explore import Result
from tests.powerloss.script import SHAPES
from tests.powerloss.work import CLUSTER, Task, run_named, run_task

STATES = 5_000
STATES_PER_TASK = 350
AGAIN_SHARE = 0.2
"""On top of them: crash states of recoveries."""
AGAIN_SHAPES = ("restarts", "rolls", "conflicts", "mixed")


def tasks(states: int, seed: int, keep: str) -> list[Task]:
    """All shapes, with as many seeds as the number of states asks for."""
    seeds = max(1, round(states / STATES_PER_TASK / len(SHAPES)))
    each = -(-states // (seeds * len(SHAPES)))
    found = [Task(shape, seed + n, each, False, keep) for n in range(seeds) for shape in SHAPES]
    found.append(Task(CLUSTER, seed, each, False, keep))
    each = int(states * AGAIN_SHARE / len(AGAIN_SHAPES)) + 1
    found += [Task(shape, seed, each, True, keep) for shape in AGAIN_SHAPES]
    return found


def run(states: int, seed: int, jobs: int, keep: str) -> Iterator[Result]:
    """Results as they come."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        yield from pool.map(run_task, tasks(states, seed, keep))


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 when no state broke a promise."""
    options = _parser().parse_args(arguments)
    if options.what == "planted":
        return _planted(options.json)
    if options.what == "faults":
        return _faults(options.only, options.json)
    keep = options.keep or tempfile.mkdtemp(prefix="raftdb-powerloss-")
    started_s = time.perf_counter()
    results: list[Result] = []
    if options.only:
        results.append(run_named(options.only, Path(keep)))
        if not options.json:
            _line(results[0])
    else:
        for result in run(options.states, options.seed, options.jobs, keep):
            results.append(result)
            if not options.json:
                _line(result)
    failures = [failure for result in results for failure in result.failures]
    if not failures and not options.keep:
        os.rmdir(keep)
    _report(results, time.perf_counter() - started_s, options.json, keep)
    return 1 if failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.powerloss",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", nargs="?", choices=("run", "planted", "faults"), default="run")
    parser.add_argument("--states", type=int, default=STATES, help="distinct states to open")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--only", default="", metavar="NAME", help="one state or fault")
    parser.add_argument("--keep", default="", metavar="DIR", help="where failing states are kept")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    return parser


def _line(result: Result) -> None:
    print(
        f"{result.name:>16}  {result.opened:5} opened of {result.distinct} distinct"
        f" ({result.built} built, {result.events} events), {result.cut} torn tails cut,"
        f" {result.replayed} replayed, {len(result.failures)} broken",
        flush=True,
    )


def _report(results: list[Result], wall_s: float, as_json: bool, keep: str) -> None:
    failures = [failure for result in results for failure in result.failures]
    totals: dict[str, Any] = {
        name: sum(getattr(result, name) for result in results)
        for name in ("opened", "distinct", "built", "cut", "replayed", "unfounded")
    }
    if as_json:
        document = {
            **totals,
            "wall_s": round(wall_s, 1),
            "failures": [asdict(failure) for failure in failures],
            "kept": keep if failures else None,
        }
        print(json.dumps(document, indent=2))
        return
    for failure in failures:
        print(f"\n{failure.name}: {failure.text}\n{failure.detail}")
        print(f"reproduce: python -m tests.powerloss --only {failure.name}")
    print(f"\n{totals['opened']} crash states in {wall_s:.1f} s, {len(failures)} broken")
    if failures:
        print(f"the files of broken states are kept in {keep}")


def _planted(as_json: bool) -> int:
    from tests.powerloss.planted import PLANTED, find

    rows = []
    for bug in PLANTED:
        started_s = time.perf_counter()
        result, opened = find(bug)
        row = {
            "bug": bug.name,
            "what": bug.what,
            "states": opened,
            "wall_s": round(time.perf_counter() - started_s, 1),
            "found_by": result.failures[0].name if result else None,
            "text": result.failures[0].text if result else None,
        }
        rows.append(row)
        if not as_json:
            print(f"{bug.name:>24}  {opened:5} states  {row['found_by'] or 'NOT FOUND'}")
            print(f"{'':>24}  {str(row['text'])[:120]}", flush=True)
    if as_json:
        print(json.dumps(rows, indent=2))
    return 0 if all(row["found_by"] for row in rows) else 1


def _faults(only: str, as_json: bool) -> int:
    from tests.powerloss import strace
    from tests.powerloss.faults import FAULTS, meet

    if not strace.available():
        print(strace.WITHOUT, file=sys.stderr)
        return 2
    rows = []
    for fault in [FAULTS[only]] if only else FAULTS.values():
        with tempfile.TemporaryDirectory(prefix="raftdb-fault-") as home:
            seen = meet(fault, Path(home))
        row = {"fault": fault.name, "acknowledged": len(seen.acked), "problems": seen.problems()}
        rows.append(row)
        if not as_json:
            print(f"{fault.name:>24}  {len(seen.acked):4} rows acknowledged before", flush=True)
            for problem in seen.problems():
                print(f"{'':>24}  {problem}", flush=True)
    if as_json:
        print(json.dumps(rows, indent=2))
    return 1 if any(row["problems"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
