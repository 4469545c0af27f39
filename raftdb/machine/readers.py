"""Read-only connections: queries run beside the writer, each on a snapshot.

A connection is taken from the pool for one query and given back. Pool and connections may be used
from any thread; one connection serves one thread at a time.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import apsw

from raftdb.base.errors import DataError, OperationalError, OverloadedError
from raftdb.base.ports import Clock
from raftdb.command.requests import Parameters, Statement
from raftdb.command.results import Results
from raftdb.machine import failures
from raftdb.machine.format import ROW_BYTES_MAX, SQL_BYTES_MAX
from raftdb.machine.reader import UNTIMED_S, QueryStop, Reader, SchemaEpoch, too_many_rows

BRIEF_S = 0.001
"""How long a query may take that is tried in passing (`ReaderPool.briefly`)."""
BRIEF_ROWS = 500
BRIEF_BYTES = 64 * 1024
BRIEF_VALUE_BYTES = 2 * SQL_BYTES_MAX
"""A longer value is not even read: nothing can stop SQLite while it gathers one, and 40 MB are a
quarter of a second. (What is in the schema has to fit.)"""
_LONG_S = 10.0
"""For so long a statement that took longer is not tried in passing again."""
_LONG_MAX = 256
_QUICK_S = 60.0
"""For so long a statement that might have long steps, and had none, is tried in passing."""
_SHORT_BYTES = 16_384
_Found = TypeVar("_Found")
_WAIT_S = 5.0
"""How long a query waits for a free connection."""


def _is_short(statement: Statement) -> bool:
    """Whether it has no long literals and no long parameters."""
    parameters = statement.parameter_sets[0]
    values = parameters.values() if isinstance(parameters, dict) else parameters
    size = sum(len(value) for value in values if isinstance(value, str | bytes))
    return size + len(statement.sql) <= _SHORT_BYTES


class ReaderPool:
    """At most `readers_max` readers, made when needed."""

    def __init__(
        self,
        connect: Callable[[], apsw.Connection],
        readers_max: int,
        clock: Clock | None,
        epoch: SchemaEpoch,
    ) -> None:
        self._connect = connect
        self._epoch = epoch
        self._readers_max = readers_max
        self._now_s = clock.monotonic_s if clock is not None else None
        self._idle: deque[Reader] = deque()
        self._all: list[Reader] = []
        self._condition = threading.Condition()
        self._waiting = 0
        self._closed = False
        self._long: dict[str, float] = {}
        """Statements that are not tried in passing, and until when."""
        self._quick: dict[str, float] = {}
        """Statements with long steps that are all the same, and until when."""

    def query(
        self,
        statements: Sequence[Statement],
        bytes_max: int,
        rows_max: int,
        stop: QueryStop | None = None,
        timeout_s: float = UNTIMED_S,
    ) -> tuple[Results, int]:
        """Run the statements on a free reader, on one snapshot: and the log index that it shows."""
        return self._run(
            lambda reader: reader.query_at(statements, bytes_max, rows_max),
            statements,
            stop,
            timeout_s,
        )

    def reply(
        self, statements: Sequence[Statement], bytes_max: int, rows_max: int, stop: QueryStop
    ) -> tuple[bytes, int]:
        """As `query`, encoded."""
        return self._run(
            lambda reader: reader.reply(statements, bytes_max, rows_max),
            statements,
            stop,
            UNTIMED_S,
        )

    def _run(
        self,
        work: Callable[[Reader], _Found],
        statements: Sequence[Statement],
        stop: QueryStop | None,
        timeout_s: float,
    ) -> _Found:
        try:
            reader = self._idle.pop()
        except IndexError:
            reader = self._take(timeout_s)
        reader.timeout_s = timeout_s
        try:
            if stop is not None:
                stop.begins(reader)
            start_s = self._now_s() if self._now_s is not None else 0.0
            found = work(reader)
            if len(statements) == 1 and reader.has_long_steps(statements[0].sql):
                self._note_duration(statements[0], start_s)
            return found
        finally:
            if stop is not None:
                stop.ends()
            self._give_back(reader)

    def briefly(
        self, statements: Sequence[Statement], bytes_max: int, rows_max: int | None
    ) -> Results | None:
        """As `query`, if that takes no longer than BRIEF_S and brings little; else None, and the
        statement is not tried in passing again for a while."""
        now_s = self._now_s
        key = statements[0].sql
        if now_s is None or len(statements) > 1 or len(statements[0].parameter_sets) > 1:
            return None
        start_s = now_s()
        if self._long.get(key, 0.0) > start_s:
            return None
        try:
            reader = self._idle.pop()
        except IndexError:
            if self._all:
                return None
            reader = self._take(0.0)
        reader.brief_until_s = start_s + BRIEF_S
        reader.connection.limit(apsw.SQLITE_LIMIT_LENGTH, BRIEF_VALUE_BYTES)
        # Its parameters may be longer than those that were seen.
        reader.trusted = self._quick.get(key, 0.0) > start_s and _is_short(statements[0])
        try:
            results = reader.query(statements, min(bytes_max, BRIEF_BYTES), BRIEF_ROWS)
            if reader.trusted and now_s() > start_s + BRIEF_S:
                self._quick.pop(key, None)
        except (OperationalError, DataError) as error:
            if error.code == "too_big":
                # Other rows may have shorter values.
                return None
            if error.code not in ("query_too_long", "result_too_large"):
                raise
            if not reader.has_long_steps(key) or reader.trusted:
                if len(self._long) >= _LONG_MAX:
                    self._long.clear()
                self._long[key] = start_s + _LONG_S
            return None
        finally:
            reader.brief_until_s = 0.0
            reader.connection.limit(apsw.SQLITE_LIMIT_LENGTH, ROW_BYTES_MAX)
            self._give_back(reader)
        if rows_max is not None and len(results.statements[0].rows) > rows_max:
            raise too_many_rows()
        return results

    def _note_duration(self, statement: Statement, start_s: float) -> None:
        """A statement with long steps came to its end: it may be tried in passing from now on."""
        if self._now_s is None or not _is_short(statement):
            return
        now_s = self._now_s()
        if now_s - start_s > BRIEF_S:
            self._quick.pop(statement.sql, None)
            return
        if len(self._quick) >= _LONG_MAX:
            self._quick.clear()
        self._quick[statement.sql] = now_s + _QUICK_S

    def rows(
        self, sql: str, parameters: Parameters, bytes_max: int, rows_max: int, timeout_s: float
    ) -> tuple[tuple[str, ...], list[tuple[Any, ...]], int]:
        """Run one statement on a free reader: as Reader.rows."""
        try:
            reader = self._idle.pop()
        except IndexError:
            reader = self._take(timeout_s)
        reader.timeout_s = timeout_s
        try:
            return reader.rows(sql, parameters, bytes_max, rows_max)
        finally:
            if reader.started_s is None and not reader.stopping and not self._waiting:
                self._idle.append(reader)  # as _give_back does it, for what was short
            else:
                self._give_back(reader)

    def dedicated(self) -> Reader:
        """A reader that is not of the pool: whoever has it closes its connection."""
        with self._condition:
            if self._closed:
                raise OperationalError("the database is closed", code="closed")
            return Reader(self._open(), self._epoch, self._now_s)

    @contextmanager
    def snapshot(self) -> Iterator[apsw.Connection]:
        """A connection inside a read transaction, for raftdb's own reading. What SQLite raises in
        there becomes an Error, as of a query."""
        connection = self._open()
        try:
            connection.execute("BEGIN")
            connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
            yield connection
        except apsw.Error as error:
            raise failures.of_query(error) from error
        finally:
            connection.close(True)

    def _open(self) -> apsw.Connection:
        """A new connection. It reads the file's first page: where that is damaged, it is this that
        notices. Raises FatalError; OperationalError where something was short."""
        try:
            return self._connect()
        except apsw.Error as error:
            raise failures.of_query(error) from error

    def interrupt_older_than(self, age_s: float) -> int:
        """Stop queries that have run longer, so that a checkpoint can finish; how many. Without a
        clock none is stopped."""
        if self._now_s is None:
            return 0
        limit = self._now_s() - age_s
        count = 0
        for reader in list(self._all):
            started = reader.started_s
            if started is not None and started <= limit:
                reader.stop()
                count += 1
        return count

    def _take(self, timeout_s: float) -> Reader:
        with self._condition:
            if self._closed:
                raise OperationalError("the database is closed", code="closed")
            if len(self._all) < self._readers_max:
                reader = Reader(self._open(), self._epoch, self._now_s)
                self._all.append(reader)
                return reader
            self._waiting += 1
            try:
                # Another thread may be quicker than the one that was woken: hence the loop.
                wait_s = min(timeout_s, _WAIT_S)
                while self._condition.wait_for(lambda: self._idle or self._closed, wait_s):
                    if self._closed:
                        raise OperationalError("the database is closed", code="closed")
                    try:
                        return self._idle.pop()
                    except IndexError:
                        continue
            finally:
                self._waiting -= 1
        raise OverloadedError(
            f"all {self._readers_max} readers of this node are busy",
            detail={"retry_after_ms": 1000},
        )

    def _give_back(self, reader: Reader) -> None:
        reader.started_s = None
        if reader.stopping or reader.late:
            reader.stopping = reader.late = False
        self._idle.append(reader)
        if self._waiting:
            with self._condition:
                self._condition.notify()

    def close(self) -> None:
        """Stop what runs and close all readers."""
        with self._condition:
            if self._closed:
                return
            self._closed = True
            self._waiting += 1
            for reader in self._all:
                if reader not in self._idle:
                    reader.stop()
            self._condition.notify_all()
            self._condition.wait_for(lambda: len(self._idle) == len(self._all), _WAIT_S)
        while self._idle:
            self._idle.pop().connection.close(True)
