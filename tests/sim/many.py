"""Many seeds on several cores: each process takes the next seed, results come as they end."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.sim import report
from tests.sim.run import Result, run_seed

SPAN = 1 << 40
"""Fresh seeds come from a place of their own each time."""
TELL_EVERY_S = 60.0


def _work(task: tuple[int, Mapping[str, Any]]) -> Result:
    seed, choice = task
    result = run_seed(seed, **choice)
    if not result.broken:
        result.notes = []
    return result


def results(seeds: Iterable[int], choice: Mapping[str, Any], jobs: int) -> Iterator[Result]:
    """Run seeds; results in any order."""
    tasks = ((seed, choice) for seed in seeds)
    if jobs <= 1:
        yield from map(_work, tasks)
        return
    # A fresh interpreter per process, replaced after some seeds: nothing is inherited.
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs, maxtasksperchild=200) as pool:
        yield from pool.imap_unordered(_work, _bounded(tasks), chunksize=1)


def _bounded(tasks: Iterator[Any]) -> Iterator[Any]:
    """imap takes all it can get: without end only for those who stop it."""
    yield from tasks


def run_seeds(seeds: range, choice: Mapping[str, Any], jobs: int, *, keep_going: bool) -> int:
    """These seeds; 1 when one of them broke."""
    started_s, found = time.perf_counter(), []
    for result in results(seeds, choice, min(jobs, len(seeds))):
        found.append(result)
        if result.broken:
            report.explain(result, choice)
            if not keep_going:
                break
    report.table(found, time.perf_counter() - started_s)
    return 1 if any(result.broken for result in found) else 0


def run_fresh(
    seconds: float | None, choice: Mapping[str, Any], jobs: int, failures: Path | None
) -> int:
    """Seeds that nobody has run before, for so long (None: until Ctrl-C); 1 when one broke."""
    first = int.from_bytes(os.urandom(5), "big") % SPAN
    print(f"fresh seeds from {first} on", flush=True)
    started_s = time.perf_counter()
    found: list[Result] = []
    told_s = started_s

    def seeds() -> Iterator[int]:
        for seed in itertools.count(first):
            if seconds is not None and time.perf_counter() - started_s >= seconds:
                return
            yield seed

    try:
        for result in _steady(seeds(), choice, jobs):
            found.append(result)
            if result.broken:
                report.explain(result, choice)
                if failures is not None:
                    with failures.open("a", encoding="utf-8") as file:
                        file.write(f"{report.command(result, choice)}  # {result.broken}\n")
            if time.perf_counter() - told_s > TELL_EVERY_S:
                told_s = time.perf_counter()
                broken = sum(bool(one.broken) for one in found)
                print(
                    f"{told_s - started_s:.0f} s: {len(found)} seeds, {broken} broken", flush=True
                )
    except KeyboardInterrupt:
        print("stopped")
    report.table(found, time.perf_counter() - started_s)
    return 1 if any(result.broken for result in found) else 0


def _steady(seeds: Iterator[int], choice: Mapping[str, Any], jobs: int) -> Iterator[Result]:
    """As `results`, for seeds without end: a few at a time are handed out."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs, maxtasksperchild=200) as pool:
        waiting = [
            pool.apply_async(_work, ((seed, choice),)) for seed in itertools.islice(seeds, 2 * jobs)
        ]
        while waiting:
            yield waiting.pop(0).get()
            for seed in itertools.islice(seeds, 1):
                waiting.append(pool.apply_async(_work, ((seed, choice),)))
