"""One read-only connection: its queries run beside the writer, each on a snapshot."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import apsw

from raftdb.base.errors import (
    DataError,
    DeadlineError,
    OperationalError,
    ProgrammingError,
)
from raftdb.command import ReplyBuilder
from raftdb.command.requests import Parameters, Statement
from raftdb.command.results import Results, StatementResult
from raftdb.machine import failures
from raftdb.machine.failures import STATEMENT_ERRORS
from raftdb.machine.format import MARK
from raftdb.machine.policy import ReadAuthorizer
from raftdb.machine.sqltext import leading_verb
from raftdb.machine.statements import (
    check_parameters,
    check_single,
    check_text,
    inspect_statement,
    names_of,
    value_bytes,
)
from raftdb.machine.stored import read_progress, shown_index

_INFOS_MAX = 512
_INFO_BYTES_MAX = 16_384
_BEGIN = f"BEGIN {MARK}"
_ROLLBACK = f"ROLLBACK {MARK}"
_LOOK = f"SELECT 1 FROM sqlite_schema LIMIT 1 {MARK}"
"""Has a connection read the schema, if it is not the one that it remembers."""
_RENEW = f"PRAGMA writable_schema = RESET {MARK}"
_STEPS = 5_000
"""Steps of SQLite's virtual machine between two looks whether a query must stop: some 0.1 ms."""
_ROWS_AT_ONCE = 500
_BYTES_AT_ONCE = 256 * 1024
UNTIMED_S = 3_600.0
"""The deadline of a query whose caller gives none."""


class SchemaEpoch:
    """Counts commits that may change the schema: odd while one is under way.

    What a query learnt of a statement's columns holds for as long as the number stays the same and
    even, from before the query's snapshot was taken until after.
    """

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class _Info:
    """What is known of a statement's text."""

    __slots__ = ("bindings", "columns", "epoch", "long_steps", "names")

    def __init__(self, bindings: int, names: frozenset[str] | None, long_steps: bool) -> None:
        self.long_steps = long_steps
        """It may be busy for long where nothing can stop it."""
        self.bindings = bindings
        self.names = names
        self.columns: tuple[str, ...] = ()
        self.epoch = -1
        """When `columns` were learnt."""


class Reader:
    """One read-only connection. One thread at a time."""

    def __init__(
        self, connection: apsw.Connection, epoch: SchemaEpoch, now_s: Callable[[], float] | None
    ) -> None:
        self.connection = connection
        self.started_s: float | None = None
        """When the query that runs now was seen running first; None while idle. A short one ends
        before anybody looks, and has not paid for a clock."""
        self.timeout_s = UNTIMED_S
        """How long the query that runs now may run."""
        self.late = False
        """It ran longer than that."""
        self.brief_until_s = 0.0
        """When it has to be given up, if it was only tried in passing; 0: it was not."""
        self.trusted = False
        """What is tried in passing may have long steps: it was seen to be quick."""
        self.stopping = False
        """The query must end. An interrupt alone could come before it began, and be lost."""
        self._now_s = now_s
        connection.set_progress_handler(self._must_stop, _STEPS)
        self._cursor = connection.cursor()
        self._authorizer = ReadAuthorizer()
        connection.authorizer = self._authorizer
        self._epoch = epoch
        self._infos: dict[str, _Info] = {}
        self._schema_epoch = -1
        """When a statement that failed last made this connection look at the schema."""
        self._plans_epoch = epoch.value
        """As of when it knows the statistics."""

    def _must_stop(self) -> bool:
        """Called by SQLite each _STEPS steps."""
        if self.stopping:
            return True
        if self._now_s is None:
            return False
        if self.brief_until_s:
            return self._now_s() > self.brief_until_s
        started_s = self.started_s
        if started_s is None:
            self.started_s = self._now_s()
        elif self._now_s() - started_s > self.timeout_s:
            self.late = True
        return self.late

    def stop(self) -> None:
        """End the query that runs. From any thread."""
        self.stopping = True
        self.connection.interrupt()

    def query(self, statements: Sequence[Statement], bytes_max: int, rows_max: int) -> Results:
        """Execute statements on one snapshot, within bounds of bytes and rows for all of them.

        Raises raftdb's errors; FatalError when the file is damaged.
        """
        if len(statements) == 1 and len(statements[0].parameter_sets) == 1:
            statement = statements[0]
            columns, rows, _room = self.rows(
                statement.sql, statement.parameter_sets[0], bytes_max, rows_max
            )
            return Results((StatementResult(columns, tuple(rows), 0, 0),))
        return self.query_at(statements, bytes_max, rows_max)[0]

    def query_at(
        self, statements: Sequence[Statement], bytes_max: int, rows_max: int
    ) -> tuple[Results, int]:
        """As `query`, and the log index that the snapshot shows."""
        with self._snapshot() as index:
            return self._query_all(statements, bytes_max, rows_max), index

    @contextmanager
    def _snapshot(self) -> Iterator[int]:
        """A read transaction; the log index that it shows."""
        try:
            yield self._hold()
        finally:
            self._release()

    def _renew_plans(self, epoch: int) -> None:
        """ANALYZE tells only the connection that runs it of its statistics: read them again."""
        self._plans_epoch = epoch
        self.connection.execute(_RENEW)

    def _hold(self) -> int:
        execute = self.connection.execute
        try:
            if self._epoch.value != self._plans_epoch:
                self._renew_plans(self._epoch.value)
            execute(_BEGIN)
            return shown_index(read_progress(lambda sql: execute(sql).fetchall()))
        except STATEMENT_ERRORS as error:
            self._fail(error)  # stopped, or damaged, before the query itself began

    def _release(self) -> None:
        # Some failures (a page that does not read) have ended it already. A stop that comes now
        # interrupts this instead of the query.
        while self.connection.in_transaction:
            try:
                self.connection.execute(_ROLLBACK)
            except apsw.InterruptError:
                continue

    def reply(
        self, statements: Sequence[Statement], bytes_max: int, rows_max: int
    ) -> tuple[bytes, int]:
        """As `query_at`, encoded, with no more than a few rows at a time as Python values."""
        builder = ReplyBuilder()
        with self._snapshot() as index:
            for statement in statements:
                count = size = 0
                columns: tuple[str, ...] = ()
                for parameters in statement.parameter_sets:
                    columns = self.begin(statement.sql, parameters)
                    last = False
                    while not last:
                        rows, last = self.more(_ROWS_AT_ONCE, _BYTES_AT_ONCE)
                        count += len(rows)
                        size += sum(map(builder.add_row, rows))
                        if count > rows_max or size > bytes_max:
                            self._reset_cursor()
                            raise _too_large(count <= rows_max)
                bytes_max -= size
                rows_max -= count
                builder.end_statement(columns, count)
        return builder.encode(), index

    def _query_all(self, statements: Sequence[Statement], bytes_max: int, rows_max: int) -> Results:
        results = []
        for statement in statements:
            columns: tuple[str, ...] = ()
            gathered: list[tuple[Any, ...]] = []
            for parameters in statement.parameter_sets:
                columns, rows, bytes_max = self.rows(
                    statement.sql, parameters, bytes_max, rows_max, epoch=-2
                )
                rows_max -= len(rows)
                gathered.extend(rows)
            results.append(StatementResult(columns, tuple(gathered), 0, 0))
        return Results(tuple(results))

    def rows(
        self,
        sql: str,
        parameters: Parameters,
        bytes_max: int,
        rows_max: int,
        epoch: int | None = None,
    ) -> tuple[tuple[str, ...], list[tuple[Any, ...]], int]:
        """Execute one statement: (columns, rows, bytes left of `bytes_max`).

        `epoch` -2: the snapshot is older than the call, so columns are looked at each time.
        """
        # The path of every local read: few calls, nothing made that is not returned.
        if epoch is None:
            epoch = self._epoch.value
            if epoch != self._plans_epoch:
                self._renew_plans(epoch)
        authorizer = self._authorizer
        authorizer.user = True
        try:
            info = self._infos.get(sql)
            if info is None:
                info = self._inspect(sql)
            if type(parameters) is not tuple or len(parameters) != info.bindings:
                check_parameters(parameters, info.bindings, info.names)
            if info.long_steps and self.brief_until_s and not self.trusted:
                raise _stopped()
            cursor = self._cursor
            cursor.execute(sql, parameters)
            if info.epoch == epoch and self._epoch.value == epoch:
                columns = info.columns
            else:
                columns = self._columns(sql, info, epoch)
            rows: list[tuple[Any, ...]] = []
            room = bytes_max
            for row in cursor:
                rows.append(row)
                room -= 5 + 9 * len(row)
                for value in row:
                    kind = type(value)
                    if kind is str or kind is bytes:
                        room -= len(value)
                if room < 0 or len(rows) > rows_max:
                    raise _too_large(room < 0)
            return columns, rows, room
        except STATEMENT_ERRORS as error:
            if self._schema_was_old(error):
                return self.rows(sql, parameters, bytes_max, rows_max, epoch)
            self._fail(error)
        except Exception:
            self._reset_cursor()
            raise
        finally:
            authorizer.user = False

    def begin_at(self, sql: str, parameters: Parameters) -> tuple[tuple[str, ...], int]:
        """As `begin`, and the log index of the snapshot, which is held until the connection is
        closed."""
        index = self._hold()
        return self.begin(sql, parameters), index

    def begin(self, sql: str, parameters: Parameters) -> tuple[str, ...]:
        """Begin to execute one statement whose rows `more` gives; its columns."""
        authorizer = self._authorizer
        authorizer.user = True
        try:
            info = self._infos.get(sql) or self._inspect(sql)
            check_parameters(parameters, info.bindings, info.names)
            self._cursor.execute(sql, parameters)
            return self._columns(sql, info, -2)
        except STATEMENT_ERRORS as error:
            if self._schema_was_old(error):
                return self.begin(sql, parameters)
            self._fail(error)
        finally:
            authorizer.user = False

    def more(self, rows_max: int, bytes_max: int) -> tuple[list[tuple[Any, ...]], bool]:
        """The next rows, and whether they are the last. One row may be longer than the bound."""
        self._authorizer.user = True
        rows: list[tuple[Any, ...]] = []
        try:
            for row in self._cursor:
                rows.append(row)
                bytes_max -= sum(map(value_bytes, row), 5)
                if bytes_max < 0 or len(rows) >= rows_max:
                    return rows, False
            return rows, True
        except STATEMENT_ERRORS as error:
            self._fail(error)
        finally:
            self._authorizer.user = False

    def _columns(self, sql: str, info: _Info, epoch: int) -> tuple[str, ...]:
        """Of the statement that is being executed."""
        try:
            columns = tuple([column[0] for column in self._cursor.get_description()])
        except apsw.ExecutionCompleteError:
            # No rows: SQLite keeps no description then.
            columns = inspect_statement(self.connection.cursor(), sql)[1]
        if epoch % 2 == 0 and self._epoch.value == epoch:
            info.columns, info.epoch = columns, epoch
        return columns

    def _inspect(self, sql: str) -> _Info:
        check_text(sql)
        self._authorizer.reason = ""
        self._authorizer.long_steps = False
        inspected = inspect_statement(self.connection.cursor(), sql)
        length, _columns, names, is_readonly, has_vdbe = inspected
        check_single(sql, length, has_vdbe)
        if not is_readonly and leading_verb(sql) != "EXPLAIN":
            raise _use_execute()
        if len(self._infos) >= _INFOS_MAX:
            self._infos.clear()
        info = _Info(len(names), names_of(names), self._authorizer.long_steps)
        if len(sql) <= _INFO_BYTES_MAX:
            self._infos[sql] = info
        return info

    def _schema_was_old(self, error: Exception) -> bool:
        """Whether what SQLite said may be due to the schema that this connection remembers, while
        another one has changed it. SQLite looks again by itself where a name is missing, and not
        where a statement does not fit otherwise. True: it has looked, and may be asked again."""
        epoch = self._epoch.value
        if epoch == self._schema_epoch or type(error) is not apsw.SQLError:
            return False
        self._schema_epoch = epoch
        self._reset_cursor()
        self._authorizer.user, self._authorizer.reason = False, ""
        self.connection.execute(_LOOK).fetchall()
        return True

    def has_long_steps(self, sql: str) -> bool:
        """Of a statement that ran."""
        info = self._infos.get(sql)
        return info is not None and info.long_steps

    def _fail(self, error: Exception) -> NoReturn:
        self._reset_cursor()
        if self._authorizer.reason:
            raise self._authorizer.refusal() from None
        if isinstance(error, apsw.ReadOnlyError):
            raise _use_execute() from error
        if isinstance(error, apsw.InterruptError):
            raise (_late(self.timeout_s) if self.late else _stopped()) from error
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


def too_many_rows() -> DataError:
    """The error of a result with more rows than were asked for."""
    return _too_large(in_bytes=False)


def _stopped() -> OperationalError:
    return OperationalError(
        "the query was stopped because it ran too long",
        code="query_too_long",
        retryable=True,
        hint="ask for less at a time: a long read keeps the log from being compacted",
    )


def _late(timeout_s: float) -> DeadlineError:
    return DeadlineError(
        f"the query ran longer than {timeout_s:g} s",
        outcome="not_applied",
        retryable=True,
        hint="give it more time (timeout), or ask for less",
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
                self._reader.stop()

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
