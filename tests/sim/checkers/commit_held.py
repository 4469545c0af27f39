"""A leader commits what a majority of its voters holds, by what was acknowledged to it in its term,
and its own disk; and what it commits by count is of its own term (rows 2, 6 and 19, thesis 3.6.2).
Who its voters are is read from its log."""

from __future__ import annotations

from typing import Any

from raftdb.consensus.messages import Ack
from tests.sim.checkers.base import Broken, Checker
from tests.sim.checkers.memberships import Memberships


class CommitHeld(Checker):
    hears = (Ack,)

    def __init__(self) -> None:
        self._acked: dict[tuple[str, int], int] = {}
        """(member, term) to how far it has acknowledged in that term."""
        self._led: dict[Any, tuple[int, int]] = {}
        """Leader to (term, its commit index there when last seen)."""
        self._members = Memberships()
        self._changed: dict[Any, int] = {}
        """Node to the event in which it put a configuration into its log."""

    def on_event(self, kind: str, name: str, facts: dict[str, Any]) -> None:
        self._members.on_event(kind, facts)

    def on_append(self, node: Any, entries: list[Any]) -> None:
        if self._members.on_append(entries):
            self._changed[node] = self._members.events()

    def on_send(self, node: Any, message: Any) -> None:
        if isinstance(message, Ack) and message.success:
            key = (node.name, message.term)
            if message.log_index > self._acked.get(key, 0):
                self._acked[key] = message.log_index

    def after_event(self, node: Any) -> None:
        self._members.newly_committed(node)
        term, commit = node.term, node.commit_index
        led = self._led.pop(node, None)
        if node.role == "leader":
            self._led[node] = (term, commit)
        # Who was a leader has committed by count, even if it left its office in the same event.
        if led is None or led[0] != term or led[1] >= commit:
            return
        index, configuration = self._members.in_force(node)
        held = self._held(node, configuration.voters)
        if held <= len(configuration.voters) // 2 and self._changed.get(node) == (
            self._members.events()
        ):
            # Committed, and then changed, in one event.
            configuration = self._members.in_force(node, below=index)[1]
            held = self._held(node, configuration.voters)
        if held <= len(configuration.voters) // 2:
            raise Broken(
                "committed is held",
                f"{node.name} commits {commit} in term {term}, {held} of "
                f"{len(configuration.voters)} voters hold it",
            )
        if int(node.journal.term_at(commit)) != term:
            raise Broken(
                "committed is held",
                f"{node.name} leads term {term} and commits {commit} of term "
                f"{node.journal.term_at(commit)} by count",
            )

    def _held(self, node: Any, voters: tuple[str, ...]) -> int:
        return sum(
            int(node.journal.durable_index) >= node.commit_index
            if name == node.name
            else self._acked.get((name, node.term), 0) >= node.commit_index
            for name in voters
        )
