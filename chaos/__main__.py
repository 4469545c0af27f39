"""Real nodes behind toxiproxy, faults by seed, judged like the simulation.

python -m chaos --minutes 10 --seed 7          rounds of a mix of workloads under drawn faults
python -m chaos --seed 7 --faults kill,split   one round, of these faults
python -m chaos --workload bank --nodes 5      one round, of this workload
python -m chaos --mixed --minutes 5            nodes of this release and of the one before
python -m chaos matrix --slice 12              a slice of workload x fault x {3, 5} nodes
python -m chaos failover --kills 200 --svg docs/failover.svg
python -m chaos looks                          status, check, … while a part is cut off
python -m chaos list                           faults and workloads

Exit code 0: every promise was kept; 4: one was broken; 2: usage, or something is missing.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.errors import BenchError
from chaos import failover, looks, matrix, report
from chaos.faults import ALL, FAULTS, OtherRelease
from chaos.run import Plan, Round, run_rounds
from raftdb.base.errors import ConfigError
from raftdb.drill.previous import Release, find_previous, present
from raftdb.runtime.clock import RealClock
from tests.workloads import WORKLOADS, Record, write_history

ROUND_S = 20.0
SLICE = 10
BROKEN, USAGE = 4, 2


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = argparse.ArgumentParser(
        prog="python -m chaos", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    main.add_argument("--seed", default="1", help="decides workloads, faults and their times")
    main.add_argument(
        "--minutes", type=float, default=0.0, help="go on with rounds for so long (0: one round)"
    )
    main.add_argument("--round", type=float, default=ROUND_S, help="seconds of faults in a round")
    main.add_argument("--nodes", type=int, choices=(3, 5), default=3)
    main.add_argument("--workload", choices=[kind.name for kind in WORKLOADS])
    main.add_argument("--faults", help="separated by commas; default: four of all, by the seed")
    main.add_argument(
        "--mixed",
        action="store_true",
        help="a cluster of two releases, this one and the one before:\nother-release is among the"
        " faults",
    )
    main.add_argument("--previous", type=Path, help="sources of the other release, with --mixed")
    _outputs(main)
    commands = main.add_subparsers(dest="command", metavar="")
    grid = commands.add_parser("matrix", help="a slice of workload x fault x nodes")
    grid.add_argument("--slice", type=int, default=0, help="which; count it up to see all")
    grid.add_argument("--size", type=int, default=SLICE, help="cells in a slice")
    grid.add_argument("--seed", default="1")
    grid.add_argument("--round", type=float, default=matrix.CELL_S, help="seconds in each cell")
    _outputs(grid)
    failover.add_arguments(commands.add_parser("failover", help=failover.__doc__))
    looks.add_arguments(commands.add_parser("looks", help=looks.__doc__))
    commands.add_parser("list", help="faults and workloads")
    return main


def _outputs(one: argparse.ArgumentParser) -> None:
    one.add_argument("--history", type=Path, help="write all operations there, one JSON line each")
    one.add_argument("--dir", type=Path, help="work there, and leave everything behind")
    one.add_argument("--json", action="store_true", help="print one JSON document")


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        if options.command == "failover":
            return failover.run(options)
        if options.command == "looks":
            return looks.run(options)
        if options.command == "list":
            return _list()
        return _matrix(options) if options.command == "matrix" else _rounds(options)
    except (BenchError, ConfigError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE


def _list() -> int:
    for name, kind in ALL.items():
        print(f"{name:<16} {(kind.__doc__ or '').splitlines()[0]}")
    print("workloads:", ", ".join(kind.name for kind in WORKLOADS))
    return 0


def _faults_of(options: argparse.Namespace, seed: str) -> tuple[str, ...]:
    more = (OtherRelease.name,) if options.mixed else ()
    if options.faults is None:
        return (*sorted(random.Random(f"{seed} kinds").sample(sorted(FAULTS), 4)), *more)
    chosen = tuple(name.strip() for name in options.faults.split(",") if name.strip())
    for name in chosen:
        if name not in ALL:
            raise ConfigError(f"there is no fault {name!r}", hint="there are " + ", ".join(ALL))
    if OtherRelease.name in chosen and not options.mixed:
        raise ConfigError(f"{OtherRelease.name} needs two releases", hint="add --mixed")
    return chosen


def _previous(options: argparse.Namespace) -> Release | None:
    if not options.mixed:
        return None
    found = find_previous(options.previous)
    if found.sources is None:
        raise ConfigError(
            f"{found.origin} is an installation: the clocks of its nodes cannot be moved",
            hint="name a tree of sources",
        )
    return found


def _rounds(options: argparse.Namespace) -> int:
    clock = RealClock()
    end_s = clock.monotonic_s() + 60 * options.minutes
    count = max(1, int(60 * options.minutes / (options.round + 4)))
    plans = []
    for number in range(count):
        seed = options.seed if number == 0 else f"{options.seed}.{number}"
        faults = _faults_of(options, seed)
        plans.append(Plan(seed, options.workload, faults, options.round, options.mixed))
    previous = _previous(options)
    if previous is not None:
        _say(options)(f"a cluster of {previous} and of {present()}")
    late = (lambda: clock.monotonic_s() > end_s) if options.minutes else (lambda: False)
    rounds, missing = run_rounds(
        plans,
        options.nodes,
        _say(options),
        directory=options.dir,
        late=late,
        previous=previous,
    )
    return _finish(options, rounds, missing)


def _matrix(options: argparse.Namespace) -> int:
    chosen = matrix.slice_of(options.slice, options.size)
    rounds: list[Round] = []
    missing: list[str] = []
    for nodes, plans in matrix.plans_of(chosen, options.seed, options.round).items():
        directory = None if options.dir is None else options.dir / f"{nodes}-nodes"
        found = run_rounds(plans, nodes, _say(options), directory=directory)
        rounds += found[0]
        missing += [text for text in found[1] if text not in missing]
    return _finish(options, rounds, missing)


def _say(options: argparse.Namespace) -> Callable[[str], None]:
    target = sys.stderr if options.json else sys.stdout
    return lambda text: print(text, file=target, flush=True)


def _finish(options: argparse.Namespace, rounds: list[Round], missing: list[str]) -> int:
    if options.history is not None:
        write_history(history_of(rounds), options.history)
    if options.json:
        print(json.dumps(report.as_dict(rounds, missing), indent=2))
    else:
        report.show(rounds, missing)
    return BROKEN if any(one.broken for one in rounds) else 0


def history_of(rounds: list[Round]) -> Iterator[Record]:
    """All operations, each with the number of its round, from 1."""
    for number, one in enumerate(rounds, 1):
        for record in one.history:
            record.round = number
            yield record


if __name__ == "__main__":
    sys.exit(main())
