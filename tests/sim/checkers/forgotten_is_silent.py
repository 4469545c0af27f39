"""A member whose promises are lost takes no part, and comes back without a vote (row 22)."""

from __future__ import annotations

from typing import Any

from raftdb.consensus.messages import (
    Ack,
    HeartbeatAck,
    PreVote,
    PreVoteResponse,
    RequestVote,
    Vote,
)
from tests.sim.checkers.base import Broken, Checker

SPEAKING = (Ack, HeartbeatAck, PreVote, PreVoteResponse, RequestVote, Vote)


class ForgottenIsSilent(Checker):
    hears = SPEAKING

    def __init__(self) -> None:
        self._nodes: dict[str, Any] = {}
        self._forgotten: set[str] = set()
        """Members whose life before the present one did not know what it had promised."""

    def on_send(self, node: Any, message: Any) -> None:
        if node.forgotten and isinstance(message, SPEAKING):
            raise Broken("who forgot is silent", f"{node.name} says {message}")

    def after_event(self, node: Any) -> None:
        if self._nodes.get(node.name) is node:
            return
        self._nodes[node.name] = node
        if node.forgotten:
            self._forgotten.add(node.name)
        elif node.name in self._forgotten:
            self._forgotten.discard(node.name)
            if node.engine._core.electorate.is_voter:
                raise Broken("who forgot is silent", f"{node.name} comes back with its vote")
