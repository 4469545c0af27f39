"""A leader changes the members one at a time: the change before is committed, so is an entry of its
own term, and one voter comes or goes (row 19, thesis 4.1 and its erratum). Who is
new begins as a learner: nothing of what it says counts before it has the log."""

from __future__ import annotations

from typing import Any

from raftdb.consensus.entry import CONFIGURATION
from raftdb.consensus.membership import VOTER, decode_configuration
from tests.sim.checkers.base import Broken, Checker
from tests.sim.checkers.memberships import Memberships


class OneChange(Checker):
    def __init__(self) -> None:
        self._members = Memberships()

    def on_event(self, kind: str, name: str, facts: dict[str, Any]) -> None:
        self._members.on_event(kind, facts)

    def after_event(self, node: Any) -> None:
        self._members.newly_committed(node)

    def on_append(self, node: Any, entries: list[Any]) -> None:
        for entry in entries:
            if entry.data[:1] == CONFIGURATION:
                if node.role == "leader" and entry.term == node.term:
                    self._check(node, entry)
                self._members.on_append([entry])

    def _check(self, node: Any, entry: Any) -> None:
        before, known = self._members.in_force(node, below=int(entry.index))
        what = f"{node.name} puts a change of members into its log at {entry.index}"
        commit = node.commit_index
        if before > commit:
            raise Broken("one change at a time", f"{what}, that of {before} is not committed")
        if int(node.journal.term_at(commit)) != node.term:
            raise Broken(
                "one change at a time",
                f"{what}, and nothing of its term {node.term} is committed",
            )
        wanted = decode_configuration(entry.data[1:])
        for member in wanted.members:
            if member.role == VOTER and known.member(str(member.node_id)) is None:
                raise Broken("members begin as learners", f"{what}: {member.node_id} votes at once")
        differ = set(known.voters) ^ set(wanted.voters)
        if len(differ) > 1:
            raise Broken("one change at a time", f"{what}: {sorted(differ)} come or go at once")
