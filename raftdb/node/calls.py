"""What a call brings, and to whom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from raftdb.base.errors import DeadlineError, Error, InternalError, OperationalError
from raftdb.base.frozen import frozen
from raftdb.consensus.port import Waiting
from raftdb.node.deadlines import Slot


@frozen
class Answer:
    """What a call brought. `body` is an encoded reply, or a plain value."""

    body: Any
    index: int
    """The log index that the answer reflects at least."""
    age_ms: int = -1
    """Of a read: what was committed longer ago than this is in it; -1: not known."""
    cursor: int = 0
    """Of a page: the cursor that has more; 0 when there is none."""


Done = Callable[[Answer | None, Error | None], None]


def answer_of(
    result: Any, error: BaseException | None, index: int
) -> tuple[Answer | None, Error | None]:
    """What a lane brought, as it is told to who called."""
    if error is None:
        return Answer(result, index), None
    if isinstance(error, Error):
        return None, error
    return None, InternalError(f"{type(error).__name__}: {error}")


class Call(Protocol):
    """A call under way: ends once, by its outcome or by its deadline."""

    ended: bool

    def end(self, answer: Answer | None, error: Error | None) -> None:
        """Its outcome; nothing happens when it has ended."""


class Stop(Protocol):
    """Ends what runs on a lane."""

    def stop(self) -> None:
        """Harmless when it is over."""


class UnderWay:
    """One call under way: ends once, by its outcome or by its deadline."""

    __slots__ = (
        "_done",
        "_over",
        "_timeout_s",
        "ended",
        "is_read",
        "late",
        "slot",
        "stop",
        "wait",
    )

    def __init__(
        self,
        over: Callable[[UnderWay], None],
        done: Done,
        late: Callable[[float], Error],
        timeout_s: float,
    ) -> None:
        self._over = over
        self._done = done
        self.late = late
        """Makes the error at its deadline."""
        self._timeout_s = timeout_s
        self.ended = False
        self.is_read = False
        self.stop: Stop | None = None
        """Of what runs on a lane: past its deadline nobody waits for it."""
        self.wait: Waiting | None = None
        """For an index to be applied here; or, of a write that is applied, to be in more places."""
        self.slot: Slot = {}
        """Where its deadline is kept."""

    def end(self, answer: Answer | None, error: Error | None) -> None:
        """Its outcome; nothing happens when it has ended."""
        if self.ended:
            return
        self.ended = True
        self.slot.pop(self, None)
        if self.wait is not None:
            self.wait.cancel()
        self._over(self)
        self._done(answer, error)

    def expire(self) -> None:
        """Its deadline has passed."""
        if self.stop is not None:
            self.stop.stop()
        self.end(None, self.late(self._timeout_s))

    def cancel(self) -> None:
        """Nobody waits for it any more. (A read: nothing took effect.)"""
        if self.stop is not None:
            self.stop.stop()
        self.end(None, OperationalError("cancelled", code="cancelled", outcome="not_applied"))


def write_deadline(timeout_s: float) -> Error:
    """The error of a write without an outcome."""
    return DeadlineError(
        f"no outcome within {timeout_s:g} s",
        retryable=True,
        hint="retry with the same session and sequence: it is applied at most once",
    )


def read_deadline(timeout_s: float) -> Error:
    """The error of a read without an answer."""
    return DeadlineError(f"no answer within {timeout_s:g} s", retryable=True, outcome="not_applied")
