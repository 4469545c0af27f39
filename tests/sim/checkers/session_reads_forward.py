"""What a client was told once, by whatever it asked for, is never untold by a `session` level read
of the same process: its own transactions and pipelines count as its single writes do."""

from __future__ import annotations

from typing import Any

from tests.sim.checkers.base import Broken, Checker


class SessionReadsForward(Checker):
    def __init__(self) -> None:
        self._told: dict[tuple[int, int], int] = {}
        """The highest log index, by client and its process."""

    def on_return(self, record: Any) -> None:
        if not record.is_ok or not record.index:
            return
        who = record.client, record.process
        before = self._told.get(who, 0)
        if record.index < before and record.arguments.get("level") == "session":
            raise Broken(
                "session reads go forward",
                f"{record} is of index {record.index}, this client was told of {before} before",
            )
        self._told[who] = max(before, record.index)
