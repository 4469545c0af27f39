"""Unique inserts: rows with a random value and a time, some of them duplicates on purpose."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from raftdb.command import Results, Statement
from tests.workloads.base import Counter, Operation, Outcome, Violation, Workload
from tests.workloads.history import Record
from tests.workloads.judged import final_reads, require_kept

TABLE = "w_insert"
COLUMNS = f"{TABLE}(token, luck, made)"
VALUES = "VALUES (?, random(), julianday('now'))"
INSERT = f"INSERT INTO {COLUMNS} {VALUES} RETURNING id"
ROLLBACK = f"INSERT OR ROLLBACK INTO {COLUMNS} {VALUES}"
READ = f"SELECT id, token, made, luck FROM {TABLE} ORDER BY id"


class Inserts(Workload):
    """Every row that was acknowledged is there, under the id that was told. A duplicate fails,
    half of the time by OR ROLLBACK, and takes nothing of anybody with it. Times of rows run as
    their ids do, whatever clocks do, and no two rows have the same luck."""

    name = "insert"

    def __init__(self) -> None:
        self._tokens = Counter()
        self._mine: dict[int, list[int]] = {}

    def setup(self) -> Sequence[Statement]:
        return (
            Statement(
                f"CREATE TABLE {TABLE}(id INTEGER PRIMARY KEY AUTOINCREMENT,"
                " token INTEGER NOT NULL UNIQUE, luck INTEGER, made REAL)"
            ),
        )

    def next(self, client: int, draw: random.Random) -> Operation:
        mine = self._mine.get(client)
        if mine and draw.random() < 0.25:
            token = draw.choice(mine)
            sql = ROLLBACK if draw.random() < 0.5 else INSERT
            return Operation(
                self.name, "duplicate", {"token": token}, (Statement(sql, ((token,),)),)
            )
        token = self._tokens.next(client)
        return Operation(self.name, "insert", {"token": token}, (Statement(INSERT, ((token,),)),))

    def value(self, operation: Operation, results: Results) -> Any:
        rows = results.statements[0].rows
        if operation.is_read:
            return [list(row) for row in rows]
        return rows[0][0] if rows else None

    def took(self, client: int, operation: Operation, outcome: Outcome) -> None:
        if operation.name == "insert" and outcome.status == "ok" and not outcome.error:
            self._mine.setdefault(client, []).append(operation.arguments["token"])

    def final(self) -> Sequence[Operation]:
        return (Operation(self.name, "read", {"final": True}, (Statement(READ),), is_read=True),)

    def check(self, records: Sequence[Record]) -> None:
        finals = final_reads(records)
        if not finals:
            return
        rows = finals[-1].result
        inserts = [record for record in records if record.operation == "insert"]
        require_kept(inserts, [row[1] for row in rows], "token", what="the row with token")
        ids = {row[1]: row[0] for row in rows}
        for record in inserts:
            if record.succeeded and ids[record.arguments["token"]] != record.result:
                raise Violation(
                    "exactly once",
                    f"the row has the id {ids[record.arguments['token']]} in the end: {record}",
                )
        for record in records:
            if record.operation == "duplicate" and record.succeeded:
                raise Violation("acknowledged kept", f"what should be there was not: {record}")
        _check_drawn(rows)


def _check_drawn(rows: Sequence[Sequence[Any]]) -> None:
    """What SQL functions brought into the rows, in the order of the log."""
    for before, row in pairwise(rows):
        if row[2] < before[2]:
            raise Violation("time runs forward", f"{row} was made after {before}")
    if len({row[3] for row in rows}) != len(rows):
        raise Violation("chance is drawn", "two rows have the same random number")
