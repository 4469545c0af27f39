"""A reply that was to wait for N places leaves when the entry is on disk in N distinct ones: looked
up in the acknowledgements that left, and the leader's own journal, by paths of locations that this
file cuts by itself (rules C3 and L1)."""

from __future__ import annotations

from typing import Any

from raftdb.command import is_failure
from raftdb.consensus.messages import Ack
from tests.sim.checkers.base import Broken, Checker

_PARTS = {"region": 1, "zone": 2}


class DurableInPlaces(Checker):
    hears = (Ack,)

    def __init__(self) -> None:
        self._durable: dict[str, int] = {}
        """What each member's journal has had on disk: it only grows below the commit index."""
        self.seen = 0

    def on_send(self, node: Any, message: Any) -> None:
        if isinstance(message, Ack) and message.success:
            self._has(node.name, message.log_index)

    def _has(self, name: str, index: int) -> None:
        if index > self._durable.get(name, 0):
            self._durable[name] = index

    def on_durable_answer(self, node: Any, durability: str, answer: Any) -> None:
        count, level = _read(durability)
        if not count or is_failure(answer.body):
            # What failed changed nothing, and does not wait.
            return
        self.seen += 1
        self._has(node.name, int(node.journal.durable_index))
        parts = _PARTS[level]
        holding = {
            "/".join(str(member.location).split("/")[:parts])
            for member in node.assembly.replica.identity.voting
            if self._durable.get(str(member.node_id), 0) >= answer.index
        }
        if len(holding) < count:
            raise Broken(
                "durable in places",
                f"{durability} acknowledged at {answer.index}: on disk in {sorted(holding)} only",
            )


def _read(durability: str) -> tuple[int, str]:
    if not durability.startswith("locations="):
        return 0, ""
    count, _, level = durability.removeprefix("locations=").partition("@")
    return int(count), level or "region"
