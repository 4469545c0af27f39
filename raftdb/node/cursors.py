"""Server-side cursors: queries whose rows clients take a page at a time.

Each pins a snapshot, which keeps the write-ahead log from being cut, and a connection to SQLite: so
they are few, and have an age. Everything here runs on the loop; pages are read on lanes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raftdb.base.errors import OverloadedError
from raftdb.base.limits import Limits
from raftdb.base.ports import Ports
from raftdb.command import Statement
from raftdb.machine import Machine, QueryStop, RowStream, cursor_gone

SWEEP_S = 1.0
UNBOUNDED_S = 3_600.0
"""A page's own deadline is that of the call that waits for it."""


class Page:
    """Some rows, and where they come from."""

    __slots__ = ("age_ms", "body", "cursor", "index")

    def __init__(self, body: bytes, cursor: int, index: int, age_ms: int) -> None:
        self.body = body
        """Encoded Results."""
        self.cursor = cursor
        """0: these were the last, and the cursor is closed."""
        self.index = index
        self.age_ms = age_ms


Lane = Callable[
    [Callable[[QueryStop], Any], Callable[[Any, BaseException | None], None]], QueryStop
]
"""Runs work on a free lane, and then the call-back on the loop."""


class _Open:
    __slots__ = ("age_ms", "busy", "index", "opened_s", "stream", "used_s")

    def __init__(self, stream: RowStream, index: int, age_ms: int, now_s: float) -> None:
        self.stream = stream
        self.index = index
        self.age_ms = age_ms
        self.opened_s = self.used_s = now_s
        self.busy = False


Ended = Callable[[Page | None, BaseException | None], None]


class Cursors:
    """The cursors of one node."""

    def __init__(self, machine: Machine, ports: Ports, limits: Limits, lane: Lane) -> None:
        self._machine = machine
        self._clock = ports.clock
        self._executor = ports.executor
        self._limits = limits
        self._lane = lane
        self._open: dict[int, _Open] = {}
        self._opening = 0
        self._numbers = 0
        self._sweeping = False

    def __len__(self) -> int:
        return len(self._open)

    def open(
        self, statement: Statement, rows: int, age_ms: Callable[[], int], ended: Ended
    ) -> QueryStop | None:
        """Begin a query, and read its first page. `age_ms`: of a snapshot that is taken now."""
        if len(self._open) + self._opening >= self._limits.cursors_max:
            ended(
                None,
                OverloadedError(
                    f"{self._limits.cursors_max} cursors are open at this node",
                    code="too_many_cursors",
                    hint="read them to their ends or close them; limits.cursors_max",
                    detail={"retry_after_ms": 1_000},
                ),
            )
            return None
        self._opening += 1

        def work(stop: QueryStop) -> tuple[int, RowStream, bytes, bool]:
            stream = self._machine.open_stream()
            try:
                age = age_ms()
                stream.begin(statement.sql, statement.parameter_sets[0], UNBOUNDED_S, stop)
                return age, stream, *self._page(stream, rows, stop)
            except BaseException:
                stream.close()
                raise

        def done(result: Any, error: BaseException | None) -> None:
            self._opening -= 1
            if error is not None:
                ended(None, error)
                return
            age, stream, body, last = result
            self._numbers += 1
            number = self._numbers
            self._open[number] = _Open(stream, stream.index, age, self._clock.monotonic_s())
            self._sweep_later()
            self._answer(number, body, last, ended)

        return self._lane(work, done)

    def fetch(self, number: int, rows: int, ended: Ended) -> QueryStop | None:
        """The next page."""
        found = self._open.get(number)
        if found is None or found.busy:
            ended(None, cursor_gone())
            return None
        found.busy = True

        def done(result: Any, error: BaseException | None) -> None:
            found.busy = False
            found.used_s = self._clock.monotonic_s()
            if error is not None:
                self.close(number)
                ended(None, error)
            else:
                body, last = result
                self._answer(number, body, last, ended)

        return self._lane(lambda stop: self._page(found.stream, rows, stop), done)

    def _page(self, stream: RowStream, rows: int, stop: QueryStop) -> tuple[bytes, bool]:
        limits = self._limits
        rows = min(rows, limits.fetch_rows_max)
        return stream.fetch(rows, limits.fetch_bytes_max, UNBOUNDED_S, stop)

    def _answer(self, number: int, body: bytes, last: bool, ended: Ended) -> None:
        found = self._open.get(number)
        if found is None:
            ended(None, cursor_gone())
            return
        if last:
            self.close(number)
        ended(Page(body, 0 if last else number, found.index, found.age_ms), None)

    def close(self, number: int) -> None:
        """Let go of it; harmless when it is closed."""
        found = self._open.pop(number, None)
        if found is not None:
            # Not here: a page under way has to come to its end first.
            self._executor.submit("cursor-close", found.stream.close, _closed)

    def _sweep_later(self) -> None:
        if not self._sweeping:
            self._sweeping = True
            self._executor.call_later(SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = False
        now_s = self._clock.monotonic_s()
        age_s = self._limits.cursor_age_ms_max / 1000
        idle_s = self._limits.cursor_idle_ms_max / 1000
        for number, found in list(self._open.items()):
            idle = not found.busy and now_s - found.used_s > idle_s
            if idle or now_s - found.opened_s > age_s:
                self.close(number)
        if self._open:
            self._sweep_later()


def _closed(_result: Any, error: BaseException | None) -> None:
    if error is not None:
        raise error
