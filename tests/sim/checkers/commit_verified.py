"""A follower commits no further than the leader of this term has shown its log to match: looked up
in the acknowledgements that it made in the term, whether its disk let them go or not (row 4)."""

from __future__ import annotations

from typing import Any

from tests.sim.checkers.base import Broken, Checker


class CommitVerified(Checker):
    def __init__(self) -> None:
        self._verified: dict[Any, tuple[int, int]] = {}
        """Node to (term, how far its log is that leader's)."""
        self._commit: dict[Any, int] = {}
        self._led: dict[Any, int] = {}
        """Node to the term that it led when it was seen last."""

    def on_ack_made(self, node: Any, ack: Any) -> None:
        if ack.success:
            term, index = self._verified.get(node, (0, 0))
            index = index if term == ack.term else 0
            self._verified[node] = ack.term, max(index, ack.log_index)

    def after_event(self, node: Any) -> None:
        now = node.commit_index
        before = self._commit.get(node)
        self._commit[node] = now
        if node.role == "leader":
            self._led[node] = node.term
        if before is None or now <= before or self._led.get(node) == node.term:
            # It may have committed by count, and have left its office in the same event.
            return
        term, index = self._verified.get(node, (0, 0))
        if term != node.term or now > index:
            raise Broken(
                "committed is verified",
                f"{node.name} commits {now} in term {node.term}, its log was shown to match up to "
                f"{index} in term {term}",
            )
