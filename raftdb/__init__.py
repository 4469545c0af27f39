"""raftdb: a replicated SQL database that you can pip install.

    import raftdb

    with raftdb.connect("raftdb://host1:7001,host2:7001,host3:7001/?ca=…&cert=…&key=…") as db:
        db.execute("INSERT INTO t (name) VALUES (?)", ("Ada",))
        for row in db.execute("SELECT * FROM t"):
            ...

DB-API 2.0 (PEP 249) in shape: docs/client.md. `raftdb.Node` runs a member of the cluster inside
this process. What needs sockets or a node is loaded when it is first used.
"""

from __future__ import annotations

import datetime as _datetime
from typing import TYPE_CHECKING, Any

from raftdb._version import __version__
from raftdb.base.errors import (
    AuthError,
    ConfigError,
    DatabaseError,
    DataError,
    DeadlineError,
    Error,
    FatalError,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotLeaderError,
    NotSupportedError,
    OperationalError,
    OverloadedError,
    ProgrammingError,
    ProtocolError,
    SessionError,
    UnavailableError,
)

if TYPE_CHECKING:
    from raftdb.client import (
        Connection,
        Cursor,
        Pipeline,
        Reply,
        RequestOutcome,
        ResultSet,
        Row,
        Warning,
        connect,
        lastrowid,
        returned,
    )
    from raftdb.command import Statement
    from raftdb.embedded import Node

apilevel = "2.0"
threadsafety = 1
"""Threads may share the module, but not connections."""
paramstyle = "qmark"
"""`?`; `:name` works too when a mapping is given."""

Date = _datetime.date
Time = _datetime.time
Timestamp = _datetime.datetime
DateFromTicks = _datetime.date.fromtimestamp
TimestampFromTicks = _datetime.datetime.fromtimestamp
Binary = bytes


def TimeFromTicks(ticks: float) -> _datetime.time:
    """Part of DB-API 2.0."""
    return _datetime.datetime.fromtimestamp(ticks).time()


class _TypeObject(frozenset[type]):
    """Equal to the types that it stands for. (SQLite has no column types to compare it with.)"""

    def __eq__(self, other: object) -> bool:
        return other in self if isinstance(other, type) else frozenset.__eq__(self, other)

    def __hash__(self) -> int:
        return frozenset.__hash__(self)


STRING = _TypeObject((str,))
BINARY = _TypeObject((bytes, bytearray, memoryview))
NUMBER = _TypeObject((int, float))
DATETIME = _TypeObject((_datetime.date, _datetime.datetime))
ROWID = _TypeObject((int,))

_LATE = {
    "connect": "raftdb.client",
    "Connection": "raftdb.client",
    "Cursor": "raftdb.client",
    "Pipeline": "raftdb.client",
    "Reply": "raftdb.client",
    "RequestOutcome": "raftdb.client",
    "ResultSet": "raftdb.client",
    "Row": "raftdb.client",
    "Warning": "raftdb.client",
    "lastrowid": "raftdb.client",
    "returned": "raftdb.client",
    "Statement": "raftdb.command",
    "Node": "raftdb.embedded",
}


def __getattr__(name: str) -> Any:
    room = _LATE.get(name)
    if room is None:
        raise AttributeError(f"module 'raftdb' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(room), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATE})


__all__ = [
    "BINARY",
    "DATETIME",
    "NUMBER",
    "ROWID",
    "STRING",
    "AuthError",
    "Binary",
    "ConfigError",
    "Connection",
    "Cursor",
    "DataError",
    "DatabaseError",
    "Date",
    "DateFromTicks",
    "DeadlineError",
    "Error",
    "FatalError",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "Node",
    "NotLeaderError",
    "NotSupportedError",
    "OperationalError",
    "OverloadedError",
    "Pipeline",
    "ProgrammingError",
    "ProtocolError",
    "Reply",
    "RequestOutcome",
    "ResultSet",
    "Row",
    "SessionError",
    "Statement",
    "Time",
    "TimeFromTicks",
    "Timestamp",
    "TimestampFromTicks",
    "UnavailableError",
    "Warning",
    "__version__",
    "apilevel",
    "connect",
    "lastrowid",
    "paramstyle",
    "returned",
    "threadsafety",
]
