"""A steady mixed load: each client writes rows that only it writes, and reads them back.

The table has no unique key on purpose: a write that was applied twice is there twice.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from raftdb.base.errors import APPLIED, Error
from raftdb.client import Connection
from raftdb.demo.ledger import Ledger, Record

DEADLINE_S = 5.0
BATCH_ROWS = 5
PAUSE_S = 0.004

SCHEMA = (
    "CREATE TABLE visits (client INTEGER NOT NULL, n INTEGER NOT NULL, airport TEXT NOT NULL,"
    " seen_at TEXT NOT NULL DEFAULT (datetime('now', 'subsec')),"
    " luck INTEGER NOT NULL DEFAULT (random()))",
    "CREATE INDEX visits_by_client ON visits (client, n)",
)

_INSERT = "INSERT INTO visits (client, n, airport) VALUES (?, ?, ?)"


class LoadClient(threading.Thread):
    """One client: a thread and a connection of its own. It knows nothing of kills."""

    def __init__(
        self,
        record: Record,
        ledger: Ledger,
        connect: Callable[[], Connection],
        airports: list[str],
        stop: threading.Event,
    ) -> None:
        super().__init__(name=f"client-{record.client}", daemon=True)
        self._record = record
        self._ledger = ledger
        self._connect = connect
        self._airports = airports
        self._stop_asked = stop
        self._chance = random.Random(record.client)

    def run(self) -> None:
        """Until told to stop: write, sometimes a batch, sometimes a linearizable read."""
        with self._connect() as connection:
            while not self._stop_asked.is_set():
                draw = self._chance.random()
                if draw < 0.6:
                    self._timed(self._write, connection, 1)
                elif draw < 0.75:
                    self._timed(self._write, connection, BATCH_ROWS)
                elif draw < 0.95:
                    self._timed(self._read_own, connection)
                else:
                    self._timed(self._search, connection)
                self._stop_asked.wait(PAUSE_S)

    def _timed(self, call: Callable[..., None], *arguments: object) -> None:
        record = self._record
        start_s = time.monotonic()
        try:
            call(*arguments)
        except Error as error:
            record.failures.append(f"client {record.client}: {error.code}: {error}")
        spent_s = time.monotonic() - start_s
        record.latencies_s.append(spent_s)
        record.longest_s = max(record.longest_s, spent_s)
        if spent_s > DEADLINE_S + 0.5:
            record.failures.append(f"client {record.client}: a request hung for {spent_s:.1f} s")

    def _write(self, connection: Connection, rows: int) -> None:
        record = self._record
        first = record.attempted + 1
        record.attempted += rows
        numbers = range(first, first + rows)
        values = [(record.client, n, self._chance.choice(self._airports)) for n in numbers]
        record.write_requests += 1
        try:
            if rows == 1:
                connection.execute(_INSERT, values[0])
            else:
                connection.executemany(_INSERT, values)
        except Error as error:
            if error.outcome == APPLIED:
                record.acknowledge(numbers)
            raise
        record.acknowledge(numbers)
        self._ledger.committed()

    def _read_own(self, connection: Connection) -> None:
        record = self._record
        record.reads += 1
        acknowledged = record.last_acknowledged
        row = connection.execute(
            "SELECT coalesce(max(n), 0) FROM visits WHERE client = ?", (record.client,)
        ).fetchone()
        if row is None or row[0] < acknowledged:
            record.stale_reads.append(
                f"client {record.client} read {row and row[0]} after the commit of {acknowledged}"
            )

    def _search(self, connection: Connection) -> None:
        self._record.reads += 1
        word = self._chance.choice(("international", "regional", "field", "island", "lake"))
        rows = connection.execute(
            "SELECT name FROM airports_text WHERE airports_text MATCH ? ORDER BY rank LIMIT 5",
            (word,),
        ).fetchall()
        if not rows:
            self._record.stale_reads.append(f"full-text search for {word!r} found nothing")
