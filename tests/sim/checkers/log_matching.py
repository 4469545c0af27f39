"""Entries with equal index and term are equal, and so is all before them (log matching)."""

from __future__ import annotations

from typing import Any

from tests.sim.checkers.base import Broken, Checker, NodeView


class LogMatching(Checker):
    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[bytes, int]] = {}
        """(index, term) to (data, term of the entry before)."""

    def on_append(self, node: NodeView, entries: list[Any]) -> None:
        previous = node.journal.last_term
        for entry in entries:
            seen = (entry.data, previous)
            first = self._known.setdefault((entry.index, entry.term), seen)
            if first != seen:
                raise Broken(
                    "log matching",
                    f"{node.name} has another entry ({entry.index}, term {entry.term})",
                )
            previous = entry.term
