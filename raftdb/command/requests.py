"""Requests: what the log carries. All values are frozen."""

from __future__ import annotations

import struct
from typing import Any

from raftdb.base.errors import SessionError
from raftdb.base.frozen import frozen

Value = None | int | float | str | bytes
"""What SQLite stores. Integers are 64-bit and signed."""

Parameters = tuple[Value, ...] | dict[str, Value]
"""Positional, or by name without the leading : @ or $."""

_SESSION_ID = struct.Struct(">16sQ16s")
POSITION_BITS = 16


@frozen
class SessionId:
    """Names a session for ever (rule S2): history, place of its logged open, 128 random bits."""

    history: bytes
    number: int
    """(index << 16) + position of the request that opened it: unique within the history."""
    token: bytes

    def to_bytes(self) -> bytes:
        """40 bytes."""
        return _SESSION_ID.pack(self.history, self.number, self.token)

    @classmethod
    def from_bytes(cls, data: bytes) -> SessionId:
        """Read 40 bytes. Raises SessionError."""
        if len(data) != _SESSION_ID.size:
            raise SessionError(
                f"a session id has {_SESSION_ID.size} bytes, not {len(data)}",
                hint="open a new session",
            )
        return cls(*_SESSION_ID.unpack(data))


def session_number(index: int, position: int) -> int:
    """The number of the session that the request at (index, position) opens."""
    return (index << POSITION_BITS) + position


def last_entry(number: int) -> int:
    """The last whole entry before a fork, of which `number` is the highest session number."""
    return ((number + 1) >> POSITION_BITS) - 1


@frozen
class Statement:
    """One SQL statement, executed once for each parameter set (executemany: one request)."""

    sql: str
    parameter_sets: tuple[Parameters, ...] = ((),)
    references: tuple[Reference, ...] = ()
    """Parameters whose values come from the results of earlier statements of the same request."""


@frozen
class Reference:
    """A parameter that is to be filled from an earlier statement's result; it is NULL till then."""

    parameter_set: int
    place: int | str
    """Of the parameter in its set: a position from 0, or its name."""
    statement: int
    """Which statement of the request, from 0."""
    column: int | str | None = None
    """Of the row that the statement returned, by position or name; None: its last row id."""
    row: int = 0


@frozen
class Stamp:
    """What makes a request deterministic: chosen by the leader, the same on every replica."""

    time_ms: int
    """Unix milliseconds by the leader's wall clock. The machine never lets time run backwards."""
    seed: bytes
    """8 random bytes from which all random values of the request come."""


@frozen
class OpenSession:
    """Open a session. Its reply is Opened."""

    stamp: Stamp
    token: bytes
    """16 random bytes, chosen by the leader."""
    label: str = ""
    """Who opened it, for `raftdb status`."""


@frozen
class CloseSession:
    """Forget a session and its replies."""

    stamp: Stamp
    session: int


@frozen
class Execute:
    """Execute statements in one transaction, all or nothing, exactly once."""

    stamp: Stamp
    session: int
    sequence: int
    """1, 2, 3, … without gaps within the session (rule S1)."""
    floor: int
    """The client has the replies of all sequences up to this one: they may be forgotten."""
    statements: tuple[Statement, ...]
    foreign_keys: bool = True
    key: Key | None = None


@frozen
class Key:
    """An idempotency key: the user's own name for a request, across sessions and processes."""

    name: str
    """1 to KEY_CHARACTERS_MAX characters."""
    horizon: int = 0
    """Issued by a node (`horizon` of its status) before the key was first used: a request whose
    horizon lies before what is kept is refused, not applied again. 0: the user has none."""


KEY_CHARACTERS_MAX = 200
DIGEST_BYTES = 16


@frozen
class Recorded:
    """A statement of an interactive transaction, as it ran before the COMMIT."""

    time_ms: int
    """What `now` meant to it."""
    statement: Statement
    digest: bytes
    """Of what it brought, result or failure: 16 bytes. The replay must bring the same."""


@frozen
class Commit:
    """Commit an interactive transaction: execute what it executed, once more, on every replica. It
    takes effect if everything brings what it brought before, and conflicts otherwise."""

    stamp: Stamp
    """With the seed that the transaction began with."""
    session: int
    sequence: int
    floor: int
    statements: tuple[Recorded, ...]
    foreign_keys: bool = True
    key: Key | None = None


@frozen
class Outcome:
    """What became of a request? One that was not seen yet never takes effect from now on (S3)."""

    stamp: Stamp
    session: int
    """0: ask by the key."""
    sequence: int
    key: Key | None = None


@frozen
class Tick:
    """Moves logged time, so that idle sessions end (rule S2)."""

    stamp: Stamp


@frozen
class Verdict:
    """What becomes of a request that runs long, and that all replicas hold (rule M4)."""

    stamp: Stamp
    index: int
    position: int
    keep: bool
    """Otherwise it fails, everywhere."""


@frozen
class Configure:
    """Change settings of the cluster. Its reply is Results of one row: all settings, as JSON."""

    stamp: Stamp
    changes: dict[str, Any]
    """Name to a plain value (text, integers, booleans, arrays, maps); None takes it away."""


Request = OpenSession | CloseSession | Execute | Commit | Outcome | Tick | Verdict | Configure
