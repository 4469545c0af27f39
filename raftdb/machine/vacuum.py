"""Free pages go back to the file system, a few at a time.

Deleted rows leave free pages, which later writes use again. SQLite's incremental vacuum moves the
last pages of the file into them and cuts the file; rows, row ids and their order stay, so that
neither the content hash nor any answer changes. https://www.sqlite.org/pragma.html#pragma_incremental_vacuum
"""

from __future__ import annotations

from dataclasses import dataclass

import apsw

from raftdb.machine.format import MARK

_INCREMENTAL = 2


@dataclass(frozen=True, slots=True)
class Vacuumed:
    """What one step did."""

    given_back: int
    """Pages that the file has less (once the write-ahead log is in it)."""
    free: int
    """Free pages that are left."""
    pages: int
    """Of the whole database."""
    possible: bool = True
    """False: the database was founded without room for it."""


def vacuum(connection: apsw.Connection, pages_max: int) -> Vacuumed:
    """Give back at most so many pages, in a transaction of its own."""
    before = _count(connection, "page_count")
    if _count(connection, "auto_vacuum") != _INCREMENTAL:
        return Vacuumed(0, _count(connection, "freelist_count"), before, possible=False)
    connection.execute(f"PRAGMA incremental_vacuum({int(pages_max)}) {MARK}").fetchall()
    after = _count(connection, "page_count")
    return Vacuumed(before - after, _count(connection, "freelist_count"), after)


def _count(connection: apsw.Connection, pragma: str) -> int:
    [(value,)] = connection.execute(f"PRAGMA {pragma} {MARK}")
    return int(value)
