"""Reads: at which level, where, and how old the answer may be.

Everything here runs on the loop, but for the work on the reading lanes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from raftdb.base.errors import (
    Error,
    FatalError,
    InterfaceError,
    InternalError,
    OverloadedError,
    UnavailableError,
)
from raftdb.base.limits import Limits
from raftdb.base.ports import Ports
from raftdb.command import ReadToken, Statement
from raftdb.command.requests import last_entry
from raftdb.consensus.port import EnginePort, NotApplied, ReadOutcome, Waiting
from raftdb.machine import Machine, QueryStop
from raftdb.node.calls import Answer, Stop
from raftdb.node.congestion import Congestion
from raftdb.node.cursors import Cursors, Page
from raftdb.node.identity import Identity

LINEARIZABLE = "linearizable"
SESSION = "session"
BOUNDED = "bounded"
LOCAL = "local"
LEVELS = (LINEARIZABLE, SESSION, BOUNDED, LOCAL)

PATIENCE_S = 1.0
"""So long a node that lags, or hears no leader, lets a read wait that another could answer."""
TURN_S = 0.004
"""Short reads are done on the loop for so long in one go; then others have their turn."""
RETRY_AFTER_MS = 50
_UNPROVED = "cannot prove how old its data is"
LANE_QUEUE = 4
"""So many long reads for each lane may always wait."""


class Call(Protocol):
    """One call under way, as the replica makes it."""

    ended: bool
    stop: Stop | None
    wait: Waiting | None

    def end(self, answer: Any, error: Error | None) -> None: ...


class Reading:
    """The levels, the freshness of this node, and the lanes."""

    def __init__(
        self,
        *,
        identity: Identity,
        engine: EnginePort,
        machine: Machine,
        ports: Ports,
        limits: Limits,
        not_applied: Callable[[NotApplied], Error],
    ) -> None:
        self._identity = identity
        self._history = bytes.fromhex(identity.history)
        self._left = {bytes.fromhex(name): last_entry(number) for name, number in machine.lineage}
        """Histories that this one continues, each with the last entry that it has of it."""
        self._engine = engine
        self._machine = machine
        self._clock = ports.clock
        self._executor = ports.executor
        self._limits = limits
        self._not_applied = not_applied
        self._fresh_s: float | None = None
        """What this node has applied holds all that was committed before this moment (R1)."""
        self._lanes = [0] * limits.readers_max
        """Reads on each lane. The first idle one is taken, so that a long read delays nobody, and
        quiet nodes keep one thread."""
        self.cursors = Cursors(machine, ports, limits, self.lane)
        self.turns = Congestion(ports.clock.monotonic_s, limits.queue_age_ms_max)
        """Reads that may be done and wait for their turn on the loop."""
        self.queries = Congestion(
            ports.clock.monotonic_s, limits.queue_age_ms_max, LANE_QUEUE * limits.readers_max
        )
        """Work for the lanes, begun or not."""
        self._ready: deque[_Read] = deque()
        self._draining = False

    def check(self, level: str, token: str, waiting: int) -> ReadToken | None:
        """The token, if there is one. Raises what is wrong with the request before it waits."""
        if level not in LEVELS:
            raise InterfaceError(
                f"unknown read level {level!r}", hint=f"one of {', '.join(LEVELS)}"
            )
        if waiting >= self._limits.reads_waiting_max:
            raise busy_error(RETRY_AFTER_MS, "reads")
        retry_ms = self.turns.refusal_ms()
        if retry_ms:
            raise busy_error(retry_ms, "reads")
        if not token:
            return None
        seen = ReadToken.from_text(token)
        if seen.history != self._history and seen.index <= self._left.get(seen.history, -1):
            # Of a history that this one continues, from before it was left (S4).
            return seen
        for what, theirs, ours in (
            ("history", seen.history, self._history),
            ("fork", seen.fork, self._identity.fork),
        ):
            if theirs != ours:
                raise InterfaceError(
                    f"the read token is of another {what} of the data than this cluster has now",
                    code=f"token_other_{what}",
                    hint="the cluster was restored, or the token is another cluster's: drop it,"
                    " and read again without it",
                )
        return seen

    def begin(
        self,
        level: str,
        statements: tuple[Statement, ...],
        rows_max: int,
        seen: ReadToken | None,
        max_age_s: float,
        call: Call,
        page_rows: int = 0,
    ) -> None:
        """Read at that level; the call's answer is the encoded results. `page_rows`: only so many
        of them, and a cursor for the rest."""
        bound_ms = max_age_s * 1000 + 1 if level == BOUNDED else float("inf")
        read = _Read(statements, rows_max, call, max_age_s, bound_ms, page_rows)
        if level == LOCAL:
            self._soon(read)
        elif level == SESSION:
            index = seen.index if seen is not None else 0
            if self._engine.applied_index >= index:
                self._soon(read)
            else:
                self._be_patient(read, f"has not applied index {index} yet", "behind")
                call.wait = self._engine.when_applied(
                    index, lambda reason: self._reached(reason, read)
                )
        elif level == BOUNDED and self._age_s() <= max_age_s:
            self._soon(read)
        else:
            if level == BOUNDED:
                self._be_patient(read, _UNPROVED, "too_old")
            self._engine.read_index(lambda outcome: self._confirmed(outcome, level, read))

    # ---- waiting

    def age_ms(self) -> int:
        """All that was committed longer ago is in what this node shows from now on; -1: not known.
        From any thread: whoever takes a snapshot asks right before, for it may have waited long."""
        fresh_s = self._fresh_s
        if fresh_s is None:
            return -1
        return int(max(0.0, self._clock.monotonic_s() - fresh_s) * 1000) + 1

    def _proved_ms(self, read: _Read) -> int:
        """`age_ms`, right before the snapshot is taken. Raises UnavailableError for a bounded read
        that has waited since its bound was proved for too long."""
        age_ms = self.age_ms()
        if age_ms > read.bound_ms:
            raise self._elsewhere(_UNPROVED, "too_old")
        return age_ms

    def _age_s(self) -> float:
        if self._fresh_s is None:
            return float("inf")
        return max(0.0, self._clock.monotonic_s() - self._fresh_s)

    def _confirmed(self, outcome: ReadOutcome, level: str, read: _Read) -> None:
        if isinstance(outcome, NotApplied):
            error = self._not_applied(outcome)
            if level == BOUNDED and not isinstance(error, OverloadedError):
                error = self._elsewhere(_UNPROVED, "too_old")
            read.call.end(None, error)
            return
        if self._fresh_s is None or outcome.begun_s > self._fresh_s:
            self._fresh_s = outcome.begun_s
        if level == BOUNDED and self._age_s() > read.max_age_s:
            what = f"needed {self._age_s():.3f} s to prove how old its data is"
            read.call.end(None, self._elsewhere(what, "too_old"))
        else:
            self._soon(read)

    def _reached(self, reason: str, read: _Read) -> None:
        if reason:
            read.call.end(None, self._not_applied(NotApplied(reason)))
        else:
            self._soon(read)

    def _be_patient(self, read: _Read, what: str, code: str) -> None:
        def give_up() -> None:
            read.call.end(None, self._elsewhere(what, code))

        self._executor.call_later(PATIENCE_S, give_up)

    def _elsewhere(self, what: str, code: str) -> Error:
        return UnavailableError(
            f"{self._identity.node_id} {what}",
            code=code,
            hint="another node may answer, or this one later",
        )

    # ---- reading

    def _soon(self, read: _Read) -> None:
        self._ready.append(read)
        self.turns.entered(read)
        if not self._draining:
            self._draining = True
            self._executor.call_soon(self._drain)

    def _drain(self) -> None:
        """Do what can be done right here: a hand-over to another thread and back costs more than
        a short read. What turns out to be long goes to a lane."""
        self._draining = False
        ready = self._ready
        now_s = self._clock.monotonic_s
        end_s = now_s() + TURN_S
        while ready:
            read = ready.popleft()
            self.turns.left(read)
            if read.call.ended:
                continue
            index = int(self._engine.applied_index)
            if read.page_rows:
                self._open_cursor(read)
                continue
            age_ms = self.age_ms()
            if age_ms > read.bound_ms:
                # It has waited for its turn since: what was fresh enough then is not any more.
                self._ask_again(read)
                continue
            try:
                body = self._machine.query_briefly(read.statements, read.rows_max or None, index)
            except Exception as error:
                self._draining = bool(ready)
                if ready:
                    self._executor.call_soon(self._drain)
                self._ended(read.call, None, error)
                return
            if body is None:
                self._on_lane(read)
            else:
                read.call.end(Answer(body, index, age_ms), None)
            if ready and now_s() > end_s:
                self._draining = True
                self._executor.call_soon(self._drain)
                return

    def _ask_again(self, read: _Read) -> None:
        self._be_patient(read, _UNPROVED, "too_old")
        self._engine.read_index(lambda outcome: self._confirmed(outcome, BOUNDED, read))

    def _on_lane(self, read: _Read) -> None:
        call = read.call

        def work(stop: QueryStop) -> Answer:
            rows_max, age_ms = read.rows_max or None, self._proved_ms(read)
            body, index = self._machine.query_reply(read.statements, rows_max, stop)
            return Answer(body, index, age_ms)

        def done(answer: Any, error: BaseException | None) -> None:
            self._ended(call, answer, error)

        call.stop = self.lane(work, done)

    def lane(
        self,
        work: Callable[[QueryStop], Any],
        done: Callable[[Any, BaseException | None], None],
    ) -> QueryStop:
        """Run `work` on the lane that has least to do, then `done` on the loop; what stops it.
        With so much to do already that it would wait for long, `done` gets an OverloadedError."""
        stop = QueryStop()
        retry_ms = self.queries.refusal_ms()
        if retry_ms:
            self._executor.call_soon(done, None, busy_error(retry_ms, "long reads"))
            return stop
        self.queries.entered(stop)
        lane = self._lanes.index(min(self._lanes))
        self._lanes[lane] += 1

        def ended(result: Any, error: BaseException | None) -> None:
            self._lanes[lane] -= 1
            self.queries.left(stop)
            done(result, error)

        self._executor.submit(f"read-{lane}", lambda: work(stop), ended)
        return stop

    def _open_cursor(self, read: _Read) -> None:
        [statement] = read.statements
        done = self._paged(read.call)
        read.call.stop = self.cursors.open(
            statement, read.page_rows, lambda: self._proved_ms(read), done
        )

    def fetch(self, cursor: int, rows: int, call: Call) -> None:
        """The next page of a cursor. Its call-back may come before this returns."""
        if call.ended:
            # Cancelled since: nobody would ever stop what it began. Nor is there anybody left who
            # knows which rows came.
            self.cursors.close(cursor)
            return
        call.stop = self.cursors.fetch(cursor, rows, self._paged(call))

    def _paged(self, call: Call) -> Callable[[Page | None, BaseException | None], None]:
        def ended(page: Page | None, error: BaseException | None) -> None:
            if page is None:
                self._ended(call, None, error)
            elif call.ended:
                # These rows are lost, so the rest is of no use.
                self.cursors.close(page.cursor)
            else:
                self._ended(call, Answer(page.body, page.index, page.age_ms, page.cursor), None)

        return ended

    def _ended(self, call: Call, answer: Answer | None, error: BaseException | None) -> None:
        if error is None or isinstance(error, Error):
            call.end(answer, error)
        else:
            call.end(None, InternalError(f"{type(error).__name__}: {error}"))
        if isinstance(error, FatalError):
            # A damaged page: this node's copy can't be trusted any more. What a callback
            # raises stops the node.
            raise error


def busy_error(retry_after_ms: int, what: str) -> OverloadedError:
    """Refused early: more of them wait than can be answered soon."""
    return OverloadedError(
        f"busy, retry after {retry_after_ms} ms",
        hint=f"too many {what} wait already",
        detail={"retry_after_ms": retry_after_ms},
    )


class _Read:
    """One read on its way."""

    __slots__ = ("bound_ms", "call", "max_age_s", "page_rows", "rows_max", "statements")

    def __init__(
        self,
        statements: tuple[Statement, ...],
        rows_max: int,
        call: Call,
        max_age_s: float,
        bound_ms: float,
        page_rows: int,
    ) -> None:
        self.bound_ms = bound_ms
        """The greatest age that may be told of a bounded read."""
        self.page_rows = page_rows
        self.statements = statements
        self.rows_max = rows_max
        self.call = call
        self.max_age_s = max_age_s
