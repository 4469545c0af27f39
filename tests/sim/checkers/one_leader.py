"""At most one leader per term (Raft's election safety)."""

from __future__ import annotations

from tests.sim.checkers.base import Broken, Checker, NodeView


class OneLeader(Checker):
    def __init__(self) -> None:
        self._leaders: dict[int, str] = {}

    def after_event(self, node: NodeView) -> None:
        if node.role == "leader":
            first = self._leaders.setdefault(node.term, node.name)
            if first != node.name:
                raise Broken("one leader per term", f"{first} and {node.name} lead {node.term}")
