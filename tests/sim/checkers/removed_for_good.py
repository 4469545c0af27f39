"""Who was removed is never a member again, leads nothing more once its log says so, and ends only
when it was removed indeed (rows 16 and 19, rule J5)."""

from __future__ import annotations

from typing import Any

from raftdb.consensus.entry import NOOP
from tests.sim.checkers.base import Broken, Checker
from tests.sim.checkers.memberships import Memberships


class RemovedForGood(Checker):
    def __init__(self) -> None:
        self._members = Memberships()
        self._gone: set[str] = set()
        """Their removal was acknowledged to somebody."""

    def on_event(self, kind: str, name: str, facts: dict[str, Any]) -> None:
        self._members.on_event(kind, facts)
        if kind == "remove done":
            self._gone.add(name)
        elif kind == "removed" and name not in self._members.removed():
            raise Broken(
                "removed for good", f"{name} takes itself for removed, no committed entry says so"
            )

    def on_append(self, node: Any, entries: list[Any]) -> None:
        first = entries[0] if entries else None
        if first is not None and node.role == "leader" and first.term == node.term:
            index, known = self._members.in_force(node, below=int(first.index))
            if index and node.name not in known.voters and first.data != NOOP:
                raise Broken(
                    "removed for good",
                    f"{node.name} leads on: it makes entry {first.index}, by {index} it is no "
                    "voter any more",
                )
        self._members.on_append(entries)

    def on_cut_short(self, node: Any) -> None:
        # What it has said of a commit by then may be heard.
        self.after_event(node)

    def after_event(self, node: Any) -> None:
        for index, known in self._members.newly_committed(node):
            back = [name for name in sorted(self._gone) if known.member(name) is not None]
            if back:
                raise Broken(
                    "removed for good", f"{back} were removed, and are members again by {index}"
                )
