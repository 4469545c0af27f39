"""Queries whose rows come a page at a time: a cursor at one node, on one connection. No IO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raftdb.base.errors import (
    NOT_APPLIED,
    InternalError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
)
from raftdb.client.actions import LinkError, Steps
from raftdb.client.answers import decode_answer, results_of
from raftdb.client.calls import Answered, Peer
from raftdb.client.core import NOT_READS, Core
from raftdb.client.levels import goes_to_leader
from raftdb.command import Statement
from raftdb.wire import LOCAL, SESSION, CloseCursor, CursorRows, FetchCursor, OpenCursor, Request

PAGE_ROWS = 2_000
"""Asked for at a time; the node cuts pages by bytes too."""
FAREWELL_S = 1.0


class Stream:
    """One open query. Its rows are those of the last page that came."""

    __slots__ = ("_peer", "age_ms", "columns", "cursor", "index", "rows")

    def __init__(self, answered: Answered) -> None:
        self._peer = answered.peer
        self.columns: tuple[str, ...] = ()
        self.cursor = 0
        """At the node; 0: there is nothing more there."""
        self.index = answered.index
        self.age_ms = answered.age_ms
        self.rows: Sequence[tuple[Any, ...]] = ()
        self._take(answered)

    def _take(self, answered: Answered) -> None:
        if not isinstance(answered.message, CursorRows):
            raise InternalError("a page was answered by something else")
        result = results_of(decode_answer(answered.encoded)).statements[0]
        self.columns, self.rows = result.columns, result.rows
        self.cursor = answered.message.cursor

    def fetch(self, core: Core, timeout_s: float) -> Steps[None]:
        """The next page. Raises OperationalError when the cursor is gone: the rows that are left
        cannot be had from the same snapshot any more."""

        def make(peer: Peer, timeout_ms: int) -> Sequence[Request]:
            return (FetchCursor(peer.request_id(), self.cursor, timeout_ms, PAGE_ROWS),)

        self.rows = ()
        call = core.courier.call(timeout_s)
        try:
            answered = yield from core.courier.ask_peer(self._peer, make, call, leading=False)
        except LinkError as lost:
            self.cursor = 0
            raise OperationalError(
                f"the connection of the cursor is gone: {lost.reason}",
                code="cursor_lost",
                retryable=True,
                outcome=NOT_APPLIED,
                hint="run the query again",
            ) from None
        except BaseException:
            self.cursor = 0
            raise
        if answered.error is not None:
            self.cursor = 0
            answered.error.outcome = NOT_APPLIED
            raise answered.error
        self._take(answered)

    def close(self, core: Core) -> Steps[None]:
        """Let go of it at the node."""
        cursor, self.cursor = self.cursor, 0
        if not cursor:
            return
        call = core.courier.call(FAREWELL_S)
        try:
            yield from core.courier.ask_peer(
                self._peer,
                lambda peer, _ms: (CloseCursor(peer.request_id(), cursor),),
                call,
                leading=False,
            )
        except (LinkError, OperationalError):
            pass  # It ends with its connection.


def open_stream(
    core: Core, statement: Statement, *, level: str, max_age_ms: int, timeout_s: float
) -> Steps[Stream]:
    """Begin a query, and bring its first page. Raises ProgrammingError for what is no query."""
    call = core.courier.call(timeout_s)
    if level != LOCAL:
        yield from core.settle(call)

    def make(peer: Peer, timeout_ms: int) -> Sequence[Request]:
        token = core.token() if level == SESSION else ""
        request_id = peer.request_id()
        return (OpenCursor(request_id, level, timeout_ms, PAGE_ROWS, statement, token, max_age_ms),)

    courier = core.courier
    to_leader = goes_to_leader(level, courier.options.prefer)
    answered = yield from (courier.ask_leader if to_leader else courier.ask_near)(make, call)
    if answered.error is not None:
        if answered.error.code in NOT_READS:
            raise not_a_query()
        answered.error.outcome = NOT_APPLIED
        raise core.note_refused(answered.error)
    core.note_seen(answered.peer, answered.index, kept=level == SESSION)
    return Stream(answered)


def not_a_query() -> ProgrammingError:
    """The error of a stream of something that is no query."""
    return ProgrammingError(
        "only queries are streamed", code="not_a_query", hint="leave out stream=True"
    )


def not_streamed() -> NotSupportedError:
    """The error of a stream inside a transaction."""
    return NotSupportedError(
        "a transaction's own reads are not streamed",
        hint="leave out stream=True, or stream before it begins",
    )
