"""Deadlines that share timers are kept to the moment all the same."""

from __future__ import annotations

import random

import pytest

from raftdb.node.deadlines import Deadlines
from tests.node.fakes import HandLoop


class Waiting:
    """A call that says when it expired."""

    def __init__(self, loop: HandLoop, timeout_s: float) -> None:
        self.loop = loop
        self.due_s = loop.now_s + timeout_s
        self.expired_s: list[float] = []

    def expire(self) -> None:
        self.expired_s.append(self.loop.now_s)


def test_each_expires_once_and_at_its_moment() -> None:
    loop = HandLoop()
    deadlines = Deadlines(loop, loop)  # type: ignore[arg-type]
    draw = random.Random(5)
    calls = []
    for _ in range(300):
        timeout_s = draw.choice((0.001, 0.3, 5.0, 5.0, 30.0, 3_600.0)) * draw.uniform(0.5, 1.0)
        call = Waiting(loop, timeout_s)
        deadlines.add(call, timeout_s)
        calls.append(call)
        loop.pass_time(draw.uniform(0.0, 0.05))
    loop.pass_time(4_000.0)
    for call in calls:
        assert call.expired_s == [pytest.approx(call.due_s, abs=1e-6)]


def test_who_leaves_in_time_does_not_expire_and_most_cost_no_timer_of_their_own() -> None:
    loop = HandLoop()
    deadlines = Deadlines(loop, loop)  # type: ignore[arg-type]
    early, late = Waiting(loop, 5.1), Waiting(loop, 5.1)
    slots = [deadlines.add(call, 5.1) for call in (early, late)]
    for number in range(1_000):
        call = Waiting(loop, 5.0)
        deadlines.add(call, 5.0).pop(call)
        if not number % 10:
            loop.pass_time(0.001)
    assert len(loop._timers) <= 2, "calls that are due at about the same time share one"
    slots[0].pop(early)
    loop.pass_time(4.95)
    assert late.expired_s == [], "a timer of its own has begun by now"
    slots[1].pop(late)
    loop.pass_time(10.0)
    assert early.expired_s == late.expired_s == []
