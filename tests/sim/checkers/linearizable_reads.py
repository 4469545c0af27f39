"""A linearizable read sees every write that was acknowledged before the read began."""

from __future__ import annotations

from tests.sim.checkers.base import Broken, Checker


class LinearizableReads(Checker):
    def on_read(self, name: str, seen: dict[int, int], acknowledged: dict[int, int]) -> None:
        for client, sequence in acknowledged.items():
            if seen.get(client, 0) < sequence:
                raise Broken(
                    "linearizable reads",
                    f"a read at {name} sees {seen.get(client, 0)} of client {client}, "
                    f"{sequence} was acknowledged before it",
                )
