"""Every read level against its definition, on whichever node answers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from raftdb.command import Results, Statement
from tests.workloads.base import Counter, Operation, Violation, Workload
from tests.workloads.history import Record
from tests.workloads.judged import final_reads, require_kept

TABLE = "w_level"
INSERT = f"INSERT INTO {TABLE}(id) VALUES (?)"
READ = f"SELECT id FROM {TABLE} ORDER BY id"
BOUNDS_S = (0.2, 1.0, 5.0)
LEVELS = ("linearizable", "session", "session", "local", *(f"bounded({one})" for one in BOUNDS_S))


class Levels(Workload):
    """Rows are only ever added, and every answer says the log index that it was read at.

    All levels: what was written up to that index. `session`: an index not before any that this
    client was told. `bounded(s)`: nothing that was acknowledged s seconds before the read began is
    missing, and the age that was told is true. `linearizable`: nothing that was acknowledged before
    the read began is missing.
    """

    name = "level"

    def __init__(self) -> None:
        self._ids = Counter()
        self._hasty: dict[int, bool] = {}

    def setup(self) -> Sequence[Statement]:
        return (Statement(f"CREATE TABLE {TABLE}(id INTEGER PRIMARY KEY)"),)

    def next(self, client: int, draw: random.Random) -> Operation:
        if draw.random() < 0.4:
            id_ = self._ids.next(client)
            hasty = draw.random() < 0.5
            self._hasty[client] = hasty
            statements = (Statement(INSERT, ((id_,),)),)
            return Operation(self.name, "insert", {"id": id_}, statements, hasty=hasty)
        # Who has just written looks at once, where the followers may not have it yet.
        level = "session" if self._hasty.pop(client, False) else draw.choice(LEVELS)
        return Operation(
            self.name, "read", {"level": level}, (Statement(READ),), is_read=True, level=level
        )

    def value(self, operation: Operation, results: Results) -> Any:
        if not operation.is_read:
            return True
        return [row[0] for row in results.statements[0].rows]

    def final(self) -> Sequence[Operation]:
        return (
            Operation(
                self.name,
                "read",
                {"final": True, "level": "linearizable"},
                (Statement(READ),),
                is_read=True,
            ),
        )

    def check(self, records: Sequence[Record]) -> None:
        inserts = [record for record in records if record.operation == "insert"]
        reads = [record for record in records if record.operation == "read" and record.is_ok]
        for record in final_reads(records)[-1:]:
            require_kept(inserts, record.result, "id", what="the row")
        acknowledged = [record for record in inserts if record.succeeded]
        _require_prefixes(acknowledged, reads)
        for read in reads:
            _require_fresh(read, acknowledged)
        _require_sessions(records)


def _require_prefixes(acknowledged: Sequence[Record], reads: Sequence[Record]) -> None:
    """A read at an index shows what was written before it; what one shows, later ones show too.

    Of the entry at that index itself, which holds many clients' writes, a part may be there: a busy
    node applies a long one in several transactions, and who has seen a part has seen that entry.
    A write that was sent twice is told the index of its second entry, so it may be there before."""
    for read in reads:
        shown = set(read.result)
        for record in acknowledged:
            if record.index < read.index and record.arguments["id"] not in shown:
                raise Violation(
                    "a read shows its index",
                    f"row {record.arguments['id']} was written at {record.index}: {_at(read)}",
                )
    last: set[int] = set()
    for read in sorted(reads, key=lambda one: (one.index, len(one.result))):
        if gone := last - set(read.result):
            raise Violation(
                "a read shows its index",
                f"{sorted(gone)} was there at an index before: {_at(read)}",
            )
        last = set(read.result)


def _require_fresh(read: Record, acknowledged: Sequence[Record]) -> None:
    level = read.arguments["level"]
    if level in ("session", "local"):
        return
    allowed_s = 0.0 if level == "linearizable" else float(level[len("bounded(") : -1])
    if level != "linearizable":
        allowed_s = min(allowed_s, max(read.age_s, 0.0))
    shown = set(read.result)
    for record in acknowledged:
        assert record.return_ns is not None, "it was answered"
        early = record.return_ns < read.invoke_ns - allowed_s * 1e9
        if early and record.arguments["id"] not in shown:
            raise Violation(
                "stale read",
                f"{record} was acknowledged more than {allowed_s:g} s before {_at(read)}",
            )


def _require_sessions(records: Sequence[Record]) -> None:
    """What a client was told once it is never untold by a session read of the same process."""
    told: dict[tuple[int, int], int] = {}
    ended = [
        (record.return_ns, number, record)
        for number, record in enumerate(records)
        if record.return_ns is not None
    ]
    for _at_ns, _number, record in sorted(ended, key=lambda one: one[:2]):
        who = (record.client, record.process)
        before = told.get(who, 0)
        if (
            record.operation == "read"
            and record.is_ok
            and record.arguments["level"] == "session"
            and record.index < before
        ):
            raise Violation(
                "session reads go forward",
                f"this client was told of {before} before: {_at(record)}",
            )
        told[who] = max(before, record.index)


def _at(read: Record) -> str:
    return f"client {read.client} read {read.arguments['level']} at {read.index}: {read.result}"
