"""Pipelines: many requests of one client on their way at once."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from raftdb.command import Results, Statement
from tests.workloads.base import FAILED, OK, REFUSED, Counter, Operation, Violation, Workload
from tests.workloads.history import Record
from tests.workloads.judged import final_reads

TABLE = "w_pipe"
INSERT = f"INSERT INTO {TABLE}(id, place) VALUES (?, (SELECT count(*) FROM {TABLE})) RETURNING id"
FAIL = f"INSERT INTO {TABLE}(id, place) VALUES (?, NULL)"
COUNT = f"SELECT count(*) FROM {TABLE} WHERE id BETWEEN ? AND ?"
READ = f"SELECT id, place FROM {TABLE} ORDER BY place"
ITEMS_MAX = 24
DONE, COUNTED, BREAKS = "insert", "count", "fail"


class Pipelines(Workload):
    """Requests of a pipeline are applied in the order of the calls, each exactly once. One that
    fails stops none behind it; behind one that was never applied nothing is, unless it was refused
    for good; what is counted on the way is what stands ahead.

    `arguments`: the ids, in order, and what is done with each. The result has, for each, `ok`,
    `failed` (by a constraint), `refused` or `unknown`, with what it returned or the error's code.
    """

    name = "pipeline"

    def __init__(self) -> None:
        self._ids = Counter()

    def setup(self) -> Sequence[Statement]:
        columns = "id INTEGER PRIMARY KEY, place INTEGER NOT NULL UNIQUE"
        return (Statement(f"CREATE TABLE {TABLE}({columns})"),)

    def next(self, client: int, draw: random.Random) -> Operation:
        count = draw.choice((2, 5, ITEMS_MAX))
        ids = [self._ids.next(client) for _ in range(count)]
        kinds = draw.choices((DONE, BREAKS, COUNTED), (8, 1, 1), k=count)
        items = []
        for id_, kind in zip(ids, kinds, strict=True):
            if kind == COUNTED:
                items.append((Statement(COUNT, ((ids[0], id_),)),))
            else:
                items.append((Statement(INSERT if kind == DONE else FAIL, ((id_,),)),))
        return Operation(
            self.name,
            "fly",
            {"ids": ids, "kinds": kinds},
            (),
            pipeline=tuple(items),
            resume=draw.random() < 0.5,
        )

    def value(self, operation: Operation, results: Results) -> Any:
        if operation.is_read:
            return [list(row) for row in results.statements[0].rows]
        rows = results.statements[0].rows
        return rows[0][0] if rows else None

    def final(self) -> Sequence[Operation]:
        return (Operation(self.name, "read", {"final": True}, (Statement(READ),), is_read=True),)

    def check(self, records: Sequence[Record]) -> None:
        finals = final_reads(records)
        if not finals:
            return
        places = dict(finals[-1].result)
        known: set[int] = set()
        last: dict[int, int] = {}
        for record in records:
            if record.operation != "fly":
                continue
            known.update(record.arguments["ids"])
            there = [places[id_] for id_ in record.arguments["ids"] if id_ in places]
            if there != sorted(there):
                raise Violation("in the order of the calls", f"places {there} of {record}")
            if there and record.is_ok:
                if there[0] < last.get(record.client, -1):
                    raise Violation(
                        "in the order of the calls", f"before the pipeline before: {record}"
                    )
                last[record.client] = there[-1]
            _check_items(record, places)
        if invented := places.keys() - known:
            raise Violation("nothing invented", f"rows {sorted(invented)[:5]}")


def _check_items(record: Record, places: dict[int, int]) -> None:
    """One pipeline against what is there in the end."""
    ids, kinds = record.arguments["ids"], record.arguments["kinds"]
    # Of a client that was killed nobody knows what it was told.
    told = record.result if record.is_ok else [["unknown", "killed"]] * len(ids)
    missing = ahead = 0
    for id_, kind, (status, value) in zip(ids, kinds, told, strict=True):
        there = id_ in places
        what = f"{kind} of {id_}, which was told {status} {value}: {record}"
        if kind == COUNTED:
            if status == OK and value != ahead:
                raise Violation("sees what stands ahead", f"not {ahead}: {what}")
        elif kind == BREAKS:
            if there or status == OK:
                raise Violation("failed means nothing", what)
        elif there:
            if status == FAILED:
                raise Violation("exactly once", f"it is there, {what}")
            if status == REFUSED:
                raise Violation("failed means nothing", f"it is there, {what}")
            if status == OK and value != id_:
                raise Violation("everybody's own reply", what)
            if missing:
                raise Violation(
                    "no hole in a pipeline", f"{missing} is not there, {id_} is: {what}"
                )
            ahead += 1
        elif status == OK:
            raise Violation("acknowledged kept", f"it is not there, {what}")
        elif status != REFUSED and not str(value).startswith("session"):
            missing = id_
