"""Fetching many objects at once, in order, a bounded number ahead. Not for nodes: for commands."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["WORKERS", "each"]

WORKERS = 8
_A = TypeVar("_A")
_B = TypeVar("_B")


def each(
    call: Callable[[_A], _B], items: Iterable[_A], *, workers: int = WORKERS, ahead: int = 16
) -> Iterator[tuple[_A, _B | Exception]]:
    """`call` of each item, by threads, in the items' order: (item, result or what it raised). At
    most `ahead` results wait, which bounds the memory."""
    waiting: deque[tuple[_A, Future[_B]]] = deque()
    with ThreadPoolExecutor(workers, "raftdb-archive") as pool:

        def first() -> tuple[_A, _B | Exception]:
            item, future = waiting.popleft()
            error = future.exception()
            if error is None:
                return item, future.result()
            if isinstance(error, Exception):
                return item, error
            raise error

        try:
            for item in items:
                waiting.append((item, pool.submit(call, item)))
                if len(waiting) >= ahead:
                    yield first()
            while waiting:
                yield first()
        finally:
            for _item, future in waiting:
                future.cancel()
