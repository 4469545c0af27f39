"""DDL mixed in: each client takes a table of its own through its whole life, again and again."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from raftdb.command import Results, Statement
from tests.workloads.base import Operation, Outcome, Violation, Workload
from tests.workloads.history import Record
from tests.workloads.judged import final_reads

READ = "SELECT name, sql FROM sqlite_schema WHERE name LIKE 'w\\_ddl\\_%' ESCAPE '\\' ORDER BY name"
STAGES = ("create", "fill", "add_column", "index", "view", "rename", "drop")


class Schemas(Workload):
    """What the schema holds in the end is what the last acknowledged step of each client left.

    A step that failed or whose outcome is unknown is followed by clearing all away, so that every
    round begins from the same place.
    """

    name = "ddl"

    def __init__(self) -> None:
        self._round: dict[int, int] = {}
        self._stage: dict[int, int] = {}
        self._clear: set[int] = set()

    def setup(self) -> Sequence[Statement]:
        return ()

    def next(self, client: int, draw: random.Random) -> Operation:
        table = f"w_ddl_{client}"
        if client in self._clear:
            texts = [
                f"DROP VIEW IF EXISTS {table}_v",
                f"DROP TABLE IF EXISTS {table}",
                f"DROP TABLE IF EXISTS {table}_b",
            ]
            return self._operation(client, "clear", texts)
        stage = STAGES[self._stage.get(client, 0)]
        texts = {
            "create": [f"CREATE TABLE {table}(id INTEGER PRIMARY KEY, a TEXT DEFAULT 'x')"],
            "fill": [f"INSERT INTO {table}(a) VALUES ('1'), ('2'), (hex(randomblob(4)))"],
            "add_column": [f"ALTER TABLE {table} ADD COLUMN b REAL DEFAULT 5"],
            "index": [f"CREATE INDEX {table}_i ON {table}(b, a)"],
            "view": [f"CREATE VIEW {table}_v AS SELECT a, b FROM {table} WHERE b = 5"],
            "rename": [
                f"DROP VIEW {table}_v",
                f"ALTER TABLE {table} RENAME TO {table}_b",
            ],
            "drop": [f"DROP TABLE {table}_b"],
        }[stage]
        return self._operation(client, stage, texts)

    def _operation(self, client: int, stage: str, texts: list[str]) -> Operation:
        return Operation(
            self.name,
            stage,
            {"client": client, "round": self._round.get(client, 0)},
            tuple(Statement(text) for text in texts),
        )

    def value(self, operation: Operation, results: Results) -> Any:
        if operation.is_read:
            return [row[0] for row in results.statements[0].rows]
        return True

    def took(self, client: int, operation: Operation, outcome: Outcome) -> None:
        if outcome.status != "ok" or outcome.error:
            self._clear.add(client)
        elif operation.name == "clear":
            self._clear.discard(client)
            self._stage[client] = 0
            self._round[client] = self._round.get(client, 0) + 1
        else:
            self._stage[client] = (self._stage.get(client, 0) + 1) % len(STAGES)

    def final(self) -> Sequence[Operation]:
        return (Operation(self.name, "read", {"final": True}, (Statement(READ),), is_read=True),)

    def check(self, records: Sequence[Record]) -> None:
        by_client: dict[int, list[Record]] = {}
        for record in records:
            if not record.arguments.get("final"):
                by_client.setdefault(record.client, []).append(record)
                if record.is_ok and record.error:
                    raise Violation("acknowledged kept", f"an earlier step is not there: {record}")
        finals = final_reads(records)
        if not finals:
            return
        names = set(finals[-1].result)
        for client, steps in by_client.items():
            mine = {name for name in names if name.split("_")[2] == str(client)}
            allowed = [_left(client, step.operation) for step in _possible_last(steps)]
            if mine not in allowed:
                raise Violation(
                    "acknowledged kept",
                    f"the schema has {sorted(mine)} of client {client}; after {steps[-1]} it"
                    f" should be {[sorted(names) for names in allowed]}",
                )


def _possible_last(steps: list[Record]) -> list[Record | Any]:
    """Steps of which one was the last that took effect: the newest known one, or an unknown one
    after it."""
    found: list[Any] = []
    for step in reversed(steps):
        if step.outcome == "refused":
            continue
        found.append(step)
        if step.is_ok:
            return found
    found.append(_NEVER)
    return found


class _Never:
    operation = "drop"


_NEVER = _Never()


def _left(client: int, stage: str) -> set[str]:
    """What there is of a client's own after a stage."""
    table = f"w_ddl_{client}"
    return {
        "create": {table},
        "fill": {table},
        "add_column": {table},
        "index": {table, f"{table}_i"},
        "view": {table, f"{table}_i", f"{table}_v"},
        "rename": {f"{table}_b", f"{table}_i"},
        "drop": set(),
        "clear": set(),
    }[stage]
