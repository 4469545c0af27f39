"""Many seeds on several cores: each process takes the next seed, results come as they end."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import queue
import signal
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from tests.sim import report
from tests.sim.checkers import Broken
from tests.sim.run import Result, run_seed

SPAN = 1 << 40
"""Fresh seeds come from a place of their own each time."""
ENDLESS_CPU_S = 300.0
"""No run takes so much of a processor; how long that takes says nothing on a busy machine."""
AGAIN_CPU_S = 5.0
ENDLESS_S = 3600.0
"""Without any result for so long, a process has died."""
GRACE_S = 20.0
"""When the time is over, what is under way has so long to come to its end."""

TWICE_EVERY = 40
"""One of so many seeds is run twice: it has to be the same run."""


def _work(task: tuple[int, Mapping[str, Any]]) -> Result:
    seed, choice = task
    spent: list[Broken] = []

    def on_spent(_number: int, frame: FrameType | None) -> None:
        spent.append(_endless_at(frame))
        raise spent[-1]

    before = signal.signal(signal.SIGVTALRM, on_spent)
    # Again and again: where nothing can be raised to (a finalizer), the first would be lost.
    signal.setitimer(signal.ITIMER_VIRTUAL, ENDLESS_CPU_S, AGAIN_CPU_S)
    try:
        result = _run(seed, choice)
        if spent and not result.broken:
            # Told where nothing is heard, and it ended before it was told again.
            result.broken, result.invariant = str(spent[0]), spent[0].invariant
        return result
    except Broken as broken:
        # Spent where no run catches it: while the cluster was founded, or between two runs.
        return Result(seed, "", broken=str(broken), invariant=broken.invariant)
    except Exception as error:
        if spent:
            # Raised in SQLite's call of a file, it is what the node says of that which comes here.
            return Result(seed, "", broken=str(spent[0]), invariant=spent[0].invariant)
        # Of the simulation itself: told with its seed, and the other seeds go on.
        told = f"{type(error).__name__}: {error}"
        return Result(
            seed,
            "",
            broken=told,
            invariant=type(error).__name__,
            traceback=traceback.format_exc(),
        )
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        signal.signal(signal.SIGVTALRM, before)


def _endless_at(frame: FrameType | None) -> Broken:
    where = "".join(traceback.format_stack(frame, limit=8))
    return Broken("endless", f"no end within {ENDLESS_CPU_S:g} s of processor time, at\n{where}")


def _run(seed: int, choice: Mapping[str, Any]) -> Result:
    result = run_seed(seed, **choice)
    if seed % TWICE_EVERY == 0 and not result.broken:
        again = run_seed(seed, **choice)
        if again.digest != result.digest:
            result.broken = f"one seed is one run: {result.digest} and then {again.digest}"
            result.invariant = "one seed is one run"
    return result


def results(
    seeds: Iterable[int],
    choice: Mapping[str, Any],
    jobs: int,
    end_s: float | None = None,
    left: list[int] | None = None,
) -> Iterator[Result]:
    """Run seeds; results in the order in which they end. Only as many seeds are taken as keep the
    processes busy. A run that does not end, or whose process died, is told as broken, and ends
    all. At `end_s` (of `perf_counter`) what is under way is given up; which goes into `left`."""
    seeds = iter(seeds)
    done: queue.SimpleQueue[Result | BaseException] = queue.SimpleQueue()
    under_way: set[int] = set()
    # A fresh interpreter per process, replaced after some seeds: nothing is inherited.
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs, _begin_process, maxtasksperchild=200) as pool:

        def hand_out(count: int) -> None:
            for seed in itertools.islice(seeds, count):
                under_way.add(seed)
                pool.apply_async(
                    _work, ((seed, choice),), callback=done.put, error_callback=done.put
                )

        hand_out(2 * jobs)
        while under_way:
            rest_s = ENDLESS_S if end_s is None else max(end_s - time.perf_counter(), 0.0)
            try:
                result = done.get(timeout=min(rest_s, ENDLESS_S))
            except queue.Empty:
                if rest_s < ENDLESS_S:
                    if left is not None:
                        left.extend(sorted(under_way))
                else:
                    yield from map(_endless, sorted(under_way))
                return
            if isinstance(result, BaseException):
                raise result
            under_way.discard(result.seed)
            hand_out(1)
            yield result


def _begin_process() -> None:
    """Ctrl-C goes to every process of the terminal; the first one ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A tenth of a run's time goes into looking for garbage of which there is little.
    gc.set_threshold(50_000, 20, 100)


def _endless(seed: int) -> Result:
    what = f"no result within {ENDLESS_S:g} s: it does not end, or its process died"
    return Result(seed, "", broken=what, invariant="endless")


def run_seeds(seeds: range, choice: Mapping[str, Any], jobs: int, *, keep_going: bool) -> int:
    """These seeds; 1 when one of them broke."""
    started_s, found = time.perf_counter(), []
    runs = results(seeds, choice, jobs) if jobs > 1 else (_work((seed, choice)) for seed in seeds)
    for result in runs:
        found.append(result)
        if result.broken and not keep_going:
            break
    report.table(found, time.perf_counter() - started_s)
    return report.failures(found, choice)


@dataclass(frozen=True)
class Fresh:
    """How seeds are run that nobody has run before."""

    seconds: float | None = None
    """For so long; None: until Ctrl-C or SIGTERM."""
    first: int | None = None
    """From this one on; None: from a place that is drawn."""
    tell_every_s: float = 60.0
    failures: Path | None = None
    """The commands of those that broke go to the end of this file, at once."""
    stories: Path | None = None
    """And their stories to this directory, a file each."""
    report_only: bool = False
    """What breaks is told, and is no failure of the command: it is to be looked at, and says
    nothing of the change that was made last."""


def run_fresh(how: Fresh, choice: Mapping[str, Any], jobs: int) -> int:
    """Fresh seeds; 1 when one broke and that counts. Ends at most GRACE_S after its time."""
    first = how.first
    if first is None:
        first = int.from_bytes(os.urandom(5), "big") % SPAN
    print(f"fresh seeds from {first} on", flush=True)
    started_s = told_s = time.perf_counter()
    found: list[Result] = []
    left: list[int] = []
    end_s = None if how.seconds is None else started_s + how.seconds

    def seeds() -> Iterator[int]:
        for seed in itertools.count(first):
            if end_s is not None and time.perf_counter() >= end_s:
                return
            yield seed

    last_s = None if end_s is None else end_s + GRACE_S
    try:
        for result in results(seeds(), choice, jobs, last_s, left):
            found.append(result)
            if result.broken:
                report.explain(result, choice)
                _remember(result, choice, how)
            if time.perf_counter() - told_s >= how.tell_every_s:
                told_s = time.perf_counter()
                broken = sum(bool(one.broken) for one in found)
                open_ = sum(bool(one.undecided) for one in found)
                print(
                    f"{told_s - started_s:.0f} s: {len(found)} seeds, {broken} broken"
                    + (f", {open_} undecided" if open_ else ""),
                    flush=True,
                )
    except KeyboardInterrupt:
        print("stopped")
    report.table(found, time.perf_counter() - started_s)
    if left:
        print(f"given up when the time was over: seeds {' '.join(map(str, left))}")
    broke = report.failures(found, choice)
    if broke and how.report_only:
        report.only_reported([one for one in found if one.broken], choice, how.stories)
        return 0
    return broke


def _remember(result: Result, choice: Mapping[str, Any], how: Fresh) -> None:
    if how.failures is not None:
        with how.failures.open("a", encoding="utf-8") as file:
            file.write(f"{report.command(result, choice)}  # {result.broken}\n")
    if how.stories is not None:
        how.stories.mkdir(parents=True, exist_ok=True)
        report.write_story(result, choice, how.stories)
