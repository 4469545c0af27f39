"""Interactive transactions: what is written was computed by the client from what it read before."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from raftdb.command import Results, Statement
from tests.workloads.base import Counter, Dialogue, Operation, Violation, Workload
from tests.workloads.history import Record
from tests.workloads.judged import final_reads, require_kept, require_linearizable
from tests.workloads.models import VaultModel

VAULT, NOTE = "w_vault", "w_vault_note"
READ = f"SELECT balance FROM {VAULT} WHERE id = ?"
WRITE = f"UPDATE {VAULT} SET balance = ? WHERE id = ?"
INSERT = f"INSERT INTO {NOTE}(id, source, target, amount) VALUES (?, ?, ?, ?)"
READ_NOTES = f"SELECT id, source, target, amount FROM {NOTE} ORDER BY id"
STEPS_MAX = 200_000


class Vaults(Workload):
    """Serializable, and more: there is an order of all transactions that fits their times too.

    A lost update, a read that changed before the COMMIT, half a transaction or a transaction that
    took place twice all show in the balances. `audit` reads vault after vault.
    """

    name = "vault"

    def __init__(self, vaults: int = 4, balance: int = 30) -> None:
        self._vaults = vaults
        self._balance = balance
        self._ids = Counter()

    def setup(self) -> Sequence[Statement]:
        rows = tuple((id_, self._balance) for id_ in range(self._vaults))
        return (
            Statement(f"CREATE TABLE {VAULT}(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL)"),
            Statement(
                f"CREATE TABLE {NOTE}(id INTEGER PRIMARY KEY, source INTEGER, target INTEGER,"
                " amount INTEGER)"
            ),
            Statement(f"INSERT INTO {VAULT}(id, balance) VALUES (?, ?)", rows),
        )

    def next(self, client: int, draw: random.Random) -> Operation:
        think_s = draw.choice((0.0, 0.0, 0.0, 0.02, 0.2))
        if draw.random() < 0.25:
            return Operation(self.name, "audit", {}, (), dialogue=self._audit, think_s=think_s)
        source = draw.randrange(self._vaults)
        target = (source + draw.randrange(1, self._vaults)) % self._vaults
        amount = draw.randint(1, self._balance)
        id_ = self._ids.next(client)

        def move() -> Dialogue:
            return self._move(id_, source, target, amount)

        return Operation(
            self.name,
            "move",
            {"id": id_, "source": source, "target": target, "amount": amount},
            (),
            dialogue=move,
            think_s=think_s,
        )

    def _audit(self) -> Dialogue:
        balances = []
        for id_ in range(self._vaults):
            found = yield Statement(READ, ((id_,),))
            balances.append(found.rows[0][0])
        return balances

    def _move(self, id_: int, source: int, target: int, amount: int) -> Dialogue:
        had = (yield Statement(READ, ((source,),))).rows[0][0]
        has = (yield Statement(READ, ((target,),))).rows[0][0]
        if had < amount:
            return [had, has, False]
        yield Statement(WRITE, ((had - amount, source),))
        yield Statement(INSERT, ((id_, source, target, amount),))
        yield Statement(WRITE, ((has + amount, target),))
        return [had, has, True]

    def value(self, operation: Operation, results: Results) -> Any:
        return [list(row) for row in results.statements[0].rows]

    def final(self) -> Sequence[Operation]:
        return (
            Operation(self.name, "audit", {"final": True}, (), dialogue=self._audit),
            Operation(self.name, "notes", {"final": True}, (Statement(READ_NOTES),), is_read=True),
        )

    def check(self, records: Sequence[Record]) -> None:
        moves = [record for record in records if record.operation == "move"]
        for record in final_reads(records):
            if record.operation == "notes":
                meant = [one for one in moves if not one.is_ok or one.result[2]]
                require_kept(meant, [row[0] for row in record.result], "id", what="the move")
                self._explained(record.result, records)
        judged = [record for record in records if record.operation != "notes"]
        model = VaultModel(self._vaults, self._balance)
        verdict = require_linearizable(judged, model, self.name, steps_max=STEPS_MAX)
        self.undecided = () if verdict.linearizable else (self.name,)

    def _explained(self, notes: Sequence[Sequence[int]], records: Sequence[Record]) -> None:
        """The notes say where every balance comes from."""
        balances = [self._balance] * self._vaults
        for _id, source, target, amount in notes:
            balances[source] -= amount
            balances[target] += amount
        finals = [one.result for one in final_reads(records) if one.operation == "audit"]
        if finals and finals[-1] != balances:
            raise Violation("all or nothing", f"the notes say {balances}, the vaults {finals[-1]}")
