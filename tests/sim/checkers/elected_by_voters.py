"""Who leads a term has votes of a majority of the voters, and of nobody else: those of the last
configuration in its log (row 19, thesis 3.4 and 4.1)."""

from __future__ import annotations

from typing import Any

from raftdb.consensus.messages import RequestVote, Vote
from tests.sim.checkers.base import Broken, Checker
from tests.sim.checkers.memberships import Memberships

ANYBODY = ""
"""A vote that was on its way when its sender had gone on to another term."""


class ElectedByVoters(Checker):
    hears = (Vote, RequestVote)

    def __init__(self) -> None:
        self._members = Memberships()
        self._votes: dict[tuple[int, str], str] = {}
        """(term, voter) to whom it voted for."""
        self._checked: set[tuple[str, int]] = set()

    def on_event(self, kind: str, name: str, facts: dict[str, Any]) -> None:
        self._members.on_event(kind, facts)

    def on_append(self, node: Any, entries: list[Any]) -> None:
        self._members.on_append(entries)
        # Whoever leaves office in the same event was a leader all the same: there is its no-op.
        self._check(node)

    def on_send(self, node: Any, message: Any) -> None:
        if isinstance(message, Vote | RequestVote):
            state = node.journal.hard_state
            known = state.term == message.term and state.vote is not None
            self._votes[int(message.term), node.name] = str(state.vote) if known else ANYBODY

    def after_event(self, node: Any) -> None:
        self._members.newly_committed(node)
        self._check(node)

    def _check(self, node: Any) -> None:
        if node.role != "leader" or (node.name, node.term) in self._checked:
            return
        self._checked.add((node.name, node.term))
        voters = self._members.in_force(node)[1].voters
        known = self._members.in_force(node, below=node.commit_index + 1)[1].voters
        if node.name not in voters and node.name not in known:
            raise Broken(
                "elected by voters",
                f"{node.name} leads term {node.term}, the voters in its log are {list(voters)}",
            )
        given = [
            name
            for name in voters
            if name == node.name
            or self._votes.get((node.term, name), "nobody") in (node.name, ANYBODY)
        ]
        if len(given) <= len(voters) // 2:
            raise Broken(
                "elected by voters",
                f"{node.name} leads term {node.term} by votes of {given}, the voters in its log "
                f"are {list(voters)}",
            )
