"""Who counts, as this side reads it from the nodes' logs: what checkers of several invariants need.

The configuration in force on a node is that of the last such entry in its log, committed or not
(thesis 4.1). What lies before the log's beginning is committed, and was seen to be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raftdb.consensus.entry import CONFIGURATION
from raftdb.consensus.membership import Configuration, decode_configuration

FOUNDED = "founded"
"""The event that tells the founders, and how to count events."""


class Memberships:
    """Configurations in logs. Belongs to one checker, which passes on what it is told."""

    def __init__(self) -> None:
        self.founders = Configuration(())
        self.events: Callable[[], int] = int
        """Of the world, so far: two things with one number happened in one event."""
        self._known: list[tuple[int, int, Configuration]] = []
        """(index, term, what it says), the highest index first."""
        self._committed: dict[int, int] = {}
        """Index of those that were seen committed to its term."""

    def on_event(self, kind: str, facts: dict[str, Any]) -> None:
        """Listens for the founding."""
        if kind == FOUNDED:
            self.founders, self.events = facts["configuration"], facts["events"]

    def on_append(self, entries: list[Any]) -> bool:
        """Whether one of the entries is a configuration."""
        found = [one for one in entries if one.data[:1] == CONFIGURATION]
        for entry in found:
            key = (int(entry.index), int(entry.term))
            if all(known[:2] != key for known in self._known):
                self._known.append((*key, decode_configuration(entry.data[1:])))
                self._known.sort(key=lambda known: known[:2], reverse=True)
        return bool(found)

    def newly_committed(self, node: Any) -> list[tuple[int, Configuration]]:
        """Those that nobody was known to have committed before this node did."""
        found: list[tuple[int, Configuration]] = []
        for index, term, configuration in self._known:
            if (
                index not in self._committed
                and index <= node.commit_index
                and _holds(node, index, term)
            ):
                self._committed[index] = term
                found.append((index, configuration))
        return found[::-1]

    def in_force(self, node: Any, below: int | None = None) -> tuple[int, Configuration]:
        """On a node, by its log (up to an index, not included): its entry's index, 0 of the
        founders, and who the members are."""
        for index, term, configuration in self._known:
            if below is not None and index >= below:
                continue
            if index < node.journal.first_index:
                if self._committed.get(index) == term:
                    return index, configuration
            elif _holds(node, index, term):
                return index, configuration
        return 0, self.founders

    def has_been(self, configuration: Configuration) -> bool:
        """It was one that is committed."""
        return configuration == self.founders or any(
            known == configuration and self._committed.get(index) == term
            for index, term, known in self._known
        )

    def removed(self) -> set[str]:
        """Ids of those whose removal was seen committed."""
        return {
            str(name)
            for index, term, configuration in self._known
            if self._committed.get(index) == term
            for name in configuration.removed
        }


def _holds(node: Any, index: int, term: int) -> bool:
    journal = node.journal
    return bool(
        journal.first_index <= index <= journal.last_index and journal.term_at(index) == term
    )
