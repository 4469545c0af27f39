"""At most one leader per term (Raft's election safety), and nobody else speaks as if it led."""

from __future__ import annotations

from typing import Any

from raftdb.consensus.messages import Append, Heartbeat
from tests.sim.checkers.base import Broken, Checker, NodeView


class OneLeader(Checker):
    hears = (Append, Heartbeat)

    def __init__(self) -> None:
        self._leaders: dict[int, str] = {}

    def on_send(self, node: Any, message: Any) -> None:
        if isinstance(message, Append | Heartbeat) and (
            node.role != "leader" or message.term != node.term
        ):
            raise Broken(
                "one leader per term",
                f"{node.name} speaks for term {message.term}: it is {node.role} in {node.term}",
            )

    def after_event(self, node: NodeView) -> None:
        if node.role == "leader":
            first = self._leaders.setdefault(node.term, node.name)
            if first != node.name:
                raise Broken("one leader per term", f"{first} and {node.name} lead {node.term}")
