"""PRAGMA recursive_triggers: a property of the database here, not of a connection.

Whether a trigger may fire itself, and whether REPLACE fires delete triggers, is part of what a
schema's triggers mean; so it is stored beside the schema, counts in its hash, and holds for every
request of whatever client. https://www.sqlite.org/pragma.html#pragma_recursive_triggers
"""

from __future__ import annotations

from raftdb.machine.format import MARK, PREFIX
from raftdb.machine.layout import Run

_STORED = f"SELECT 1 FROM {PREFIX}meta WHERE key = 'recursive_triggers' {MARK}"
_KEEP = f"INSERT OR REPLACE INTO {PREFIX}meta VALUES ('recursive_triggers', 1) {MARK}"
_FORGET = f"DELETE FROM {PREFIX}meta WHERE key = 'recursive_triggers' {MARK}"


def stored_switch(run: Run) -> bool:
    """Whether it is on in the database, as the transaction of `run` sees it."""
    return bool(list(run(_STORED)))


class RecursiveTriggers:
    """Keeps one connection and its database of one mind."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.on = False

    def take(self) -> None:
        """As the database has it: after opening it, or after something was rolled back."""
        self.set(stored_switch(self._run))

    def set(self, on: bool) -> None:
        """Have the connection so."""
        if on != self.on:
            self._run(f"PRAGMA recursive_triggers = {int(on)} {MARK}")
            self.on = on

    def look(self) -> bool:
        """A statement of a user may have set it for the connection: whether it did."""
        [(value,)] = self._run(f"PRAGMA recursive_triggers {MARK}")
        changed, self.on = bool(value) != self.on, bool(value)
        return changed

    def store(self) -> None:
        """The same, and the database follows, within the transaction that is open."""
        if self.look():
            self._run(_KEEP if self.on else _FORGET)
