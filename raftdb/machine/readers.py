"""Read-only connections: queries run beside the writer, each on a snapshot.

A connection is taken from the pool for one query and given back. Pool and connections may be used
from any thread; one connection serves one thread at a time.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import apsw

from raftdb.base.errors import (
    DataError,
    OperationalError,
    OverloadedError,
    ProgrammingError,
)
from raftdb.base.ports import Clock
from raftdb.command.requests import Parameters, Statement
from raftdb.command.results import Results, StatementResult
from raftdb.machine import failures
from raftdb.machine.failures import STATEMENT_ERRORS
from raftdb.machine.format import MARK
from raftdb.machine.policy import ReadAuthorizer
from raftdb.machine.statements import (
    check_parameters,
    check_single,
    check_text,
    inspect_statement,
    names_of,
    value_bytes,
)

_INFOS_MAX = 512
_BEGIN = f"BEGIN {MARK}"
_ROLLBACK = f"ROLLBACK {MARK}"
_WAIT_S = 5.0
"""How long a query waits for a free connection."""


class Reader:
    """One read-only connection. One thread at a time."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection
        self.started_s: float | None = None
        """When the query that runs now began; None while idle."""
        self._cursor = connection.cursor()
        self._authorizer = ReadAuthorizer()
        connection.authorizer = self._authorizer
        self._bytes_left = self._rows_left = 0
        self._infos: dict[str, tuple[int, frozenset[str] | None]] = {}

    def query(self, statements: Sequence[Statement], bytes_max: int, rows_max: int) -> Results:
        """Execute statements on one snapshot, within bounds of bytes and rows for all of them.

        Raises raftdb's errors; FatalError when the file is damaged.
        """
        self._bytes_left, self._rows_left = bytes_max, rows_max
        if len(statements) == 1:
            return Results((self._query(statements[0]),))
        self.connection.execute(_BEGIN)
        try:
            return Results(tuple(self._query(statement) for statement in statements))
        finally:
            self.connection.execute(_ROLLBACK)

    def _query(self, statement: Statement) -> StatementResult:
        sql = statement.sql
        info = self._infos.get(sql)
        self._authorizer.user = True
        try:
            if info is None:
                info = self._inspect(sql)
            bindings, names = info
            columns: tuple[str, ...] = ()
            rows: list[tuple[Any, ...]] = []
            for parameters in statement.parameter_sets:
                if type(parameters) is not tuple or len(parameters) != bindings:
                    check_parameters(parameters, bindings, names)
                columns = self._run(sql, parameters, rows)
        except STATEMENT_ERRORS as error:
            self._fail(error)
        except Exception:
            self._reset_cursor()
            raise
        finally:
            self._authorizer.user = False
        return StatementResult(columns, tuple(rows), 0, 0)

    def _run(
        self, sql: str, parameters: Parameters, rows: list[tuple[Any, ...]]
    ) -> tuple[str, ...]:
        cursor = self._cursor
        cursor.execute(sql, parameters)
        try:
            columns = tuple([column[0] for column in cursor.get_description()])
        except apsw.ExecutionCompleteError:
            # No rows: SQLite keeps no description then.
            return tuple(inspect_statement(self.connection.cursor(), sql)[1])
        room = self._bytes_left
        for row in cursor:
            rows.append(row)
            room -= 5
            for value in row:
                room -= value_bytes(value)
            if room < 0 or len(rows) > self._rows_left:
                raise _too_large(room < 0)
        self._bytes_left = room
        self._rows_left -= len(rows)
        return columns

    def _inspect(self, sql: str) -> tuple[int, frozenset[str] | None]:
        check_text(sql)
        self._authorizer.reason = ""
        inspected = inspect_statement(self.connection.cursor(), sql)
        length, _columns, names, is_readonly, has_vdbe = inspected
        check_single(sql, length, has_vdbe)
        if not is_readonly:
            raise _use_execute()
        if len(self._infos) >= _INFOS_MAX:
            self._infos.clear()
        info = self._infos[sql] = (len(names), names_of(names))
        return info

    def _fail(self, error: Exception) -> NoReturn:
        self._reset_cursor()
        if self._authorizer.reason:
            raise self._authorizer.refusal() from None
        if isinstance(error, apsw.ReadOnlyError):
            raise _use_execute() from error
        if isinstance(error, apsw.InterruptError):
            raise _stopped() from error
        raise failures.of_query(error) from error

    def _reset_cursor(self) -> None:
        self._cursor.close(True)
        self._cursor = self.connection.cursor()


def _too_large(in_bytes: bool) -> DataError:
    return DataError(
        f"the result has too many {'bytes' if in_bytes else 'rows'}",
        code="result_too_large",
        hint="ask for fewer rows at a time (LIMIT, or by key)",
    )


def _stopped() -> OperationalError:
    return OperationalError(
        "the query was stopped because it ran too long",
        code="query_too_long",
        retryable=True,
        hint="ask for less at a time: a long read keeps the log from being compacted",
    )


def _use_execute() -> ProgrammingError:
    return ProgrammingError(
        "the statement writes, and a query only reads",
        code="not_a_read",
        hint="use execute",
    )


class QueryStop:
    """Stops one query from another thread, whether it runs, waits, or is over already."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reader: Reader | None = None
        self._stopped = False

    def stop(self) -> None:
        """Stop it; harmless when it is over."""
        with self._lock:
            self._stopped = True
            if self._reader is not None:
                self._reader.connection.interrupt()

    def begins(self, reader: Reader) -> None:
        """It runs on that reader from now on. Raises OperationalError when it was stopped."""
        with self._lock:
            if self._stopped:
                raise _stopped()
            self._reader = reader

    def ends(self) -> None:
        """The reader is another query's from now on."""
        with self._lock:
            self._reader = None


class ReaderPool:
    """At most `readers_max` readers, made when needed."""

    def __init__(
        self,
        connect: Callable[[], apsw.Connection],
        readers_max: int,
        clock: Clock | None,
    ) -> None:
        self._connect = connect
        self._readers_max = readers_max
        self._now_s = clock.monotonic_s if clock is not None else None
        self._idle: deque[Reader] = deque()
        self._all: list[Reader] = []
        self._condition = threading.Condition()
        self._waiting = 0
        self._closed = False

    def query(
        self,
        statements: Sequence[Statement],
        bytes_max: int,
        rows_max: int,
        stop: QueryStop | None = None,
    ) -> Results:
        """Run the statements on a free reader, on one snapshot."""
        try:
            reader = self._idle.pop()
        except IndexError:
            reader = self._take()
        if self._now_s is not None:
            reader.started_s = self._now_s()
        try:
            if stop is not None:
                stop.begins(reader)
            return reader.query(statements, bytes_max, rows_max)
        finally:
            if stop is not None:
                stop.ends()
            self._give_back(reader)

    @contextmanager
    def snapshot(self) -> Iterator[apsw.Connection]:
        """A connection inside a read transaction, for raftdb's own reading."""
        connection = self._connect()
        try:
            connection.execute("BEGIN")
            connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
            yield connection
        finally:
            connection.close(True)

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
                reader.connection.interrupt()
                count += 1
        return count

    def _take(self) -> Reader:
        with self._condition:
            if self._closed:
                raise OperationalError("the database is closed", code="closed")
            if len(self._all) < self._readers_max:
                reader = Reader(self._connect())
                self._all.append(reader)
                return reader
            self._waiting += 1
            try:
                # Another thread may be quicker than the one that was woken: hence the loop.
                while self._condition.wait_for(lambda: self._idle or self._closed, _WAIT_S):
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
                if reader.started_s is not None or reader not in self._idle:
                    reader.connection.interrupt()
            self._condition.notify_all()
            self._condition.wait_for(lambda: len(self._idle) == len(self._all), _WAIT_S)
        while self._idle:
            self._idle.pop().connection.close(True)
