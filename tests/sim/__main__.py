"""A whole cluster in one process and in virtual time, seed by seed, and what broke.

python -m tests.sim --seeds 0:200              these seeds, on both cores
python -m tests.sim --minutes 10               fresh seeds for ten minutes
python -m tests.sim --minutes 10 --first 70000 the same, from that one on
python -m tests.sim --minutes 5 --report-only  what breaks is told, with exit code 0 (for CI)
python -m tests.sim soak                       fresh seeds until Ctrl-C; remembers what fails
python -m tests.sim --seed 17 --trace          one seed, its story as text
python -m tests.sim --seed 17 --shrink         which faults matter
python -m tests.sim --seed 17 --without 0,3,4  the same seed without these faults
python -m tests.sim --seed 17 --history h.json one JSON line per client operation
python -m tests.sim scripts                    every script, on the code as it is
python -m tests.sim scripts --only copy        those with `copy` in their names
python -m tests.sim planted                    find every planted bug, and tell how
python -m tests.sim planted --only fsync       those with `fsync` in their names
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from tests.sim import report
from tests.sim.many import Fresh, run_fresh, run_seeds
from tests.sim.planted.hunt import play_all
from tests.sim.planted.hunt import report as hunt_all
from tests.sim.run import Simulation
from tests.sim.settings import ROUND_TRIPS_S
from tests.sim.shrink import shrink
from tests.sim.words import plain
from tests.workloads import write_history

SEEDS_ENOUGH = 100
"""A run of so many plays all scripts first."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(
        prog="python -m tests.sim",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument(
        "what", nargs="?", choices=("run", "soak", "scripts", "planted"), default="run"
    )
    found.add_argument("--seeds", default="", help="FIRST:LAST, the last one excluded")
    found.add_argument("--minutes", type=float, help="fresh seeds for so long")
    found.add_argument("--first", type=int, help="fresh seeds: from this one on (default: drawn)")
    found.add_argument(
        "--report-only", action="store_true", help="fresh seeds: what breaks is told, exit code 0"
    )
    found.add_argument(
        "--stories", type=Path, help="fresh seeds: a directory for the stories of what broke"
    )
    found.add_argument("--seed", type=int, help="one seed")
    found.add_argument("--trace", action="store_true", help="with --seed: print the story")
    found.add_argument("--shrink", action="store_true", help="with --seed: drop idle faults")
    found.add_argument("--without", default="", help="with --seed: numbers of faults to leave out")
    found.add_argument("--history", type=Path, help="with --seed: write the clients' history")
    found.add_argument("--only", default="", help="with planted, scripts: a part of the names")
    found.add_argument("--nodes", type=int, choices=(3, 4, 5, 7), help="drawn otherwise")
    found.add_argument("--profile", choices=tuple(ROUND_TRIPS_S), help="drawn otherwise")
    found.add_argument("--jobs", type=int, default=2, help="processes (default 2)")
    found.add_argument("--keep-going", action="store_true", help="do not stop at a failure")
    found.add_argument(
        "--every", type=float, default=60.0, help="fresh seeds: seconds between lines (default 60)"
    )
    found.add_argument(
        "--failures",
        type=Path,
        default=Path("sim-failures.txt"),
        help="where soak keeps the seeds that failed (default sim-failures.txt)",
    )
    return found


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 when nothing broke, 1 when something did, 2 for a wrong command line."""
    options = parser().parse_args(arguments)
    choice = {"nodes": options.nodes, "profile": options.profile}
    if options.seed is not None:
        return _one(options, choice)
    if options.what == "planted":
        return hunt_all(options.jobs, options.only)
    if options.what == "scripts":
        return play_all(options.jobs, options.only)
    if options.what == "soak":
        for number in (signal.SIGINT, signal.SIGTERM):
            # Both end it in order; a shell's background job would be deaf to the first.
            signal.signal(number, signal.default_int_handler)
        return run_fresh(_fresh(options, None, options.failures), choice, options.jobs)
    if options.minutes is not None:
        return run_fresh(_fresh(options, options.minutes * 60, None), choice, options.jobs)
    first, _, last = (options.seeds or "0:50").partition(":")
    seeds = range(int(first), int(last or int(first) + 1))
    broken = 0
    if len(seeds) >= SEEDS_ENOUGH and not any(choice.values()):
        # What seeds reach seldom.
        broken = play_all(options.jobs)
    return run_seeds(seeds, choice, options.jobs, keep_going=options.keep_going) or broken


def _fresh(options: argparse.Namespace, seconds: float | None, failures: Path | None) -> Fresh:
    return Fresh(
        seconds, options.first, options.every, failures, options.stories, options.report_only
    )


def _one(options: argparse.Namespace, choice: dict[str, object]) -> int:
    without = tuple(int(number) for number in options.without.split(",") if number)
    if options.shrink:
        return shrink(options.seed, choice)
    simulation = Simulation(options.seed, without=without, **choice)  # type: ignore[arg-type]
    if options.trace:
        simulation.world.trace = _tell
    result = simulation.run()
    if options.history:
        write_history(simulation.history.records, options.history)
    report.table([result], result.cpu_s)
    if result.broken:
        report.explain(result, choice, without, told=options.trace)
    return 1 if result.broken else 0


def _tell(line: str) -> None:
    print(plain(line))


if __name__ == "__main__":
    sys.exit(main())
