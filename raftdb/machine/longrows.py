"""Rows with long values that are about to go: hashed in pieces, where they lie.

The binding gives such a row as Python values. SQLite reads the whole row for that, page by page,
and the binding copies it, all with the interpreter to itself: the loop with its heartbeats stands
still for as long as that takes, for up to 64 MiB. So long values are read by incremental I/O
(https://www.sqlite.org/c3ref/blob_open.html), and the interpreter is free while a piece is read and
while it is hashed.

How a row is read changes nothing of its hash. So what is remembered here (which tables have long
rows) is this process's own, and need not be the same anywhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

import apsw

from raftdb.machine.format import MARK
from raftdb.machine.layout import Run, quote
from raftdb.machine.rowhash import LongValue, RowHasher
from raftdb.machine.tables import LOOKS, Table

__all__ = ["LOOKS", "LONG_BYTES", "PIECE_BYTES", "LongRows", "LongValue", "Running"]

_Value = TypeVar("_Value")

LONG_BYTES = 1 << 20
"""A longer value is read in pieces. To copy one of so many takes less than a millisecond."""
PIECE_BYTES = 1 << 20
LOOKS_LONG = 4_096
"""So many rows of a table in which one was long are asked for their length (see tables.LOOKS)."""


class Running(Protocol):
    """The statement that runs."""

    changes_rows: bool
    """It is a user's, and changes rows and nothing else."""
    brief: bool
    long_tables: set[str]
    """Names of tables that have long rows, in lower case: not written in passing."""

    def uncounted(self, work: Callable[[], _Value]) -> _Value:
        """Do work whose steps are none of the request's."""


class LongRows:
    """Reads rows inside the preupdate hook, on the connection that is about to change them. On the
    apply lane."""

    def __init__(
        self, connection: apsw.Connection, run: Run, hasher: RowHasher, running: Running
    ) -> None:
        self._connection = connection
        self._run = run
        self._hasher = hasher
        self._running = running

    def old_hash(self, table: Table, rowid: int) -> int | None:
        """Of a row that is about to go, if it is long; else None, and it is read like any other.
        Raises apsw.InterruptError when the request is tried in passing: only a lane may take the
        time."""
        if not self._running.changes_rows or table.looks <= 0:
            return None
        return self._running.uncounted(lambda: self._look(table, rowid))

    def noticed(self, table: Table) -> None:
        """What was hashed last of it had more than rowhash.LONG_BYTES."""
        if self._hasher.longest > LONG_BYTES:
            self._found(table)
        self._hasher.longest = 0

    def _found(self, table: Table) -> None:
        table.looks = LOOKS_LONG
        self._running.long_tables.add(table.name.lower())

    def _look(self, table: Table, rowid: int) -> int | None:
        table.looks -= 1
        lengths = self._lengths(table, rowid)
        if max(lengths, default=0) <= LONG_BYTES:
            return None
        self._found(table)
        if self._running.brief:
            raise apsw.InterruptError("not in passing")
        return self._hash(table, rowid, lengths)

    def _lengths(self, table: Table, rowid: int) -> list[int]:
        """Of the row's values, in bytes: they stand in its header, and nothing else is read."""
        if not table.lengths_sql:
            names = ", ".join(f"octet_length({quote(one)})" for one in table.layout.columns)
            table.lengths_sql = f"SELECT {names} {_from(table)}"
        [row] = self._run(table.lengths_sql, (rowid,))
        return [length or 0 for length in row]

    def _hash(self, table: Table, rowid: int, lengths: list[int]) -> int:
        columns = [
            f"typeof({quote(name)})" if length > LONG_BYTES else quote(name)
            for name, length in zip(table.layout.columns, lengths, strict=True)
        ]
        [row] = self._run(f"SELECT {', '.join(columns)} {_from(table)}", (rowid,))
        values = [
            LongValue(value == "text", length, self._pieces(table, name, rowid, length))
            if length > LONG_BYTES
            else value
            for name, value, length in zip(table.layout.columns, row, lengths, strict=True)
        ]
        return self._hasher.hash_long((rowid, *values))

    def _pieces(self, table: Table, column: str, rowid: int, length: int) -> Iterator[memoryview]:
        try:
            blob = self._connection.blob_open("main", table.name, column, rowid, False)
        except apsw.SQLError:
            # A table with STORED generated columns has no incremental I/O. What is read at once is
            # read while the interpreter is free, and copied.
            sql = f"SELECT CAST({quote(column)} AS BLOB) {_from(table)}"
            [(whole,)] = self._run(sql, (rowid,))
            yield memoryview(whole)
            return
        try:
            buffer = memoryview(bytearray(min(PIECE_BYTES, length)))
            for start in range(0, length, PIECE_BYTES):
                piece = buffer[: length - start]
                blob.read_into(piece)
                yield piece
        finally:
            blob.close()


def _from(table: Table) -> str:
    """Where one row of it is, by rowid."""
    return f"FROM main.{quote(table.name)} NOT INDEXED WHERE {table.layout.rowid} = ? {MARK}"
