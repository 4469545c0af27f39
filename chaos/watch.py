"""Watching: each node is asked for its state, past the proxies, again and again."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from raftdb.base.errors import Error
from raftdb.base.ports import Clock
from raftdb.client import Connection
from raftdb.drill.cluster import DrillCluster
from tests.sim.checkers import Broken, OneLeader

POLL_S = 0.1


@dataclass(slots=True)
class Seen:
    """A node, as the simulator's checkers want to see it."""

    name: str
    role: str
    term: int
    commit_index: int
    journal: Any = None


class Watch:
    """One thread per node; what is wrong is kept until somebody asks."""

    def __init__(self, cluster: DrillCluster, clock: Clock) -> None:
        self._cluster = cluster
        self._clock = clock
        self._leaders = OneLeader()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.broken: list[str] = []
        self.rss_bytes_max = 0
        self.leader_terms: dict[int, float] = {}
        """Terms in which somebody led, and when that was first seen."""
        self._threads = [
            threading.Thread(target=self._watch, args=(name,), daemon=True)
            for name in cluster.node_ids
        ]

    def __enter__(self) -> Watch:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10.0)

    def leader_changes(self, first_s: float, last_s: float) -> int:
        """Terms that got a leader within a span."""
        with self._lock:
            return sum(first_s <= moment <= last_s for moment in self.leader_terms.values())

    def _watch(self, name: str) -> None:
        connection: Connection | None = None
        while not self._stop.wait(POLL_S):
            try:
                connection = connection or self._cluster.connect_to(name, timeout=1.0)
                self._take(name, connection.status())
            except Error:
                if connection is not None:
                    connection.close()
                    connection = None
        if connection is not None:
            connection.close()

    def _take(self, name: str, status: dict[str, Any]) -> None:
        seen = Seen(name, str(status["role"]), int(status["term"]), int(status["commit_index"]))
        with self._lock:
            self.rss_bytes_max = max(self.rss_bytes_max, int(status.get("rss_bytes") or 0))
            if seen.role == "leader":
                self.leader_terms.setdefault(seen.term, self._clock.monotonic_s())
            try:
                self._leaders.after_event(seen)
            except Broken as error:
                self._say(str(error))
            if status.get("comparison_reason"):
                self._say(f"equal content: {name} says {status['comparison_reason']}")

    def _say(self, text: str) -> None:
        if text not in self.broken:
            self.broken.append(text)
