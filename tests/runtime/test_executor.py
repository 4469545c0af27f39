"""LoopExecutor: order on a lane, threads, errors, and what crashes reach."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pytest

from raftdb.base.errors import InterfaceError
from raftdb.runtime.executor import LANES_MAX, STACK_BYTES, _stack_size
from raftdb.runtime.lateness import Lateness
from tests.runtime.harness import Bench, bench


@pytest.fixture(params=["uvloop", "asyncio"])
def one(request: pytest.FixtureRequest) -> Any:
    with bench(request.param) as made:
        yield made


def test_work_on_a_lane_keeps_its_order_and_never_overlaps(one: Bench) -> None:
    running: list[int] = []
    overlaps: list[int] = []
    ran: list[int] = []
    done: list[int] = []

    def work(number: int) -> int:
        running.append(number)
        if len(running) > 1:
            overlaps.append(number)
        ran.append(number)
        running.remove(number)
        return number

    def finished(result: Any, error: BaseException | None) -> None:
        assert error is None
        done.append(result)
        one.changed()

    for number in range(500):
        one.executor.submit("journal", lambda number=number: work(number), finished)
    one.wait(lambda: len(done) == 500)
    assert ran == done == list(range(500))
    assert not overlaps


def test_lanes_run_beside_each_other_and_done_runs_on_the_loop(one: Bench) -> None:
    met = threading.Barrier(2, timeout=10)
    threads: list[str] = []

    def finished(result: Any, error: BaseException | None) -> None:
        assert error is None, error
        threads.append(threading.current_thread().name)
        threads.append(result)
        one.changed()

    def work() -> str:
        met.wait()
        return threading.current_thread().name

    one.executor.submit("apply", work, finished)
    one.executor.submit("read-0", work, finished)
    one.wait(lambda: len(threads) == 4)
    assert sorted(set(threads)) == ["MainThread", "raftdb-apply", "raftdb-read-0"]


def test_an_error_of_work_goes_to_done_and_the_lane_lives_on(one: Bench) -> None:
    outcomes: list[Any] = []

    def finished(result: Any, error: BaseException | None) -> None:
        outcomes.append((result, repr(error)))
        one.changed()

    one.executor.submit("journal", lambda: 1 / 0, finished)
    one.executor.submit("journal", lambda: "fine", finished)
    one.wait(lambda: len(outcomes) == 2)
    assert outcomes == [
        (None, "ZeroDivisionError('division by zero')"),
        ("fine", "None"),
    ]


def boom(*_: Any) -> None:
    raise ValueError("boom")


@pytest.mark.parametrize("how", ["soon", "later", "threadsafe", "done", "guard"])
def test_what_a_callback_raises_reaches_on_crash(how: str) -> None:
    with bench() as one:
        if how == "soon":
            one.executor.call_soon(boom)
        elif how == "later":
            one.executor.call_later(0.001, boom)
        elif how == "threadsafe":
            thread = threading.Thread(target=lambda: one.executor.call_threadsafe(boom))
            thread.start()
            thread.join()
        elif how == "done":
            one.executor.submit("journal", lambda: None, boom)
        else:
            one.executor.guard(boom)
        one.wait(lambda: bool(one.crashes))
        assert [repr(error) for error in one.crashes] == ["ValueError('boom')"]
        one.crashes.clear()


def test_other_callbacks_go_on_after_a_crash(one: Bench) -> None:
    after: list[int] = []
    one.executor.submit("journal", lambda: None, boom)
    one.executor.submit(
        "journal", lambda: 7, lambda result, _: (after.append(result), one.changed())[1]
    )
    one.wait(lambda: bool(after))
    assert len(one.crashes) == 1
    one.crashes.clear()


def test_a_cancelled_timer_does_not_run(one: Bench) -> None:
    ran: list[str] = []
    one.executor.call_later(0.001, ran.append, "cancelled").cancel()
    one.executor.call_later(0.002, lambda: (ran.append("kept"), one.changed())[1])
    one.wait(lambda: bool(ran))
    assert ran == ["kept"]


def test_several_results_share_one_wake_up(one: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []
    wakes: list[str] = []
    all_ran = threading.Event()

    class Counting:
        def __init__(self, loop: Any) -> None:
            self._loop = loop

        def call_soon_threadsafe(self, call: Any, *arguments: Any) -> Any:
            wakes.append(call.__name__)
            return self._loop.call_soon_threadsafe(call, *arguments)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._loop, name)

    monkeypatch.setattr(one.executor, "_loop", Counting(one.loop))

    def finished(result: Any, _: BaseException | None) -> None:
        done.append(result)
        one.changed()

    for number in range(100):
        one.executor.submit("journal", lambda number=number: number, finished)
    one.executor.submit("journal", all_ran.set, finished)
    # The loop does not run yet, so all results wait for the first wake-up.
    assert all_ran.wait(10)
    one.wait(lambda: len(done) == 101)
    assert done[:100] == list(range(100))
    assert wakes.count("_deliver") <= 2


def test_sockets_and_timers_get_their_turn_among_endless_results(one: Bench) -> None:
    state = {"stop": False, "timer": False, "ended": False}

    def again(_result: Any, _error: BaseException | None) -> None:
        if state["stop"]:
            state["ended"] = True
            one.changed()
        else:
            one.executor.submit("journal", lambda: None, again)

    def tick() -> None:
        state["timer"] = state["stop"] = True

    again(None, None)
    one.executor.call_later(0.01, tick)
    one.wait(lambda: state["ended"])
    assert state["timer"]


def test_an_idle_lane_keeps_no_result_alive(one: Bench) -> None:
    class Big:
        pass

    seen: list[weakref.ref[Big]] = []

    def finished(result: Any, _: BaseException | None) -> None:
        seen.append(weakref.ref(result))
        one.changed()

    one.executor.submit("journal", Big, finished)
    one.wait(lambda: bool(seen))
    gc.collect()
    assert seen[0]() is None


def test_lane_names_are_few_and_plain(one: Bench) -> None:
    with pytest.raises(InterfaceError, match="not a lane name"):
        one.executor.submit("Bad Name", lambda: None, lambda *_: None)
    for number in range(LANES_MAX):
        one.executor.submit(f"lane-{number}", lambda: None, lambda *_: None)
    with pytest.raises(InterfaceError, match="lanes"):
        one.executor.submit("one-more", lambda: None, lambda *_: None)


def test_close_finishes_what_was_given_and_names_a_lane_that_hangs() -> None:
    made = Bench("asyncio")
    ran: list[int] = []
    release = threading.Event()
    for number in range(50):
        made.executor.submit("journal", lambda number=number: ran.append(number), lambda *_: None)
    made.executor.submit("stuck", release.wait, lambda *_: None)
    assert made.executor.close(0.2) == ["stuck"]
    assert ran == list(range(50))
    with pytest.raises(InterfaceError, match="closed"):
        made.executor.submit("fresh", lambda: None, lambda *_: None)
    # A late result after the loop is closed is dropped without a word.
    made.loop.close()
    release.set()
    assert made.executor.close(10) == []
    made.executor.call_threadsafe(ran.append, 99)
    assert 99 not in ran


def test_a_timer_that_a_busy_loop_kept_waiting_shows(one: Bench) -> None:
    fired: list[int] = []
    blocked = threading.Event()

    def begin() -> None:
        one.executor.call_later(0.01, fired.append, 1)
        one.executor.call_later(0.0, blocked.wait, 0.15)
        one.executor.call_later(0.2, one.changed)

    one.loop.call_soon_threadsafe(begin)
    one.wait(lambda: bool(fired) and one.executor.lateness()["late_ms_max"] > 0)
    found = one.executor.lateness()
    assert found["late_ms_max"] >= found["late_ms"] >= 100
    assert found["later_than_ms"]["100"] >= 1


def test_lateness_is_of_the_last_minute_or_two() -> None:
    lateness = Lateness(0.0)
    lateness.note(1.0, 1.009)
    assert lateness.facts(2.0)["late_ms"] == 0
    lateness.note(10.0, 10.3)
    lateness.note(70.0, 70.05)
    found = lateness.facts(80.0)
    assert (found["late_ms"], found["late_ms_max"]) == (300.0, 300.0)
    assert found["later_than_ms"]["25"] == 2
    assert found["later_than_ms"]["100"] == 1
    assert lateness.facts(140.0)["late_ms"] == 50.0
    found = lateness.facts(500.0)
    assert (found["late_ms"], found["late_ms_max"]) == (0.0, 300.0)


def test_lanes_have_stacks_that_sqlite_cannot_fill(
    one: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LIKE with a pattern of 50,000 bytes ends the process where threads have 2 MB, as they do when
    `ulimit -s` is unlimited. Other threads of the program keep what they had."""
    sizes: list[int] = []
    start = threading.Thread.start

    def watched(thread: threading.Thread) -> None:
        if thread.name == "raftdb-deep":
            sizes.append(threading.stack_size())
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", watched)
    ran: list[Any] = []

    def finished(result: Any, _error: BaseException | None) -> None:
        ran.append(result)
        one.changed()

    one.executor.submit("deep", lambda: 1, finished)
    one.wait(lambda: len(ran) == 1)
    assert sizes == [STACK_BYTES]
    with _stack_size:
        assert threading.stack_size() == 0
