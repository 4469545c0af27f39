"""Finds every planted bug: by ordinary seeds, or by its script, which must pass without it."""

from __future__ import annotations

import functools
import multiprocessing
import time
from collections.abc import Iterable
from dataclasses import dataclass

from tests.sim.planted.bug import Bug
from tests.sim.planted.catalogue import BUGS, ELSEWHERE
from tests.sim.planted.scenarios import PLAYS
from tests.sim.planted.script import Script
from tests.sim.run import NO_BUG, Result, run_seed
from tests.sim.run import Bug as RunBug
from tests.sim.settings import draw_settings

SEEDS_MAX = 24
"""Short runs of near clusters: about half a second of processor time each."""
ROUNDS = 4
"""So often, of other seeds, until it is found."""
REST_MAX = 150
"""And so many of the longer runs among the same seeds."""
SWARM_MIN = 26
"""So many must fall to ordinary seeds."""


@dataclass
class Found:
    """How a bug was found; `invariant` is empty when it was not."""

    bug: str
    by: str
    """`seeds`, or the script's name."""
    runs: int = 0
    seed: int = -1
    simulated_s: float = 0.0
    cpu_s: float = 0.0
    invariant: str = ""
    what: str = ""


def hunt(bug: Bug, seeds: Iterable[int] | None = None) -> Found:
    """Look for one bug. A scripted one is looked for in its script alone."""
    started_s = time.process_time()
    found = Found(bug.name, bug.scenario or "seeds")
    planted = RunBug(bug.name, bug.wall, bug.planted)
    if bug.scenario:
        for number in range(tries(bug.scenario)):
            if _take(found, play(bug.scenario, planted, number)):
                break
        if found.invariant:
            broken = without(bug.scenario, found.runs - 1)
            if broken:
                found.invariant, found.what = "", f"fails without the bug too: {broken}"
    else:
        if seeds is None:
            seeds = ordinary_seeds(changes=bug.changes)
        for seed in seeds:
            if _take(found, run_seed(seed, bug=planted)):
                break
    found.cpu_s = time.process_time() - started_s
    return found


def ordinary_seeds(*, changes: bool = False) -> list[int]:
    """Of the first ones those whose runs are short, then the others: nothing else tells them apart.
    `changes`: of those in which members come and go."""
    count = 4 * SEEDS_MAX * (4 if changes else 1)
    found: list[int] = []
    rest: list[int] = []
    for first in range(0, ROUNDS * count, count):
        near = [seed for seed in range(first, first + count) if draw_settings(seed).scale == 1]
        if changes:
            near = [seed for seed in near if draw_settings(seed).changes_members]
        near.sort(key=lambda seed: draw_settings(seed).work)
        found += sorted(near[:SEEDS_MAX])
        rest += near[SEEDS_MAX:]
    return found + sorted(rest)[:REST_MAX]


@functools.cache
def without(name: str, number: int = 0) -> str:
    """What a script breaks without any bug: nothing, if it is a good one."""
    return play(name, number=number).broken


def tries(name: str) -> int:
    """How many seeds a script may need: more than one where it waits for a moment that is drawn."""
    count: int = PLAYS[name][1].get("tries", 1)
    return count


def play(name: str, bug: RunBug = NO_BUG, number: int = 0) -> Result:
    """One script, by the first of its seeds or a later one."""
    scene, options = PLAYS[name]
    chosen = {key: value for key, value in options.items() if key != "tries"}
    if number:
        chosen["seed"] = chosen.get("seed", 1) + number
    return Script(scene, bug=bug, **chosen).run()


def play_all(jobs: int = 2, only: str = "") -> int:
    """Every script (or those with `only` in their names) on the code as it is; 1 when one broke."""
    names = [name for name in PLAYS if only in name]
    started_s, broken = time.perf_counter(), 0
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for name, result in zip(names, pool.imap(play, names, chunksize=1), strict=True):
            if result.broken:
                broken += 1
                print(f"script {name}: BROKEN {result.broken}")
                print(f"reproduce: python -m tests.sim scripts --only {name}", flush=True)
    took_s = time.perf_counter() - started_s
    print(f"      scripts  {len(names)}, {broken} broken, in {took_s:.1f} s", flush=True)
    return 1 if broken else 0


def _take(found: Found, result: Result) -> bool:
    found.runs += 1
    found.simulated_s += result.simulated_s
    if result.broken:
        found.seed, found.invariant, found.what = result.seed, result.invariant, result.broken
    return bool(result.broken)


def _by_name(name: str) -> Found:
    return hunt(next(bug for bug in BUGS if bug.name == name))


def report(jobs: int = 2, only: str = "") -> int:
    """Hunt all (or those with `only` in their names); print the table; 1 when one was missed."""
    names = [bug.name for bug in BUGS if only in bug.name]
    rules = {bug.name: bug.rule for bug in BUGS}
    print(f"{'bug':34} {'rule':22} {'by':22} {'runs':>4} {'sim. s':>7} {'cpu s':>6}  checker")
    started_s = time.perf_counter()
    found = []
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for one in pool.imap(_by_name, names, chunksize=1):
            found.append(one)
            by = one.by
            if by == "seeds" and one.invariant:
                by = f"seed {one.seed}"
            print(
                f"{one.bug:34} {rules[one.bug][:22]:22} {by:22} {one.runs:>4} "
                f"{one.simulated_s:>7.0f} {one.cpu_s:>6.1f}  {one.invariant or 'NOT FOUND'}"
                + (f" ({one.what})" if one.what and not one.invariant else ""),
                flush=True,
            )
    print("\nshown elsewhere:")
    for rule, why in ELSEWHERE.items():
        print(f"  {rule}: {why}")
    missed = [one.bug for one in found if not one.invariant]
    swarm = sum(one.by == "seeds" and bool(one.invariant) for one in found)
    took_s = time.perf_counter() - started_s
    print(
        f"\n{len(found) - len(missed)} of {len(found)} found, {swarm} of them by ordinary seeds, "
        f"in {took_s:.0f} s{'; missed: ' + ', '.join(missed) if missed else ''}"
    )
    return 1 if missed or (not only and swarm < SWARM_MIN) else 0
