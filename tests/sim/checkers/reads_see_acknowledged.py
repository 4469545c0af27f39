"""Whatever a client is answered comes from behind everything that any client was answered before it
asked: a linearizable read shows at least the log index of every acknowledgement and of every read
before it began (row 10). A sharp form of what the workloads judge by values."""

from __future__ import annotations

from typing import Any

from tests.sim.checkers.base import Broken, Checker


class ReadsSeeAcknowledged(Checker):
    def __init__(self) -> None:
        self._answered = 0
        self._floors: dict[int, int] = {}
        """What had been answered when the client's operation began, by client."""

    def on_invoke(self, record: Any) -> None:
        self._floors[record.client] = self._answered

    def on_return(self, record: Any) -> None:
        floor = self._floors.pop(record.client, 0)
        if not record.is_ok or not record.index:
            return
        if record.index < floor and record.arguments.get("level", "linearizable") == "linearizable":
            raise Broken(
                "answers in order",
                f"{record} is of index {record.index}, {floor} was answered before it began",
            )
        self._answered = max(self._answered, record.index)
