"""Who does not lead lets nobody wait for what only a leader can give: proposals, reads and replies
that wait for a durability end with the office (row 17), or one that is won again answers them."""

from __future__ import annotations

from typing import Any

from tests.sim.checkers.base import Broken, Checker


class NobodyWaits(Checker):
    def after_event(self, node: Any) -> None:
        if node.role == "leader":
            return
        engine = node.engine
        for what, waits in (
            ("proposals", engine._proposals.count),
            ("reads", engine._reads.count),
            ("replies", engine._durable_waits.count),
        ):
            if waits:
                raise Broken(
                    "nobody waits in vain", f"{node.name} is {node.role}, {waits} {what} wait"
                )
