"""Signals from the first moment of a process to its last: none is lost, none ends it untold.

A node takes some time to import and to open what it has, and some to end. Without a handler a
SIGTERM of that time would end it as `kill` does, with -15 instead of its own exit code. So there is
one handler for the whole life, below the loop's own: a loop forgets what comes between
`add_signal_handler` and its start (uvloop), and gives the system's handlers back when it is closed.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

STOPS = (signal.SIGTERM, signal.SIGINT)
ALL = (*STOPS, signal.SIGHUP)

_OnSignal = Callable[[int], None]


class Signals:
    """SIGTERM, SIGINT and SIGHUP of this process: held, while no loop takes them. The second one of
    SIGTERM and SIGINT ends the process at once, whatever it does."""

    def __init__(self) -> None:
        """Of the main thread only."""
        self._held: list[int] = []
        self._loop: tuple[AbstractEventLoop, _OnSignal] | None = None
        self._before: list[tuple[int, Any]] = [
            (number, signal.signal(number, self._take)) for number in ALL
        ]
        self.stop_asked = False
        """The process is to end."""

    @classmethod
    def held(cls) -> Signals | None:
        """Those that the process holds by now."""
        owner = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
        return owner if isinstance(owner, cls) else None

    def hand_to(self, loop: AbstractEventLoop, on_signal: _OnSignal) -> None:
        """From now on `on_signal` gets them, those that were held first. Called on the loop, while
        it runs."""
        self._loop = loop, on_signal
        held, self._held = self._held, []
        for number in held:
            on_signal(number)

    def take_back(self) -> None:
        """The loop has stopped, or is about to be closed: the process ends by itself, and with its
        own exit code."""
        self._loop = None

    def release(self) -> None:
        """As it was before."""
        self.take_back()
        for number, handler in self._before:
            signal.signal(number, handler)

    def _take(self, number: int, _frame: object) -> None:
        if number in STOPS:
            if self.stop_asked:
                os._exit(128 + number)
            self.stop_asked = True
        if self._loop is not None:
            # In the middle of anything that the main thread does: only this is allowed there.
            loop, on_signal = self._loop
            loop.call_soon_threadsafe(on_signal, number)
        elif number not in self._held:
            self._held.append(number)
