"""SIGKILL the leader again and again, under load, and count every acknowledged write.

python -m tests.e2e.leader_kills --kills 100
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
from pathlib import Path

from raftdb.demo.check import broken_promises, check_nodes
from raftdb.demo.ledger import Ledger
from raftdb.demo.workload import DEADLINE_S, SCHEMA, LoadClient
from raftdb.runtime import RealClock
from tests.e2e.cluster import Cluster, running_cluster

CLIENTS = 6
TEXT = (
    "CREATE VIRTUAL TABLE airports_text USING fts5 (name)",
    "INSERT INTO airports_text VALUES ('international regional field island lake')",
)


def kill_leaders(
    cluster: Cluster, kills: int, *, orderly: bool = False, show: bool = False
) -> tuple[list[str], list[float]]:
    """Broken promises, and for each kill the seconds without a commit."""
    clock = RealClock()
    ledger = Ledger(CLIENTS)
    with cluster.connect() as connection:
        for statement in (*SCHEMA, *TEXT):
            connection.execute(statement)
    stop = threading.Event()
    clients = [
        LoadClient(record, ledger, lambda: cluster.connect(timeout=DEADLINE_S), ["MAD"], stop)
        for record in ledger.records
    ]
    for client in clients:
        client.start()
    silences_s = []
    try:
        for number in range(1, kills + 1):
            leader = cluster.wait_for_leader()
            stop.wait(0.3)
            moment_s = clock.monotonic_s()
            if orderly:
                assert cluster.stop(leader) == {leader: 0}
            else:
                cluster.kill(leader)
            cluster.wait_for_leader()
            stop.wait(0.3)
            silences_s.append(ledger.longest_silence_s(moment_s - 0.2, clock.monotonic_s()))
            cluster.start(leader)
            index = cluster.status(cluster.wait_for_leader())["commit_index"]
            cluster.wait_for_index(index)
            if show:
                totals = ledger.totals()
                print(
                    f"kill {number}: {leader}, {silences_s[-1] * 1000:.0f} ms without a commit,"
                    f" {totals.acknowledged} rows, {totals.failed} failed requests",
                    flush=True,
                )
    finally:
        stop.set()
        for client in clients:
            client.join(15.0)
    verdicts = check_nodes(ledger, cluster.node_ids, cluster.connect_to)
    return broken_promises(ledger, verdicts), silences_s


def main() -> int:
    """Exit code 0 when every promise was kept."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.e2e.leader_kills",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--orderly", action="store_true", help="SIGTERM instead of SIGKILL")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="raftdb-kills-") as home,
        running_cluster(Path(home) / "cluster") as cluster,
    ):
        broken, silences_s = kill_leaders(
            cluster, options.kills, orderly=options.orderly, show=True
        )
    ordered = sorted(silences_s)
    print(
        f"{len(ordered)} kills: without a commit for {statistics.median(ordered) * 1000:.0f} ms"
        f" (median), {ordered[-1] * 1000:.0f} ms at most"
    )
    for promise in broken:
        print(f"BROKEN: {promise}")
    return 4 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
