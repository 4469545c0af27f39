"""Equal content, and equal replies, at an equal index on every node."""

from __future__ import annotations

from typing import Any

from tests.sim.checkers.base import Broken, Checker


class HashEqual(Checker):
    def __init__(self) -> None:
        self._results: dict[int, tuple[bytes, str]] = {}
        self._hashes: dict[int, tuple[str, str]] = {}

    def on_progress(self, node: Any, index: int, results: bytes) -> None:
        first = self._results.setdefault(index, (results, node.name))
        if first[0] != results:
            raise Broken(
                "equal replies", f"{node.name} and {first[1]} answered differently up to {index}"
            )

    def on_hash(self, name: str, index: int, total: str) -> None:
        first = self._hashes.setdefault(index, (total, name))
        if first[0] != total:
            raise Broken(
                "equal content", f"{name} and {first[1]} hold different rows at entry {index}"
            )
