"""`python -m tests.sim.engine`: run seeds, print a table, fail with the seed and what broke.

python -m tests.sim.engine --seeds 0:200
python -m tests.sim.engine --seeds 17:18 --trace
python -m tests.sim.engine members --seeds 0:50
python -m tests.sim.engine planted
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.sim.engine.members import run_members_seed
from tests.sim.engine.run import Result, run_seed


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 when nothing broke."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.engine", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("run", "members", "planted"), default="run")
    parser.add_argument("--seeds", default="0:50", help="FIRST:LAST, the last one excluded")
    parser.add_argument("--nodes", type=int, default=None, help="3, 4, 5 or 7; drawn otherwise")
    parser.add_argument("--trace", action="store_true", help="print the story of the run")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first")
    options = parser.parse_args(arguments)
    first, last = (int(part) for part in options.seeds.split(":"))
    if options.what == "planted":
        from tests.sim.engine.planted import report

        return report(range(first, last))
    started_s = time.perf_counter()
    results: list[Result] = []
    for seed in range(first, last):
        if options.what == "members":
            result = run_members_seed(seed, nodes=options.nodes, trace=options.trace)
        else:
            result = run_seed(seed, nodes=options.nodes, trace=options.trace)
        results.append(result)
        if result.broken:
            _explain(result, options.what, options.nodes, trace=options.trace)
            if not options.keep_going:
                break
    _table(results, time.perf_counter() - started_s)
    return 1 if any(result.broken for result in results) else 0


def _explain(result: Result, what: str, nodes: int | None, *, trace: bool) -> None:
    print(f"seed {result.seed}: BROKEN {result.broken}")
    if not trace:
        for line in result.notes[-15:]:
            print("   ", line)
    extra = f" --nodes {nodes}" if nodes else ""
    print(
        f"reproduce: python -m tests.sim.engine {what} --seeds {result.seed}:{result.seed + 1}"
        f"{extra} --trace"
    )


def _table(results: list[Result], wall_s: float) -> None:
    simulated_s = sum(result.simulated_s for result in results)
    settled = sorted(result.settled_s for result in results) or [0.0]
    faults: dict[str, int] = {}
    for result in results:
        for name, count in result.faults.items():
            faults[name] = faults.get(name, 0) + count
    rows = [
        ("seeds", len(results)),
        ("broken", sum(1 for result in results if result.broken)),
        ("simulated", f"{simulated_s / 3600:.2f} h in {wall_s:.1f} s"),
        ("seeds/s", f"{len(results) / wall_s:.2f}"),
        ("events/s", f"{sum(result.events for result in results) / wall_s:.0f}"),
        ("writes", sum(result.writes for result in results)),
        ("reads", sum(result.reads for result in results)),
        ("retries", sum(result.retries for result in results)),
        ("terms per seed", f"{sum(r.terms for r in results) / max(len(results), 1):.1f}"),
        ("settled", f"median {settled[len(settled) // 2]:g} s, max {settled[-1]:g} s"),
        ("faults", " ".join(f"{name}:{count}" for name, count in sorted(faults.items()))),
        ("digest", results[-1].digest if results else ""),
    ]
    for name, value in rows:
        print(f"{name:>16}  {value}")


if __name__ == "__main__":
    sys.exit(main())
