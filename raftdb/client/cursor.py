"""Cursors and result rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from raftdb.base.errors import Error, InterfaceError, ProgrammingError
from raftdb.client.core import NOT_READS
from raftdb.client.options import with_timeout
from raftdb.client.sqltext import (
    BLANK,
    READ,
    SHORT,
    Kind,
    classify,
    classify_short,
    keys_pragma,
    split,
)
from raftdb.client.stream import not_a_query, not_streamed
from raftdb.client.values import (
    INTEGER_MAX,
    INTEGER_MIN,
    adapt_parameters,
    adapt_sets,
    key_of,
)
from raftdb.command import Results, Statement, StatementResult, Value
from raftdb.wire import LOCAL

if TYPE_CHECKING:
    from raftdb.client.connection import Connection
    from raftdb.client.link import InProcessLink
    from raftdb.client.stream import Stream

Column = tuple[str, None, None, None, None, None, None]
RowFactory = Callable[["Cursor", tuple[Value, ...]], Any]
_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
_ODD = (None,)
"""Parameters that are no tuple are looked at closely."""


@dataclass(frozen=True, slots=True)
class ResultSet:
    """What one statement of a batch brought."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    rowcount: int
    """Rows changed; -1 for what is no INSERT, REPLACE, UPDATE or DELETE."""
    lastrowid: int | None
    """Row id of the last INSERT or REPLACE; None for other statements."""


def result_sets(statements: Sequence[Statement], results: Results) -> list[ResultSet]:
    """Results for people: what has no meaning says so."""
    found = []
    for statement, result in zip(statements, results.statements, strict=True):
        kind = classify(statement.sql)
        found.append(
            ResultSet(
                result.columns,
                result.rows,
                result.changes if kind.changes_rows else -1,
                result.last_insert_rowid if kind.inserts else None,
            )
        )
    return found


class Row(tuple[Value, ...]):
    """A row whose values can be reached by column name too: `connection.row_factory = raftdb.Row`.

    Names are compared without case, as SQLite compares them: that of A to Z.
    """

    __slots__ = ()
    _names: tuple[str, ...]

    def __new__(cls, cursor: Cursor, values: tuple[Value, ...]) -> Row:
        kind = cursor._row_class
        if kind is None or not issubclass(kind, cls):
            names = tuple(column[0] for column in cursor.description or ())
            kind = cursor._row_class = type(cls.__name__, (cls,), {"_names": names})
        return tuple.__new__(kind, values)

    def keys(self) -> list[str]:
        """The columns' names."""
        return list(self._names)

    @overload  # type: ignore[override]
    def __getitem__(self, key: int | str) -> Value: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[Value, ...]: ...
    def __getitem__(self, key: int | str | slice) -> Value | tuple[Value, ...]:
        if isinstance(key, str):
            folded = key.translate(_LOWER)
            for position, name in enumerate(self._names):
                if name.translate(_LOWER) == folded:
                    return tuple.__getitem__(self, position)
            raise IndexError(f"there is no column {key!r}")
        return tuple.__getitem__(self, key)

    def __repr__(self) -> str:
        inner = ", ".join(
            f"{name}={value!r}" for name, value in zip(self._names, tuple(self), strict=True)
        )
        return f"Row({inner})"


class Cursor:
    """A DB-API 2.0 cursor. Results are complete when `execute` returns, unless it streams."""

    arraysize: int = 1
    """How many rows `fetchmany` gives unless told."""
    row_factory: RowFactory | None = None
    """Makes what this cursor gives from (cursor, row); at first the connection's."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._closed = False
        self.row_factory = connection.row_factory
        self._row_class: type[Row] | None = None
        self._lastrowid: int | None = None
        self._stream: Stream | None = None
        self._stream_timeout: float | None = None
        self._forget()

    def _forget(self) -> None:
        if self._stream is not None:
            self._end_stream()
        self._rows: Sequence[tuple[Value, ...]] = ()
        self._next = 0
        self._columns: tuple[str, ...] = ()
        self._rowcount = -1
        self._row_class = None
        self._read_index = 0
        self._age_ms = -1

    # ---- executing

    def execute(
        self,
        sql: str,
        parameters: Any = (),
        /,
        *,
        read: str | None = None,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        horizon: int | None = None,
        stream: bool = False,
        durability: str | None = None,
    ) -> Cursor:
        """Run one statement.

        `parameters`: a sequence for `?`, a mapping for `:name`. `read`: the read level of this call
        (`linearizable`, `session`, `bounded(seconds)`, `local`). `timeout`: seconds.
        `idempotency_key`: your own name for this write, which takes effect once under it, whoever
        sends it; `horizon`: see Connection.horizon.
        `durability`: what this write waits for (`quorum`, `locations=3`, `locations=2@zone`).
        `stream`: a query's rows come a page at a time, from one snapshot, as they are fetched;
        `timeout` holds for each page. Raises raftdb.Error.
        """
        connection = self._connection
        if self._closed or connection._closed:
            self._check_open()
        kind = classify_short(sql) if type(sql) is str and len(sql) <= SHORT else classified(sql)
        if (
            (connection._reads_here if read is None else read == LOCAL)
            and not stream
            and kind.kind == READ
            and connection._link is not None
            and connection._plain
            and self._read_here(connection._link, sql, parameters, timeout)
        ):
            return self
        self._forget()
        if kind.kind == BLANK or (kind.verb == "PRAGMA" and self._keys_pragma(sql)):
            return self
        statement = Statement(sql, (adapt_parameters(parameters),))
        if stream:
            self._begin_stream(kind, statement, read, timeout)
            return self
        key = None if idempotency_key is None else key_of(idempotency_key, horizon)
        reads = kind.kind == READ
        results = connection._request((statement,), reads, read, timeout, key, durability)
        self._take(kind, results.statements[0])
        self._read_index, self._age_ms = connection._last_index, connection._last_age_ms
        if kind.inserts:
            self._take_rowid(results.statements[0])
        return self

    def _keys_pragma(self, sql: str) -> bool:
        """PRAGMA foreign_keys, asked or set here: each write carries it. Within a transaction
        setting it does nothing, as in SQLite. False: it is another statement."""
        found, connection = keys_pragma(sql), self._connection
        if found is None:
            return False
        if isinstance(found, str):
            self._columns = ("foreign_keys",)
            self._rows = ((int(connection.foreign_keys),),)
        elif not connection.in_transaction:
            connection.foreign_keys = found
        return True

    def _script(self, script: str) -> tuple[Statement, ...]:
        """Its statements: PRAGMA foreign_keys at its beginning, as dumps have it, is done; BEGIN
        and COMMIT around the rest are taken off, unless a transaction is open: its end would not
        be the COMMIT of the script."""
        texts = split(script)
        while texts and self._keys_pragma(texts[0]):
            del texts[0]
        self._forget()
        connection = self._connection
        if connection.autocommit and not connection.in_transaction:
            texts = without_begin(texts)
        return tuple(Statement(text) for text in texts)

    def _begin_stream(
        self, kind: Kind, statement: Statement, read: str | None, timeout: float | None
    ) -> None:
        if kind.kind != READ:
            raise not_a_query()
        if not self._connection._plain:
            raise not_streamed()
        found = self._connection._stream(statement, read, timeout)
        self._columns, self._rows = found.columns, found.rows
        self._read_index, self._age_ms = found.index, found.age_ms
        self._stream, self._stream_timeout = found, timeout

    def _next_page(self) -> bool:
        """Have the next page; False when there is none. The one before is forgotten."""
        stream = self._stream
        if stream is None:
            return False
        while stream.cursor:
            connection = self._connection
            self._rows, self._next = (), 0
            timeout_s = with_timeout(connection.options, self._stream_timeout)
            connection._run(stream.fetch(connection._core, timeout_s))
            self._rows = stream.rows
            if self._rows:
                return True
        self._stream = None
        return False

    def _end_stream(self) -> None:
        stream, self._stream = self._stream, None
        connection = self._connection
        if stream is not None and stream.cursor and not connection._closed:
            connection._run(stream.close(connection._core))

    def _read_here(
        self, link: InProcessLink, sql: str, parameters: Any, timeout: float | None
    ) -> bool:
        """A local read by the node in this process, in this thread: short, for what it does costs
        two microseconds. False: it is no read, and has to be executed."""
        connection = self._connection
        if self._stream is not None:
            self._end_stream()
        for value in parameters if type(parameters) is tuple else _ODD:
            kind = type(value)
            if kind is int:
                if not INTEGER_MIN <= value <= INTEGER_MAX:
                    adapt_parameters(parameters)
            elif kind is not bytes and (kind is not str or not value.isascii()):
                parameters = adapt_parameters(parameters)
                break
        options = connection.options
        timeout_s = options.timeout if timeout is None else with_timeout(options, timeout)
        try:
            columns, rows, index = link.local_rows(sql, parameters, timeout_s)
        except Error as error:
            self._forget()
            if error.code in NOT_READS:
                return False
            raise
        connection._last_index = self._read_index = index
        seen = connection._core.seen
        if seen is None or index > seen.index:
            connection._core.note_shown(link.history, index)
        self._age_ms = -1
        self._columns = columns
        self._rows = rows
        self._next = 0
        self._rowcount = -1
        self._row_class = None
        return True

    def executemany(
        self,
        sql: str,
        parameter_sets: Iterable[Any],
        /,
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        horizon: int | None = None,
        durability: str | None = None,
    ) -> Cursor:
        """Run one statement for each of the parameter sets: one request, all or nothing."""
        self._check_open()
        kind = classified(sql)
        if kind.kind == READ:
            raise no_executemany()
        self._forget()
        sets = adapt_sets(parameter_sets)
        if not sets or kind.kind == BLANK:
            self._rowcount = 0
            return self
        key = None if idempotency_key is None else key_of(idempotency_key, horizon)
        statements = (Statement(sql, sets),)
        results = self._connection._request(statements, False, None, timeout, key, durability)
        self._take(kind, results.statements[0])
        return self

    def executescript(
        self, script: str, /, *, timeout: float | None = None, durability: str | None = None
    ) -> Cursor:
        """Run the statements of a script: one request, all or nothing. BEGIN at the start and
        COMMIT at the end are taken for what the request is anyway."""
        self._check_open()
        if not isinstance(script, str):
            raise InterfaceError(f"a script is text, not {type(script).__name__}")
        statements = self._script(script)
        if statements:
            self._connection._request(statements, False, None, timeout, None, durability)
        return self

    def _take_rowid(self, result: StatementResult) -> None:
        """Of an INSERT; one that put no row in leaves what was there, as in sqlite3."""
        if result.changes or result.last_insert_rowid:
            self._lastrowid = result.last_insert_rowid

    def _take(self, kind: Kind, result: StatementResult) -> None:
        self._columns = result.columns
        self._rows = result.rows
        self._rowcount = result.changes if kind.changes_rows else -1

    # ---- what came

    @property
    def connection(self) -> Connection:
        """The connection that this cursor belongs to."""
        return self._connection

    @property
    def description(self) -> tuple[Column, ...] | None:
        """One tuple of seven per column, its name first; None without a result set."""
        if not self._columns:
            return None
        return tuple((name, None, None, None, None, None, None) for name in self._columns)

    @property
    def rowcount(self) -> int:
        """Rows changed by the last INSERT, REPLACE, UPDATE or DELETE; else -1."""
        return self._rowcount

    @property
    def lastrowid(self) -> int | None:
        """Row id of the last INSERT or REPLACE by `execute`; None before the first."""
        return self._lastrowid

    @property
    def index(self) -> int:
        """Log index of the write; of a read the index that its snapshot holds at least."""
        return self._read_index

    @property
    def age_s(self) -> float | None:
        """Of a read: all that was committed longer ago than this, before the node took its
        snapshot, is in it. None where the node does not know."""
        return self._age_ms / 1000 if self._age_ms >= 0 else None

    def fetchone(self) -> Any:
        """The next row; None when there is none."""
        if self._closed or self._connection._closed:
            self._check_open()
        place = self._next
        if place >= len(self._rows):
            if self._stream is None or not self._next_page():
                return None
            place = 0
        row = self._rows[place]
        self._next = place + 1
        return row if self.row_factory is None else self.row_factory(self, row)

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """The next rows, at most `size` (default: `arraysize`)."""
        self._check_open()
        count = self.arraysize if size is None else size
        if count < 0:
            raise InterfaceError(f"size is {count}", hint="give 0 or more")
        if self._stream is None:
            return self._some(self._next + count)
        found: list[Any] = []
        while len(found) < count:
            if self._next >= len(self._rows) and not self._next_page():
                break
            found += self._some(self._next + count - len(found))
        return found

    def fetchall(self) -> list[Any]:
        """All rows that are left."""
        self._check_open()
        found = self._some(len(self._rows))
        while self._stream is not None and self._next_page():
            found += self._some(len(self._rows))
        return found

    def _some(self, end: int) -> list[Any]:
        rows = self._rows[self._next : end]
        self._next += len(rows)
        if self.row_factory is None:
            return list(rows)
        return [self.row_factory(self, row) for row in rows]

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._next >= len(self._rows):
            self._check_open()
            if self._stream is None or not self._next_page():
                raise StopIteration
        return self.fetchone()

    # ---- the rest

    def close(self) -> None:
        """Forget the result; using the cursor afterwards is an error."""
        self._forget()
        self._closed = True

    def setinputsizes(self, sizes: Any, /) -> None:
        """Part of DB-API; does nothing."""

    def setoutputsize(self, size: int, column: int | None = None, /) -> None:
        """Part of DB-API; does nothing."""

    def __enter__(self) -> Cursor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise InterfaceError("the cursor is closed", hint="make a new one")
        self._connection._check_open()


def classified(sql: Any) -> Kind:
    """What the statement is. Raises InterfaceError for what is no text."""
    if not isinstance(sql, str):
        raise InterfaceError(f"SQL is text, not {type(sql).__name__}")
    return classify(sql)


def no_executemany() -> ProgrammingError:
    """The error of executemany with a query."""
    return ProgrammingError(
        "executemany is for statements that change something",
        code="executemany",
        hint="use execute for a query",
    )


def without_begin(texts: list[str]) -> list[str]:
    """A script's own BEGIN (PRAGMAs may stand before it) … COMMIT taken off."""
    verbs = [classify(text).verb for text in texts]
    first = next((place for place, verb in enumerate(verbs) if verb != "PRAGMA"), len(verbs))
    if first < len(verbs) and verbs[first] == "BEGIN" and verbs[-1] in ("COMMIT", "END"):
        return texts[:first] + texts[first + 1 : -1]
    return texts
