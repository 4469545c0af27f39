"""The ports of one simulated process, all but network and disk."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

from raftdb.base.ports import Clock, Done
from tests.sim.threads import Job, Killed, running
from tests.sim.world import Life, World

STALL_LOOK_S = 0.05
STOPS_S = (0.0, 0.001, 0.01, 0.1, 0.5)
"""Up to so long a job stops at a call of the disk."""
QUICK = ("journal", "apply")
"""Lanes for which everybody waits: their stops are not of the longest."""
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
    """What the machine measures its own work by: each look takes a moment, and each call of the
    disk, so that work that is to be brief can turn out to be long, in its midst or at its end."""

    def __init__(self, world: World, draw: random.Random) -> None:
        self._world = world
        self._draw = draw
        self._spent_s = 0.0
        self.look_s = 0.0
        self.call_s = 0.0
        """Up to so much of a call of the disk is somebody else's: the host gives its processor
        away meanwhile."""
        self.everywhere = False
        """Queries and transactions measure by it too."""

    def monotonic_s(self) -> float:
        if self.look_s:
            self._spent_s += self._draw.random() * self.look_s
        return self._world.now_s + self._spent_s

    def called(self) -> float:
        """A call of the disk: how long it took."""
        if not self.call_s:
            return 0.0
        took_s = self._draw.random() * self.call_s
        self._spent_s += took_s
        return took_s

    def wall_ms(self) -> int:
        return WALL_START_MS + int(self._world.now_s * 1000)


class SplitClock:
    """The one's time, and the wall clock of the other."""

    def __init__(self, monotonic: CpuClock, wall: Clock) -> None:
        self.monotonic_s = monotonic.monotonic_s
        self.wall_ms = wall.wall_ms


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


class Quiet:
    """Of a tool that says nothing."""

    def info(self, event: str, **fields: Any) -> None:
        pass

    def warning(self, event: str, **fields: Any) -> None:
        pass

    def error(self, event: str, **fields: Any) -> None:
        pass


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


class _Work:
    """One piece of work on a lane."""

    __slots__ = ("done", "error", "has_ended", "is_done", "result", "work")

    def __init__(self, work: Callable[[], Any], done: Done) -> None:
        self.work = work
        self.done = done
        self.is_done = False
        """It has begun, at least."""
        self.has_ended = False
        self.result: Any = None
        self.error: BaseException | None = None

    def do(self) -> None:
        """Unless it was done already, in the midst of something else."""
        if not self.is_done:
            self.is_done = True
            self.run()

    def run(self) -> None:
        """Now."""
        try:
            self.result = self.work()
        except Exception as caught:
            self.error = caught
        self.has_ended = True


class Threads:
    """Which work of one process runs on a thread of its own, and where it stops."""

    def __init__(self, job_chance: float, stop_chance: float, draw: random.Random) -> None:
        self._job_chance = job_chance
        self._stop_chance = stop_chance
        self._draw = draw
        self.jobs: dict[Job, None] = {}
        self.stops = 0

    def takes(self, lane: str) -> bool:
        """Whether the next work of that lane does."""
        return self._draw.random() < self._job_chance

    def stop_s(self, lane: str) -> float | None:
        """For how long a job stops at a call of the disk; None: not there."""
        draw = self._draw
        if draw.random() >= self._stop_chance:
            return None
        return draw.random() * draw.choice(STOPS_S[:-1] if lane in QUICK else STOPS_S)

    def kill(self) -> None:
        """The process is gone."""
        for job in list(self.jobs):
            job.kill()


class SimExecutor:
    """The loop is the world's queue; a lane does one piece of work at a time and takes its time.

    The work's effect happens at one instant within that time, so that a crash finds it not begun,
    or done and not yet reported. Lanes are threads: `between`, called from the disk calls of what
    runs, may let another lane's work happen right there, in the midst of it. And where `threads`
    says so, work is a job that stops in its midst (see threads.py).
    """

    def __init__(self, life: Life, latency_s: Callable[[str], float], draw: random.Random) -> None:
        self._life = life
        self._latency_s = latency_s
        self._draw = draw
        self._lanes: dict[str, deque[_Work]] = {}
        self._running = ""
        self._is_between = False
        self.between_chance = 0.0
        self.may_run: Callable[[str, Callable[[], Any]], bool] = _never
        """Whether a lane's work would not wait for a lock that who runs now holds."""
        self.betweens = 0
        self.is_stalled: Callable[[str], bool] = _never
        """Whether the device under a lane answers nothing now."""
        self.threads: Threads | None = None

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
        queue.append(_Work(work, done))
        if len(queue) == 1:
            self._begin(lane)

    def _begin(self, lane: str) -> None:
        latency_s = self._latency_s(lane)
        self._life.later(latency_s * 0.7, self._do, lane, latency_s * 0.3)

    def _do(self, lane: str, rest_s: float) -> None:
        if self.is_stalled(lane):
            self._life.later(STALL_LOOK_S, self._do, lane, rest_s)
            return
        item, threads = self._lanes[lane][0], self.threads
        if threads is not None:
            if item.is_done and not item.has_ended:
                # It began in the midst of something that stopped.
                self._life.later(STALL_LOOK_S, self._do, lane, rest_s)
                return
            if not item.is_done and threads.takes(lane):
                item.is_done = True
                self._go_on(lane, Job(item.run, threads.jobs, self.pause), rest_s)
                return
        self._running = lane
        try:
            item.do()
        finally:
            self._running = ""
        self._life.later(rest_s, self._done, lane)

    def _go_on(self, lane: str, job: Job, rest_s: float) -> None:
        """A job's next part."""
        if not job.ended:
            if self.is_stalled(lane):
                self._life.later(STALL_LOOK_S, self._go_on, lane, job, rest_s)
                return
            self._running = lane
            try:
                job.resume()
            finally:
                self._running = ""
        if job.ended:
            self._life.later(rest_s, self._done, lane)
        else:
            self._life.later(job.stops_s, self._go_on, lane, job, rest_s)

    def pause(self) -> None:
        """A call of the disk, or a lock: if a job is there, it may stop."""
        job, threads = running(), self.threads
        if job is None or threads is None:
            return
        if job.killed:
            raise Killed
        if not (job.hurries or self._is_between) and self._life.alive:
            for_s = threads.stop_s(self._running)
            if for_s is not None:
                threads.stops += 1
                job.stop(for_s)

    def _done(self, lane: str) -> None:
        queue = self._lanes[lane]
        item = queue.popleft()
        if queue:
            self._begin(lane)
        item.done(item.result, item.error)

    @property
    def is_in_lane(self) -> bool:
        """What runs now is a lane's work, and not the loop's."""
        return bool(self._running) or self._is_between or running() is not None

    def between(self) -> None:
        """A disk call of SQLite's: perhaps another lane is quicker just now."""
        if self._is_between or self._draw.random() >= self.between_chance:
            return
        ready = [
            queue[0]
            for lane, queue in self._lanes.items()
            if queue
            and not queue[0].is_done
            and lane != self._running
            and self.may_run(lane, queue[0].work)
        ]
        if not ready:
            return
        self._is_between = True
        self.betweens += 1
        try:
            self._draw.choice(ready).do()
        finally:
            self._is_between = False


def _never(*_what: Any) -> bool:
    return False
