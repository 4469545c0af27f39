"""Leader completeness (thesis 3.6.3): whoever leads a term has all that was committed in the terms
before."""

from __future__ import annotations

from tests.sim.checkers.base import Broken, Checker, NodeView


class LeaderCompleteness(Checker):
    def __init__(self) -> None:
        self._committed: dict[int, tuple[int, int]] = {}
        """Index to (term of the entry, term in which it was first seen committed)."""
        self._highest = 1
        self._seen: dict[NodeView, int] = {}
        self._checked: set[tuple[str, int]] = set()

    def after_event(self, node: NodeView) -> None:
        before, now = self._seen.get(node, 0), node.commit_index
        journal = node.journal
        for index in range(max(before, journal.first_index - 1) + 1, now + 1):
            if index <= journal.last_index:
                self._committed.setdefault(index, (journal.term_at(index), node.term))
                self._highest = max(self._highest, index)
        self._seen[node] = max(before, now)
        if node.role == "leader" and (node.name, node.term) not in self._checked:
            self._checked.add((node.name, node.term))
            self._check(node)

    def _check(self, node: NodeView) -> None:
        for index in range(self._highest, 1, -1):
            known = self._committed.get(index)
            if known is None or known[1] >= node.term:
                continue
            if index < node.journal.first_index:
                return
            if index > node.journal.last_index or node.journal.term_at(index) != known[0]:
                raise Broken(
                    "leader completeness",
                    f"{node.name} leads term {node.term} without the committed entry {index}",
                )
            return
