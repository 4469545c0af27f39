"""The content hash of one table from its rows, some rows at a time, beside the writer.

Each table is read on one snapshot, which has the sum that was kept incrementally as well: the two
are equal, or the file does not hold what was written. While a snapshot is open the write-ahead log
cannot begin again; so whoever scans watches how it grows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, TypeVar

import apsw

from raftdb.machine import failures
from raftdb.machine.format import HASH_MASK, MARK, PREFIX
from raftdb.machine.layout import Run, read_images, read_layout
from raftdb.machine.rowhash import RowHasher, from_bytes
from raftdb.machine.stored import run_on

_Value = TypeVar("_Value")
_SUM = f"SELECT total FROM {PREFIX}hash WHERE kind = 't' AND name = ? {MARK}"


class ContentScan:
    """One at a time for a connection of its own. Any thread, one at a time."""

    def __init__(self, connect: Callable[[], apsw.Connection], key: bytes) -> None:
        self._connect = connect
        self._hasher = RowHasher(key)
        self._connection: apsw.Connection | None = None
        self._images: Iterator[Any] = iter(())
        self._stored = 0
        self._total = 0
        self.rows = 0
        """Of the table, so far."""

    def tables(self) -> list[str]:
        """Names of all tables that have a sum. Raises FatalError."""
        query = f"SELECT name FROM {PREFIX}hash WHERE kind = 't' ORDER BY name {MARK}"
        return self._guarded(lambda run: [name for (name,) in run(query)])

    def begin(self, table: str) -> bool:
        """Take a snapshot for that table; False when it is gone. Raises FatalError."""

        def first(run: Run) -> bool:
            run(f"BEGIN {MARK}")
            stored = list(run(_SUM, (table,)))
            if not stored:
                return False
            self._stored, self._total, self.rows = from_bytes(stored[0][0]), 0, 0
            self._images = read_images(run, table, read_layout(run, table))
            return True

        self.end()
        return self._guarded(first)

    def step(self, rows: int) -> bool | None:
        """Read up to so many rows. None: there are more; else whether the sums are equal."""

        def some(_run: Run) -> bool | None:
            count = 0
            for image in islice(self._images, rows):
                self._total += self._hasher.hash(image)
                count += 1
            self.rows += count
            return None if count == rows else self._total & HASH_MASK == self._stored

        return self._guarded(some)

    def end(self) -> None:
        """Let the snapshot go."""
        connection, self._connection, self._images = self._connection, None, iter(())
        if connection is not None:
            connection.close(True)

    def _guarded(self, work: Callable[[Run], _Value]) -> _Value:
        try:
            if self._connection is None:
                self._connection = self._connect()
            return work(run_on(self._connection))
        except apsw.Error as error:
            self.end()
            raise failures.of_query(error) from error
