"""What a workload and its driver say to each other."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from raftdb.base.errors import APPLIED, Error
from raftdb.command import Results, Statement, StatementResult

Dialogue = Generator[Statement, StatementResult, Any]
"""An interactive transaction: yields statements one by one, gets each one's result, and returns the
operation's value. What it returns is committed."""

OK, REFUSED, UNKNOWN = "ok", "refused", "unknown"
FAILED = "failed"
"""Of one request of a pipeline: its failure is committed, and changed nothing."""


class Violation(Exception):
    """A promise is broken; `invariant` names it in a few words."""

    def __init__(self, invariant: str, what: str) -> None:
        super().__init__(f"{invariant}: {what}")
        self.invariant = invariant


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that a client does: one request."""

    workload: str
    name: str
    """Such as `write`, `cas`, `append`: what a model knows it by."""
    arguments: dict[str, Any]
    """JSON values only."""
    statements: tuple[Statement, ...]
    is_read: bool = False
    """Sent as a query, not as a write."""
    level: str = "linearizable"
    """Of a read: a read level by its name, as `bounded(0.5)`."""
    dialogue: Callable[[], Dialogue] | None = None
    """An interactive transaction instead of `statements`."""
    pipeline: tuple[tuple[Statement, ...], ...] = ()
    """Requests that go out one behind the other, without waiting, instead of `statements`. The
    operation's value is a list of [status, value or code], one for each; a status is one of OK,
    FAILED, REFUSED, UNKNOWN. With `resume` those of unknown outcome are asked for again."""
    key: str = ""
    """An idempotency key: while the outcome is unknown the request is made again under it."""
    hasty: bool = False
    """Its client goes on at once."""
    think_s: float = 0.0
    """How long the client of a transaction thinks between two statements."""
    resume: bool = False
    """When its outcome is unknown: ask again with the same sequence (`Core.resume`) until it is
    known. Otherwise the driver leaves it: the client's next request settles it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an operation.

    `ok`: it took place, `value` is what it returned, or `error` the code of its committed failure
    (a constraint), which changed nothing. `refused`: it did not take place and never will.
    `unknown`: it took place once, or will, or never does.
    """

    status: str
    value: Any = None
    error: str = ""
    index: int = 0
    """The log index that the client was told; 0 when none."""
    age_s: float = 0.0
    """How old the answer of a read may be, as the client was told."""


class Workload:
    """Base of all. Subclasses keep what they need to draw sensible operations; the judgement uses
    the recorded history alone."""

    name: ClassVar[str]
    undecided: tuple[str, ...] = ()
    """After `check`: workloads whose search for an order came to its bound before it came to an
    end. All else that they promise was judged; whoever reports must say so."""

    def setup(self) -> Sequence[Statement]:
        """To be executed one after the other, each until it is acknowledged."""
        raise NotImplementedError

    def next(self, client: int, draw: random.Random) -> Operation:
        """What this client does now. A client does one thing at a time."""
        raise NotImplementedError

    def value(self, operation: Operation, results: Results) -> Any:
        """What an `ok` operation returned, as a JSON value."""
        raise NotImplementedError

    def took(self, client: int, operation: Operation, outcome: Outcome) -> None:
        """The operation of this client ended."""

    def final(self) -> Sequence[Operation]:
        """Reads to be done at the end, when all is healed: each until it answers."""
        return ()

    def check(self, records: Sequence[Any]) -> None:
        """Judge the history (of this workload alone, in the order of invocation; the final reads
        are its last). Raises Violation."""
        raise NotImplementedError


def outcome_of_error(error: Error, *, is_read: bool, is_dialogue: bool = False) -> Outcome:
    """What an error of the client library says about the operation.

    A committed failure carries the position of the statement that failed. A read that failed
    showed nothing, whatever the reason. A transaction that failed before its COMMIT is gone.
    """
    if is_read:
        return Outcome(REFUSED, error=error.code)
    if error.outcome == APPLIED:
        # Applied, and the result is not to be had: of the effect nothing is unknown but when.
        return Outcome(UNKNOWN, error=error.code)
    if error.outcome == "unknown":
        return Outcome(UNKNOWN, error=error.code)
    if error.detail.get("statement", -1) >= 0 and not is_dialogue:
        return Outcome(OK, error=error.code)
    return Outcome(REFUSED, error=error.code)


@dataclass
class Counter:
    """Unique numbers per client: `1_000_000 * client + n`, never 0."""

    counts: dict[int, int] = field(default_factory=dict)

    def next(self, client: int) -> int:
        self.counts[client] = self.counts.get(client, 0) + 1
        return 1_000_000 * client + self.counts[client]
