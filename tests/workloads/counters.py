"""Counters: additions whose reply may be lost, asked for again until it is there."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from raftdb.command import Results, Statement
from tests.workloads.base import Counter, Operation, Violation, Workload
from tests.workloads.history import Record
from tests.workloads.judged import final_reads, require_linearizable
from tests.workloads.models import CounterModel

TABLE = "w_counter"
ADD = f"UPDATE {TABLE} SET value = value + 1 WHERE key = ? RETURNING value"
READ = f"SELECT value FROM {TABLE} WHERE key = ?"


KEYED_CHANCE = 0.4


class Counters(Workload):
    """Adding is not idempotent: a retry that takes effect twice counts twice, a reply that was
    invented counts none. After a lost reply the client asks again by the same sequence, or under
    the same idempotency key in a new session."""

    name = "counter"

    def __init__(self, keys: int = 2) -> None:
        self._keys = keys
        self._names = Counter()

    def setup(self) -> Sequence[Statement]:
        rows = tuple((key,) for key in range(self._keys))
        return (
            Statement(f"CREATE TABLE {TABLE}(key INTEGER PRIMARY KEY, value INTEGER DEFAULT 0)"),
            Statement(f"INSERT INTO {TABLE}(key) VALUES (?)", rows),
        )

    def next(self, client: int, draw: random.Random) -> Operation:
        key = draw.randrange(self._keys)
        if draw.random() < 0.2:
            return self._read(key)
        statements = (Statement(ADD, ((key,),)),)
        if draw.random() < KEYED_CHANCE:
            name = f"{client} {self._names.next(client)}"
            return Operation(self.name, "add", {"key": key}, statements, key=name)
        return Operation(self.name, "add", {"key": key}, statements, resume=True)

    def _read(self, key: int, **more: Any) -> Operation:
        arguments = {"key": key, **more}
        return Operation(self.name, "read", arguments, (Statement(READ, ((key,),)),), is_read=True)

    def value(self, operation: Operation, results: Results) -> Any:
        return results.statements[0].rows[0][0]

    def final(self) -> Sequence[Operation]:
        return [self._read(key, final=True) for key in range(self._keys)]

    def check(self, records: Sequence[Record]) -> None:
        finals = {record.arguments["key"]: record.result for record in final_reads(records)}
        for key, value in finals.items():
            adds = [r for r in records if r.operation == "add" and r.arguments["key"] == key]
            told = [record.result for record in adds if record.succeeded]
            if len(set(told)) != len(told):
                raise Violation("exactly once", f"two additions to {key} were told the same value")
            unsure = sum(record.is_unknown for record in adds)
            if not len(told) <= value <= len(told) + unsure:
                raise Violation(
                    "exactly once",
                    f"counter {key} is {value} after {len(told)} additions and {unsure} of unknown"
                    " outcome",
                )
        verdict = require_linearizable(records, CounterModel(), self.name)
        self.undecided = () if verdict.linearizable else (self.name,)
