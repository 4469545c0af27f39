"""A machine has applied nothing that its own node's log does not hold durably (rule C2): after a
power cut there would be no log that leads to what it shows."""

from __future__ import annotations

from typing import Any

from tests.sim.checkers.base import Broken, Checker


class AppliedInLog(Checker):
    def on_progress(self, node: Any, index: int, results: bytes) -> None:
        durable = int(node.journal.durable_index)
        if index > durable:
            raise Broken(
                "applied is logged",
                f"{node.name} has applied {index}, its log is on disk up to {durable}",
            )
