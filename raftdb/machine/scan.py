"""The content hash of one table from its rows, and its indexes against it, some rows at a time,
beside the writer.

Each table is read on one snapshot, which has the sum that was kept incrementally as well: the two
are equal, or the file does not hold what was written. Then each of its indexes, on a snapshot of
its own. While a snapshot is open the write-ahead log cannot begin again; so whoever scans watches
how it grows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import apsw

from raftdb.machine import failures
from raftdb.machine.format import HASH_MASK, MARK, PREFIX
from raftdb.machine.indexscan import entries, index_names, lookups
from raftdb.machine.layout import Run, read_images, read_layout
from raftdb.machine.rowhash import RowHasher, from_bytes
from raftdb.machine.stored import run_on

_Value = TypeVar("_Value")
_SUM = f"SELECT total FROM {PREFIX}hash WHERE kind = 't' AND name = ? {MARK}"
_ROWS_PER_PAGE = 50
"""To count the entries on a page of an index takes about as long as so many rows."""


@dataclass(frozen=True, slots=True)
class Part:
    """What is scanned on one snapshot."""

    table: str
    index: str = ""
    """One of its indexes; `` for its rows."""

    def __str__(self) -> str:
        return f"{self.table} index {self.index}" if self.index else self.table


class ContentScan:
    """One at a time for a connection of its own. Any thread, one at a time."""

    def __init__(self, connect: Callable[[], apsw.Connection], key: bytes) -> None:
        self._connect = connect
        self._hasher = RowHasher(key)
        self._connection: apsw.Connection | None = None
        self._images: Iterator[Any] = iter(())
        self._index = ""
        self._stored = 0
        self._total = 0
        self._counting = False
        self.rows = 0
        """Of the table, or looked up in the index, so far."""
        self.not_comparable = False
        """The part that was begun last is an index that cannot be searched for single entries."""

    def parts(self) -> list[Part]:
        """All tables that have a sum, and their indexes. Raises FatalError."""

        def found(run: Run) -> list[Part]:
            query = f"SELECT name FROM {PREFIX}hash WHERE kind = 't' ORDER BY name {MARK}"
            listed: list[Part] = []
            for (table,) in list(run(query)):
                listed.append(Part(table))
                listed += (Part(table, index) for index in index_names(run, table))
            return listed

        return self._guarded(found)

    def begin(self, part: Part) -> bool:
        """Take a snapshot for that part; False when it is gone, or an index that cannot be searched
        for single entries. Raises FatalError."""

        def first(run: Run) -> bool:
            run(f"BEGIN {MARK}")
            self._stored = self._total = self.rows = 0
            self._index, self._counting = part.index, False
            self.not_comparable = False
            stored = list(run(_SUM, (part.table,)))
            if not stored:
                return False
            if part.index:
                seek = lookups(run, part.table, part.index)
                self.not_comparable = not seek and part.index in index_names(run, part.table)
                self._images = iter(run(seek) if seek else ())
                return bool(seek)
            self._stored = from_bytes(stored[0][0])
            self._images = read_images(run, part.table, read_layout(run, part.table))
            return True

        self.end()
        return self._guarded(first)

    def step(self, rows: int) -> bool | None:
        """Read up to so many rows. None: there are more; else whether the sums are equal, or the
        index agrees with its table."""
        return self._guarded(
            lambda run: self._some_entries(run, rows) if self._index else self._some_rows(rows)
        )

    def _some_rows(self, rows: int) -> bool | None:
        count = 0
        try:
            for image in islice(self._images, rows):
                self._total += self._hasher.hash(image)
                count += 1
        except UnicodeError:
            # Such text was never stored, so it was not what lies there.
            return False
        self.rows += count
        return None if count == rows else self._total & HASH_MASK == self._stored

    def _some_entries(self, run: Run, rows: int) -> bool | None:
        """First each row is looked up; then the index's entries are counted."""
        size = max(rows // _ROWS_PER_PAGE, 1) if self._counting else rows
        numbers = [number for (number,) in islice(self._images, size)]
        self._total += sum(numbers)
        if self._counting:
            return None if len(numbers) == size else self._total == self.rows
        self.rows += len(numbers)
        if self._total != self.rows:
            return False
        if len(numbers) < size:
            self._images, self._total, self._counting = entries(run, self._index), 0, True
        return None

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
