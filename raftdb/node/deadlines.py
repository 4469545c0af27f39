"""Deadlines of many calls by few timers.

Nearly every call ends long before its deadline, so setting and cancelling a timer for each would be
work for nothing on the path of every commit. Calls that are due at about the same time share one:
a deadline is met up to a sixteenth of its time-out late, and early by no more than a timer may be.
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


Slot = dict[Due, None]
"""Calls that expire together: whoever ends before takes itself out (`pop`)."""


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
        number = math.ceil((now_s + timeout_s) / grain_s)
        key = (grain_s, number)
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = {}
            self._executor.call_later(number * grain_s - now_s, self._expire, key)
        slot[call] = None
        return slot

    def _expire(self, key: tuple[float, float]) -> None:
        for call in list(self._slots.pop(key)):
            call.expire()
