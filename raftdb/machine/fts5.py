"""What FTS5 remembers on a connection, made the same on every replica.

A table's options have a cookie, which FTS5 takes from the index when it first reads that, and which
`rebuild` and `delete-all` write back without reading it: on a connection that was opened since the
options were set, they write zero. So the index is read at the beginning of each request.
https://www.sqlite.org/fts5.html#special_insert_commands
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import apsw

from raftdb.machine.format import MARK
from raftdb.machine.layout import Run, quote

_FTS5 = re.compile(
    r"CREATE\s+VIRTUAL\s+TABLE\s.*\bUSING\s+[\"'`\[]?fts5\b", re.IGNORECASE | re.DOTALL
)


class Fts5Options:
    """Of one connection."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._lookups: list[str] = []

    def take(self, schema: Iterable[tuple[Any, ...]]) -> None:
        """Rows of sqlite_schema: (type, name, table, root, SQL)."""
        self._lookups = [
            f"SELECT rowid FROM main.{quote(name)} WHERE rowid = 0 {MARK}"
            for kind, name, _table, root, sql in schema
            if kind == "table" and not root and _FTS5.match(sql)
        ]

    def read(self) -> None:
        """Read the indexes of all tables: some two microseconds each."""
        for sql in self._lookups:
            try:
                for _row in self._run(sql):
                    pass
            except (apsw.SQLError, apsw.CorruptError):
                # The table whose text it indexes is gone, say: for the statement that uses it. The
                # options are read all the same.
                pass
