"""A leader commits what a majority holds, by what was acknowledged to it in its term, and its own
disk; and what it commits by count is of its own term (rows 2 and 6, thesis 3.6.2)."""

from __future__ import annotations

from typing import Any

from raftdb.consensus.messages import Ack
from tests.sim.checkers.base import Broken, Checker


class CommitHeld(Checker):
    def __init__(self) -> None:
        self._acked: dict[tuple[str, int], int] = {}
        """(member, term) to how far it has acknowledged in that term."""
        self._led: dict[Any, tuple[int, int]] = {}
        """Leader to (term, its commit index there when last seen)."""

    def on_send(self, node: Any, message: Any) -> None:
        if isinstance(message, Ack) and message.success:
            key = (node.name, message.term)
            if message.log_index > self._acked.get(key, 0):
                self._acked[key] = message.log_index

    def after_event(self, node: Any) -> None:
        if node.role != "leader":
            self._led.pop(node, None)
            return
        term, commit = node.term, node.commit_index
        led = self._led.get(node)
        self._led[node] = (term, commit)
        if led is None or led[0] != term or led[1] >= commit:
            return
        electorate = node.engine._core.electorate
        own = electorate.is_voter and int(node.journal.durable_index) >= commit
        held = own + sum(self._has(str(peer), term, commit) for peer in electorate.holders)
        members = electorate.is_voter + len(electorate.holders)
        if held <= members // 2:
            raise Broken(
                "committed is held",
                f"{node.name} commits {commit} in term {term}, {held} of {members} members hold it",
            )
        if int(node.journal.term_at(commit)) != term:
            raise Broken(
                "committed is held",
                f"{node.name} leads term {term} and commits {commit} of term "
                f"{node.journal.term_at(commit)} by count",
            )

    def _has(self, peer: str, term: int, index: int) -> bool:
        return self._acked.get((peer, term), 0) >= index
