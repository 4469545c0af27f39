"""Opens SQLite's connections, each with the settings that its part needs."""

from __future__ import annotations

from typing import Any

import apsw

from raftdb.machine.format import MARK, PARAMETERS_MAX, ROW_BYTES_MAX, SQL_BYTES_MAX

_BUSY_MS = 5_000
"""Only SQLite's own short locks are waited for (the recovery of a write-ahead log)."""
_STATEMENTS = 200
_WAL_KEPT_BYTES = 64 << 20
"""A write-ahead log that grew longer is cut when it begins again."""
_WRITER_CACHE_KIB = 16_384
_READER_CACHE_KIB = 4_096

_LIMITS = {
    apsw.SQLITE_LIMIT_LENGTH: ROW_BYTES_MAX,
    apsw.SQLITE_LIMIT_SQL_LENGTH: SQL_BYTES_MAX,
    apsw.SQLITE_LIMIT_COLUMN: 2_000,
    apsw.SQLITE_LIMIT_EXPR_DEPTH: 1_000,
    apsw.SQLITE_LIMIT_COMPOUND_SELECT: 500,
    apsw.SQLITE_LIMIT_FUNCTION_ARG: 1_000,
    apsw.SQLITE_LIMIT_ATTACHED: 0,
    apsw.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 50_000,
    apsw.SQLITE_LIMIT_VARIABLE_NUMBER: PARAMETERS_MAX,
    apsw.SQLITE_LIMIT_TRIGGER_DEPTH: 1_000,
    apsw.SQLITE_LIMIT_WORKER_THREADS: 0,
}
"""The same on every replica: they decide whether a statement fails (rule M4)."""


def open_writer(path: str, vfs: str) -> apsw.Connection:
    """The one connection that writes. Raises apsw.Error."""
    connection = apsw.Connection(
        path,
        flags=apsw.SQLITE_OPEN_READWRITE,
        vfs=vfs or None,
        statementcachesize=_STATEMENTS,
    )
    _configure(connection)
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    # A plan depends on the statement, the schema and the statistics, never on a bound value.
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    _pragma(connection, "synchronous = NORMAL")
    _pragma(connection, "foreign_keys = ON")
    _pragma(connection, f"cache_size = -{_WRITER_CACHE_KIB}")
    _pragma(connection, f"journal_size_limit = {_WAL_KEPT_BYTES}")
    return connection


def open_overlay(vfs: str) -> apsw.Connection:
    """A connection on the file of an overlay: configured as the writer is. Raises apsw.Error."""
    connection = apsw.Connection(
        "overlay",
        flags=apsw.SQLITE_OPEN_READWRITE,
        vfs=vfs,
        statementcachesize=_STATEMENTS,
    )
    # Rolled back from memory, and never committed.
    _pragma(connection, "journal_mode = MEMORY")
    _configure(connection)
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    _pragma(connection, "foreign_keys = ON")
    _pragma(connection, f"cache_size = -{_READER_CACHE_KIB}")
    return connection


def open_reader(path: str, vfs: str) -> apsw.Connection:
    """A connection that cannot write. Raises apsw.Error."""
    connection = apsw.Connection(
        path,
        flags=apsw.SQLITE_OPEN_READONLY,
        vfs=vfs or None,
        statementcachesize=_STATEMENTS,
    )
    _configure(connection)
    _pragma(connection, "query_only = ON")
    _pragma(connection, f"cache_size = -{_READER_CACHE_KIB}")
    return connection


def open_checkpointer(path: str, vfs: str) -> apsw.Connection:
    """The connection that moves the write-ahead log into the file. Raises apsw.Error."""
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE, vfs=vfs or None)
    _configure(connection)
    _pragma(connection, "synchronous = NORMAL")
    return connection


def _configure(connection: apsw.Connection) -> None:
    connection.set_busy_timeout(_BUSY_MS)
    # Checkpoints belong to the checkpointer alone (rule M2), the one at closing included.
    connection.wal_autocheckpoint(0)
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    for limit, value in _LIMITS.items():
        connection.limit(limit, value)


def _pragma(connection: apsw.Connection, text: str) -> list[Any]:
    return connection.execute(f"PRAGMA {text} {MARK}").fetchall()
