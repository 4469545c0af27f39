"""Logged time, which is what statements see as `now`, is the same on every node at the same entry,
and never runs backwards, whatever the leaders' clocks do; nor does the time of sessions."""

from __future__ import annotations

from typing import Any

from raftdb.command import Commit
from raftdb.consensus import CommittedEntry
from tests.sim.checkers.base import Broken, Checker, decoded

Times = tuple[int, int]


class TimeForward(Checker):
    def __init__(self) -> None:
        self._at: dict[int, tuple[Times, str]] = {}
        self._last: dict[Any, Times] = {}
        self._known: set[int] = set()
        """Entries that were looked at for transactions."""

    def on_applied(self, name: str, entry: CommittedEntry) -> None:
        if entry.index in self._known:
            return
        self._known.add(int(entry.index))
        for payload in entry.payloads:
            request = decoded(payload)
            if isinstance(request, Commit) and request.statements:
                seen = max(one.time_ms for one in request.statements)
                if seen > request.stamp.time_ms:
                    raise Broken(
                        "time runs forward",
                        f"a transaction's statements have seen {seen}, and what is committed "
                        f"behind it at {entry.index} may see {request.stamp.time_ms}",
                    )

    def on_progress(self, node: Any, index: int, results: bytes) -> None:
        progress = node.machine._applier.progress
        times = (progress.time_ms, progress.session_ms)
        last = self._last.get(node, times)
        if times[0] < last[0] or times[1] < last[1]:
            raise Broken(
                "time runs forward",
                f"at {index} it is {times} for {node.name} (logged, of sessions), and was {last}",
            )
        self._last[node] = times
        first = self._at.setdefault(index, (times, node.name))
        if first[0] != times:
            raise Broken(
                "time runs forward",
                f"at {index} it is {times} for {node.name}, and {first[0]} for {first[1]}",
            )
