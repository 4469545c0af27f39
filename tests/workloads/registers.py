"""Register compare-and-set: reads, writes and swaps of single values."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from raftdb.command import Results, Statement
from tests.workloads.base import Counter, Operation, Outcome, Workload
from tests.workloads.history import Record
from tests.workloads.judged import require_linearizable
from tests.workloads.models import RegisterModel

TABLE = "w_register"
WRITE = (
    f"INSERT INTO {TABLE}(key, value) VALUES (?, ?)"
    " ON CONFLICT (key) DO UPDATE SET value = excluded.value"
)
SWAP = f"UPDATE {TABLE} SET value = ? WHERE key = ? AND value = ?"
READ = f"SELECT value FROM {TABLE} WHERE key = ?"


class Registers(Workload):
    """Every value is written once at most, so that a read tells whose write it saw."""

    name = "register"

    def __init__(self, keys: int = 3) -> None:
        self._keys = keys
        self._values = Counter()
        self._last: dict[int, int | None] = {}
        """What a key held when a client last looked."""

    def setup(self) -> Sequence[Statement]:
        return (Statement(f"CREATE TABLE {TABLE}(key INTEGER PRIMARY KEY, value INTEGER)"),)

    def next(self, client: int, draw: random.Random) -> Operation:
        key = draw.randrange(self._keys)
        kind = draw.random()
        if kind < 0.45:
            return self._read(key)
        value = self._values.next(client)
        old = self._last.get(key)
        if kind < 0.7 or old is None:
            return Operation(
                self.name,
                "write",
                {"key": key, "value": value},
                (Statement(WRITE, ((key, value),)),),
            )
        return Operation(
            self.name,
            "cas",
            {"key": key, "old": old, "new": value},
            (Statement(SWAP, ((value, key, old),)),),
        )

    def _read(self, key: int, **more: Any) -> Operation:
        arguments = {"key": key, **more}
        return Operation(self.name, "read", arguments, (Statement(READ, ((key,),)),), is_read=True)

    def value(self, operation: Operation, results: Results) -> Any:
        result = results.statements[0]
        if operation.is_read:
            return result.rows[0][0] if result.rows else None
        return result.changes == 1

    def took(self, client: int, operation: Operation, outcome: Outcome) -> None:
        if outcome.status != "ok":
            return
        key, arguments = operation.arguments["key"], operation.arguments
        if operation.is_read:
            self._last[key] = outcome.value
        elif outcome.value:
            self._last[key] = arguments.get("value", arguments.get("new"))

    def final(self) -> Sequence[Operation]:
        return [self._read(key, final=True) for key in range(self._keys)]

    def check(self, records: Sequence[Record]) -> None:
        verdict = require_linearizable(records, RegisterModel(), self.name)
        self.undecided = () if verdict.linearizable else (self.name,)
