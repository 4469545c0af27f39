"""The ports of one simulated process, all but network and disk."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

from raftdb.base.ports import Done
from tests.sim.world import Life, World


class SimClock:
    def __init__(self, world: World) -> None:
        self._world = world

    def monotonic_s(self) -> float:
        return self._world.now_s

    def wall_ms(self) -> int:
        return 1_700_000_000_000 + int(self._world.now_s * 1000)


class SimRandom:
    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def random(self) -> float:
        return self._random.random()

    def randbytes(self, count: int) -> bytes:
        return self._random.randbytes(count)


class SimLog:
    """Log lines become notes of the run."""

    def __init__(self, life: Life) -> None:
        self._life = life

    def info(self, event: str, **fields: Any) -> None:
        self._note(event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._note(event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._note(event, fields)

    def _note(self, event: str, fields: dict[str, Any]) -> None:
        text = " ".join(f"{name}={value}" for name, value in fields.items())
        self._life.world.note(f"{self._life.name} {event} {text}")


class _SimTimer:
    def __init__(self, call: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self._call: Callable[..., None] | None = call
        self._arguments = arguments

    def cancel(self) -> None:
        self._call = None

    def fire(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call(*self._arguments)


class SimExecutor:
    """The loop is the world's queue; a lane does one piece of work at a time and takes its time.

    The work's effect happens at one instant within that time, so that a crash finds it not begun,
    or done and not yet reported.
    """

    def __init__(self, life: Life, latency_s: Callable[[str], float]) -> None:
        self._life = life
        self._latency_s = latency_s
        self._lanes: dict[str, deque[tuple[Callable[[], Any], Done]]] = {}

    def call_soon(self, call: Callable[..., None], *arguments: Any) -> None:
        self._life.later(0.0, call, *arguments)

    def call_later(self, delay_s: float, call: Callable[..., None], *arguments: Any) -> _SimTimer:
        timer = _SimTimer(call, arguments)
        self._life.later(max(delay_s, 0.0), timer.fire)
        return timer

    def call_threadsafe(self, call: Callable[..., None], *arguments: Any) -> None:
        self._life.later(0.0, call, *arguments)

    def submit(self, lane: str, work: Callable[[], Any], done: Done) -> None:
        queue = self._lanes.setdefault(lane, deque())
        queue.append((work, done))
        if len(queue) == 1:
            self._begin(lane)

    def _begin(self, lane: str) -> None:
        latency_s = self._latency_s(lane)
        self._life.later(latency_s * 0.7, self._do, lane, latency_s * 0.3)

    def _do(self, lane: str, rest_s: float) -> None:
        work, done = self._lanes[lane][0]
        result, error = None, None
        try:
            result = work()
        except Exception as caught:
            error = caught
        self._life.later(rest_s, self._done, lane, done, result, error)

    def _done(self, lane: str, done: Done, result: Any, error: BaseException | None) -> None:
        queue = self._lanes[lane]
        queue.popleft()
        if queue:
            self._begin(lane)
        done(result, error)
