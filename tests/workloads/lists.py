"""List append: unique values are appended, whole lists are read."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from raftdb.command import Results, Statement
from tests.workloads.base import Counter, Operation, Violation, Workload
from tests.workloads.history import Record
from tests.workloads.judged import final_reads, require_kept, require_linearizable
from tests.workloads.models import ListModel

TABLE = "w_list"
APPEND = (
    f"INSERT INTO {TABLE}(key, place, value)"
    f" SELECT ?1, coalesce(max(place), 0) + 1, ?2 FROM {TABLE} WHERE key = ?1 RETURNING place"
)
READ = f"SELECT value FROM {TABLE} WHERE key = ? ORDER BY place"
LENGTH = 24
"""A list of about so many values is left, and another begun: reads stay short."""
OPEN = 2
"""Lists in use at a time."""


class Lists(Workload):
    """The order of the values is the order of the appends: what any read shows is a beginning of
    what the last one shows."""

    name = "list"

    def __init__(self) -> None:
        self._values = Counter()
        self._appended = 0
        self._touched: set[int] = set()

    def setup(self) -> Sequence[Statement]:
        return (
            Statement(
                f"CREATE TABLE {TABLE}(key INTEGER, place INTEGER, value INTEGER,"
                " PRIMARY KEY (key, place)) WITHOUT ROWID"
            ),
        )

    def next(self, client: int, draw: random.Random) -> Operation:
        key = self._appended // (LENGTH * OPEN) * OPEN + draw.randrange(OPEN)
        self._touched.add(key)
        if draw.random() < 0.35:
            return self._read(key)
        self._appended += 1
        value = self._values.next(client)
        return Operation(
            self.name,
            "append",
            {"key": key, "value": value},
            (Statement(APPEND, ((key, value),)),),
        )

    def _read(self, key: int, **more: Any) -> Operation:
        arguments = {"key": key, **more}
        return Operation(self.name, "read", arguments, (Statement(READ, ((key,),)),), is_read=True)

    def value(self, operation: Operation, results: Results) -> Any:
        rows = results.statements[0].rows
        return [row[0] for row in rows] if operation.is_read else rows[0][0]

    def final(self) -> Sequence[Operation]:
        return [self._read(key, final=True) for key in sorted(self._touched)]

    def check(self, records: Sequence[Record]) -> None:
        finals = {record.arguments["key"]: record.result for record in final_reads(records)}
        appends = [record for record in records if record.operation == "append"]
        present = [value for values in finals.values() for value in values]
        require_kept(appends, present, "value", what="the appended value")
        for record in records:
            key, result = record.arguments["key"], record.result
            if not record.is_ok or key not in finals:
                continue
            if record.operation == "read" and finals[key][: len(result)] != result:
                raise Violation(
                    "committed stays", f"the list {finals[key]} began otherwise: {record}"
                )
            if (
                record.operation == "append"
                and finals[key][result - 1] != record.arguments["value"]
            ):
                raise Violation(
                    "committed stays", f"the list is {finals[key]} in the end: {record}"
                )
        verdict = require_linearizable(records, ListModel(), self.name)
        self.undecided = () if verdict.linearizable else (self.name,)
