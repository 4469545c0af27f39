"""The real Executor: an asyncio loop, and one plain thread per lane.

A lane is a thread with a queue rather than a pool, because the order of work on a lane is a
promise, and because handing over to a waiting thread is the cheapest hand-over there is
(DESIGN.md has the figures).
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from raftdb.base.errors import InterfaceError
from raftdb.base.ports import Done
from raftdb.runtime.lateness import Lateness

LANES_MAX = 32
_LANE_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")

_Work = tuple[Callable[[], Any], Done]
_Finish = Callable[[Done, Any, BaseException | None], None]
OnCrash = Callable[[BaseException], None]


class _Timer:
    """A call that waits for its time."""

    __slots__ = ("_handle",)

    def __init__(self, handle: asyncio.TimerHandle) -> None:
        self._handle = handle

    def cancel(self) -> None:
        """Forget the call."""
        self._handle.cancel()


class LoopExecutor:
    """The Executor port over a running asyncio or uvloop loop.

    What a callback raises goes to `on_crash` (on the loop, each time): the node must stop then,
    since nobody knows what the callback left half done.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_crash: OnCrash) -> None:
        self._loop = loop
        self._on_crash = on_crash
        self._lateness = Lateness(loop.time())
        self._lanes: dict[str, _Lane] = {}
        self._finished: deque[tuple[Done, Any, BaseException | None]] = deque()
        self._woken = False
        self._closed = False

    def call_soon(self, call: Callable[..., None], *arguments: Any) -> None:
        """Run on the loop after what is running now. Only from the loop."""
        self._loop.call_soon(self._guarded, call, arguments)

    def call_later(self, delay_s: float, call: Callable[..., None], *arguments: Any) -> _Timer:
        """Run on the loop after `delay_s` seconds. Only from the loop."""
        loop = self._loop
        due_s = loop.time() + delay_s
        return _Timer(loop.call_later(delay_s, self._due, due_s, call, arguments))

    def lateness(self) -> dict[str, Any]:
        """How late timers fire: what keeps the loop from its work. Only from the loop."""
        return self._lateness.facts(self._loop.time())

    def call_threadsafe(self, call: Callable[..., None], *arguments: Any) -> None:
        """Run on the loop soon. From any thread; nothing happens once the loop is closed."""
        try:
            self._loop.call_soon_threadsafe(self._guarded, call, arguments)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def submit(self, lane: str, work: Callable[[], Any], done: Done) -> None:
        """Run `work()` on the lane's thread, then `done(result, error)` on the loop."""
        queue = self._lanes.get(lane)
        if queue is None:
            queue = self._open_lane(lane)
        queue.work.put((work, done))

    def close(self, timeout_s: float = 10.0) -> list[str]:
        """End the lanes after what they were given; names of those that did not end in time.

        Blocks: call it when the loop has stopped. What is still undelivered is not delivered.
        """
        self._closed = True
        for lane in self._lanes.values():
            lane.work.put(None)
        for lane in self._lanes.values():
            lane.thread.join(timeout_s)
        return [name for name, lane in self._lanes.items() if lane.thread.is_alive()]

    def guard(self, call: Callable[..., None], *arguments: Any) -> None:
        """Call now; what it raises goes to `on_crash`. For those who call from loop callbacks of
        their own, such as the network."""
        self._guarded(call, arguments)

    def crash(self, error: BaseException) -> None:
        """Report what a callback raised to those who caught it themselves."""
        self._on_crash(error)
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise error

    def _due(self, due_s: float, call: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self._lateness.note(due_s, self._loop.time())
        self._guarded(call, arguments)

    def _guarded(self, call: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        try:
            call(*arguments)
        except BaseException as error:
            self.crash(error)

    def _open_lane(self, name: str) -> _Lane:
        if self._closed:
            raise InterfaceError(f"lane {name!r} was used after the executor was closed")
        if not _LANE_NAME.fullmatch(name):
            raise InterfaceError(f"{name!r} is not a lane name")
        if len(self._lanes) >= LANES_MAX:
            raise InterfaceError(
                f"more than {LANES_MAX} lanes", hint="lane names are few and fixed"
            )
        lane = self._lanes[name] = _Lane(name, self._finish)
        return lane

    def _finish(self, done: Done, result: Any, error: BaseException | None) -> None:
        """On a lane's thread. One wake-up of the loop serves all that finishes before it runs."""
        self._finished.append((done, result, error))
        if self._woken:
            return
        # Two threads may both get here; the second wake-up then finds nothing, which is harmless.
        self._woken = True
        try:
            self._loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def _deliver(self) -> None:
        # Cleared before counting: what is appended after the count makes a wake-up of its own, and
        # sockets and timers get their turn in between.
        self._woken = False
        finished = self._finished
        for _ in range(len(finished)):
            done, result, error = finished.popleft()
            self._guarded(done, (result, error))


STACK_BYTES = 16 << 20
"""Of a lane's thread. SQLite recurses by what it is given: LIKE with the longest pattern takes 2 to
3 MB, and threads have but 2 where `ulimit -s` is unlimited. Only what is used is memory."""

_stack_size = threading.Lock()
"""It is the process's: two that change it for a moment would leave it changed."""


class _Lane:
    """One thread and what it is given."""

    def __init__(
        self, name: str, finish: Callable[[Done, Any, BaseException | None], None]
    ) -> None:
        self.work: SimpleQueue[_Work | None] = SimpleQueue()
        self._finish = finish
        # A daemon: a lane stuck in a system call of a dying disk must not keep the process alive.
        self.thread = threading.Thread(target=self._run, name=f"raftdb-{name}", daemon=True)
        with _stack_size:
            before = threading.stack_size(STACK_BYTES)
            try:
                self.thread.start()
            finally:
                threading.stack_size(before)

    def _run(self) -> None:
        take, finish = self.work.get, self._finish
        while (item := take()) is not None:
            work, done = item
            try:
                result = work()
            except BaseException as error:
                finish(done, None, error)
            else:
                finish(done, result, None)
            # An idle lane must not keep the last result alive.
            del item, work, done
            result = None
