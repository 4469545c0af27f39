"""Lanes as the threads that they are: work stops in the midst, and everybody else goes on.

A `Job` is a piece of work on a real thread, of which only one runs at any time: the world's, or one
job's, to which the world's has handed over and for which it waits. So a run stays one run: where a
job stops (at calls of the disk, and at locks), and for how long, is drawn from the seed. While it
stands there, the node's loop, its other lanes and the other nodes go on in virtual time: a commit
may come between two calls of a checkpoint.

Work that waits for a lock which a stopped job holds must not wait for ever, so the machine's locks
are replaced (`locks`): a job that has to wait stops until the lock is free. The loop, and work that
happens at one instant, have no later: whoever holds the lock goes on at once until it is free.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import raftdb.machine
from tests.sim.checkers import Broken

WAIT_S = 0.005
"""So often a job that waits for a lock looks again."""
ROUNDS_MAX = 10_000
"""More turns nobody takes who is to come to an end."""


class Killed(BaseException):
    """The process of a job is gone, wherever it stood."""


class _Thread:
    """One that is used again for the next job."""

    def __init__(self) -> None:
        self.job: Job | None = None
        self.go = threading.Lock()
        self.back = threading.Lock()
        self.go.acquire()
        self.back.acquire()
        # A daemon: a job that never ends must not keep the process from ending.
        threading.Thread(target=self._run, name="simulated lane", daemon=True).start()

    def _run(self) -> None:
        while True:
            self.go.acquire()
            job = self.job
            assert job is not None
            try:
                if not job.killed:
                    job.work()
            except Killed:
                pass
            except BaseException as error:
                job.error = error
            job.ended = True
            self.back.release()


_idle: list[_Thread] = []
_running: Job | None = None
"""Whose thread runs now; None: the world's."""


class Job:
    """One piece of work. `group`: all that have begun and not ended, of one process. `pause` is
    called where it takes a lock or lets go of one: it may stop there."""

    def __init__(
        self, work: Callable[[], None], group: dict[Job, None], pause: Callable[[], None]
    ) -> None:
        self.work = work
        self.group = group
        self.pause = pause
        self.ended = False
        self.killed = False
        self.hurries = False
        """It does not stop but for a lock."""
        self.stops_s = 0.0
        self.error: BaseException | None = None
        self._thread = _idle.pop() if _idle else _Thread()
        self._thread.job = self
        self._lost = False
        group[self] = None

    def resume(self) -> None:
        """Let it go on until it stops or has ended. Only from the world's thread."""
        global _running
        assert _running is None
        assert not self.ended
        if self._lost:
            return
        _running = self
        thread = self._thread
        thread.go.release()
        try:
            thread.back.acquire()
        except BaseException:
            # The run is given up while the job still runs: it ends when it would stop next.
            self._lost = self.killed = True
            raise
        finally:
            _running = None
        if self.ended:
            del self.group[self]
            thread.job = None
            _idle.append(thread)
            if self.error is not None:
                raise self.error

    def stop(self, for_s: float) -> None:
        """Hand over to the world, for so long. Only from its own thread. Raises Killed."""
        if self.killed:
            raise Killed
        self.stops_s = for_s
        self._thread.back.release()
        self._thread.go.acquire()
        if self.killed:
            raise Killed

    def kill(self) -> None:
        """It ends where it stands, and reaches no file any more."""
        self.killed = True
        for _ in range(ROUNDS_MAX):
            if self.ended or self._lost:
                return
            self.resume()


def running() -> Job | None:
    """The job whose thread runs now; None on the world's."""
    return _running


def _wait(ready: Callable[[], bool], users: dict[Job, None] | None, rounds: int) -> bool:
    """Until it is so; False when it does not come about within so many turns."""
    job = _running
    for _ in range(rounds):
        if ready():
            return True
        if job is not None:
            job.stop(WAIT_S)
            continue
        others = list(users or ())
        if not others:
            break
        for other in others:
            # One that was waited for may have ended the others.
            if not other.ended:
                other.hurries = True
                try:
                    other.resume()
                finally:
                    other.hurries = False
            if ready():
                return True
    return ready()


class LockOfJobs:
    """A lock as `threading.Lock` makes it, between jobs and the world."""

    def __init__(self) -> None:
        self._held = False
        self._users: dict[Job, None] | None = None
        """Of the process to which it belongs, as of the first job that has taken it."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if _running is not None:
            self._users = _running.group
            _running.pause()
        if self._held:
            if not blocking:
                return False
            rounds = ROUNDS_MAX if timeout < 0 else int(timeout / WAIT_S) + 1
            if not _wait(lambda: not self._held, self._users, rounds):
                if timeout < 0:
                    raise Broken("deadlock", "a lock is never let go")
                return False
        self._held = True
        return True

    def release(self) -> None:
        assert self._held
        self._held = False
        if _running is not None:
            _running.pause()

    def locked(self) -> bool:
        return self._held

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_error: object) -> None:
        self.release()


class ConditionOfJobs(LockOfJobs):
    """A condition as `threading.Condition` makes it. Who waits looks again and again."""

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        rounds = ROUNDS_MAX if timeout is None else int(timeout / WAIT_S) + 1
        self.release()
        try:
            _wait(lambda: bool(predicate()) and not self._held, self._users, rounds)
        finally:
            self.acquire()
        return predicate()

    def notify(self, count: int = 1) -> None:
        """They look by themselves."""

    def notify_all(self) -> None:
        """They look by themselves."""


@functools.cache
def _names() -> tuple[str, ...]:
    """The machine's modules, sorted."""
    found = pkgutil.iter_modules(raftdb.machine.__path__, "raftdb.machine.")
    return tuple(sorted(module.name for module in found))


@contextmanager
def locks() -> Iterator[None]:
    """While this lasts, what machines make are locks of jobs."""
    instead = SimpleNamespace(
        Lock=LockOfJobs, Condition=ConditionOfJobs, local=threading.local, Event=threading.Event
    )
    with ExitStack() as stack:
        for name in _names():
            module = importlib.import_module(name)
            if hasattr(module, "threading"):
                stack.enter_context(mock.patch.object(module, "threading", instead))
        yield
