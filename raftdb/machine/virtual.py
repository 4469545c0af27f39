"""What virtual tables keep in a connection's memory, made the same on every replica.

FTS remembers options beside the index, and a rollback takes them back in the file alone. So
- a table's options have a cookie, which FTS5 takes from the index when it first reads that, and
  which `rebuild` and `delete-all` write back without reading it: on a connection that was opened
  since the options were set, they write zero. The index is read at the beginning of each request.
- when a request that touched an index is undone, the schema is to be read again (`stale`), by which
  SQLite connects virtual tables anew.
Options that no replica could follow are refused: with automerge, FTS3 and FTS4 write while SQLite
commits, as much as was added since it began, and how much that is differs from node to node; FTS5
says that the disk is full when it has 2,000 segments.
https://www.sqlite.org/fts5.html#special_insert_commands, https://www.sqlite.org/fts3.html#automerge
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import apsw

from raftdb.base.errors import NotSupportedError
from raftdb.machine.determinism import as_integer
from raftdb.machine.format import CRISISMERGE_MAX, MARK
from raftdb.machine.layout import Run, quote

_DELETE = int(apsw.SQLITE_DELETE)
_AUTOMERGE_ROW = 2
"""Of the statistics of FTS3 and FTS4."""


class VirtualTables:
    """Of one connection."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._lookups: list[str] = []
        self._shadows: tuple[str, ...] = ()
        self._options: frozenset[str] = frozenset()
        """Tables that hold options, among them some that are refused."""
        self.exist = False
        """FTS and the like exist: they keep changes in memory until a savepoint opens."""
        self.stale = False
        """What they remember may have been undone."""

    def take(self, schema: Iterable[tuple[Any, ...]]) -> None:
        """Rows of sqlite_schema: (type, name, table, root, SQL)."""
        found = [
            (name, sql.lower()) for kind, name, _on, root, sql in schema if _is_one(kind, root)
        ]
        self.exist = bool(found)
        # Wherever the word stands: between it and USING there may be a comment.
        self._lookups = [
            f"SELECT rowid FROM main.{quote(name)} WHERE rowid = 0 {MARK}"
            for name, sql in found
            if "fts5" in sql
        ]
        self._shadows = tuple(f"{name}_" for name, _sql in found)
        names = [f"{name}_stat" for name, sql in found if re.search("fts[34]", sql)]
        names += [f"{name}_config" for name, sql in found if "fts5" in sql]
        self._options = frozenset(names)

    def read(self) -> None:
        """Read the indexes of all tables of FTS5: some two microseconds each."""
        for sql in self._lookups:
            try:
                for _row in self._run(sql):
                    pass
            except (apsw.SQLError, apsw.CorruptError):
                # The table whose text it indexes is gone, say: for the statement that uses it. The
                # options are read all the same.
                pass

    def undone(self, tables: Iterable[str]) -> None:
        """What was changed in these tables was rolled back."""
        if self.exist and any(name.startswith(self._shadows) for name in tables):
            self.stale = True

    def refusal(self, table: str, update: apsw.PreUpdate) -> NotSupportedError | None:
        """A row is about to be written: why not, if it is an option that no replica can follow.
        At every feature level: under 0.1.0 all nodes stop of it, if not at once."""
        if table not in self._options or update.opcode == _DELETE:
            return None
        try:
            new: Any = update.new
        except UnicodeError:
            return None  # It is refused as such.
        if table.endswith("_stat"):
            if new[0] == _AUTOMERGE_ROW and as_integer(new[1]):
                # It is remembered all the same.
                self.stale = True
                return NotSupportedError(
                    "refused: automerge of FTS3 and FTS4 merges while a transaction commits",
                    hint="run INSERT INTO t(t) VALUES ('merge=500,8') or 'optimize', or use FTS5",
                )
        elif str(new[0]).lower() == "crisismerge" and as_integer(new[1]) > CRISISMERGE_MAX:
            self.stale = True
            return NotSupportedError(
                f"refused: crisismerge above {CRISISMERGE_MAX}",
                hint="FTS5 fails for good when an index has 2,000 segments",
            )
        return None


def _is_one(kind: str, root: int | None) -> bool:
    return kind == "table" and not root
