"""Which faults of a failing seed matter: delta debugging over the schedule.

Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input" (2002): halves first,
then smaller pieces. A run counts as failing when the same invariant breaks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.sim import report
from tests.sim.run import Result, Simulation

RUNS_MAX = 200


def shrink(
    seed: int, choice: Mapping[str, Any], simulate: Callable[..., Simulation] = Simulation
) -> int:
    """Print what remains, its last events, and the command that runs just that; 1 when the seed
    fails at all. `simulate` makes each run anew: with a planted bug, or with other checkers."""
    simulation = simulate(seed, **choice)
    events = simulation.nemesis.events
    first = simulation.run()
    if not first.broken:
        print(f"seed {seed} breaks nothing")
        return 0
    print(f"seed {seed}: {first.broken}")
    print(f"{len(events)} faults, shrinking", flush=True)
    every = [event.number for event in events]
    last = first
    runs = 0

    def fails(kept: Sequence[int]) -> bool:
        nonlocal last, runs
        runs += 1
        left = set(kept)
        without = [number for number in every if number not in left]
        result = simulate(seed, without=without, **choice).run()
        if result.invariant != first.invariant:
            return False
        last = result
        print(f"  {runs} runs: {len(kept)} faults are enough", flush=True)
        return True

    kept = _minimal(every, fails, lambda: runs < RUNS_MAX)
    without = tuple(number for number in every if number not in set(kept))
    _print(last, [event for event in events if event.number in set(kept)], runs)
    report.explain(last, choice, without)
    return 1


def _minimal(
    every: list[int], fails: Callable[[Sequence[int]], bool], may_go_on: Callable[[], bool]
) -> list[int]:
    """The faults without any one of which it fails no more (unless the runs are used up)."""
    kept, pieces = list(every), 2
    if not kept or fails([]):
        return []
    while len(kept) > 1 and may_go_on():
        size = max(1, len(kept) // pieces)
        for start in range(0, len(kept), size):
            rest = kept[:start] + kept[start + size :]
            if not may_go_on():
                break
            if fails(rest):
                kept, pieces = rest, max(pieces - 1, 2)
                break
        else:
            if size == 1:
                break
            pieces = min(pieces * 2, len(kept))
    return kept


def _print(result: Result, events: Sequence[Any], runs: int) -> None:
    print(f"{len(events)} faults remain after {runs} runs: {result.broken}")
    for event in events:
        print(f"  {event.number:>3} at {event.at_s:8.3f} s  {event.kind}")
