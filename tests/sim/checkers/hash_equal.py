"""Equal content, and equal replies, at an equal index on every node."""

from __future__ import annotations

from typing import Any

from tests.sim.checkers.base import Broken, Checker


class HashEqual(Checker):
    def __init__(self) -> None:
        self._results: dict[int, tuple[bytes, str]] = {}
        self._contents: dict[int, tuple[bytes, str]] = {}
        self._hashes: dict[int, tuple[str, str]] = {}
        self._is_spoilt = False
        self._strays: set[str] = set()
        """Whose write-ahead log something has written into, and who may not have seen it yet."""

    def on_event(self, kind: str, name: str, facts: dict[str, Any]) -> None:
        if kind == "log written into":
            self._strays.add(name)
        elif kind == "content spoilt":
            # By a script, which looks at what becomes of it.
            self._is_spoilt = True
        elif kind == "start":
            self._strays.discard(name)

    def on_progress(self, node: Any, index: int, results: bytes) -> None:
        if node.name in self._strays:
            # What it took back it reads again from there.
            return
        first = self._results.setdefault(index, (results, node.name))
        if first[0] != results:
            raise Broken(
                "equal replies", f"{node.name} and {first[1]} answered differently up to {index}"
            )
        sample = node.machine.last_sample()
        if sample is not None and sample.index == index and not self._is_spoilt:
            # What nodes compare among themselves, as their applying keeps it.
            other = self._contents.setdefault(index, (sample.content, node.name))
            if other[0] != sample.content:
                raise Broken(
                    "equal content",
                    f"{node.name} and {other[1]} have different sums of their rows at {index}",
                )

    def on_hash(self, name: str, index: int, total: str) -> None:
        first = self._hashes.setdefault(index, (total, name))
        if first[0] != total:
            raise Broken(
                "equal content", f"{name} and {first[1]} hold different rows at entry {index}"
            )
