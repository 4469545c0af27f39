"""What the shell needs of a connection: the shape that `raftdb.connect` gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

READ_LEVELS = ("linearizable", "local")


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


class Connection(Protocol):
    """A connection to the cluster."""

    def execute(self, sql: str, parameters: Any = (), /, **options: Any) -> Cursor:
        """Run one statement. `read="local"` and the like choose the read level."""

    def close(self) -> None:
        """Close."""
