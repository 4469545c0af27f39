"""What a call brings, and to whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from raftdb.base.errors import Error


@dataclass(frozen=True, slots=True)
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


class Call(Protocol):
    """A call under way: ends once, by its outcome or by its deadline."""

    ended: bool

    def end(self, answer: Answer | None, error: Error | None) -> None:
        """Its outcome; nothing happens when it has ended."""
