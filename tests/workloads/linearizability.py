"""Is there an order of these operations that fits both their times and a sequential model?

The algorithm is Wing and Gong's search (Testing and Verifying Concurrent Objects, 1993) with Lowe's
memory of configurations already seen (Testing for linearizability, 2017): take any operation that
began before every unfinished one ended, apply it to the model, and go back when stuck. Histories
are first split into parts that don't touch each other (by key), where the model allows it.

An operation with an unknown outcome has no end: it may be placed anywhere after its invocation, or
nowhere. One that was refused is left out. The search is bounded; past the bound the verdict is
`undecided`, which is no blessing: callers count it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.workloads.base import REFUSED
from tests.workloads.history import Record

STEPS_MAX = 2_000_000
FOREVER = 1 << 62


class Model(Protocol):
    """A sequential object. States are hashable and never changed in place."""

    def key(self, record: Record) -> Hashable:
        """Which independent part the operation touches; the same for all when there are none."""

    def start(self, key: Hashable) -> Hashable:
        """The part's first state."""

    def step(self, state: Any, record: Record) -> tuple[bool, Any]:
        """(whether this outcome is possible now, the state after it). The outcome of an unknown
        operation is always possible."""


@dataclass(slots=True)
class Verdict:
    """`linearizable` is None when the bound was reached first."""

    linearizable: bool | None
    steps: int = 0
    key: Any = None
    """The part that does not fit."""
    stuck: list[Record] = field(default_factory=list)
    """Of the longest order found: what then could have been next, and fits nowhere."""

    def explain(self) -> str:
        """In plain words."""
        if self.linearizable:
            return "linearizable"
        if self.linearizable is None:
            return f"undecided after {self.steps} steps"
        shown = "; ".join(str(record) for record in self.stuck[:4])
        return f"no order explains the operations on {self.key!r}: stuck at {shown}"


def check_linearizable(
    records: Sequence[Record], model: Model, *, steps_max: int = STEPS_MAX
) -> Verdict:
    """Judge a history, part by part; the bound is for all parts together."""
    parts: dict[Hashable, list[Record]] = {}
    for record in records:
        if record.outcome != REFUSED:
            parts.setdefault(model.key(record), []).append(record)
    steps = 0
    undecided: Verdict | None = None
    for key, part in parts.items():
        verdict = _Search(part, model, key, steps_max - steps).run()
        steps += verdict.steps
        if verdict.linearizable is False:
            verdict.steps = steps
            return verdict
        if verdict.linearizable is None:
            undecided = verdict
            break
    if undecided is not None:
        undecided.steps = steps
        return undecided
    return Verdict(True, steps)


class _Search:
    """One part. Events are a doubly linked list in the order of time, as arrays of positions;
    position 0 is the head. Operation `i` begins at event `_begin[i]` and ends at `_end[i]`."""

    def __init__(self, part: list[Record], model: Model, key: Hashable, steps_max: int) -> None:
        self._records = part
        self._model = model
        self._key = key
        self._steps_max = steps_max
        ends = [_end_ns(record) for record in part]
        events = [(record.invoke_ns, 0, i) for i, record in enumerate(part)]
        events += [(end, 1, i) for i, end in enumerate(ends)]
        # At one instant beginnings come before ends: such operations count as concurrent.
        events.sort()
        size = len(events) + 1
        self._operation = [0] * size
        self._is_end = [False] * size
        self._next = [*range(1, size), 0]
        self._previous = list(range(-1, size - 1))
        self._end_of = [0] * len(part)
        self._begin_of = [0] * len(part)
        for position, (_time, is_end, i) in enumerate(events, start=1):
            self._operation[position] = i
            self._is_end[position] = bool(is_end)
            (self._end_of if is_end else self._begin_of)[i] = position
        self._known_left = sum(1 for end in ends if end != FOREVER)
        self._is_known = [end != FOREVER for end in ends]

    def run(self) -> Verdict:
        state = self._model.start(self._key)
        taken = 0
        seen: set[tuple[int, Any]] = {(0, state)}
        stack: list[tuple[int, Any]] = []
        position, steps = self._next[0], 0
        best, stuck = -1, []
        while self._known_left:
            if not self._is_end[position]:
                steps += 1
                if steps > self._steps_max:
                    return Verdict(None, steps, self._key)
                i = self._operation[position]
                possible, after = self._model.step(state, self._records[i])
                configuration = (taken | 1 << i, after)
                if possible and configuration not in seen:
                    seen.add(configuration)
                    stack.append((i, state))
                    state, taken = after, taken | 1 << i
                    self._lift(i)
                    position = self._next[0]
                else:
                    position = self._next[position]
                continue
            # An end whose operation is not taken: everything before it was tried.
            if len(stack) > best:
                best, stuck = len(stack), self._open_until(position)
            if not stack:
                return Verdict(False, steps, self._key, stuck)
            i, state = stack.pop()
            taken &= ~(1 << i)
            self._unlift(i)
            position = self._next[self._begin_of[i]]
        return Verdict(True, steps, self._key)

    def _open_until(self, position: int) -> list[Record]:
        """The operations that could have been next when the search got stuck at this end."""
        found, at = [self._records[self._operation[position]]], self._next[0]
        while at != position:
            if not self._is_end[at] and self._operation[at] != self._operation[position]:
                found.append(self._records[self._operation[at]])
            at = self._next[at]
        return found

    def _lift(self, i: int) -> None:
        before, after = self._previous, self._next
        for position in (self._begin_of[i], self._end_of[i]):
            after[before[position]] = after[position]
            before[after[position]] = before[position]
        self._known_left -= self._is_known[i]

    def _unlift(self, i: int) -> None:
        before, after = self._previous, self._next
        for position in (self._end_of[i], self._begin_of[i]):
            after[before[position]] = position
            before[after[position]] = position
        self._known_left += self._is_known[i]


def _end_ns(record: Record) -> int:
    return FOREVER if record.return_ns is None else record.return_ns
