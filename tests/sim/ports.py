"""The ports of one simulated process, all but network and disk."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

from raftdb.base.ports import Done
from tests.sim.world import Life, World

WALL_START_MS = 1_780_000_000_000


class SimClock:
    """Virtual time; the wall clock may be off, drift, and jump. `monotonic_s` never does."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.offset_ms = 0.0
        self.drift = 0.0
        """Wall seconds per second, too many."""

    def monotonic_s(self) -> float:
        return self._world.now_s

    def wall_ms(self) -> int:
        now_s = self._world.now_s
        return WALL_START_MS + int(now_s * 1000 * (1 + self.drift) + self.offset_ms)


class CpuClock:
    """What the machine measures its own work by: each look takes a moment, so that work that is to
    be brief can turn out to be long."""

    def __init__(self, world: World, draw: random.Random) -> None:
        self._world = world
        self._draw = draw
        self._spent_s = 0.0
        self.look_s = 0.0

    def monotonic_s(self) -> float:
        if self.look_s:
            self._spent_s += self._draw.random() * self.look_s
        return self._world.now_s + self._spent_s

    def wall_ms(self) -> int:
        return WALL_START_MS + int(self._world.now_s * 1000)


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
        if self._life.alive:
            text = " ".join([f"{name}={value}" for name, value in fields.items()])
            self._life.world.note(f"{self._life.name} {event} {text}")


class SimTimer:
    """One call that waits; it belongs to a life."""

    __slots__ = ("_arguments", "_call", "_life")

    def __init__(self, life: Life, call: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self._life = life
        self._call: Callable[..., None] | None = call
        self._arguments = arguments

    def cancel(self) -> None:
        self._call = None

    def due(self) -> None:
        """Most timers are cancelled: those cost nothing here."""
        if self._call is not None:
            self._life.run(self.fire)

    def fire(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call(*self._arguments)


class SimExecutor:
    """The loop is the world's queue; a lane does one piece of work at a time and takes its time.

    The work's effect happens at one instant within that time, so that a crash finds it not begun,
    or done and not yet reported. What a callback raises ends the node, as the real executor has it.
    """

    def __init__(self, life: Life, latency_s: Callable[[str], float]) -> None:
        self._life = life
        self._latency_s = latency_s
        self._lanes: dict[str, deque[tuple[Callable[[], Any], Done]]] = {}

    def call_soon(self, call: Callable[..., None], *arguments: Any) -> None:
        self._life.later(0.0, call, *arguments)

    def call_later(self, delay_s: float, call: Callable[..., None], *arguments: Any) -> SimTimer:
        timer = SimTimer(self._life, call, arguments)
        self._life.world.at(max(delay_s, 0.0), timer.due)
        return timer

    def call_threadsafe(self, call: Callable[..., None], *arguments: Any) -> None:
        self._life.later(0.0, call, *arguments)

    def submit(self, lane: str, work: Callable[[], Any], done: Done) -> None:
        queue = self._lanes.get(lane)
        if queue is None:
            queue = self._lanes[lane] = deque()
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
