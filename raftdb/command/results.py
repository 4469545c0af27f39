"""Results: what a replica answers. The same on every replica, byte for byte."""

from __future__ import annotations

from raftdb.base.errors import Error
from raftdb.base.frozen import frozen
from raftdb.command.requests import SessionId, Value


@frozen
class StatementResult:
    """Of one statement. With several parameter sets: rows of all in order, `changes` summed."""

    columns: tuple[str, ...]
    """Empty when the statement returns no rows."""
    rows: tuple[tuple[Value, ...], ...]
    changes: int
    """Rows inserted, updated or deleted by the statement itself (as sqlite3_changes64)."""
    last_insert_rowid: int


@frozen
class Results:
    """The request was applied."""

    statements: tuple[StatementResult, ...]


@frozen
class Failed:
    """The request failed as a whole and changed nothing; the failure is a committed result.

    (Exception, as in SQLite: what OR FAIL leaves behind. `error.outcome` says `applied` then.)
    """

    error: Error
    statement: int
    """Position of the statement that failed, from 0; -1 when the request itself was refused."""


@frozen
class Opened:
    """The session is open."""

    session: SessionId


@frozen
class ResultDropped:
    """A retry of a request that was applied, but whose result was too large to keep."""

    result_bytes: int


Reply = Results | Failed | Opened | ResultDropped
