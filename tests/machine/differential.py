"""python -m tests.machine.differential --minutes N

Replicas with different lives, other examples each time, for as long as you like: statements,
batches, restarts, kills, copies and small caches are drawn anew; content hashes, replies and the
hash recomputed from the rows must be equal. Prints the smallest example that fails.
"""

from __future__ import annotations

import time

import click
from hypothesis import HealthCheck, Phase, settings

from tests.machine.test_lives import LIVES, live

ROUND = 25


@click.command(help=__doc__)
@click.option("--minutes", type=float, default=10.0, show_default=True)
def main(minutes: float) -> None:
    end_s = time.monotonic() + 60 * minutes
    rounds = 0
    search = settings(
        max_examples=ROUND,
        deadline=None,
        database=None,
        derandomize=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    while time.monotonic() < end_s:
        search(LIVES(live))()
        rounds += 1
        click.echo(f"{rounds * ROUND} examples, all lives equal")


if __name__ == "__main__":
    main()
