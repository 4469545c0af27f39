"""Interactive transactions that are open on the leader.

A statement runs in the transaction's workspace, on a lane, and is recorded with its time and the
digest of what it brought. Nothing of it is in the log until the COMMIT, which is one entry; so a
transaction that ends in any other way (a rollback, a lost client, a new leader, its age) was never
applied, and its client is told so. Everything here runs on the loop.
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
    IntegrityError,
    InterfaceError,
    InternalError,
    NotLeaderError,
    OperationalError,
    OverloadedError,
)
from raftdb.base.limits import Limits
from raftdb.base.ports import Clock, Executor, Random, Timer
from raftdb.command import Commit, Key, Recorded, SessionId, Statement
from raftdb.command.requests import Stamp
from raftdb.machine import Executed, Machine, Workspace
from raftdb.node.admission import Admission, statement_bytes
from raftdb.node.calls import Answer, Call, Done

LANES = 4
"""Statements of so many transactions run at the same time."""
LOST = "transaction_lost"
STATE = "transaction"
"""Key of an error's detail: whether the transaction is `open` still. Without it, it is over, but
for a failure that is a statement's own result (there `ended` says that it is over)."""
OPEN = "open"


class Host(Protocol):
    """What the replica lends."""

    def refuse(self) -> Error | None:
        """Why nothing is admitted here (not the leader, or not any more)."""

    def refuse_session(self, session: SessionId) -> Error | None:
        """Why that session may not be used."""

    def confirm(self, done: Callable[[int, Error | None], None]) -> None:
        """Call `done` with a log index, once that is applied here and it is known that every write
        that was acknowledged before this call is in the log up to there."""

    def call(self, timeout_s: float, done: Done, late: Callable[[float], Error]) -> Call:
        """Begin a call with a deadline."""

    def propose_durably(
        self, payload: bytes, timeout_s: float, done: Done, durability: str
    ) -> None:
        """Into the log; `done` gets the outcome, when it is as durable as wanted."""


class Transactions:
    """All that are open on this replica."""

    def __init__(
        self,
        host: Host,
        machine: Machine,
        admission: Admission,
        limits: Limits,
        clock: Clock,
        random: Random,
        executor: Executor,
    ) -> None:
        self.host = host
        self.machine = machine
        self.admission = admission
        self.limits = limits
        self.clock = clock
        self.random = random
        self.executor = executor
        self._lanes = [0] * LANES
        self.bytes = 0
        """SQL and values that the open ones have recorded."""
        self._open: dict[Transaction, None] = {}

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, foreign_keys: bool, timeout_s: float, done: Done) -> Transaction:
        """Open one. It sees every write that was acknowledged before, and no later one."""
        transaction = Transaction(self, foreign_keys)
        self._open[transaction] = None
        transaction.begin(timeout_s, done)
        return transaction

    def ended(self, transaction: Transaction) -> None:
        """It holds nothing any more."""
        self._open.pop(transaction, None)

    def end(self, workspace: Workspace) -> None:
        """What it held is not needed any more."""
        if not self.machine.end_transaction_briefly(workspace):
            self.submit(lambda: self.machine.end_transaction(workspace), _ignore)

    def end_older_than(self, age_s: float, why: str) -> None:
        """End those that began longer ago."""
        before_s = self.clock.monotonic_s() - age_s
        for transaction in list(self._open):
            if transaction.began_s < before_s:
                transaction.give_up(_lost(why))

    def submit(self, work: Callable[[], Any], done: Callable[..., None]) -> None:
        """Run on the lane that has least to do."""
        lane = self._lanes.index(min(self._lanes))
        self._lanes[lane] += 1

        def finished(result: Any, error: BaseException | None) -> None:
            self._lanes[lane] -= 1
            done(result, error)
            if isinstance(error, FatalError):
                # What a callback raises stops the node.
                raise error

        self.executor.submit(f"transaction-{lane}", work, finished)


class _Operation:
    """One thing to do, when all before it is done."""

    __slots__ = ("call", "start", "statement")

    def __init__(
        self, call: Call, start: Callable[[Call], None], statement: Statement | None
    ) -> None:
        self.call = call
        self.start = start
        self.statement = statement


class Transaction:
    """One open transaction. Its operations are done in the order of their coming."""

    def __init__(self, owner: Transactions, foreign_keys: bool) -> None:
        self._owner = owner
        self._foreign_keys = foreign_keys
        self._seed = owner.random.randbytes(8)
        self._workspace: Workspace | None = None
        self._queue: deque[_Operation] = deque()
        self._busy = False
        self._on_lane = False
        self._asking = False
        """The others were asked, and have not answered."""
        self._ahead: Executed | None = None
        """What the next statement brought: nobody was told of it yet."""
        self._recorded: list[Recorded] = []
        self._bytes = 0
        self._work_s = 0.0
        self._wrote = False
        self._proposed = False
        """The COMMIT may be in the log."""
        self._index = 0
        self._over: Error | None = None
        self.began_s = self._used_s = owner.clock.monotonic_s()
        self._timer: Timer | None = None
        self._watch()

    # What is asked of it

    def begin(self, timeout_s: float, done: Done) -> None:
        """Take the snapshot."""
        self._add(timeout_s, done, self._begin)

    def execute(self, statement: Statement, timeout_s: float, done: Done) -> None:
        """Execute one statement. The answer's body is an encoded reply."""
        self._add(timeout_s, done, lambda call: self._execute(statement, call), statement)

    def commit(
        self,
        session: SessionId,
        sequence: int,
        floor: int,
        key: Key | None,
        timeout_s: float,
        done: Done,
        durability: str = "",
    ) -> None:
        """Commit. The answer's body is an encoded reply, or None when nothing had to be logged:
        then the sequence is not taken. `durability`: as in Replica.execute."""

        def start(call: Call) -> None:
            self._commit(session, sequence, floor, key, timeout_s, durability, call)

        self._add(timeout_s, done, start)

    def give_up(self, error: Error) -> None:
        """End it; whoever asks from now on is told so. Harmless when it is over."""
        if self._over is None:
            self._over = error
            if self._workspace is not None:
                self._workspace.stop()
            self._release()

    # One after the other

    def _add(
        self,
        timeout_s: float,
        done: Done,
        start: Callable[[Call], None],
        statement: Statement | None = None,
    ) -> None:
        call = self._owner.host.call(timeout_s, done, self._late)
        self._queue.append(_Operation(call, start, statement))
        if not self._busy:
            # Never from inside the call that took `done`.
            self._busy = True
            self._owner.executor.call_soon(self._next)

    def _next(self) -> None:
        while self._queue:
            operation = self._queue.popleft()
            if operation.call.ended:
                continue
            if self._over is not None:
                operation.call.end(None, self._over)
                continue
            self._used_s = self._owner.clock.monotonic_s()
            operation.start(operation.call)
            return
        self._busy = False
        self._used_s = self._owner.clock.monotonic_s()

    def _finish(self, call: Call, answer: Answer | None, error: Error | None = None) -> None:
        """The operation under way is done."""
        if error is not None and error.detail.get(STATE) != OPEN:
            self.give_up(error)
        call.end(answer, error)
        self._owner.executor.call_soon(self._next)

    def _late(self, timeout_s: float) -> Error:
        """An operation's deadline passed: where it stands is not known, so it is over."""
        if self._proposed:
            return DeadlineError(
                f"no outcome within {timeout_s:g} s",
                hint="ask for the outcome of its session and sequence",
            )
        error = OperationalError(
            f"no answer within {timeout_s:g} s, and the transaction is over",
            code="transaction_timeout",
            hint="nothing was applied; ask for less, or give it a longer timeout",
        )
        self.give_up(error)
        return error

    # Operations

    def _begin(self, call: Call) -> None:
        """Take a snapshot and ask the others whether this node leads still, at the same time. What
        the snapshot shows is told only when they have answered, and only if it holds all that was
        acknowledged before: else another one is taken."""
        owner = self._owner
        refused = owner.host.refuse()
        if refused is not None:
            self._finish(call, None, refused)
            return

        def confirmed(index: int, error: Error | None) -> None:
            self._asking = False
            workspace = self._workspace
            if error is not None or self._over is not None:
                self._finish(call, None, self._over or error)
            elif workspace is not None and workspace.applied >= index:
                self._begun(workspace, call)
            else:
                self._let_go()
                self._take_snapshot(call)

        self._asking = True
        owner.host.confirm(confirmed)
        # The question leaves first: the rest is done while others work on their answers.
        owner.executor.call_soon(self._begin_here)

    def _begin_here(self) -> None:
        """The snapshot, and the first statement, while the others are asked."""
        if self._asking and self._over is None and self._snapshot_here():
            self._run_ahead()

    def _snapshot_here(self) -> bool:
        """Take a snapshot on the loop; False if that would take long, or failed."""
        try:
            self._workspace = self._owner.machine.begin_transaction_briefly(
                self._seed, self._foreign_keys
            )
        except Error as error:
            self.give_up(error)
            if isinstance(error, FatalError):
                self._owner.executor.call_soon(_stop_node, error)
        return self._workspace is not None

    def _begun(self, workspace: Workspace, call: Call) -> None:
        self._index = workspace.index
        call.end(Answer(None, self._index), None)
        self._next()

    def _take_snapshot(self, call: Call) -> None:
        """Take one that is good for sure: the others have answered."""
        owner = self._owner
        if self._snapshot_here() and self._workspace is not None:
            self._begun(self._workspace, call)
            return
        if self._over is not None:
            self._finish(call, None, self._over)
            return

        def taken(workspace: Workspace | None, error: BaseException | None) -> None:
            self._on_lane = False
            self._workspace = workspace
            if self._over is not None:
                self._release()
                self._finish(call, None, self._over)
            elif error is not None:
                self._finish(call, None, _as_error(error))
            else:
                assert workspace is not None, "it was begun"
                self._begun(workspace, call)

        self._on_lane = True
        owner.submit(lambda: owner.machine.begin_transaction(self._seed, self._foreign_keys), taken)

    def _run_ahead(self) -> None:
        """Execute a short statement that came with the BEGIN."""
        operation = self._queue[0] if self._queue else None
        statement = operation.statement if operation is not None else None
        if operation is None or statement is None or operation.call.ended:
            return
        try:
            self._owner.admission.check_statements((statement,))
        except Error:
            # It is told so when its turn comes.
            return
        try:
            self._ahead = self._briefly(statement)
        except Error as error:
            self.give_up(error)

    def _briefly(self, statement: Statement) -> Executed | None:
        """Execute a statement right here, if it is short. Raises what ends the transaction."""
        owner, workspace = self._owner, self._workspace
        assert workspace is not None, "it is open"
        start_s = owner.clock.monotonic_s()
        try:
            return workspace.execute_briefly(
                statement, owner.clock.wall_ms(), owner.clock.monotonic_s
            )
        except FatalError as error:
            owner.executor.call_soon(_stop_node, error)
            raise _as_error(error) from error
        finally:
            self._work_s += owner.clock.monotonic_s() - start_s

    def _execute(self, statement: Statement, call: Call) -> None:
        workspace = self._workspace
        refused = self._refuse(statement)
        if refused is not None or workspace is None:
            self._finish(call, None, refused)
            return
        executed, self._ahead = self._ahead, None
        if executed is None:
            try:
                executed = self._briefly(statement)
            except Error as error:
                self._finish(call, None, error)
                return
        if executed is not None:
            self._record(statement, executed, call)
        else:
            self._execute_on_lane(workspace, statement, call)

    def _execute_on_lane(self, workspace: Workspace, statement: Statement, call: Call) -> None:
        owner = self._owner
        time_ms = owner.clock.wall_ms()
        start_s = owner.clock.monotonic_s()
        self._on_lane = True

        def done(executed: Executed | None, error: BaseException | None) -> None:
            self._on_lane = False
            self._work_s += owner.clock.monotonic_s() - start_s
            if self._over is not None:
                self._release()
                self._finish(call, None, self._over)
            elif error is not None:
                self._finish(call, None, _as_error(error))
            elif executed is not None:
                self._record(statement, executed, call)

        owner.submit(lambda: workspace.execute(statement, time_ms, self._recorded), done)

    def _refuse(self, statement: Statement) -> Error | None:
        """Why the statement is not executed; the transaction may be open still."""
        owner, limits = self._owner, self._owner.limits
        refused = owner.host.refuse()
        if refused is not None:
            return _lost(refused.message)
        try:
            owner.admission.check_statements((statement,))
        except Error as error:
            error.detail[STATE] = OPEN
            return error
        size = statement_bytes(statement)
        self._bytes += size
        owner.bytes += size
        if owner.bytes > limits.transactions_bytes_max:
            return _full()
        if self._bytes > limits.request_bytes_max:
            return _too_large(f"of more than {limits.request_bytes_max} bytes of SQL and values")
        if len(self._recorded) >= limits.statements_per_request_max:
            return _too_large(f"of more than {limits.statements_per_request_max} statements")
        return None

    def _record(self, statement: Statement, executed: Executed, call: Call) -> None:
        step = executed.step
        self._recorded.append(Recorded(executed.time_ms, statement, step.digest))
        self._wrote = self._wrote or not step.is_read
        if step.ended:
            self.give_up(_none_open())
        elif self._work_s * 1000 > self._owner.limits.transaction_work_ms_max:
            limit_ms = self._owner.limits.transaction_work_ms_max
            self._finish(call, None, _too_large(f"whose statements take more than {limit_ms} ms"))
            return
        self._finish(call, Answer(step.reply, self._index))

    def _commit(
        self,
        session: SessionId,
        sequence: int,
        floor: int,
        key: Key | None,
        timeout_s: float,
        durability: str,
        call: Call,
    ) -> None:
        owner, workspace = self._owner, self._workspace
        assert workspace is not None, "it is open"
        if not self._wrote:
            # All it read was one state, which was a committed one after it began.
            self.give_up(_none_open())
            self._finish(call, Answer(None, self._index))
            return
        refused = owner.host.refuse()
        if refused is not None:
            self._finish(call, None, _lost(refused.message))
            return
        if workspace.keys_are_due():
            error: Error = IntegrityError(
                "FOREIGN KEY constraint failed",
                code="constraint_foreign_key",
                detail={STATE: OPEN},
                hint="the transaction is still open",
            )
            self._finish(call, None, error)
            return
        refused = owner.host.refuse_session(session)
        if refused is not None:
            self._finish(call, None, refused)
            return
        statements = tuple(self._recorded)
        # A clock that was set back meanwhile: no later request sees less than these have seen.
        stamp = Stamp(max(owner.clock.wall_ms(), statements[-1].time_ms), self._seed)
        try:
            payload = owner.admission.encode(
                Commit(stamp, session.number, sequence, floor, statements, self._foreign_keys, key)
            )
        except Error as error:
            self._finish(call, None, error)
            return
        self._proposed = True
        owner.host.propose_durably(
            payload, timeout_s, lambda a, e: self._committed(call, a, e), durability
        )

    def _committed(self, call: Call, answer: Answer | None, error: Error | None) -> None:
        if isinstance(error, OverloadedError):
            error.detail[STATE] = OPEN
            self._proposed = False
        elif isinstance(error, NotLeaderError):
            error = _lost(error.message)
        else:
            self.give_up(_none_open())
        self._finish(call, answer, error)

    # The end

    def _release(self) -> None:
        """Let go of the workspace, once nothing runs in it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._on_lane:
            return
        self._recorded.clear()
        owner = self._owner
        owner.bytes -= self._bytes
        self._bytes = 0
        owner.ended(self)
        self._let_go()

    def _let_go(self) -> None:
        """Of the workspace, if there is one: after what is answered now."""
        self._ahead = None
        workspace, self._workspace = self._workspace, None
        if workspace is not None:
            self._owner.executor.call_soon(self._owner.end, workspace)

    def _watch(self) -> None:
        """End it when it is too old, or idle for too long."""
        owner, limits = self._owner, self._owner.limits
        now_s = owner.clock.monotonic_s()
        age_left_s = self.began_s + limits.transaction_age_ms_max / 1000 - now_s
        idle_left_s = self._used_s + limits.transaction_idle_ms_max / 1000 - now_s
        if age_left_s <= 0:
            self._timer = None
            self.give_up(_expired(f"is older than {limits.transaction_age_ms_max} ms"))
        elif idle_left_s <= 0 and not self._busy:
            self._timer = None
            self.give_up(_expired(f"was idle for {limits.transaction_idle_ms_max} ms"))
        else:
            wait_s = min(age_left_s, idle_left_s if idle_left_s > 0 else age_left_s)
            self._timer = owner.executor.call_later(max(wait_s, 0.01), self._watch)


def _as_error(error: BaseException) -> Error:
    if isinstance(error, FatalError):
        # The node ends, before anything of it was proposed.
        return _lost(error.message)
    if isinstance(error, Error):
        return error
    return InternalError(f"{type(error).__name__}: {error}", outcome="not_applied")


def _lost(why: str) -> Error:
    return OperationalError(
        f"the transaction is lost: {why}",
        code=LOST,
        retryable=True,
        hint="nothing was applied: retry the transaction",
    )


def _expired(why: str) -> Error:
    return OperationalError(
        f"the transaction {why}, and is over",
        code="transaction_expired",
        retryable=True,
        hint="nothing was applied: retry it, and don't wait for people inside a transaction",
    )


def _too_large(what: str) -> Error:
    return DataError(
        f"a transaction {what} is not taken",
        code="transaction_too_large",
        hint="nothing was applied: split it into smaller ones",
    )


def _full() -> Error:
    return OverloadedError(
        "the open transactions of this node hold too many statements and values together",
        code="transactions_full",
        hint="nothing was applied: retry the transaction; limits.transactions_bytes_max",
        detail={"retry_after_ms": 100},
    )


def _none_open() -> Error:
    return InterfaceError("no transaction is open", code="transaction_none", hint="BEGIN one")


def _stop_node(error: FatalError) -> None:
    """What a callback of the loop raises stops the node."""
    raise error


def _ignore(_result: Any, _error: BaseException | None) -> None:
    pass
