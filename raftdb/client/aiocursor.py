"""The cursor of the client for asyncio."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from raftdb.base.errors import InterfaceError
from raftdb.client.cursor import Column, Cursor, RowFactory, classified, no_executemany
from raftdb.client.sqltext import BLANK, READ
from raftdb.client.stream import Stream, not_a_query
from raftdb.client.values import adapt_parameters, adapt_sets, key_of
from raftdb.command import Statement

if TYPE_CHECKING:
    from raftdb.client.aio import AsyncConnection


class AsyncCursor:
    """A cursor. Results are complete when `execute` returns, and fetching does not wait, unless it
    streams."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._cursor = Cursor(connection)  # type: ignore[arg-type]
        self._stream: Stream | None = None
        self._stream_timeout: float | None = None

    async def execute(
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
    ) -> AsyncCursor:
        """Run one statement; as Cursor.execute."""
        cursor = self._cursor
        cursor._check_open()
        kind = classified(sql)
        await self._forget()
        if kind.kind == BLANK or (kind.verb == "PRAGMA" and cursor._keys_pragma(sql)):
            return self
        statement = Statement(sql, (adapt_parameters(parameters),))
        reads = kind.kind == READ
        if stream:
            if not reads:
                raise not_a_query()
            found = await self._connection._stream(statement, read, timeout)
            cursor._columns, cursor._rows = found.columns, found.rows
            cursor._read_index, cursor._age_ms = found.index, found.age_ms
            self._stream, self._stream_timeout = found, timeout
            return self
        key = None if idempotency_key is None else key_of(idempotency_key, horizon)
        outcome = await self._connection._request(
            (statement,), reads, read, timeout, durability, key
        )
        cursor._take(kind, outcome.results.statements[0])
        cursor._read_index, cursor._age_ms = outcome.index, outcome.age_ms
        if kind.inserts:
            cursor._take_rowid(outcome.results.statements[0])
        return self

    async def executemany(
        self,
        sql: str,
        parameter_sets: Iterable[Any],
        /,
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        horizon: int | None = None,
        durability: str | None = None,
    ) -> AsyncCursor:
        """Run one statement for each of the parameter sets: one request, all or nothing."""
        cursor = self._cursor
        cursor._check_open()
        kind = classified(sql)
        if kind.kind == READ:
            raise no_executemany()
        await self._forget()
        sets = adapt_sets(parameter_sets)
        if not sets or kind.kind == BLANK:
            cursor._rowcount = 0
            return self
        key = None if idempotency_key is None else key_of(idempotency_key, horizon)
        statements = (Statement(sql, sets),)
        outcome = await self._connection._request(statements, False, None, timeout, durability, key)
        cursor._take(kind, outcome.results.statements[0])
        return self

    async def executescript(
        self, script: str, /, *, timeout: float | None = None, durability: str | None = None
    ) -> AsyncCursor:
        """Run the statements of a script: one request, all or nothing."""
        cursor = self._cursor
        cursor._check_open()
        if not isinstance(script, str):
            raise InterfaceError(f"a script is text, not {type(script).__name__}")
        await self._forget()
        statements = cursor._script(script)
        if statements:
            await self._connection._request(statements, False, None, timeout, durability)
        return self

    @property
    def arraysize(self) -> int:
        """How many rows `fetchmany` gives unless told."""
        return self._cursor.arraysize

    @arraysize.setter
    def arraysize(self, value: int) -> None:
        self._cursor.arraysize = value

    @property
    def row_factory(self) -> RowFactory | None:
        """Makes what this cursor gives from (cursor, row); at first the connection's."""
        return self._cursor.row_factory

    @row_factory.setter
    def row_factory(self, value: RowFactory | None) -> None:
        self._cursor.row_factory = value

    @property
    def connection(self) -> AsyncConnection:
        """The connection that this cursor belongs to."""
        return self._connection

    @property
    def description(self) -> tuple[Column, ...] | None:
        """One tuple of seven per column, its name first; None without a result set."""
        return self._cursor.description

    @property
    def rowcount(self) -> int:
        """Rows changed by the last INSERT, REPLACE, UPDATE or DELETE; else -1."""
        return self._cursor.rowcount

    @property
    def lastrowid(self) -> int | None:
        """Row id of the last INSERT or REPLACE by `execute`; None before the first."""
        return self._cursor.lastrowid

    @property
    def index(self) -> int:
        """As Cursor.index."""
        return self._cursor.index

    @property
    def age_s(self) -> float | None:
        """As Cursor.age_s."""
        return self._cursor.age_s

    async def fetchone(self) -> Any:
        """The next row; None when there is none."""
        cursor = self._cursor
        cursor._check_open()
        if cursor._next >= len(cursor._rows) and not await self._next_page():
            return None
        return cursor.fetchone()

    async def fetchmany(self, size: int | None = None) -> list[Any]:
        """The next rows, at most `size` (default: `arraysize`, 1)."""
        cursor = self._cursor
        cursor._check_open()
        count = cursor.arraysize if size is None else size
        if count < 0 or self._stream is None:
            return cursor.fetchmany(count)
        found: list[Any] = []
        while len(found) < count:
            if cursor._next >= len(cursor._rows) and not await self._next_page():
                break
            found += cursor._some(cursor._next + count - len(found))
        return found

    async def fetchall(self) -> list[Any]:
        """All rows that are left."""
        cursor = self._cursor
        cursor._check_open()
        found = cursor._some(len(cursor._rows))
        while await self._next_page():
            found += cursor._some(len(cursor._rows))
        return found

    def __aiter__(self) -> AsyncCursor:
        return self

    async def __anext__(self) -> Any:
        cursor = self._cursor
        cursor._check_open()
        if cursor._next >= len(cursor._rows) and not await self._next_page():
            raise StopAsyncIteration
        return cursor.fetchone()

    async def close(self) -> None:
        """Forget the result; using the cursor afterwards is an error."""
        await self._forget()
        self._cursor.close()

    async def __aenter__(self) -> AsyncCursor:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # ---- pages of a stream

    async def _next_page(self) -> bool:
        """Have the next page; False when there is none. The one before is forgotten first."""
        stream, cursor, connection = self._stream, self._cursor, self._connection
        while stream is not None and stream.cursor:
            cursor._rows, cursor._next = (), 0
            await connection._run(
                lambda left_s: stream.fetch(connection._core, left_s), self._stream_timeout
            )
            if self._stream is not stream:
                break  # Another task made this cursor do something else meanwhile.
            cursor._rows = stream.rows
            if cursor._rows:
                return True
        self._stream = None
        return False

    async def _forget(self) -> None:
        """Let go of what came, and of a stream at its node."""
        self._cursor._forget()
        stream, self._stream = self._stream, None
        connection = self._connection
        if stream is not None and stream.cursor and not connection._closed:
            await connection._run(lambda _left_s: stream.close(connection._core), None)


__all__ = ["AsyncCursor"]
