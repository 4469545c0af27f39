"""Signals that come before the loop runs, and while it takes over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from raftdb.runtime import new_event_loop
from raftdb.runtime.signals import ALL, SETTLE_S, Signals
from tests.consensus.bench import ListLog


@pytest.fixture
def signals() -> Iterator[Signals]:
    before = [signal.getsignal(number) for number in ALL]
    held = Signals()
    yield held
    held.release()
    assert [signal.getsignal(number) for number in ALL] == before


def told_on_a_loop(signals: Signals, *later: int) -> list[int]:
    """What a loop is told that begins now; `later`: signals that come when it has taken over."""
    loop, told = new_event_loop(ListLog()), list[int]()
    try:
        loop.call_soon(signals.hand_to, loop, told.append)
        for number in later:
            loop.call_soon(os.kill, os.getpid(), number)
        loop.call_later(4 * SETTLE_S, loop.stop)
        loop.run_forever()
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
    assert told_on_a_loop(signals) == [signal.SIGHUP, signal.SIGTERM]


def test_what_comes_later_is_told_by_the_loop(signals: Signals) -> None:
    assert told_on_a_loop(signals, signal.SIGINT) == [signal.SIGINT]
    assert told_on_a_loop(signals) == []


def test_the_second_one_ends_the_process() -> None:
    text = (
        "import os, signal\nfrom raftdb.runtime.signals import Signals\nSignals()\n"
        "for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGINT):\n"
        "    os.kill(os.getpid(), number)\n"
    )
    assert subprocess.run([sys.executable, "-c", text], check=False).returncode == 130
