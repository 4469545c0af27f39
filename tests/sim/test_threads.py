"""Work that stops in its midst: one thread at a time, the same each time, locks included."""

from __future__ import annotations

import errno
import random
import threading
from collections.abc import Iterator

import pytest

from raftdb.machine import machine
from tests.sim import threads
from tests.sim.checkers import Broken
from tests.sim.disk import SimFiles
from tests.sim.ports import SimExecutor, Threads
from tests.sim.run import run_seed
from tests.sim.settings import draw_settings
from tests.sim.threads import ConditionOfJobs, Job, Killed, LockOfJobs
from tests.sim.world import Life, World


class Stage:
    """One process with its executor and disk, and what happened there."""

    def __init__(self, seed: int = 1, *, stop_chance: float = 1.0) -> None:
        self.world = World(seed)
        self.life = Life(self.world, "n1", 1)
        self.executor = SimExecutor(self.life, lambda _lane: 0.001, random.Random(seed))
        self.executor.threads = Threads(1.0, stop_chance, random.Random(seed))
        self.files = SimFiles(random.Random(seed))
        self.files.before_each = self.executor.pause
        self.told: list[str] = []

    def write(self, name: str) -> None:
        """Four calls of the disk."""
        self.told.append(f"{name} begins")
        file = self.files.open(f"/{name}", create=True)
        file.write_at(0, b"1")
        file.sync()
        self.told.append(f"{name} ends")

    def submit(self, name: str) -> None:
        self.executor.submit(name, lambda: self.write(name), lambda _r, e: self._done(name, e))

    def _done(self, name: str, error: BaseException | None) -> None:
        self.told.append(f"{name} {error}" if error else f"{name} is told")


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    assert stage.executor.threads is not None
    stage.executor.threads.kill()
    assert threads.running() is None


def test_work_stops_at_the_disk_and_others_go_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage.executor.threads, "stop_s", lambda _lane: 0.01)
    stage.submit("a")
    stage.submit("b")
    stage.executor.call_later(0.01, stage.told.append, "loop")
    stage.world.run_for(3.0)
    told = stage.told
    assert told.index("b begins") < told.index("a ends")
    assert told.index("a begins") < told.index("loop") < told.index("a ends")
    assert told.index("a ends") < told.index("a is told")
    assert stage.files.paths() == ["/a", "/b"]


def test_the_same_seed_stops_at_the_same_places() -> None:
    found = []
    for seed in (1, 1, 2):
        stage = Stage(seed, stop_chance=0.5)
        for name in ("a", "b", "c"):
            stage.submit(name)
        stage.world.run_for(3.0)
        found.append((stage.told, stage.world.digest()))
    assert found[0] == found[1] != found[2]


def test_work_of_a_process_that_is_gone_reaches_no_file(stage: Stage) -> None:
    stage.submit("a")
    while "a begins" not in stage.told:
        stage.world.step()
    stage.life.end()
    stage.files.kill()
    assert stage.executor.threads is not None
    stage.executor.threads.kill()
    assert stage.told == ["a begins"]
    assert not stage.executor.threads.jobs
    assert stage.files.paths() == []
    stage.world.run_for(3.0)
    assert stage.told == ["a begins"]


def test_an_error_is_handed_to_whoever_asked(stage: Stage) -> None:
    def fails() -> None:
        stage.files.open("/missing")

    stage.executor.submit("a", fails, lambda _r, e: stage._done("a", e))
    stage.world.run_for(3.0)
    [told] = stage.told
    assert f"[Errno {errno.ENOENT}]" in told


def test_a_job_that_needs_a_lock_waits_until_it_is_let_go(stage: Stage) -> None:
    lock = LockOfJobs()

    def work(name: str) -> None:
        with lock:
            stage.write(name)

    for name in ("a", "b"):
        stage.executor.submit(name, lambda name=name: work(name), lambda *_told: None)
    stage.world.run_for(3.0)
    assert stage.told == ["a begins", "a ends", "b begins", "b ends"]
    assert not lock.locked()


def test_who_has_no_later_gets_a_lock_at_once(stage: Stage) -> None:
    """The loop waits as long as the holder takes, in no time."""
    lock = LockOfJobs()

    def work() -> None:
        with lock:
            stage.write("a")

    stage.executor.submit("a", work, lambda *_told: None)
    while not lock.locked():
        stage.world.step()
    assert stage.told == ["a begins"]
    assert not lock.acquire(blocking=False)
    before_s = stage.world.now_s
    with lock:
        assert stage.told == ["a begins", "a ends"]
    assert stage.world.now_s == before_s


def test_a_lock_that_nobody_will_let_go_is_told() -> None:
    lock = LockOfJobs()
    lock.acquire()
    with pytest.raises(Broken, match="deadlock"):
        lock.acquire()
    assert not lock.acquire(timeout=0.1)


def test_who_waits_for_a_condition_sees_it_come_true(stage: Stage) -> None:
    condition, free = ConditionOfJobs(), []

    def wait() -> None:
        with condition:
            stage.told.append(str(condition.wait_for(lambda: free, 5.0)))
            stage.told.append(str(condition.wait_for(lambda: False, 0.1)))

    stage.executor.submit("a", wait, lambda *_told: None)
    stage.world.run_for(1.0)
    assert not stage.told
    assert not condition.locked()
    free.append(1)
    stage.world.run_for(1.0)
    assert stage.told == ["[1]", "False"]


def test_a_job_is_one_thread_at_a_time() -> None:
    """And the thread of one that has ended is used again."""
    seen: list[threading.Thread] = []
    group: dict[Job, None] = {}

    def work() -> None:
        seen.append(threading.current_thread())
        job = threads.running()
        assert job is not None
        job.stop(1.0)
        raise Killed

    for _ in range(2):
        job = Job(work, group, lambda: None)
        job.resume()
        assert threads.running() is None
        assert not job.ended
        job.resume()
        assert job.ended
    assert seen[0] is seen[1] is not threading.current_thread()
    assert not group


def test_machines_get_such_locks_only_while_that_is_asked_for() -> None:
    with threads.locks():
        assert isinstance(machine.threading.Lock(), LockOfJobs)
    assert not isinstance(machine.threading.Lock(), LockOfJobs)


STOPPING = next(seed for seed in range(100) if draw_settings(seed).sizes.job_chance == 1.0)


def test_a_run_in_which_work_stops_is_one_run() -> None:
    first, again = run_seed(STOPPING), run_seed(STOPPING)
    assert not first.broken
    assert first.digest == again.digest
