"""A journal lets go of an entry when the database has it on its disk, and not before (rule M2):
what neither has is nowhere at this member. And what is in memory of the log is its end, no more."""

from __future__ import annotations

from typing import Any

from tests.sim.checkers.base import Broken, Checker


class LogBehindDatabase(Checker):
    def on_dropped(self, node: Any) -> None:
        if node.machine.absent:
            return
        dropped, durable = int(node.journal.first_index) - 1, int(node.machine.durable_index)
        if dropped > durable:
            raise Broken(
                "log behind database",
                f"{node.name} drops its log up to {dropped}, its database is on disk up to "
                f"{durable}",
            )

    def on_append(self, node: Any, entries: list[Any]) -> None:
        journal = node.journal
        cache = journal._cache
        if len(cache.entries) != int(journal.last_index) + 1 - cache.first:
            raise Broken(
                "log behind database",
                f"{node.name} has {len(cache.entries)} entries in memory from {cache.first} on, "
                f"its log ends at {journal.last_index}",
            )
