"""Sequential models of the workloads, for the linearizability checker."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from tests.workloads.history import Record


class RegisterModel:
    """Registers, each by itself: `write` value, `cas` old to new (result: whether), `read`.
    A register begins as null."""

    def key(self, record: Record) -> Hashable:
        return record.arguments["key"]

    def start(self, key: Hashable) -> Any:
        return None

    def step(self, state: Any, record: Record) -> tuple[bool, Any]:
        arguments, known = record.arguments, record.is_ok
        if record.operation == "read":
            return not known or record.result == state, state
        if record.operation == "write":
            return True, arguments["value"]
        matches = state == arguments["old"]
        if known and record.result != matches:
            return False, state
        return True, arguments["new"] if matches else state


class ListModel:
    """Lists, each by itself: `append` value (result: the length then), `read` the whole list."""

    def key(self, record: Record) -> Hashable:
        return record.arguments["key"]

    def start(self, key: Hashable) -> Any:
        return ()

    def step(self, state: Any, record: Record) -> tuple[bool, Any]:
        known = record.is_ok
        if record.operation == "read":
            return not known or record.result == list(state), state
        longer = (*state, record.arguments["value"])
        return not known or record.result == len(longer), longer


class CounterModel:
    """Counters, each by itself: `add` one (result: the value then), `read`."""

    def key(self, record: Record) -> Hashable:
        return record.arguments["key"]

    def start(self, key: Hashable) -> Any:
        return 0

    def step(self, state: Any, record: Record) -> tuple[bool, Any]:
        known = record.is_ok
        if record.operation == "read":
            return not known or record.result == state, state
        return not known or record.result == state + 1, state + 1


class BankModel:
    """All accounts at once: `transfer` (a committed failure when the source has too little),
    `read` of all balances."""

    reads = "read"

    def __init__(self, accounts: int, balance: int) -> None:
        self._start = (balance,) * accounts

    def key(self, record: Record) -> Hashable:
        return "bank"

    def start(self, key: Hashable) -> Any:
        return self._start

    def step(self, state: Any, record: Record) -> tuple[bool, Any]:
        known = record.is_ok
        if record.operation == self.reads:
            return not known or record.result == list(state), state
        arguments = record.arguments
        source, target, amount = arguments["source"], arguments["target"], arguments["amount"]
        enough = state[source] >= amount
        if known and not self.agrees(state, record, enough):
            return False, state
        if not enough:
            return True, state
        balances = list(state)
        balances[source] -= amount
        balances[target] += amount
        return True, tuple(balances)

    def agrees(self, state: Any, record: Record, enough: bool) -> bool:
        """Whether the client was told what it should be in that state."""
        return enough == (not record.error)


class VaultModel(BankModel):
    """All vaults at once, by interactive transactions: `move` (result: the two balances that it
    read, and whether it moved), `audit` (all balances, read one by one)."""

    reads = "audit"

    def agrees(self, state: Any, record: Record, enough: bool) -> bool:
        arguments = record.arguments
        return bool(
            record.result == [state[arguments["source"]], state[arguments["target"]], enough]
        )
