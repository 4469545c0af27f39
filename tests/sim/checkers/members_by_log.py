"""A node counts by the last configuration in its log: it comes into force with its entry, and goes
when that is cut (row 19, thesis 4.1). One that it takes for committed is."""

from __future__ import annotations

from typing import Any

from tests.sim.checkers.base import Broken, Checker
from tests.sim.checkers.memberships import Memberships


class MembersByLog(Checker):
    def __init__(self) -> None:
        self._members = Memberships()

    def on_event(self, kind: str, name: str, facts: dict[str, Any]) -> None:
        self._members.on_event(kind, facts)

    def on_append(self, node: Any, entries: list[Any]) -> None:
        self._members.on_append(entries)

    def after_event(self, node: Any) -> None:
        self._members.newly_committed(node)
        index, known = self._members.in_force(node)
        if not index and known.member(node.name) is None:
            # A new member's own list, until its log says something.
            return
        counted = node.configurations.latest
        if node.forgotten and self._members.has_been(counted):
            # What is left of its log may end before what it has applied; it takes no part (row 22).
            return
        settled = node.configurations.committed_index
        if settled > node.commit_index:
            raise Broken(
                "members by the log",
                f"{node.name} takes the change at {settled} for committed, it has committed "
                f"{node.commit_index}",
            )
        if counted != known:
            raise Broken(
                "members by the log",
                f"{node.name} counts by voters {list(counted.voters)} and learners "
                f"{list(counted.learners)}, its log says {list(known.voters)} and "
                f"{list(known.learners)} at {index}",
            )
