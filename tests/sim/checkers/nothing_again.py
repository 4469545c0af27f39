"""A leader sends a follower nothing that this one has acknowledged in its term: what matches once
matches for good (row 8 of consensus/DESIGN.md)."""

from __future__ import annotations

from typing import Any

from raftdb.consensus.messages import Append
from tests.sim.checkers.base import Broken, Checker


class NothingAgain(Checker):
    def on_send_to(self, node: Any, peer: str, message: Any) -> None:
        if isinstance(message, Append):
            match = node.engine._core.library.match_index(peer)
            if message.prev_index < match:
                raise Broken(
                    "nothing sent again",
                    f"{node.name} sends {peer} from {message.prev_index + 1}, it has {match}",
                )
