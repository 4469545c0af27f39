"""What was committed anywhere is never replaced. Commit indexes never go back while a node
lives."""

from __future__ import annotations

from tests.sim.checkers.base import Broken, Checker, NodeView


class CommittedStays(Checker):
    def __init__(self) -> None:
        self._committed: dict[int, tuple[int, int]] = {}
        """Index to (term of the entry, term in which it was first seen committed)."""
        self._seen: dict[NodeView, int] = {}

    def after_event(self, node: NodeView) -> None:
        before, now = self._seen.get(node, 0), node.commit_index
        if now < before:
            raise Broken("commit never goes back", f"{node.name}: {now} after {before}")
        for index in range(max(before, node.journal.first_index - 1) + 1, now + 1):
            self._on_committed(node, index)
        self._seen[node] = now

    def _on_committed(self, node: NodeView, index: int) -> None:
        if index > node.journal.last_index:
            raise Broken(
                "committed stays",
                f"{node.name} commits {index}, its log ends at {node.journal.last_index}",
            )
        term = node.journal.term_at(index)
        first = self._committed.setdefault(index, (term, node.term))
        if first[0] != term:
            raise Broken(
                "committed stays",
                f"{node.name} commits {index} of term {term}, before it was term {first[0]}",
            )

    def on_truncate(self, node: NodeView, index: int) -> None:
        if index <= node.commit_index:
            raise Broken(
                "committed stays",
                f"{node.name} cuts its log from {index}, committed is {node.commit_index}",
            )
