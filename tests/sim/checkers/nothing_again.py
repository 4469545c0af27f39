"""A leader sends nothing that every follower has acknowledged in its term: what matches once
matches for good (row 8 of consensus/DESIGN.md)."""

from __future__ import annotations

from typing import Any

from raftdb.consensus.messages import Append
from tests.sim.checkers.base import Broken, Checker


class NothingAgain(Checker):
    def on_send(self, node: Any, message: Any) -> None:
        if isinstance(message, Append):
            core = node.engine._core
            match = min(core.library.match_index(peer) for peer in core.electorate.peers)
            if message.prev_index < match:
                raise Broken(
                    "nothing sent again",
                    f"{node.name} sends from {message.prev_index + 1}, all followers have {match}",
                )
