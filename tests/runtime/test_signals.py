"""Signals that come before the loop runs, and while it takes over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from raftdb.runtime import new_event_loop
from raftdb.runtime.signals import ALL, Signals
from tests.consensus.bench import ListLog

END_S = 30.0


@pytest.fixture
def signals() -> Iterator[Signals]:
    before = [signal.getsignal(number) for number in ALL]
    held = Signals()
    yield held
    held.release()
    assert [signal.getsignal(number) for number in ALL] == before


def told_on_a_loop(signals: Signals, expected: int, *later: int) -> list[int]:
    """What a loop is told that begins now, until it was told so much; `later`: signals that come
    when it runs, the last of them while it does nothing at all."""
    loop, told = new_event_loop(ListLog()), list[int]()

    def tell(number: int) -> None:
        told.append(number)
        if len(told) == expected:
            loop.stop()

    try:
        loop.call_soon(signals.hand_to, loop, tell)
        for number in later:
            threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
        loop.call_later(END_S if expected else 0.1, loop.stop)
        loop.run_forever()
        signals.take_back()
    finally:
        loop.close()
    return told


def test_what_came_early_is_told_once(signals: Signals) -> None:
    assert Signals.held() is signals
    assert not signals.stop_asked
    os.kill(os.getpid(), signal.SIGHUP)
    assert not signals.stop_asked
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals.stop_asked
    assert told_on_a_loop(signals, 2) == [signal.SIGHUP, signal.SIGTERM]
    assert told_on_a_loop(signals, 0) == []


def test_a_loop_that_sleeps_is_woken(signals: Signals) -> None:
    assert told_on_a_loop(signals, 1, signal.SIGINT) == [signal.SIGINT]
    assert signals.stop_asked


def test_after_the_loop_a_signal_ends_nothing_untold(signals: Signals) -> None:
    """A closed loop of asyncio or uvloop gives its handlers' signals their first meaning back."""
    assert told_on_a_loop(signals, 0) == []
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals.stop_asked
    assert Signals.held() is signals


def test_the_second_one_ends_the_process() -> None:
    text = (
        "import os, signal\nfrom raftdb.runtime.signals import Signals\nSignals()\n"
        "for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGINT):\n"
        "    os.kill(os.getpid(), number)\n"
    )
    assert subprocess.run([sys.executable, "-c", text], check=False).returncode == 130


def test_a_node_leaves_without_the_end_of_the_interpreter() -> None:
    """In which signals get their first meaning back, so that a SIGTERM would hide the exit code."""
    text = (
        "import atexit, os\nfrom raftdb.cli import app\n"
        "atexit.register(os.kill, os.getpid(), 9)\n"
        "app.run = lambda: (print('said'), 4)[1]\napp.run_and_leave()\n"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (4, b"said\n")
