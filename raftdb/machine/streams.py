"""A query whose rows are taken a page at a time, on a snapshot and a connection of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from raftdb.base.errors import OperationalError
from raftdb.command.codec import encode_reply
from raftdb.command.requests import Parameters
from raftdb.command.results import Results, StatementResult
from raftdb.machine.reader import QueryStop, Reader


class RowStream:
    """One open query. Its methods may be called from any thread; fetches wait for each other."""

    def __init__(self, reader: Reader, closed: Callable[[RowStream], None]) -> None:
        self._reader = reader
        self._on_closed = closed
        self._lock = threading.Lock()
        self._closed = False
        self._columns: tuple[str, ...] = ()
        self.index = 0
        """The log index that its snapshot shows, once it was begun."""

    def begin(self, sql: str, parameters: Parameters, timeout_s: float, stop: QueryStop) -> None:
        """Take the snapshot and begin to execute. Raises as Machine.query."""
        self._columns, self.index = self._guarded(
            lambda reader: reader.begin_at(sql, parameters), timeout_s, stop
        )

    def fetch(
        self, rows_max: int, bytes_max: int, timeout_s: float, stop: QueryStop
    ) -> tuple[bytes, bool]:
        """The next rows as an encoded reply, within bounds (but one row at least); and whether
        they are the last. Raises as Machine.query, and then the stream is of no more use."""
        rows, last = self._guarded(lambda r: r.more(rows_max, bytes_max), timeout_s, stop)
        result = StatementResult(self._columns, tuple(rows), 0, 0)
        return encode_reply(Results((result,))), last

    def _guarded(self, work: Callable[[Reader], Any], timeout_s: float, stop: QueryStop) -> Any:
        with self._lock:
            if self._closed:
                raise cursor_gone()
            reader = self._reader
            reader.started_s, reader.timeout_s = None, timeout_s
            try:
                stop.begins(reader)
                return work(reader)
            finally:
                stop.ends()

    def close(self) -> None:
        """Stop what runs, and let go of the snapshot. Closing twice is harmless."""
        self._reader.stop()
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._reader.connection.close(True)
        self._on_closed(self)


def cursor_gone() -> OperationalError:
    """The error of a cursor that does not exist (any more)."""
    return OperationalError(
        "the cursor is not open at this node: it was closed, or was open or idle for too long",
        code="cursor_gone",
        retryable=True,
        outcome="not_applied",
        hint="run the query again; limits.cursor_age_ms_max bounds how long one may be open",
    )
