"""Everything lost but the archive: how long a database takes to come back, by its size.

The cluster archives to a directory; all nodes are killed and their directories deleted; then what
docs/archive.md tells an operator: `raftdb restore --replace`, and the nodes are started.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from bench import command
from bench.errors import BenchError
from bench.lab import TABLE, Lab, Say, lab
from raftdb.drill.cluster import DrillCluster
from raftdb.drill.cluster import command as raftdb
from raftdb.runtime.clock import RealClock

ARCHIVED_S = 900.0
COMMIT_S = 120.0
SENT_SHARE = 0.1
"""Of the database, sent through the log as values; the rest is made by statements."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How much."""

    megabytes: int = 1_000


QUICK = Settings(megabytes=8)


def run(place: Path, settings: Settings, say: Say) -> dict[str, Any]:
    """Fill, archive, lose, restore. Raises BenchError when the content differs."""
    clock = RealClock()
    archive = (place / "archive").as_uri()
    with lab(place, settings=(f"archive.destinations={archive}",)) as one:
        one.create()
        one.fill(settings.megabytes, sent_megabytes=settings.megabytes * SENT_SHARE)
        say(f"{settings.megabytes} MB: filled")
        with one.cluster.connect(timeout=60.0) as connection:
            connection.execute(f"INSERT INTO {TABLE} (k, v) VALUES ('last', x'00')")
            connection.await_durable(durability="archive", timeout=ARCHIVED_S)
        before = _content(one.cluster)
        size, peak_mb = one.database_bytes(), one.look()
        say("archived; now everything is lost")
        one.kill()
        one.cluster.delete()
    begin_s = clock.monotonic_s()
    restored = place / "restored"
    done = raftdb("restore", "--from", archive, "--to", restored, "--local", "3", "--replace")
    restore_s = clock.monotonic_s() - begin_s
    cluster = DrillCluster(restored, clock)
    again = Lab(cluster, place)
    try:
        cluster.start()
        with cluster.connect(timeout=COMMIT_S) as connection:
            connection.execute(f"INSERT INTO {TABLE} (k, v) VALUES ('first', x'00')")
        rto_s = clock.monotonic_s() - begin_s
        say(f"a write is committed after {rto_s:.1f} s")
        with cluster.connect(timeout=COMMIT_S) as connection:
            connection.execute(f"DELETE FROM {TABLE} WHERE k = 'first'")
        after = _content(cluster)
        cluster.wait_for("every node", cluster.whole, COMMIT_S)
        full_s = clock.monotonic_s() - begin_s
        peak_mb = max(peak_mb, again.look())
    finally:
        cluster.kill()
    if before != after or not done["proven"]:
        raise BenchError(f"restored content {after}, before the loss it was {before}")
    return {
        "database_bytes": size,
        "restore_s": round(restore_s, 2),
        "rto_s": round(rto_s, 2),
        "full_s": round(full_s, 2),
        "equal": before == after,
        "rss_mb": round(peak_mb, 1),
    }


def _content(cluster: DrillCluster) -> str:
    with cluster.connect_to(cluster.wait_for_leader(), timeout=60.0) as connection:
        return str(connection.content_hash(timeout=60.0)["total"])


@click.command("total-loss")
@click.option("--megabytes", default=1_000, type=click.IntRange(1), show_default=True)
@command.outputs("total-loss")
def total_loss(megabytes: int, **outputs: Any) -> None:
    """All nodes and disks are gone: seconds per GB until a write is committed again.

    \b
      python -m bench total-loss
    """
    settings = QUICK if outputs["quick"] else Settings(megabytes)
    command.measure(
        "total-loss",
        command.as_settings(settings),
        lambda place, say: run(place, settings, say),
        **outputs,
    )
