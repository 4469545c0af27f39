"""Bank transfers: several statements as one request, some of which fail half-way on purpose."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from raftdb.command import Results, Statement
from tests.workloads.base import Counter, Operation, Violation, Workload
from tests.workloads.history import Record
from tests.workloads.judged import final_reads, require_kept, require_linearizable
from tests.workloads.models import BankModel

ACCOUNT, LEDGER = "w_account", "w_ledger"
CREDIT = f"UPDATE {ACCOUNT} SET balance = balance + ? WHERE id = ?"
DEBIT = f"UPDATE {ACCOUNT} SET balance = balance - ? WHERE id = ?"
NOTE = f"INSERT INTO {LEDGER}(id, source, target, amount) VALUES (?, ?, ?, ?)"
READ = f"SELECT balance FROM {ACCOUNT} ORDER BY id"
READ_LEDGER = f"SELECT id, source, target, amount FROM {LEDGER} ORDER BY id"
STEPS_MAX = 200_000


class Bank(Workload):
    """The sum never changes, no balance falls below 0, and the ledger explains every balance.

    The target is credited and the ledger written first, so that a transfer of more than there is
    fails in its last statement: all that it did before must be gone.
    """

    name = "bank"

    def __init__(self, accounts: int = 5, balance: int = 40) -> None:
        self._accounts = accounts
        self._balance = balance
        self._ids = Counter()

    def setup(self) -> Sequence[Statement]:
        rows = tuple((id_, self._balance) for id_ in range(self._accounts))
        return (
            Statement(
                f"CREATE TABLE {ACCOUNT}(id INTEGER PRIMARY KEY,"
                " balance INTEGER NOT NULL CHECK (balance >= 0))"
            ),
            Statement(
                f"CREATE TABLE {LEDGER}(id INTEGER PRIMARY KEY,"
                f" source INTEGER REFERENCES {ACCOUNT}, target INTEGER REFERENCES {ACCOUNT},"
                " amount INTEGER)"
            ),
            Statement(f"INSERT INTO {ACCOUNT}(id, balance) VALUES (?, ?)", rows),
        )

    def next(self, client: int, draw: random.Random) -> Operation:
        if draw.random() < 0.3:
            return Operation(self.name, "read", {}, (Statement(READ),), is_read=True)
        source = draw.randrange(self._accounts)
        target = (source + draw.randrange(1, self._accounts)) % self._accounts
        amount = draw.randint(1, self._balance)
        if draw.random() < 0.15:
            amount = self._balance * self._accounts + 1
        id_ = self._ids.next(client)
        return Operation(
            self.name,
            "transfer",
            {"id": id_, "source": source, "target": target, "amount": amount},
            (
                Statement(CREDIT, ((amount, target),)),
                Statement(NOTE, ((id_, source, target, amount),)),
                Statement(DEBIT, ((amount, source),)),
            ),
        )

    def value(self, operation: Operation, results: Results) -> Any:
        if not operation.is_read:
            return True
        if operation.name == "read":
            return [row[0] for row in results.statements[0].rows]
        return [list(row) for row in results.statements[0].rows]

    def final(self) -> Sequence[Operation]:
        return (
            Operation(self.name, "read", {"final": True}, (Statement(READ),), is_read=True),
            Operation(
                self.name, "ledger", {"final": True}, (Statement(READ_LEDGER),), is_read=True
            ),
        )

    def check(self, records: Sequence[Record]) -> None:
        total = self._accounts * self._balance
        for record in records:
            if record.operation == "read" and record.is_ok:
                balances = record.result
                if sum(balances) != total or min(balances) < 0:
                    raise Violation(
                        "all or nothing", f"the balances add up to {sum(balances)}: {record}"
                    )
        transfers = [record for record in records if record.operation == "transfer"]
        finals = {record.operation: record.result for record in final_reads(records)}
        if "ledger" in finals:
            rows = finals["ledger"]
            require_kept(transfers, [row[0] for row in rows], "id", what="the transfer")
            balances = [self._balance] * self._accounts
            for _id, source, target, amount in rows:
                balances[source] -= amount
                balances[target] += amount
            if balances != finals["read"]:
                raise Violation(
                    "all or nothing", f"the ledger says {balances}, the accounts {finals['read']}"
                )
        judged = [record for record in records if record.operation != "ledger"]
        model = BankModel(self._accounts, self._balance)
        verdict = require_linearizable(judged, model, self.name, steps_max=STEPS_MAX)
        self.undecided = () if verdict.linearizable else (self.name,)
