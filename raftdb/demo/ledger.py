"""What the clients were told: the yardstick of the check."""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Totals:
    """Sums over all clients, as of now."""

    acknowledged: int = 0
    requests: int = 0
    reads: int = 0
    failed: int = 0
    stale_reads: int = 0
    longest_s: float = 0.0


@dataclass(slots=True)
class Record:
    """One client's own account; only that client writes it."""

    client: int
    acknowledged: set[int] = field(default_factory=set)
    """Numbers of the rows whose commit was acknowledged."""
    last_acknowledged: int = 0
    attempted: int = 0
    """The highest row number that was ever sent."""
    write_requests: int = 0
    reads: int = 0
    failures: list[str] = field(default_factory=list)
    stale_reads: list[str] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    longest_s: float = 0.0

    def acknowledge(self, numbers: range) -> None:
        """Their commit was acknowledged; numbers only grow."""
        self.acknowledged.update(numbers)
        self.last_acknowledged = numbers[-1]


class Ledger:
    """The accounts of all clients, and when each write was acknowledged."""

    def __init__(self, clients: int) -> None:
        self.records = [Record(client) for client in range(clients)]
        self._lock = threading.Lock()
        self._commits: list[float] = []

    def committed(self) -> None:
        """Note one acknowledged write request."""
        now = time.monotonic()
        with self._lock:
            self._commits.append(now)

    def commits_between(self, first_s: float, last_s: float) -> int:
        """Acknowledged write requests in a span of monotonic time."""
        with self._lock:
            return sum(1 for moment in reversed(self._commits) if first_s <= moment < last_s)

    def longest_silence_s(self, first_s: float, last_s: float) -> float:
        """The longest span without any acknowledged write, within the given one."""
        with self._lock:
            moments = [moment for moment in self._commits if first_s <= moment <= last_s]
        edges = [first_s, *sorted(moments), last_s]
        return max(after - before for before, after in itertools.pairwise(edges))

    def totals(self) -> Totals:
        """Sums as of now (each number is exact, together they may be a moment apart)."""
        total = Totals()
        for record in self.records:
            total.acknowledged += len(record.acknowledged)
            total.requests += record.write_requests
            total.reads += record.reads
            total.failed += len(record.failures)
            total.stale_reads += len(record.stale_reads)
            total.longest_s = max(total.longest_s, record.longest_s)
        return total
