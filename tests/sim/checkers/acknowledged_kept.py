"""Nothing acknowledged is ever lost, and nothing takes effect twice."""

from __future__ import annotations

from tests.sim.checkers.base import Broken, Checker


class AcknowledgedKept(Checker):
    def __init__(self) -> None:
        self._acknowledged: dict[tuple[int, int], int] = {}

    def on_acknowledged(self, client: int, sequence: int, index: int) -> None:
        self._acknowledged[client, sequence] = index

    def at_end(self, histories: dict[str, list[tuple[int, int]]]) -> None:
        for name, history in histories.items():
            present = set(history)
            if len(present) != len(history):
                raise Broken("exactly once", f"{name} applied an operation twice")
            lost = [key for key in self._acknowledged if key not in present]
            if lost:
                raise Broken(
                    "acknowledged kept",
                    f"{name} lacks {len(lost)} acknowledged operations, such as {lost[0]} at "
                    f"entry {self._acknowledged[lost[0]]}",
                )
        if len({tuple(history) for history in histories.values()}) > 1:
            raise Broken("applied equal", "histories differ after healing")
