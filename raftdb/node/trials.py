"""Requests that may run for long are tried out before they enter the log.

What is in the log is executed by every node, and until it is done every later write waits. So a
request with a query in it, which may multiply rows or recurse, runs first in a workspace as an
interactive transaction does: beside the writer, in nobody's way, thrown away afterwards. One that
comes to no end within `limits.write_ms_max` is refused there, and no node but this one has heard of
it. Nothing is decided for the applying (rule M4): what was quick here and runs long there is held
for a logged verdict, as ever.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from raftdb.base.errors import (
    DataError,
    DeadlineError,
    Error,
    FatalError,
    OperationalError,
    OverloadedError,
)
from raftdb.base.limits import Limits
from raftdb.base.ports import Ports
from raftdb.command import Statement
from raftdb.machine import Machine, Workspace
from raftdb.node.calls import Answer, Done, UnderWay
from raftdb.node.congestion import Congestion
from raftdb.node.reading import busy_error
from raftdb.node.risks import CACHED_BYTES_MAX, JOINS, RECURSES, SQUARES, is_short, risk

QUICK_S = 0.05
"""A statement without recursion that took no longer is not tried again for TRUSTED_S: what it costs
changes only as the tables grow."""
TRUSTED_S = 60.0
_TRUSTED_MAX = 512
_PASSED_MAX = 4_096


class Begin(Protocol):
    """How the replica begins a call with a deadline."""

    def __call__(
        self, timeout_s: float, done: Done, late: Callable[[float], Error]
    ) -> UnderWay: ...


class Trials:
    """Those under way on this node. On the loop."""

    def __init__(
        self,
        call: Begin,
        submit: Callable[[Callable[[], Any], Callable[..., None]], None],
        machine: Machine,
        ports: Ports,
        limits: Limits,
    ) -> None:
        """`submit` runs work on one of the lanes of the interactive transactions."""
        self._call = call
        self._submit = submit
        self._machine = machine
        self._now_s = ports.clock.monotonic_s
        self._clock = ports.clock
        self._random = ports.random
        self._executor = ports.executor
        self._limit_s = limits.write_ms_max / 1000
        self.queue = Congestion(ports.clock.monotonic_s, limits.queue_age_ms_max)
        """Those that are tried, or wait for a lane."""
        self._trusted: dict[str, float] = {}
        self._passed: dict[int, int] = {}
        """By session, the sequence that passed last. Sent again while it waits in the log, it must
        not be refused: it is about to be applied."""
        self._behind: dict[int, deque[Callable[[], None]]] = {}
        """By session, while one of its requests is tried: what came after it, since sequences enter
        the log in their order. As many as one connection may have under way."""

    def wanted(self, session: int, statements: tuple[Statement, ...]) -> bool:
        """Whether the request has to be tried, or waits for one that is."""
        if self._behind and session in self._behind:
            return True
        for statement in statements:
            found = risk(statement.sql)
            if found and (found == RECURSES or not self._is_trusted(found, statement)):
                return True
        return False

    def _is_trusted(self, found: int, statement: Statement) -> bool:
        until_s = self._trusted.get(statement.sql)
        if until_s is None or self._now_s() >= until_s:
            return False
        return found == JOINS or all(map(is_short, statement.parameter_sets))

    def begin(
        self,
        session: int,
        sequence: int,
        statements: tuple[Statement, ...],
        foreign_keys: bool,
        timeout_s: float,
        done: Done,
        enter: Callable[[float], None],
    ) -> None:
        """Try it; then either `enter`, with what is left of `timeout_s`, or `done` with the error
        that refuses it. At its deadline it is over, and nothing of it was or will be applied."""
        retry_ms = self.queue.refusal_ms()
        if retry_ms:
            self._executor.call_soon(done, None, busy_error(retry_ms, "long requests"))
            return
        begun_s = self._now_s()

        def start() -> None:
            left_s = timeout_s - (self._now_s() - begun_s)
            if left_s <= 0:
                done(None, _late(timeout_s))
            elif self._passed.get(session) != sequence and any(
                risk(statement.sql) for statement in statements
            ):
                self._try(session, statements, foreign_keys, left_s, decide)
            else:
                enter(left_s)

        def decide(_answer: Answer | None, error: Error | None) -> None:
            if error is None:
                self._note_passed(session, sequence)
                enter(max(timeout_s - (self._now_s() - begun_s), 0.001))
            else:
                done(None, error)

        behind = self._behind.get(session)
        if behind is None:
            start()
            return

        def turn(_answer: Answer | None, error: Error | None) -> None:
            if error is None:
                start()
            else:
                done(None, error)

        # What it waits for may take longer than its caller has.
        waiting = self._call(timeout_s, turn, _late)
        behind.append(lambda: waiting.end(None, None))

    def _try(
        self,
        session: int,
        statements: tuple[Statement, ...],
        foreign_keys: bool,
        timeout_s: float,
        decide: Done,
    ) -> None:
        self._behind[session] = deque()
        trial = _Trial(self._machine, statements, foreign_keys, self._clock.wall_ms())
        self.queue.entered(trial)
        call = self._call(timeout_s, decide, _late)
        call.stop = trial
        seed = self._random.randbytes(8)
        begun_s = self._now_s()
        passed: list[bool] = []

        def settle(error: Error | None) -> None:
            call.end(None if error is not None else Answer(None, 0), error)
            if not passed:
                passed.append(True)
                self.queue.left(trial)
                self._next(session)

        def expire() -> None:
            # One long step is not stopped by that; its caller need not wait for it.
            trial.stop()
            settle(_too_long())

        timer = self._executor.call_later(self._limit_s, expire)

        def ended(found: Error | None, error: BaseException | None) -> None:
            timer.cancel()
            if error is None and found is None and self._now_s() - begun_s <= QUICK_S:
                self._trust(statements)
            # Other failures are left to the place where they matter: to the applying.
            settle(error if isinstance(error, OverloadedError) else found)
            if isinstance(error, FatalError):
                raise error

        self._submit(lambda: trial.run(seed), ended)

    def _trust(self, statements: tuple[Statement, ...]) -> None:
        until_s = self._now_s() + TRUSTED_S
        for statement in statements:
            if risk(statement.sql) in (JOINS, SQUARES) and len(statement.sql) <= CACHED_BYTES_MAX:
                if len(self._trusted) >= _TRUSTED_MAX:
                    self._trusted.clear()
                self._trusted[statement.sql] = until_s

    def _note_passed(self, session: int, sequence: int) -> None:
        self._passed.pop(session, None)  # the newest last
        self._passed[session] = sequence
        if len(self._passed) > _PASSED_MAX:
            del self._passed[next(iter(self._passed))]

    def _next(self, session: int) -> None:
        """Let those behind it go on, up to the next that has to be tried."""
        behind = self._behind.pop(session)
        while behind:
            behind.popleft()()
            again = self._behind.get(session)
            if again is not None:
                again.extend(behind)
                return


class _Trial:
    """One of them. `run` on a lane."""

    def __init__(
        self,
        machine: Machine,
        statements: tuple[Statement, ...],
        foreign_keys: bool,
        time_ms: int,
    ) -> None:
        self._machine = machine
        self._statements = statements
        self._foreign_keys = foreign_keys
        self._time_ms = time_ms
        self._workspace: Workspace | None = None
        self._stopped = False

    def stop(self) -> None:
        """It takes too long. From the loop."""
        self._stopped = True
        workspace = self._workspace
        if workspace is not None:
            workspace.stop()

    def run(self, seed: bytes) -> Error | None:
        """Execute it all; the error that refuses it. What fails by itself is not refused: that is
        an outcome, and belongs into the log."""
        if self._stopped:
            return _too_long()
        workspace = self._machine.begin_transaction(seed, self._foreign_keys)
        self._workspace = workspace
        try:
            return self._execute(workspace)
        finally:
            self._workspace = None
            self._machine.end_transaction(workspace)

    def _execute(self, workspace: Workspace) -> Error | None:
        for statement in self._statements:
            # A stop that came while the workspace was made found nothing to stop.
            if self._stopped:
                return _too_long()
            try:
                step = workspace.execute(statement, self._time_ms).step
            except DataError as error:
                # More pages than a trial may keep: not known how long it would take.
                recurses = any(risk(one.sql) == RECURSES for one in self._statements)
                return _too_large(error) if recurses else None
            except OverloadedError as error:
                return error
            except OperationalError:
                return _too_long() if self._stopped else None
            if step.ended:
                break
        # A step that nothing could stop came to its end all the same.
        return _too_long() if self._stopped else None


def _too_long() -> Error:
    return OperationalError(
        "the request ran too long when it was tried out",
        code="statement_too_long",
        hint="nothing was applied: do less in one request (limits.write_ms_max)",
    )


def _too_large(error: DataError) -> Error:
    return DataError(
        error.message.replace("transaction", "request"),
        code=error.code,
        hint="nothing was applied: do less in one request"
        " (limits.transaction_pages_bytes_max, for requests with a WITH)",
    )


def _late(timeout_s: float) -> Error:
    return DeadlineError(
        f"no outcome within {timeout_s:g} s: the request was being tried out",
        outcome="not_applied",
        retryable=True,
        hint="nothing was applied: do less in one request, or give it more time (timeout)",
    )
