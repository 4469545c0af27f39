"""The applied index never goes back: not while a process lives, not by a kill, and by a power cut
never below what the database said to be durable (commit indexes: committed_stays)."""

from __future__ import annotations

from typing import Any

from tests.sim.checkers.base import Broken, Checker

KILLS = ("killed", "killed in a write", "stopped")
CUTS = ("power lost", "power lost in a write")


class IndexesForward(Checker):
    def __init__(self) -> None:
        self._nodes: dict[str, Any] = {}
        self._applied: dict[str, int] = {}
        self._floors: dict[str, tuple[int, str]] = {}
        self._ended: dict[str, Any] = {}
        self._strays: set[str] = set()
        """Whose write-ahead log something wrote into: a start takes what is behind for torn."""

    def after_event(self, node: Any) -> None:
        if self._nodes.get(node.name) is node:
            return
        self._nodes[node.name] = node
        applied = int(node.machine.applied()[0])
        if node.machine.absent:
            # Its database is damaged: the copy that heals it may be of an earlier entry.
            self._floors.pop(node.name, None)
        floor, why = self._floors.get(node.name, (0, ""))
        if applied < floor:
            raise Broken(
                "applied never goes back",
                f"{node.name} starts with {applied} applied, it {why} {floor}",
            )
        self._applied[node.name] = applied

    def on_progress(self, node: Any, index: int, results: bytes) -> None:
        before = self._applied.get(node.name, 0)
        if index < before and self._nodes.get(node.name) is node:
            raise Broken("applied never goes back", f"{node.name}: {index} after {before}")
        self._applied[node.name] = index

    def on_event(self, kind: str, name: str, facts: dict[str, Any]) -> None:
        node = self._nodes.get(name)
        if node is None:
            return
        if kind == "log written into":
            self._strays.add(name)
        elif kind == "start":
            self._strays.discard(name)
        if kind in CUTS or (kind in KILLS and (facts.get("dropped") or name in self._strays)):
            # Also when the process was gone already: its page cache was not.
            self._floors[name] = (int(node.machine.durable_index), "had on disk")
        elif kind in KILLS and node is not self._ended.get(name):
            self._floors[name] = (self._applied.get(name, 0), "had applied")
        if kind in CUTS or kind in KILLS:
            self._ended[name] = node
