"""What the shell needs of a connection: the shape that `raftdb.connect` gives."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

READ_LEVELS = ("linearizable", "session", "bounded(SECONDS)", "local")
"""As they are written; the first is what reads have unless another is chosen."""
_LEVEL = re.compile(r"linearizable|session|bounded\([0-9.]+\)|local")


def is_level(text: str) -> bool:
    """Whether that is a read level."""
    return _LEVEL.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Import:
    """What `.import` was asked for."""

    file: str
    table: str
    style: str
    """`csv` or `ascii`, as the sqlite3 shell reads them; `` for what the file looks like."""
    skip: int
    verbose: bool


class Cursor(Protocol):
    """A DB-API 2.0 cursor after `execute`."""

    @property
    def description(self) -> Sequence[Sequence[Any]] | None:
        """One tuple per column, its name first; None when the statement returns no rows."""

    @property
    def rowcount(self) -> int:
        """Rows changed; -1 when that makes no sense."""

    def fetchall(self) -> list[Any]:
        """All rows."""

    def __iter__(self) -> Iterator[Any]:
        """The rows as they are asked for: pages of them, when it was executed with `stream`."""


class ResultSet(Protocol):
    """What one statement of a batch brought."""

    @property
    def columns(self) -> Sequence[str]:
        """Empty when the statement returns no rows."""

    @property
    def rows(self) -> Sequence[Sequence[Any]]:
        """All rows."""

    @property
    def rowcount(self) -> int:
        """Rows changed; -1 when that makes no sense."""


class Connection(Protocol):
    """A connection to the cluster."""

    def execute(self, sql: str, parameters: Any = (), /, **options: Any) -> Cursor:
        """Run one statement. `read="local"` and the like choose the read level; `stream=True` has
        a query's rows come a page at a time, from one snapshot."""

    @property
    def in_transaction(self) -> bool:
        """A transaction is open; BEGIN, COMMIT and ROLLBACK are executed as any statement."""

    def rollback(self) -> None:
        """Forget the open transaction."""

    @property
    def unsettled(self) -> bool:
        """The last write ended with outcome `unknown` and can still be resumed."""

    def resume(self) -> Sequence[ResultSet]:
        """Bring it to its end: applied once, whatever happened before."""

    def close(self) -> None:
        """Close."""
