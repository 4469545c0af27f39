"""A member votes once in a term, over all its lives, and for a log at least as long as its own; who
leads was elected so by a majority (thesis 3.4, 3.6.1; rows 1, 7 and 9)."""

from __future__ import annotations

from typing import Any

from raftdb.consensus.messages import PreVote, PreVoteResponse, RequestVote, Vote
from tests.sim.checkers.base import Broken, Checker


class VotesOnce(Checker):
    hears = (RequestVote, Vote, PreVote, PreVoteResponse)

    def __init__(self) -> None:
        self._votes: dict[tuple[str, int], str] = {}
        """(member, term) to whom it voted for, once that has left it."""
        self._made: dict[tuple[str, int], str] = {}
        """As its hard state says; a crash may take it back."""
        self._stood: dict[tuple[str, int], tuple[int, int]] = {}
        """(candidate, term) to (last term, last index), as it asked."""
        self._asks: dict[str, tuple[int, int]] = {}
        """Candidate to the same, when it asked for pre-votes last."""
        self._led: dict[Any, int] = {}

    def on_vote(self, node: Any, term: int, candidate: str) -> None:
        self._made[node.name, term] = candidate
        if candidate == node.name:
            return
        asked = self._stood.get((candidate, term))
        own = int(node.journal.last_term), int(node.journal.last_index)
        if asked is None or asked < own:
            raise Broken(
                "votes for whole logs",
                f"{node.name}, whose log ends at (term, index) {own}, votes in term {term} for "
                f"{candidate}, whose log ends at {asked}",
            )

    def on_send(self, node: Any, message: Any) -> None:
        if isinstance(message, RequestVote):
            self._stood[node.name, message.term] = message.last_term, message.last_index
            self._voted(node.name, message.term, node.name)
        elif isinstance(message, Vote):
            self._voted(node.name, message.term, self._made.get((node.name, message.term), ""))

    def on_send_to(self, node: Any, peer: str, message: Any) -> None:
        if isinstance(message, PreVote):
            self._asks[node.name] = message.last_term, message.last_index
        elif isinstance(message, PreVoteResponse):
            own = int(node.journal.last_term), int(node.journal.last_index)
            # The log that asks grows by being led, which no candidate is: it only gets older.
            asked = self._asks.get(peer)
            if asked is None or asked < own:
                raise Broken(
                    "votes for whole logs",
                    f"{node.name}, whose log ends at (term, index) {own}, would vote for {peer}, "
                    f"whose log ends at {asked}",
                )

    def _voted(self, name: str, term: int, candidate: str) -> None:
        first = self._votes.setdefault((name, term), candidate)
        if first != candidate:
            raise Broken(
                "one vote per term",
                f"{name} votes for {candidate} in term {term}, it had voted for {first}",
            )

    def on_event(self, kind: str, name: str, facts: dict[str, Any]) -> None:
        if kind == "replaced":
            for key in [key for key in self._votes if key[0] == name]:
                del self._votes[key]

    def after_event(self, node: Any) -> None:
        if node.role != "leader" or self._led.get(node) == node.term:
            return
        self._led[node] = term = node.term
        electorate = node.engine._core.electorate
        members = [str(peer) for peer in electorate.voters]
        members += [node.name] if electorate.is_voter else []
        votes = sum(self._votes.get((name, term)) == node.name for name in members)
        if members == [node.name]:
            # Its own vote is all it takes, and leaves it for nobody.
            votes = int(self._made.get((node.name, term)) == node.name)
        if votes <= len(members) // 2:
            raise Broken(
                "elected by a majority",
                f"{node.name} leads term {term} by {votes} votes of {len(members)} members",
            )
