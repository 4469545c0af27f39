"""The check at the end of a drill: what was acknowledged and what every node holds."""

from __future__ import annotations

from collections.abc import Sequence

from raftdb.drill.cluster import DrillCluster
from raftdb.drill.load import TABLE, Write
from raftdb.drill.result import Result

CONVERGE_S = 30.0
ALL_ROWS = f"SELECT client, n, count(*) FROM {TABLE} GROUP BY client, n"
SHOWN = 3


Held = dict[tuple[int, int], int]
"""How often each row is there."""


def check_cluster(result: Result, cluster: DrillCluster, written: Sequence[Write]) -> Held:
    """Every node holds the same rows, and none twice; returns them."""
    index = max(int(one["commit_index"]) for one in cluster.statuses().values())
    hashes: dict[str, str] = {}
    held: Held = {}
    for name in cluster.node_ids:
        with cluster.connect_to(name, timeout=CONVERGE_S) as connection:
            content = connection.content_hash(index=index, timeout=CONVERGE_S)
            hashes[name] = str(content["total"])
            rows = connection.execute(ALL_ROWS).fetchall()
        held = {(client, n): count for client, n, count in rows}
        check_once(result, held, name)
    same = len(set(hashes.values())) == 1
    result.check("all nodes hold the same content", same, "" if same else str(hashes))
    known = {write.key for write in written}
    invented = sorted(key for key in held if key not in known)
    found = f"{invented[:SHOWN]}" if invented else ""
    result.check("nothing is there that nobody wrote", not invented, found)
    return held


def check_once(result: Result, held: Held, where: str) -> None:
    """No write was applied twice."""
    twice = sorted(key for key, count in held.items() if count > 1)
    found = f"{len(twice)} rows on {where}, such as {twice[:SHOWN]}" if twice else ""
    result.check(f"no write is there twice on {where}", not twice, found)


def missing(held: Held, acknowledged: Sequence[Write]) -> list[Write]:
    """Acknowledged writes that are not there, the oldest first."""
    lost = [write for write in acknowledged if write.key not in held]
    return sorted(lost, key=lambda write: write.acknowledged_s or 0.0)


def measure_loss(result: Result, lost: Sequence[Write], disaster_s: float) -> None:
    """The recovery point: how many, and how long before the disaster the first was acknowledged."""
    result.rpo_writes = len(lost)
    first = min((write.acknowledged_s or 0.0 for write in lost), default=disaster_s)
    result.rpo_s = max(0.0, disaster_s - first)
