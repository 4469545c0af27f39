"""The blocking driver: does the core's actions in the calling thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from raftdb.base.ports import Clock
from raftdb.client.actions import Action, Await, Dial, Drop, LinkError, Pause, Steps, Transmit
from raftdb.client.link import Dialler

_Value = TypeVar("_Value")


class Cancelled(Exception):
    """Another thread cancelled what was under way."""


class BlockingDriver:
    """Runs one generator at a time."""

    def __init__(self, dialler: Dialler, clock: Clock) -> None:
        self._dialler = dialler
        self._clock = clock
        self._interrupted = threading.Event()
        self._running = self._cancelled = False
        self._link: Any = None
        """What the action under way uses."""
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
        if self._cancelled:
            self._cancelled = False
            self._interrupted.clear()
        self._running = True
        try:
            action: Action = next(steps)
            while True:
                try:
                    self._link = getattr(action, "link", None)
                    result = do[type(action)](action)
                    if self._cancelled:
                        self._cancelled = False
                        raise Cancelled
                except LinkError as error:
                    if self._cancelled:
                        self._cancelled = False
                        action = steps.throw(Cancelled())
                    else:
                        action = steps.throw(error)
                except BaseException as error:
                    # KeyboardInterrupt too: the core notes what is left open, and raises it again.
                    action = steps.throw(error)
                else:
                    action = steps.send(result)
        except StopIteration as stop:
            value: _Value = stop.value
            return value
        finally:
            # An interrupt may come here, between two steps: what is left open is noted now, not
            # whenever the last traceback that holds the steps is gone.
            steps.close()
            self._running = False
            self._link = None

    def cancel(self) -> None:
        """Have what runs now end by Cancelled; harmless when nothing runs. From any thread.

        The connection that it waits for is cut: nothing else wakes a thread out of the system, and
        the node stops a read whose client is gone."""
        if self._running:
            self._cancelled = True
            self._interrupted.set()
            link = self._link
            if link is not None:
                link.interrupt()

    def _pause(self, action: Pause) -> None:
        # A sleep that `cancel`, and a signal handler's exception, can end.
        self._interrupted.wait(max(0.0, action.until_s - self._clock.monotonic_s()))
