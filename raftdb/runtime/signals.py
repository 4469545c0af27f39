"""Signals from the first moment of a process on: what comes before the loop runs is not lost.

A node takes some time to import and to open what it has. Without a handler a SIGTERM of that time
would end it as `kill` does, and uvloop forgets what comes between `add_signal_handler` and
`run_forever`.
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
SETTLE_S = 0.05


class Signals:
    """SIGTERM, SIGINT and SIGHUP of this process: held, until a loop takes them. The second one of
    SIGTERM and SIGINT ends the process at once."""

    def __init__(self) -> None:
        """Of the main thread only."""
        self._held: list[int] = []
        self._before: list[tuple[int, Any]] = [
            (number, signal.signal(number, self._hold)) for number in ALL
        ]

    @classmethod
    def held(cls) -> Signals | None:
        """Those that the process holds by now."""
        owner = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
        return owner if isinstance(owner, cls) else None

    @property
    def stop_asked(self) -> bool:
        """The process is to end."""
        return any(number in STOPS for number in self._held)

    def hand_to(self, loop: AbstractEventLoop, on_signal: Callable[[int], None]) -> None:
        """From now on `on_signal` gets them, those that were held first. Called on the loop, while
        it runs."""
        told: list[int] = []

        def tell(number: int) -> None:
            told.append(number)
            on_signal(number)

        def tell_held() -> None:
            for number in self._held:
                if number not in told:
                    tell(number)

        for number in ALL:
            loop.add_signal_handler(number, tell, number)
        # One that came while the handlers changed may be known to both: the loop's word goes first.
        loop.call_later(SETTLE_S, tell_held)

    def release(self) -> None:
        """As it was before."""
        for number, handler in self._before:
            signal.signal(number, handler)

    def _hold(self, number: int, _frame: object) -> None:
        if number in STOPS and self.stop_asked:
            os._exit(128 + number)
        self._held.append(number)
