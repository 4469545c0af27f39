"""Time, randomness and counters of a request: from the request, the same on every replica."""

from __future__ import annotations

import hashlib
import os
import re
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import apsw

from raftdb.base.errors import DataError
from raftdb.base.ports import Log
from raftdb.machine.format import JULIAN_EPOCH_MS, ROW_BYTES_MAX

_BLOCK = struct.Struct("<III")
_INTEGER_END = 1 << 63
_LEADING_INTEGER = re.compile(r"[ \t\n\v\f\r]*([+-]?\d+)")


class RequestClock:
    """The time of the requests that one machine applies. It holds on the thread between `begin`
    and `end`; other threads, and readers, go by the node's own clock."""

    _on_thread = threading.local()

    def __init__(self) -> None:
        self.julian_ms = JULIAN_EPOCH_MS

    def set_time(self, time_ms: int) -> None:
        """Unix milliseconds, from now on the time of every statement."""
        self.julian_ms = JULIAN_EPOCH_MS + time_ms

    def begin(self) -> None:
        """This thread applies for this machine."""
        keep_utc()
        self._on_thread.clock = self

    def end(self) -> None:
        """It does no more."""
        self._on_thread.clock = None

    @classmethod
    def current(cls) -> RequestClock | None:
        """Of the machine for which this thread applies."""
        clock: RequestClock | None = getattr(cls._on_thread, "clock", None)
        return clock


class RequestTimeVfs(apsw.VFS):
    """A VFS that tells SQLite the request's time, and is its base in everything else.

    SQLite asks it for every form of `now`, so its own checks of what may stand in an index or a
    generated column stay in force (overriding the date functions would lose them).
    """

    def __init__(self, name: str, base: str) -> None:
        self.name = name
        super().__init__(name, base)

    def xCurrentTimeInt64(self) -> int:
        clock = RequestClock.current()
        return super().xCurrentTimeInt64() if clock is None else clock.julian_ms


class RequestFunctions:
    """random(), randomblob() and total_changes() of the writer connection.

    The n-th random value of parameter set p of statement s of a request is SHAKE-256 over
    seed || s || p || n (three little-endian 32-bit numbers), as many bytes as asked for.
    They are registered as not deterministic, so that SQLite refuses them where it refuses its own.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._seed = b""
        self._statement = 0
        self._parameter_set = 0
        self._drawn = 0
        self._changes_before = 0
        functions: tuple[tuple[str, Callable[..., Any], int], ...] = (
            ("random", self._random, 0),
            ("randomblob", self._randomblob, 1),
            ("total_changes", self._total_changes, 0),
        )
        for name, call, arity in functions:
            connection.create_scalar_function(name, call, arity, flags=apsw.SQLITE_INNOCUOUS)

    def begin_request(self, seed: bytes) -> None:
        """A request begins: its seed, and counters from zero."""
        self._seed = seed
        self._changes_before = self._connection.total_changes()
        self._connection.set_last_insert_rowid(0)

    def begin_statement(self, statement: int, parameter_set: int) -> None:
        """Its place in the request; its random values depend on nothing that ran before."""
        self._statement = statement
        self._parameter_set = parameter_set
        self._drawn = 0

    def begin_set(self, parameter_set: int) -> None:
        """As `begin_statement`, for the next parameter set of the same statement."""
        self._parameter_set = parameter_set
        self._drawn = 0

    def _bytes(self, count: int) -> bytes:
        place = _BLOCK.pack(self._statement, self._parameter_set, self._drawn & 0xFFFFFFFF)
        self._drawn += 1
        return hashlib.shake_256(self._seed + place).digest(count)

    def _random(self) -> int:
        # As SQLite's own: never the smallest integer, so that abs(random()) always works.
        value = int.from_bytes(self._bytes(8), "little", signed=True)
        return value if value >= 0 else -(value & 0x7FFFFFFFFFFFFFFF)

    def _randomblob(self, count: object) -> bytes:
        wanted = max(1, as_integer(count))
        if wanted > ROW_BYTES_MAX:
            raise DataError("string or blob too big", code="too_big")
        return self._bytes(wanted)

    def _total_changes(self) -> int:
        return int(self._connection.total_changes()) - self._changes_before


def as_integer(value: object) -> int:
    """As sqlite3_value_int64 reads it (https://www.sqlite.org/lang_expr.html#castexpr)."""
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return _clamp(value)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    match = _LEADING_INTEGER.match(value) if isinstance(value, str) else None
    return _clamp(int(match.group(1))) if match else 0


def _clamp(value: float) -> int:
    if value >= _INTEGER_END:
        return _INTEGER_END - 1
    return -_INTEGER_END if value <= -_INTEGER_END else int(value)


def use_utc(log: Log) -> None:
    """Make `localtime` mean UTC: the C library takes the zone from this process's environment.

    raftdb's own processes start with TZ=UTC; inside another program the machine has to set it, and
    says so, since that program's own local times change too.
    """
    if _is_utc():
        return
    before = time.tzname[0]
    keep_utc()
    log.warning("time_zone_set", before=before, now="UTC", why="replicas must agree on localtime")


def keep_utc() -> None:
    """The same, whenever statements begin to run: the program around an embedded node may set its
    own zone at any time (Django does, once it reads its settings)."""
    if not _is_utc():
        os.environ["TZ"] = "UTC"
        time.tzset()


def _is_utc() -> bool:
    return time.tzname == ("UTC", "UTC") and time.timezone == 0
