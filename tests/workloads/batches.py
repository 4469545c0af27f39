"""Batches: many rows in one request, by parameter sets and by several statements."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from raftdb.command import Results, Statement
from tests.workloads.base import Counter, Operation, Violation, Workload
from tests.workloads.history import Record
from tests.workloads.judged import final_reads, require_kept

TABLE = "w_batch"
KINDS = "w_batch_kind"
INSERT = f"INSERT INTO {TABLE}(batch, place) VALUES (?, ?)"
STRAY = f"INSERT INTO {TABLE}(batch, place, kind) VALUES (?, ?, 99)"
READ = f"SELECT batch, count(*), max(place) FROM {TABLE} GROUP BY batch ORDER BY batch"
ROWS_MAX = 12


class Batches(Workload):
    """A batch is there as a whole or not at all, whoever looks whenever. One in five breaks a
    constraint with its last row, at once or at its end."""

    name = "batch"

    def __init__(self) -> None:
        self._ids = Counter()

    def setup(self) -> Sequence[Statement]:
        return (
            Statement(f"CREATE TABLE {KINDS}(id INTEGER PRIMARY KEY)"),
            Statement(f"INSERT INTO {KINDS} VALUES (1)"),
            Statement(
                f"CREATE TABLE {TABLE}(batch INTEGER, place INTEGER, kind INTEGER DEFAULT 1"
                f" REFERENCES {KINDS}(id) DEFERRABLE INITIALLY DEFERRED,"
                " PRIMARY KEY (batch, place))"
            ),
        )

    def next(self, client: int, draw: random.Random) -> Operation:
        if draw.random() < 0.3:
            return Operation(self.name, "read", {}, (Statement(READ),), is_read=True)
        batch, count = self._ids.next(client), draw.randint(2, ROWS_MAX)
        rows = tuple((batch, place) for place in range(1, count + 1))
        breaks = draw.random()
        if breaks < 0.1:
            rows = (*rows, (batch, 1))
        if draw.random() < 0.5:
            statements: tuple[Statement, ...] = (Statement(INSERT, rows),)
        else:
            statements = tuple(Statement(INSERT, (row,)) for row in rows)
        if 0.1 <= breaks < 0.2:
            # A foreign key that is due at the end of the request.
            statements = (*statements, Statement(STRAY, ((batch, count + 1),)))
        return Operation(self.name, "insert", {"batch": batch, "rows": count}, statements)

    def value(self, operation: Operation, results: Results) -> Any:
        if operation.is_read:
            return [list(row) for row in results.statements[0].rows]
        return sum(result.changes for result in results.statements)

    def final(self) -> Sequence[Operation]:
        return (Operation(self.name, "read", {"final": True}, (Statement(READ),), is_read=True),)

    def check(self, records: Sequence[Record]) -> None:
        inserts = [record for record in records if record.operation == "insert"]
        rows = {record.arguments["batch"]: record.arguments["rows"] for record in inserts}
        for record in records:
            if record.operation == "read" and record.is_ok:
                for batch, count, _last in record.result:
                    if count != rows.get(batch):
                        raise Violation(
                            "all or nothing",
                            f"{count} rows of batch {batch}, which has {rows.get(batch)}",
                        )
        finals = final_reads(records)
        if finals:
            present = [batch for batch, _count, _last in finals[-1].result]
            require_kept(inserts, present, "batch", what="the batch")
