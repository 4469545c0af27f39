"""Executes the statements of one request on the writer connection.

One statement each, parameters that fit, a result within bounds; what SQLite's compiler says of a
statement is kept by its text until the schema changes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import apsw

from raftdb.base.errors import DataError, NotSupportedError, ProgrammingError
from raftdb.command.requests import Parameters, Statement
from raftdb.command.results import StatementResult
from raftdb.machine.determinism import RequestFunctions
from raftdb.machine.failures import STATEMENT_ERRORS, StatementFailed, is_fatal
from raftdb.machine.format import MARK, PREFIX, RESULT_BYTES_MAX, SQL_BYTES_MAX
from raftdb.machine.patience import Steps
from raftdb.machine.policy import WriteAuthorizer
from raftdb.machine.sqltext import DML, is_blank, leading_verb, words

_Value = TypeVar("_Value")

_INFOS_MAX = 1_024
_INFO_BYTES_MAX = 16_384
_BINDINGS = re.compile(r"has (\d+) bindings|uses (\d+) and")
_RESET_CHANGES = f"DELETE FROM {PREFIX}reply WHERE session = -1 {MARK}"


@dataclass(frozen=True, slots=True)
class StatementInfo:
    """What compiling a statement told."""

    columns: tuple[str, ...]
    bindings: int
    names: frozenset[str] | None
    """Names of all parameters; None when at least one has no name."""
    is_dml: bool
    is_readonly: bool
    uses_changes: bool
    long_steps: bool
    """It may be busy for long where nothing can stop it."""
    can_cache: bool
    tables: frozenset[str]
    """That it names, in lower case, those of its triggers and views included."""


def inspect_statement(cursor: apsw.Cursor, sql: str) -> tuple[Any, ...]:
    """Compile without executing: (length of the first statement, columns, binding names,
    is_readonly, has_vdbe). The authorizer sees it. Raises what SQLite raises.

    Always compiled afresh: a cached statement knows the schema of its own time.
    """
    seen: list[Any] = []

    def trace(cursor: apsw.Cursor, text: str, _bindings: Any) -> bool:
        columns = tuple(column[0] for column in cursor.get_description())
        names = cursor.bindings_names
        seen.append((len(text), columns, names, cursor.is_readonly, cursor.has_vdbe))
        return False

    cursor.exec_trace = trace
    bindings: tuple[None, ...] = ()
    try:
        for _attempt in range(2):
            try:
                cursor.execute(sql, bindings, can_cache=False)
            except apsw.ExecTraceAbort:
                break
            except apsw.BindingsError as error:
                # SQLite told how many it wants: the binding says so only in its message.
                match = _BINDINGS.search(str(error))
                if match is None or bindings:
                    raise
                bindings = (None,) * int(match.group(1) or match.group(2))
    finally:
        cursor.exec_trace = None
    assert seen, "the tracer sees every statement"
    return tuple(seen[0])


def check_text(sql: str) -> None:
    """Refuse what cannot be a statement. Raises ProgrammingError or DataError."""
    if len(sql) > SQL_BYTES_MAX:
        raise DataError(f"a statement has more than {SQL_BYTES_MAX} bytes", code="too_big")
    if "\0" in sql:
        raise ProgrammingError(
            "a statement contains a NUL character", hint="pass such text as a parameter"
        )


def check_no_listing(sql: str) -> None:
    """Refuse EXPLAIN (but not EXPLAIN QUERY PLAN) in what is logged. Raises NotSupportedError."""
    if leading_verb(sql) == "EXPLAIN" and words(sql, 2)[1:] != ["QUERY"]:
        raise NotSupportedError(
            "refused: EXPLAIN in a batch or a transaction lists what differs from node to node",
            hint="execute it by itself, or use EXPLAIN QUERY PLAN",
        )


def check_single(sql: str, first_length: int, has_vdbe: bool) -> None:
    """Refuse several statements in one, and none. Raises ProgrammingError."""
    if not is_blank(sql[first_length:]):
        raise ProgrammingError(
            "more than one statement",
            code="several_statements",
            hint="give each statement of a batch by itself",
        )
    if not has_vdbe:
        raise ProgrammingError("the statement is empty", code="empty_statement")


def names_of(bindings: tuple[str | None, ...]) -> frozenset[str] | None:
    """The parameters' names, or None when one has none."""
    names = [name for name in bindings if name is not None]
    return frozenset(names) if len(names) == len(bindings) else None


def check_parameters(parameters: Parameters, bindings: int, names: frozenset[str] | None) -> None:
    """Refuse parameters that do not fit the statement. Raises ProgrammingError."""
    if not isinstance(parameters, dict):
        if len(parameters) != bindings:
            raise ProgrammingError(
                f"the statement has {bindings} parameters, and {len(parameters)} were given",
                code="parameters",
            )
        return
    if names is None:
        raise ProgrammingError(
            "the statement has parameters without a name, and they were given by name",
            code="parameters",
            hint="give a list, or write :name for each",
        )
    if parameters.keys() != names:
        missing = ", ".join(sorted(names - parameters.keys())[:5])
        extra = ", ".join(sorted(str(name) for name in parameters.keys() - names)[:5])
        what = [f"missing: {missing}"] if missing else []
        what += [f"not in the statement: {extra}"] if extra else []
        raise ProgrammingError("the parameters do not fit: " + "; ".join(what), code="parameters")


def value_bytes(value: Any) -> int:
    """An upper bound of the bytes that a value takes in a reply."""
    if isinstance(value, str):
        return 5 + (len(value) if value.isascii() else len(value.encode("utf-8", "replace")))
    if isinstance(value, bytes):
        return 5 + len(value)
    return 9


class StatementRunner:
    """Runs users' statements inside the savepoint that the caller opened."""

    def __init__(
        self,
        connection: apsw.Connection,
        authorizer: WriteAuthorizer,
        functions: RequestFunctions,
    ) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._authorizer = authorizer
        self._functions = functions
        self._infos: dict[str, StatementInfo] = {}
        self._fresh = True
        self._room = 0
        self.steps = Steps(connection)
        self.brief = False
        """What may be busy for long where nothing can stop it is given up: InterruptError."""
        self.refuses_local: Callable[[], bool] = lambda: True
        """Whether EXPLAIN is refused: its answer has addresses and counters of the connection."""
        self.changes_rows = False
        """A user's statement runs that changes rows and nothing else."""
        self.long_tables: set[str] = set()
        """Tables that have long rows, in lower case: to change or read one is busy for long."""

    def uncounted(self, work: Callable[[], _Value]) -> _Value:
        """As Steps.uncounted."""
        return self.steps.uncounted(work)

    def begin_request(self, seed: bytes) -> None:
        """A request begins: nothing of the one before shows."""
        self._functions.begin_request(seed)
        self._fresh = True
        self._room = RESULT_BYTES_MAX

    def renew_room(self) -> None:
        """The next statement's result is bounded by itself (in an interactive transaction)."""
        self._room = RESULT_BYTES_MAX

    def is_read(self, sql: str) -> bool:
        """Whether a statement that ran just now only read."""
        info = self._infos.get(sql)
        return info is not None and info.is_dml and info.is_readonly

    def forget_infos(self) -> None:
        """The schema changed."""
        self._infos.clear()

    def run(self, statement: Statement, number: int) -> StatementResult:
        """Execute it once per parameter set. Raises StatementFailed, and raftdb's errors."""
        sql = statement.sql
        info = self._infos.get(sql)
        authorizer = self._authorizer
        authorizer.user = True
        try:
            if info is None:
                info = self._inspect(sql)
            if self.brief and (
                info.long_steps
                or (self.long_tables and not self.long_tables.isdisjoint(info.tables))
            ):
                raise apsw.InterruptError("not in passing")
            if info.uses_changes and self._fresh:
                self._reset_changes()
            self.changes_rows = info.is_dml and not info.is_readonly
            if len(statement.parameter_sets) == 1:
                return self._run_once(sql, info, statement.parameter_sets[0], number)
            return self._run_many(sql, info, statement.parameter_sets, number)
        except Exception:
            self._reset_cursor()
            raise
        finally:
            authorizer.user = self.changes_rows = False

    def _run_once(
        self, sql: str, info: StatementInfo, parameters: Parameters, number: int
    ) -> StatementResult:
        self._functions.begin_statement(number, 0)
        self.steps.executions += 1
        rows = self._execute(sql, info, parameters)
        connection = self._connection
        if info.is_dml and not info.is_readonly:
            self._fresh = False
            changes = connection.changes()
        else:
            changes = 0
        return StatementResult(info.columns, rows, changes, connection.last_insert_rowid())

    def _run_many(
        self, sql: str, info: StatementInfo, sets: tuple[Parameters, ...], number: int
    ) -> StatementResult:
        connection = self._connection
        counts = info.is_dml and not info.is_readonly
        # A cached statement goes on counting where it stood; one compiled anew begins at nothing.
        self.steps.executions += 1 if info.can_cache else len(sets)
        rows: list[tuple[Any, ...]] = []
        if counts and not info.columns:
            changes = self._write_many(sql, info, sets, number)
        else:
            changes = 0
            for place, parameters in enumerate(sets):
                self._functions.begin_statement(number, place)
                rows.extend(self._execute(sql, info, parameters))
                if counts:
                    self._fresh = False
                    changes += connection.changes()
        return StatementResult(info.columns, tuple(rows), changes, connection.last_insert_rowid())

    def _write_many(
        self, sql: str, info: StatementInfo, sets: tuple[Parameters, ...], number: int
    ) -> int:
        """Rows of a bulk load go this way, a hundred thousand per second: what `_execute` does,
        without its calls. How many rows were changed."""
        execute, changes = self._cursor.execute, self._connection.changes
        functions, bindings, can_cache = self._functions, info.bindings, info.can_cache
        count = 0
        functions.begin_statement(number, 0)
        try:
            for place, parameters in enumerate(sets):
                functions.begin_set(place)
                if type(parameters) is not tuple or len(parameters) != bindings:
                    check_parameters(parameters, bindings, info.names)
                execute(sql, parameters, can_cache=can_cache)
                self._fresh = False
                count += changes()
        except apsw.InterruptError:
            raise
        except STATEMENT_ERRORS as error:
            self._raise(error)
        return count

    def _execute(
        self, sql: str, info: StatementInfo, parameters: Parameters
    ) -> tuple[tuple[Any, ...], ...]:
        if type(parameters) is not tuple or len(parameters) != info.bindings:
            check_parameters(parameters, info.bindings, info.names)
        try:
            self._cursor.execute(sql, parameters, can_cache=info.can_cache)
            return self._fetch() if info.columns else ()
        except apsw.InterruptError:
            # Given up from outside: that is no outcome of the statement.
            raise
        except STATEMENT_ERRORS as error:
            self._raise(error)

    def _fetch(self) -> tuple[tuple[Any, ...], ...]:
        rows = []
        room = self._room
        for row in self._cursor:
            rows.append(row)
            room -= 5
            for value in row:
                room -= value_bytes(value)
            if room < 0:
                raise DataError(
                    f"the result has more than {RESULT_BYTES_MAX} bytes",
                    code="result_too_large",
                    hint="ask for fewer rows at a time, or read them with a query",
                )
        self._room = room
        return tuple(rows)

    def _raise(self, error: Exception) -> NoReturn:
        if self._authorizer.reason and not is_fatal(error):
            raise self._authorizer.refusal() from None
        raise StatementFailed(error) from error

    def _inspect(self, sql: str) -> StatementInfo:
        check_text(sql)
        verb = leading_verb(sql)
        is_dml = verb in DML
        authorizer = self._authorizer
        authorizer.begin(is_dml)
        if verb == "VACUUM":
            raise NotSupportedError(
                "refused: VACUUM rewrites the whole database, and changes row ids",
                hint="free pages are used again; `raftdb vacuum` gives them back to the disk",
            )
        if verb == "EXPLAIN" and self.refuses_local():
            check_no_listing(sql)
        cursor = self._connection.cursor()
        try:
            inspected = inspect_statement(cursor, sql)
        except apsw.InterruptError:
            raise
        except STATEMENT_ERRORS as error:
            self._raise(error)
        length, columns, names, is_readonly, has_vdbe = inspected
        check_single(sql, length, has_vdbe)
        info = StatementInfo(
            columns=columns,
            bindings=len(names),
            names=names_of(names),
            is_dml=is_dml,
            is_readonly=is_readonly,
            uses_changes=authorizer.uses_changes,
            long_steps=authorizer.long_steps,
            # Control SQL, which an authorizer must see each time, is never taken from the cache;
            # nor is what a user copied from raftdb's own statements.
            can_cache=is_dml and MARK not in sql,
            tables=frozenset(authorizer.tables),
        )
        if info.can_cache and len(sql) <= _INFO_BYTES_MAX:
            if len(self._infos) >= _INFOS_MAX:
                self._infos.clear()
            self._infos[sql] = info
        return info

    def _reset_changes(self) -> None:
        """Make changes() zero, as on a new connection."""
        self._authorizer.user = False
        self._connection.execute(_RESET_CHANGES)
        self._authorizer.user = True

    def _reset_cursor(self) -> None:
        """After an error a statement may still be open on it."""
        self._cursor.close(True)
        self._cursor = self._connection.cursor()
