"""The load of a drill: clients that record every acknowledgement, and give up on nothing.

Each row is written under an idempotency key, and written again under the same key until it is
acknowledged, as an application would that must not lose or repeat an order. No constraint keeps
a row from being there twice: a write that was applied twice would be seen.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from raftdb.base.errors import APPLIED, Error
from raftdb.base.ports import Clock
from raftdb.client import Connection

CLIENTS = 4
PAUSE_S = 0.01
"""Between two writes of a client: a drill measures recovery, not throughput."""
PENDING = "durability_pending"
TABLE = "drill_rows"
SCHEMA = (
    f"CREATE TABLE {TABLE} (id INTEGER PRIMARY KEY AUTOINCREMENT,"
    " client INTEGER NOT NULL, n INTEGER NOT NULL,"
    " at TEXT NOT NULL DEFAULT (datetime('now', 'subsec')),"
    " luck INTEGER NOT NULL DEFAULT (random()))",
    f"CREATE INDEX {TABLE}_by_client ON {TABLE} (client, n)",
)
_INSERT = f"INSERT INTO {TABLE} (client, n) VALUES (?, ?)"


@dataclass(slots=True)
class Write:
    """One row, from the first try to its acknowledgement. Times are monotonic seconds."""

    client: int
    n: int
    sent_s: float
    acknowledged_s: float | None = None
    failures: list[str] = field(default_factory=list)
    """Tries that ended in an error."""

    @property
    def key(self) -> tuple[int, int]:
        """Which row it is."""
        return self.client, self.n

    @property
    def latency_s(self) -> float:
        """From the first try to the acknowledgement."""
        return 0.0 if self.acknowledged_s is None else self.acknowledged_s - self.sent_s


class Load:
    """The clients. `connect` gives a connection to the cluster that there is now."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        clock: Clock,
        *,
        clients: int = CLIENTS,
        keys: str = "drill",
    ) -> None:
        """`keys`: what its idempotency keys begin with, another for each drill on a cluster."""
        self._connect = connect
        self._keys = keys
        self._clock = clock
        self._stop = threading.Event()
        self._generation = 0
        self._lock = threading.Lock()
        self._writes: list[Write] = []
        self._failures: list[str] = []
        self._threads = [
            threading.Thread(target=self._run, args=(client,), name=f"drill-{client}", daemon=True)
            for client in range(clients)
        ]

    def start(self) -> None:
        """Begin to write."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float = 30.0) -> None:
        """Begin nothing new, and wait for what is open."""
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout_s)

    def redirect(self) -> None:
        """There is another cluster now: connect anew."""
        self._generation += 1

    @property
    def hanging(self) -> list[str]:
        """Clients that did not end."""
        return [thread.name for thread in self._threads if thread.is_alive()]

    def writes(self) -> list[Write]:
        """All that was begun, in the order of beginning."""
        with self._lock:
            return list(self._writes)

    def acknowledged(self) -> list[Write]:
        """All that was acknowledged."""
        return [write for write in self.writes() if write.acknowledged_s is not None]

    def failures(self) -> list[str]:
        """Tries that ended in an error."""
        with self._lock:
            return list(self._failures)

    def first_commit_after(self, moment_s: float) -> Write | None:
        """The first acknowledged one of the writes that were begun after a moment."""
        found = [write for write in self.acknowledged() if write.sent_s >= moment_s]
        return min(found, key=lambda write: write.acknowledged_s or 0.0, default=None)

    # ---- one client

    def _run(self, client: int) -> None:
        connection: Connection | None = None
        seen = -1
        for n in itertools.count(1):
            if self._stop.wait(PAUSE_S):
                break
            write = Write(client, n, self._clock.monotonic_s())
            with self._lock:
                self._writes.append(write)
            while write.acknowledged_s is None and not self._stop.is_set():
                if connection is None or seen != self._generation:
                    seen = self._generation
                    connection = self._again(connection)
                if not self._try(connection, write):
                    self._stop.wait(PAUSE_S)
        if connection is not None:
            connection.close()

    def _again(self, old: Connection | None) -> Connection:
        if old is not None:
            old.close()
        return self._connect()

    def _try(self, connection: Connection, write: Write) -> bool:
        try:
            connection.execute(
                _INSERT, write.key, idempotency_key=f"{self._keys} {write.client} {write.n}"
            )
        except Error as error:
            # Committed, and not yet where it was to be as well: that is no acknowledgement.
            if error.outcome != APPLIED or error.code == PENDING:
                problem = f"client {write.client}, row {write.n}: {error.code}: {error.message}"
                write.failures.append(problem)
                with self._lock:
                    self._failures.append(problem)
                return False
        write.acknowledged_s = self._clock.monotonic_s()
        return True


def longest_silence_s(writes: Sequence[Write], first_s: float, last_s: float) -> float:
    """The longest span without any acknowledgement, within the given one."""
    moments = sorted(
        write.acknowledged_s
        for write in writes
        if write.acknowledged_s is not None and first_s <= write.acknowledged_s <= last_s
    )
    edges = [first_s, *moments, last_s]
    return max(after - before for before, after in itertools.pairwise(edges))
