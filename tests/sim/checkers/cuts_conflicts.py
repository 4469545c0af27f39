"""A log is cut where the leader's entry differs, never where it is the same: what was cut and put
back would be lost in a power cut between the two, though it was acknowledged (row 3)."""

from __future__ import annotations

from typing import Any

from tests.sim.checkers.base import Broken, Checker


class CutsConflicts(Checker):
    def __init__(self) -> None:
        self._cut: dict[Any, tuple[int, int]] = {}
        """Node to (index, term) of the first entry that it cut just now."""

    def on_truncate(self, node: Any, index: int) -> None:
        self._cut[node] = index, int(node.journal.term_at(index))

    def on_append(self, node: Any, entries: list[Any]) -> None:
        cut = self._cut.pop(node, None)
        if cut is not None and (entries[0].index, entries[0].term) == cut:
            raise Broken(
                "cuts at conflicts",
                f"{node.name} cuts its log from {cut[0]}, where the leader has the same entry",
            )
