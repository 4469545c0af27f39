"""What was committed anywhere is never replaced, and every later leader has it (leader
completeness). Commit indexes never go back while a node lives."""

from __future__ import annotations

from tests.sim.checkers.base import Broken, Checker, NodeView


class CommittedStays(Checker):
    def __init__(self) -> None:
        self._committed: dict[int, tuple[int, int]] = {}
        """Index to (term of the entry, term in which it was first seen committed)."""
        self._highest = 1
        self._seen: dict[NodeView, int] = {}
        self._checked_leaders: set[tuple[str, int]] = set()

    def after_event(self, node: NodeView) -> None:
        before, now = self._seen.get(node, 0), node.commit_index
        if now < before:
            raise Broken("commit never goes back", f"{node.name}: {now} after {before}")
        for index in range(max(before, node.journal.first_index - 1) + 1, now + 1):
            self._on_committed(node, index)
        self._seen[node] = now
        if node.role == "leader" and (node.name, node.term) not in self._checked_leaders:
            self._checked_leaders.add((node.name, node.term))
            self._check_leader(node)

    def _on_committed(self, node: NodeView, index: int) -> None:
        if index > node.journal.last_index:
            raise Broken(
                "committed stays",
                f"{node.name} commits {index}, its log ends at {node.journal.last_index}",
            )
        term = node.journal.term_at(index)
        first = self._committed.setdefault(index, (term, node.term))
        self._highest = max(self._highest, index)
        if first[0] != term:
            raise Broken(
                "committed stays",
                f"{node.name} commits {index} of term {term}, before it was term {first[0]}",
            )

    def _check_leader(self, node: NodeView) -> None:
        for index in range(self._highest, 1, -1):
            known = self._committed.get(index)
            if known is None or known[1] >= node.term:
                continue
            if index > node.journal.last_index or node.journal.term_at(index) != known[0]:
                raise Broken(
                    "leader completeness",
                    f"{node.name} leads term {node.term} without the committed entry {index}",
                )
            return

    def on_truncate(self, node: NodeView, index: int) -> None:
        if index <= node.commit_index:
            raise Broken(
                "committed stays",
                f"{node.name} cuts its log from {index}, committed is {node.commit_index}",
            )
