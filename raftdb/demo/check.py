"""The check: every acknowledged write exactly once on every node, and one content hash."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from raftdb.base.errors import Error
from raftdb.client import Connection
from raftdb.demo.ledger import Ledger

CONVERGE_S = 20.0
_ALL_ROWS = "SELECT client, n, count(*) FROM visits GROUP BY client, n"


@dataclass(slots=True)
class NodeVerdict:
    """What one node's own database holds."""

    node_id: str
    rows: int = 0
    missing: list[tuple[int, int]] = field(default_factory=list)
    repeated: list[tuple[int, int]] = field(default_factory=list)
    unknown: int = 0
    """Rows that were sent and whose commit was never acknowledged (only after failed requests)."""
    applied_index: int = 0
    content_hash: str = ""
    problem: str = ""


def check_nodes(
    ledger: Ledger, node_ids: list[str], connect_local: Callable[[str], Connection]
) -> list[NodeVerdict]:
    """Read each node's own copy. `connect_local(node_id)` gives a connection whose reads are local
    to that node."""
    verdicts = [NodeVerdict(node_id) for node_id in node_ids]
    target = _last_index(node_ids, connect_local)
    for verdict in verdicts:
        try:
            with connect_local(verdict.node_id) as connection:
                _check_node(ledger, verdict, connection, target)
        except Error as error:
            verdict.problem = str(error)
    return verdicts


def broken_promises(ledger: Ledger, verdicts: list[NodeVerdict]) -> list[str]:
    """Each broken promise in a sentence; empty when all were kept."""
    broken = []
    totals = ledger.totals()
    if totals.failed:
        first = next(failure for record in ledger.records for failure in record.failures)
        broken.append(f"no request fails: {totals.failed} did, the first: {first}")
    if totals.stale_reads:
        first = next(stale for record in ledger.records for stale in record.stale_reads)
        broken.append(f"reads are linearizable: {totals.stale_reads} were not, the first: {first}")
    for verdict in verdicts:
        name = verdict.node_id
        if verdict.problem:
            broken.append(f"every node can be read: {name} could not: {verdict.problem}")
        if verdict.missing:
            broken.append(
                f"an acknowledged write is never lost: {len(verdict.missing)} are missing on"
                f" {name}, such as client {verdict.missing[0][0]} row {verdict.missing[0][1]}"
            )
        if verdict.repeated:
            broken.append(
                f"no write is applied twice: {len(verdict.repeated)} are there repeatedly on"
                f" {name}, such as client {verdict.repeated[0][0]} row {verdict.repeated[0][1]}"
            )
    hashes = {verdict.content_hash for verdict in verdicts}
    if len(hashes) != 1 or "" in hashes:
        broken.append("all nodes hold the same content: their content hashes differ")
    return broken


def _last_index(node_ids: list[str], connect_local: Callable[[str], Connection]) -> int:
    """The highest applied index of any node: where all have to get."""
    last = 0
    for node_id in node_ids:
        try:
            with connect_local(node_id) as connection:
                last = max(last, int(connection.content_hash()["index"]))
        except Error:
            continue
    return last


def _check_node(ledger: Ledger, verdict: NodeVerdict, connection: Connection, target: int) -> None:
    deadline_s = time.monotonic() + CONVERGE_S
    content = connection.content_hash(index=target, timeout=CONVERGE_S)
    verdict.applied_index = int(content["index"])
    verdict.content_hash = str(content["total"])
    if verdict.applied_index < target or time.monotonic() > deadline_s:
        verdict.problem = f"applied {verdict.applied_index} of {target} within {CONVERGE_S:g} s"
        return
    held = {(client, n): count for client, n, count in connection.execute(_ALL_ROWS)}
    verdict.rows = sum(held.values())
    for record in ledger.records:
        for n in sorted(record.acknowledged):
            if (record.client, n) not in held:
                verdict.missing.append((record.client, n))
    acknowledged = {(r.client, n) for r in ledger.records for n in r.acknowledged}
    for key, count in sorted(held.items()):
        if count > 1:
            verdict.repeated.append(key)
        if key not in acknowledged:
            verdict.unknown += 1
