"""Every node applies the same entry at the same index, whatever its life was."""

from __future__ import annotations

from raftdb.consensus import CommittedEntry
from tests.sim.checkers.base import Broken, Checker


class AppliedEqual(Checker):
    def __init__(self) -> None:
        self._applied: dict[int, CommittedEntry] = {}

    def on_applied(self, name: str, entry: CommittedEntry) -> None:
        first = self._applied.setdefault(entry.index, entry)
        if first != entry:
            raise Broken(
                "applied equal",
                f"{name} applies ({entry.index}, term {entry.term}), another node applied term "
                f"{first.term} there",
            )
