"""The client: DB-API 2.0, routing to the leader, retry exactly once.

Owns: `connect`, Connection, Cursor; the sans-IO core that also other drivers can run; the client's
sockets; the asyncio client (`aio`).
Promises: every request ends by its deadline, with a result or an error that says whether it took
effect; a write is applied at most once, whatever is retried.
May import: wire, command, base; runtime (clock, randomness, TLS) and security (one's own
certificate) in its outermost modules.
Never: node, machine, consensus, journal, server; a socket or a clock in the core.
"""

from raftdb.client.connection import Connection, Warning, connect
from raftdb.client.core import Core, Outcome
from raftdb.client.cursor import Cursor, ResultSet, Row
from raftdb.client.link import InProcessLink
from raftdb.client.options import Options
from raftdb.client.pipeline import Pipeline, Reply
from raftdb.client.values import lastrowid, returned
from raftdb.client.work import RequestOutcome

__all__ = [
    "Connection",
    "Core",
    "Cursor",
    "InProcessLink",
    "Options",
    "Outcome",
    "Pipeline",
    "Reply",
    "RequestOutcome",
    "ResultSet",
    "Row",
    "Warning",
    "connect",
    "lastrowid",
    "returned",
]
