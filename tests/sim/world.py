"""Virtual time: one queue of events, one seed, one digest.

Nothing here knows of Raft. A `Life` is one run of one process: what is scheduled for it dies with
it, and waits while it is paused.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections import deque
from collections.abc import Callable
from typing import Any

from tests.sim.checkers import blamed

MARKS = 1000
"""So many go into the digest at once."""


class World:
    """The queue. Events at the same time run in the order of scheduling."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now_s = 1000.0
        self.random = random.Random(f"world {seed}")
        self.events = 0
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        self._marks: list[str] = []
        self._digest = hashlib.blake2b(digest_size=16)
        self.notes: deque[str] = deque(maxlen=4000)
        self.failure: BaseException | None = None
        self.trace: Callable[[str], None] | None = None
        self._answers: deque[tuple[float, Any, Callable[[float, Any], str]]] = deque(maxlen=200)

    def at(self, delay_s: float, call: Callable[..., None], *arguments: Any) -> None:
        """Run after `delay_s`."""
        self._count += 1
        heapq.heappush(self._queue, (self.now_s + delay_s, self._count, call, arguments))

    def run_for(self, duration_s: float) -> None:
        """Run what is due within `duration_s`."""
        end_s = self.now_s + duration_s
        queue = self._queue
        while queue and queue[0][0] <= end_s:
            self.now_s, _count, call, arguments = heapq.heappop(queue)
            self.events += 1
            call(*arguments)
            if self.failure is not None:
                raise self.failure
        self.now_s = end_s

    def step(self) -> None:
        """Run the next event, however far away it is."""
        if self._queue:
            self.run_for(self._queue[0][0] - self.now_s)

    def fail(self, failure: BaseException) -> None:
        """End the run after this event; for those who can't raise through the code under test."""
        if self.failure is None:
            self.failure = failure

    def note(self, text: str) -> None:
        """One line of the run's story; it goes into the digest."""
        line = f"{self.now_s - 1000:9.4f} {text}"
        self.notes.append(line)
        self._marks.append(line)
        if self.trace is not None:
            self.trace(line)

    def mark(self, text: str) -> None:
        """Into the digest only."""
        marks = self._marks
        marks.append(f"{self.now_s!r} {text}\n")
        if len(marks) >= MARKS:
            self._digest_marks()

    def _digest_marks(self) -> None:
        self._digest.update("".join(self._marks).encode())
        self._marks.clear()

    def answer(self, record: Any, words: Callable[[float, Any], str]) -> None:
        """What a client was told: `words(now_s, record)` is made when somebody reads the story."""
        self._answers.append((self.now_s, record, words))
        if self.trace is not None:
            self.trace(words(self.now_s, record))

    def story(self, answers: int) -> list[str]:
        """The notes, and that many of the last answers that clients had, in order of time."""
        last = list(self._answers)[-answers:]
        lines = [*self.notes, *(words(at_s, record) for at_s, record, words in last)]
        return sorted(lines, key=lambda line: float(line.split(maxsplit=1)[0]))

    def digest(self) -> str:
        """Of everything that happened."""
        self.mark(f"end {self.events}")
        self._digest_marks()
        return self._digest.hexdigest()


class Life:
    """One run of one process."""

    def __init__(self, world: World, name: str, number: int) -> None:
        self.world = world
        self.name = name
        self.number = number
        self._tag = f"{name}/{number} "
        self.alive = True
        self.paused = False
        self.step_s = 0.0
        """A slow processor: how long each event keeps it."""
        self._busy_until_s = 0.0
        self._is_kept = False
        self._waking = False
        self._deferred: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self.after_each: Callable[[], None] | None = None
        """Observers look at the node after each of its events."""
        self.on_crash: Callable[[BaseException], None] | None = None

    def later(self, delay_s: float, call: Callable[..., None], *arguments: Any) -> None:
        """Run in this life after `delay_s`."""
        self.world.at(delay_s, self.run, call, *arguments)

    def run(self, call: Callable[..., None], *arguments: Any) -> None:
        """Run now, unless dead; or when the pause ends."""
        if not self.alive:
            return
        if self.paused or self._deferred:
            self._deferred.append((call, arguments))
            return
        if (self.step_s or self._is_kept) and not self._is_free():
            self._deferred.append((call, arguments))
            return
        self._run(call, arguments)

    def keep(self, seconds: float) -> None:
        """What it does now takes so long: it comes to nothing else before."""
        self._busy_until_s = max(self._busy_until_s, self.world.now_s) + seconds
        self._is_kept = True

    def _is_free(self) -> bool:
        """Whether the slow processor takes one more event now; a later turn is arranged if not."""
        wait_s = self._busy_until_s - self.world.now_s
        if wait_s > 0:
            if not self._waking:
                self._waking = True
                self.world.at(wait_s, self._wake)
            return False
        self._busy_until_s = self.world.now_s + self.step_s
        self._is_kept = False
        return True

    def _wake(self) -> None:
        self._waking = False
        self._drain()

    def _run(self, call: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        world = self.world
        marks = world._marks
        # As `mark` does it, for most of what there is.
        marks.append(f"{world.now_s!r} {self._tag}{call.__qualname__}\n")
        if len(marks) >= MARKS:
            world._digest_marks()
        try:
            call(*arguments)
        except Exception as error:
            if self.on_crash is None:
                raise
            broken = blamed(error)
            if broken is not None:
                # A checker's, in the midst of the node's own doing.
                self.world.fail(broken)
            elif self.alive:
                self.on_crash(error)
        if self.after_each is not None and self.alive:
            self.after_each()

    def pause(self) -> None:
        """SIGSTOP."""
        self.paused = True

    def resume(self) -> None:
        """SIGCONT: what came in meanwhile is dealt with in order."""
        self.paused = False
        self._drain()

    def _drain(self) -> None:
        while self._deferred and self.alive and not self.paused:
            if (self.step_s or self._is_kept) and not self._is_free():
                return
            call, arguments = self._deferred.popleft()
            self._run(call, arguments)

    def end(self) -> None:
        """The process is gone."""
        self.alive = False
        self._deferred.clear()
