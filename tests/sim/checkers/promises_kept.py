"""What a node promised is still there when it starts again: every entry that it acknowledged, its
term, and its vote (rows 1 and 12, rules J1 to J5). Promises are taken from the wire."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from raftdb.consensus.messages import Ack, RequestVote, Vote
from tests.sim.checkers.base import Broken, Checker


@dataclass
class _Promised:
    """By one member, in all its lives."""

    terms: dict[int, int] = field(default_factory=dict)
    """Of entries that it put into its log, by index."""
    index: int = 0
    """It has acknowledged up to here."""
    term: int = 0
    vote: Any = None
    """In that term, if it gave it away."""


class PromisesKept(Checker):
    hears = (Ack, Vote, RequestVote)

    def __init__(self) -> None:
        self._members: dict[str, _Promised] = {}
        self._nodes: dict[str, Any] = {}

    def _of(self, name: str) -> _Promised:
        found = self._members.get(name)
        if found is None:
            found = self._members[name] = _Promised()
        return found

    def on_append(self, node: Any, entries: list[Any]) -> None:
        terms = self._of(node.name).terms
        for entry in entries:
            terms[entry.index] = entry.term

    def on_truncate(self, node: Any, index: int) -> None:
        promised = self._of(node.name)
        promised.index = min(promised.index, index - 1)

    def on_send(self, node: Any, message: Any) -> None:
        if isinstance(message, Ack):
            promised = self._of(node.name)
            self._in_term(promised, message.term)
            if message.success and message.log_index > promised.index:
                promised.index = message.log_index
        elif isinstance(message, Vote | RequestVote):
            promised = self._of(node.name)
            self._in_term(promised, message.term)
            state = node.journal.hard_state
            if message.term == promised.term == state.term:
                promised.vote = state.vote

    @staticmethod
    def _in_term(promised: _Promised, term: int) -> None:
        if term > promised.term:
            promised.term, promised.vote = term, None

    def on_event(self, kind: str, name: str, facts: dict[str, Any]) -> None:
        if kind == "replaced":
            # Another machine takes the name: it has promised nothing, and nobody may listen to it.
            self._members.pop(name, None)

    def after_event(self, node: Any) -> None:
        if self._nodes.get(node.name) is node:
            return
        self._nodes[node.name] = node
        if node.forgotten:
            # It says so, and is relieved of what it promised (forgotten_is_silent).
            self._members.pop(node.name, None)
        promised = self._members.get(node.name)
        if promised is not None:
            self._check_hard_state(node, promised)
            self._check_log(node, promised)

    def _check_hard_state(self, node: Any, promised: _Promised) -> None:
        state = node.journal.hard_state
        if state.term < promised.term:
            raise Broken(
                "promises kept",
                f"{node.name} starts in term {state.term}, it had spoken in {promised.term}",
            )
        if promised.vote is None or state.term > promised.term:
            return
        if state.vote != promised.vote:
            raise Broken(
                "promises kept",
                f"{node.name} starts with a vote for {state.vote} in term {state.term}, "
                f"it had voted for {promised.vote}",
            )

    def _check_log(self, node: Any, promised: _Promised) -> None:
        journal, terms, index = node.journal, promised.terms, promised.index
        first, last = int(journal.first_index), int(journal.last_index)
        if last < index:
            if last == first - 1 and terms.get(last) != int(journal.term_at(last)):
                # A copy of the database took the place of a log that parted from it.
                promised.index = last
                return
            raise Broken(
                "promises kept",
                f"{node.name} starts with a log up to {last}, it had acknowledged {index}",
            )
        if index >= first and int(journal.term_at(index)) != terms.get(index):
            raise Broken(
                "promises kept",
                f"{node.name} starts with entry {index} of term {journal.term_at(index)}, "
                f"it had acknowledged one of term {terms.get(index)}",
            )
