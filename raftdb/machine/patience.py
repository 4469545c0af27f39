"""How long a request may run: counted in SQLite's steps, decided by a logged verdict (rule M4).

Replicas count somewhat different steps for the same request (a statement that was compiled before,
a schema that is read first), so none may stop it by its own count. Instead: a request that takes
HOLD_STEPS or more anywhere is held there, uncommitted, until the log has a verdict on it. The
leader tries it out, rolls it back, and proposes `keep`, or `abort` when it took ABORT_STEPS and
more time than its limit. Between the two lies a factor of ten: no replica commits without a
verdict what the leader may abort. Counted is from above where holding depends on it, from below
where aborting does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import apsw

from raftdb.base.errors import OperationalError
from raftdb.command import Failed, encode_reply

_Value = TypeVar("_Value")

HOLD_STEPS = 5_000_000
"""Some 0.1 s of work, or 1 s where rows are written. More waits for the verdict: executed twice,
and a round trip."""
ABORT_STEPS = 10 * HOLD_STEPS
"""Fewer are never aborted, however slow: some 10 s where rows are written."""
GRAIN = 500
"""Steps between two looks."""

_ID = "raftdb-steps"


ABORTED = encode_reply(
    Failed(
        OperationalError(
            "the request ran too long: the leader gave it up",
            code="statement_too_long",
            hint="do less in one request (limits.write_ms_max of the leader's configuration)",
        ),
        -1,
    )
)
"""What a request gets that is given up."""


class Held(Exception):
    """A request takes long: it waits for its verdict. `place`: of it in its group."""

    def __init__(self, place: int) -> None:
        super().__init__()
        self.place = place


class Steps:
    """Counts the steps of the request that runs on one connection."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._hold_looks = HOLD_STEPS // GRAIN
        self._abort_looks = ABORT_STEPS // GRAIN
        self._looks = 0
        self._limit: float = float("inf")
        self._expired: Callable[[], bool] | None = None
        self.executions = 0
        """Statements executed: each may have taken up to GRAIN steps that were not seen."""
        self.over = False
        """It was stopped."""
        connection.set_progress_handler(self._look, GRAIN, id=_ID)

    def begin(self, *, free: bool) -> None:
        """A request begins: to be held when it takes long, or (`free`) to run to its end."""
        self._looks = self.executions = 0
        self._limit = float("inf") if free else self._hold_looks
        self._expired = None
        self.over = False

    def begin_trial(self, expired: Callable[[], bool]) -> None:
        """The leader tries a request out. `expired` says when its time is over."""
        self.begin(free=True)
        self._expired = expired

    def uncounted(self, work: Callable[[], _Value]) -> _Value:
        """Do raftdb's own work in the midst of a request: it is no step of it."""
        before = self._looks, self._limit, self._expired
        self._limit, self._expired = float("inf"), None
        try:
            return work()
        finally:
            self._looks, self._limit, self._expired = before

    def end(self) -> bool:
        """The request has come to its end: whether it must be held all the same."""
        if self._looks + self.executions >= self._limit:
            self.over = True
        return self.over

    def _look(self) -> bool:
        self._looks += 1
        if self._looks + self.executions >= self._limit or (
            self._expired is not None and self._expired()
        ):
            self.over = True
        return self.over

    @property
    def may_abort(self) -> bool:
        """It took so many steps that every replica holds it."""
        return self._looks - self.executions >= self._abort_looks
