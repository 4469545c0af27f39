"""What is known of one user's table: its running sum, and how its rows are followed."""

from __future__ import annotations

from raftdb.machine.layout import Layout

PLAIN, REAL, BY_ROWID, WHOLE = range(4)
"""How a table is followed: values from the hook; the same with integers of REAL columns made
reals; rowids from the hook and values read afterwards; read as a whole when touched."""


LOOKS = 64
"""Rows of a table of which nothing is known whose lengths are asked for before they are read: some
microseconds each."""


class Table:
    """A table's running sum."""

    __slots__ = (
        "committed",
        "has_rowid",
        "id",
        "is_statistics",
        "kind",
        "layout",
        "lengths_sql",
        "looks",
        "name",
        "root",
        "sql",
        "total",
        "touched",
        "weight",
    )

    def __init__(self, id: int, name: str, root: int, sql: str, layout: Layout) -> None:
        self.id = id
        self.name = name
        self.root = root
        self.sql = sql
        self.total = 0
        self.weight = 1
        """Of its sum in the digest; follows the name."""
        self.committed: tuple[int, str] | None = None
        """Sum and name in the database; None when it has no row there yet."""
        self.touched: set[int] | None = set()
        """Rowids to read again; None: read the whole table (kinds BY_ROWID and WHOLE)."""
        self.looks = LOOKS
        """How many of its rows, before they go, are asked for their length (`longrows`)."""
        self.is_statistics = name.lower().startswith("sqlite_stat")
        self.set_layout(layout)

    def set_layout(self, layout: Layout) -> None:
        """Its rows are read so from now on."""
        self.layout = layout
        self.kind = _kind(layout)
        self.has_rowid = bool(layout.rowid)
        self.lengths_sql = ""
        """Made when it is needed."""


def _kind(layout: Layout) -> int:
    if layout.has_virtual:
        return BY_ROWID if layout.rowid else WHOLE
    return REAL if layout.reals else PLAIN
