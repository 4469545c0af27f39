"""Server-side cursors: few, of an age, and let go of."""

from __future__ import annotations

from typing import Any

from raftdb.base.errors import OperationalError, OverloadedError
from raftdb.base.limits import Limits
from raftdb.command import Statement
from raftdb.machine import QueryStop
from raftdb.node.cursors import Cursors
from tests.node.fakes import HandLoop


class Stream:
    """Three rows."""

    def __init__(self) -> None:
        self.left = 3
        self.index = 7
        self.closed = False
        self.error: Exception | None = None

    def begin(self, *_arguments: Any) -> None: ...

    def fetch(self, rows: int, *_arguments: Any) -> tuple[bytes, bool]:
        if self.error is not None:
            raise self.error
        self.left -= rows
        return b"page", self.left <= 0

    def close(self) -> None:
        self.closed = True


class Bench:
    def __init__(self, **limits: int) -> None:
        self.loop = HandLoop()
        self.streams: list[Stream] = []
        self.clock = self.executor = self.loop
        self.cursors = Cursors(self, self, Limits(**limits), self.lane)  # type: ignore[arg-type]
        self.pages: list[Any] = []

    def open_stream(self) -> Stream:
        self.streams.append(Stream())
        return self.streams[-1]

    def lane(self, work: Any, done: Any) -> QueryStop:
        stop = QueryStop()
        self.loop.submit("read-0", lambda: work(stop), done)
        return stop

    def ended(self, page: Any, error: BaseException | None) -> None:
        self.pages.append(error if page is None else page.cursor)

    def open(self) -> None:
        self.cursors.open(Statement("SELECT"), 1, lambda: -1, self.ended)
        self.loop.run()

    def fetch(self, number: int) -> None:
        self.cursors.fetch(number, 1, self.ended)
        self.loop.run()


def test_a_cursor_closes_with_its_last_page() -> None:
    bench = Bench()
    bench.open()
    bench.fetch(1)
    assert not bench.streams[0].closed
    bench.fetch(1)
    assert bench.pages == [1, 1, 0]
    assert bench.streams[0].closed
    bench.fetch(1)
    assert bench.pages[3].code == "cursor_gone"


def test_they_are_few() -> None:
    bench = Bench(cursors_max=2)
    for _ in range(3):
        bench.open()
    assert bench.pages[:2] == [1, 2]
    assert isinstance(bench.pages[2], OverloadedError)
    bench.cursors.close(1)
    bench.loop.run()
    bench.open()
    assert bench.pages[3] == 3


def test_an_error_closes_it() -> None:
    bench = Bench()
    bench.open()
    bench.streams[0].error = OperationalError("stopped")
    bench.fetch(1)
    assert bench.pages[1].message == "stopped"
    assert bench.streams[0].closed
    assert len(bench.cursors) == 0


def test_one_page_at_a_time() -> None:
    bench = Bench()
    bench.open()
    bench.cursors.fetch(1, 1, bench.ended)
    bench.cursors.fetch(1, 1, bench.ended)
    bench.loop.run()
    assert bench.pages[1].code == "cursor_gone"
    assert bench.pages[2] == 1


def test_idle_ones_and_old_ones_end() -> None:
    bench = Bench(cursor_idle_ms_max=5_000, cursor_age_ms_max=20_000)
    bench.open()
    bench.open()
    for _ in range(7):
        bench.loop.pass_time(3.0)
        bench.streams[0].left = 100
        if len(bench.cursors):
            bench.cursors.fetch(1, 1, lambda *_: None)
            bench.loop.run()
    assert [stream.closed for stream in bench.streams] == [True, True]
    assert len(bench.cursors) == 0
    assert bench.cursors._sweeping is False
