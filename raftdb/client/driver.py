"""The blocking driver: does the core's actions in the calling thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from raftdb.base.ports import Clock
from raftdb.client.actions import Action, Await, Dial, Drop, Pause, Steps, Transmit
from raftdb.client.link import Dialler

_Value = TypeVar("_Value")


class BlockingDriver:
    """Runs one generator at a time."""

    def __init__(self, dialler: Dialler, clock: Clock) -> None:
        self._dialler = dialler
        self._clock = clock
        self._interrupted = threading.Event()
        self._do: dict[type, Callable[[Any], Any]] = {
            Await: lambda action: action.link.receive(action.until_s),
            Transmit: lambda action: action.link.transmit(
                action.messages, action.until_s, action.stall_s
            ),
            Dial: lambda action: self._dialler.dial(action.address, action.until_s),
            Drop: lambda action: action.link.close(),
            Pause: self._pause,
        }

    def run(self, steps: Steps[_Value]) -> _Value:
        """Run to the end and return its value; what it raises comes through."""
        do = self._do
        try:
            action: Action = next(steps)
            while True:
                try:
                    result = do[type(action)](action)
                except BaseException as error:
                    # KeyboardInterrupt too: the core notes what is left open, and raises it again.
                    action = steps.throw(error)
                else:
                    action = steps.send(result)
        except StopIteration as stop:
            value: _Value = stop.value
            return value

    def _pause(self, action: Pause) -> None:
        # Nobody sets the event: it is a sleep that a signal handler's exception can end.
        self._interrupted.wait(max(0.0, action.until_s - self._clock.monotonic_s()))
