"""Who looks at its write-ahead log sees what something has written into it, before a checkpoint
moves that into the file with a checksum of its own (rule M8)."""

from __future__ import annotations

from typing import Any

from tests.sim.checkers.base import Broken, Checker

LOOKS_MAX = 3
"""A look does nothing when another connection is just beginning or ending something, and one that
had ended may not have come back to its caller."""


class StraysSeen(Checker):
    def __init__(self) -> None:
        self._looks: dict[str, int] = {}
        """By node whose log was written into: how often it has looked since."""

    def on_event(self, kind: str, name: str, facts: dict[str, Any]) -> None:
        if kind == "log written into":
            self._looks.setdefault(name, 0)
        elif kind == "start":
            self._looks.pop(name, None)

    def on_looked(self, node: Any) -> None:
        if node.name not in self._looks:
            return
        self._looks[node.name] += 1
        if self._looks[node.name] >= LOOKS_MAX:
            raise Broken("rot is found", f"{node.name} looks at its log, and finds it sound")
