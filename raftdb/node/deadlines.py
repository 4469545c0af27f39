"""Deadlines of many calls by few timers.

Nearly every call ends long before its deadline, so setting and cancelling a timer for each would be
work for nothing on the path of every commit. So calls that are due at about the same time share
one, which comes a little before the first of them is due. Those that are still under way by then,
the few, get a timer each, and expire when they have to: not earlier, and later by no more than a
timer may be.
"""

from __future__ import annotations

import math
from typing import Protocol

from raftdb.base.ports import Clock, Executor

_GRAIN = 16


class Due(Protocol):
    """What has a deadline."""

    def expire(self) -> None:
        """It has passed."""


Slot = dict[Due, float]
"""Calls that expire at about the same time, and when each does, on the monotonic clock: whoever
ends before takes itself out (`pop`)."""


class Deadlines:
    """Sorts calls into slots. On the loop."""

    def __init__(self, clock: Clock, executor: Executor) -> None:
        self._now_s = clock.monotonic_s
        self._executor = executor
        self._slots: dict[tuple[float, float], Slot] = {}

    def add(self, call: Due, timeout_s: float) -> Slot:
        """Have the call expire `timeout_s` from now unless it leaves its slot before."""
        # A power of two near a sixteenth of the time-out: like calls meet in the same slots.
        grain_s = math.ldexp(1.0, math.frexp(timeout_s / _GRAIN)[1] - 1)
        now_s = self._now_s()
        due_s = now_s + timeout_s
        number = math.floor(due_s / grain_s)
        key = (grain_s, number)
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = {}
            self._executor.call_later(number * grain_s - now_s, self._come_near, key)
        slot[call] = due_s
        return slot

    def _come_near(self, key: tuple[float, float]) -> None:
        slot, now_s = self._slots.pop(key), self._now_s()
        for call, due_s in slot.items():
            self._executor.call_later(max(due_s - now_s, 0.0), self._expire, slot, call)

    def _expire(self, slot: Slot, call: Due) -> None:
        if slot.pop(call, None) is not None:
            call.expire()
