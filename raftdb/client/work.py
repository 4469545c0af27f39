"""Transactions of a connection: begin, commit, rollback, and the state between them.

A connection commits each request by itself until BEGIN. A transaction that is lost (its leader
died, it grew too old) stays in the way until it is rolled back: what was meant to be part of it
must not be committed statement by statement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from raftdb.base.errors import (
    APPLIED,
    NOT_APPLIED,
    UNKNOWN,
    DeadlineError,
    Error,
    InterfaceError,
    ProgrammingError,
)
from raftdb.client.actions import Pause, Steps
from raftdb.client.answers import decode_answer, results_of
from raftdb.client.calls import Answered
from raftdb.client.core import BURNED, Core
from raftdb.client.options import level_of, with_timeout
from raftdb.client.sqltext import (
    BEGIN,
    BEGIN_NOW,
    COMMIT,
    ROLLBACK,
    SAVEPOINT,
    classify,
    control_of,
    savepoint_of,
)
from raftdb.client.transactions import OpenTransaction
from raftdb.client.values import key_of
from raftdb.command import (
    Failed,
    Key,
    ResultDropped,
    Results,
    SessionId,
    Statement,
    StatementResult,
)

if TYPE_CHECKING:
    from raftdb.client.options import Options

MODES = ("deferred", "immediate", "exclusive")
ATTEMPTS = 30
BACKOFF_MIN_S = 0.001
BACKOFF_MAX_S = 0.2
_NOTHING = Results((StatementResult((), (), 0, 0),))
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class RequestOutcome:
    """What became of a request. It is final: it comes from the log."""

    state: str
    """`applied`, `not_applied` (and it never will be), or `unknown`: too long ago to know."""
    results: tuple[StatementResult, ...] = ()
    """When it was applied; empty for a COMMIT, and where they were too large to be kept."""
    error: Error | None = None
    """Why it is not known, or what the request failed with."""
    index: int = 0
    """Log index of this answer."""


def outcome_of(answered: Answered) -> RequestOutcome:
    """Read the answer. Raises the error of a question that was not answered."""
    if answered.error is not None:
        raise answered.error
    reply = decode_answer(answered.encoded)
    index = answered.index
    if isinstance(reply, Failed):
        error = reply.error
        if error.code == BURNED:
            return RequestOutcome(NOT_APPLIED, index=index)
        state = error.outcome if error.outcome in (NOT_APPLIED, APPLIED) else UNKNOWN
        return RequestOutcome(state, (), error, index)
    if isinstance(reply, ResultDropped):
        return RequestOutcome(APPLIED, index=index)
    return RequestOutcome(APPLIED, results_of(reply).statements, index=index)


class Work:
    """The transaction state of one connection. Generators, as the core's: no IO."""

    def __init__(self, core: Core, options: Options) -> None:
        self._core = core
        self._options = options
        self.open: OpenTransaction | None = None
        self.lost: Error | None = None
        """Why the open transaction is over, though nobody ended it yet."""
        self.autocommit = True
        self.index = 0
        """Log index of the last COMMIT."""
        self._savepoints: list[str] = []
        """Those of a transaction that SAVEPOINT began, from the outermost: its RELEASE commits."""

    # ---- steps

    def begin(self, mode: str, foreign_keys: bool, timeout_s: float) -> Steps[None]:
        """Open one. Raises ProgrammingError when one is open."""
        if mode not in MODES:
            raise InterfaceError(f"transaction mode {mode!r}", hint="one of " + ", ".join(MODES))
        if self.open is not None:
            raise ProgrammingError("cannot start a transaction within a transaction")
        self.open = OpenTransaction(self._core, foreign_keys)
        self._savepoints = []
        if mode != MODES[0]:
            try:
                yield from self.open.begin(timeout_s)
            except BaseException:
                self.forget()
                raise

    def commit(
        self, key: Key | None, timeout_s: float, durability: str | None = None
    ) -> Steps[None]:
        """Commit what is open; nothing happens when nothing is."""
        transaction = self.open
        if transaction is None:
            return
        if self.lost is not None:
            error = self.lost
            self.forget()
            raise error
        try:
            self.index = yield from transaction.commit(
                key, timeout_s=timeout_s, durability=durability
            )
        finally:
            if transaction.over:
                self.forget()

    def rollback(self, timeout_s: float) -> Steps[None]:
        """Forget what is open; nothing happens when nothing is."""
        transaction = self.open
        self.forget()
        if transaction is not None:
            yield from transaction.rollback(timeout_s=timeout_s)

    def forget(self) -> None:
        """Nothing is open any more."""
        self.open = self.lost = None
        self._savepoints = []

    # ---- statements

    def is_step(self, statements: tuple[Statement, ...]) -> bool:
        """Whether the request is a transaction's BEGIN, COMMIT or the like."""
        sql = statements[0].sql
        return len(statements) == 1 and bool(control_of(sql, classify(sql)))

    def execute(
        self, statements: tuple[Statement, ...], foreign_keys: bool, timeout_s: float
    ) -> Steps[Results]:
        """Execute within the transaction that is open, or that begins now. Several statements are
        all or nothing there too."""
        if len(statements) == 1:
            sql = statements[0].sql
            step = control_of(sql, classify(sql))
            if step and not (step == SAVEPOINT and self.open is not None):
                yield from self._step(step, statements[0], foreign_keys, timeout_s)
                return _NOTHING
            if self._savepoints and self._ends_by(sql):
                # Not released first: should deferred keys stand in the way, it is open still.
                yield from self.commit(None, timeout_s)
                return _NOTHING
            _check_alone(sql)
        else:
            _check_batch(statements)
        if self.open is None:
            yield from self.begin(MODES[0], foreign_keys, timeout_s)
        if len(statements) == 1:
            result = yield from self._one(statements[0], timeout_s)
            if self._savepoints:
                self._follow(statements[0].sql)
            return Results((result,))
        return (yield from self._many(statements, timeout_s))

    def _step(
        self, step: str, statement: Statement, foreign_keys: bool, timeout_s: float
    ) -> Steps[None]:
        if step in (BEGIN, BEGIN_NOW):
            mode = MODES[0] if step == BEGIN else MODES[1]
            yield from self.begin(mode, foreign_keys, timeout_s)
        elif step == SAVEPOINT:
            yield from self.begin(MODES[0], foreign_keys, timeout_s)
            try:
                yield from self._one(statement, timeout_s)
            except BaseException:
                yield from self.rollback(timeout_s)
                raise
            self._savepoints = [savepoint_of(statement.sql) or ""]
        elif self.open is None:
            what = "commit" if step == COMMIT else "rollback"
            raise ProgrammingError(f"cannot {what} - no transaction is active")
        elif step == ROLLBACK:
            yield from self.rollback(timeout_s)
        else:
            yield from self.commit(None, timeout_s)

    def _one(self, statement: Statement, timeout_s: float) -> Steps[StatementResult]:
        transaction = self._usable()
        try:
            outcome = yield from transaction.execute(statement, timeout_s=timeout_s)
        except BaseException as error:
            self._failed(transaction, error)
            raise
        return outcome.results.statements[0]

    def _many(self, statements: tuple[Statement, ...], timeout_s: float) -> Steps[Results]:
        transaction = self._usable()
        try:
            results = yield from transaction.execute_all(statements, timeout_s=timeout_s)
        except BaseException as error:
            self._failed(transaction, error)
            raise
        return Results(tuple(results))

    def _usable(self) -> OpenTransaction:
        """The transaction that was begun. Raises ProgrammingError when it is lost."""
        assert self.open is not None, "it was begun"
        if self.lost is not None:
            raise _in_the_way(self.lost)
        return self.open

    def _failed(self, transaction: OpenTransaction, error: BaseException) -> None:
        if not transaction.over:
            return
        if isinstance(error, Error) and error.detail.get("transaction") == "ended":
            # OR ROLLBACK: as in SQLite, the connection is as if it had been rolled back.
            self.forget()
        else:
            self.lost = error if isinstance(error, Error) else InterfaceError("interrupted")

    def _ends_by(self, sql: str) -> bool:
        """Whether it releases the outermost savepoint of a transaction that SAVEPOINT began, which
        is a COMMIT."""
        if classify(sql).verb != "RELEASE":
            return False
        name, names = savepoint_of(sql), self._savepoints
        return name == names[0] and name not in names[1:]

    def _follow(self, sql: str) -> None:
        """Note what a statement did to the savepoints of such a transaction."""
        verb = classify(sql).verb
        if verb in _OF_SAVEPOINTS:
            _step_savepoints(self._savepoints, verb, savepoint_of(sql))


_OF_SAVEPOINTS = ("SAVEPOINT", "RELEASE", "ROLLBACK")


def _step_savepoints(names: list[str], verb: str, name: str | None) -> bool:
    """What the statement does to savepoints of those names, from the outermost; each goes by name
    to the innermost one. False: there is none of that name."""
    if name is None:
        return True
    if verb == "SAVEPOINT":
        names.append(name)
        return True
    if name not in names:
        return False
    del names[len(names) - 1 - names[::-1].index(name) + (verb == "ROLLBACK") :]
    return True


def _check_batch(statements: tuple[Statement, ...]) -> None:
    """A batch in a transaction stands in a savepoint, so that it can be taken back alone: who ends
    the transaction in it, or a savepoint of before, would end that too. Raises ProgrammingError."""
    names: list[str] = []
    for position, statement in enumerate(statements):
        sql = statement.sql
        kind = classify(sql)
        step = control_of(sql, kind)
        if step in (BEGIN, BEGIN_NOW):
            raise ProgrammingError(
                "cannot start a transaction within a transaction",
                hint="end the one that is open first, or leave BEGIN out of the batch",
                detail={"statement": position},
            )
        if step in (COMMIT, ROLLBACK):
            raise ProgrammingError(
                f"a batch cannot end the transaction that it stands in, and this one says"
                f" {kind.verb}",
                hint="end the transaction by a call of its own, after the batch",
                detail={"statement": position},
            )
        name = savepoint_of(sql) if kind.verb in _OF_SAVEPOINTS else None
        if not _step_savepoints(names, kind.verb, name):
            raise ProgrammingError(
                f"a batch can end no savepoint but its own, and it did not open {name}",
                hint="end that savepoint by a call of its own, after the batch",
                detail={"statement": position},
            )


def _check_alone(sql: str) -> None:
    """Raises ProgrammingError for a COMMIT, or an END, that is none."""
    verb = classify(sql).verb
    if verb in ("COMMIT", "END"):
        raise ProgrammingError(
            f"syntax error: {verb} [TRANSACTION] stands alone",
            hint="give each statement by itself; nothing was committed",
        )


def _in_the_way(lost: Error) -> Error:
    return ProgrammingError(
        f"the transaction is over: {lost.message}",
        code="transaction_over",
        hint="roll it back, and begin again",
    )


def backoff(core: Core, attempt: int, random: float) -> Steps[None]:
    """Wait a little before a transaction is tried again: longer each time, with jitter."""
    wait_s = min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2**attempt) * (0.5 + random)
    yield Pause(core.courier.now_s() + wait_s)


def session_of(
    idempotency_key: str | None, horizon: int | None, session: str | None, sequence: int | None
) -> tuple[bytes, Key | None]:
    """By what a request's outcome is asked for: its session (40 bytes; none with a key), or its
    key. Raises InterfaceError."""
    if idempotency_key is not None and session is None and sequence is None:
        return b"", key_of(idempotency_key, horizon)
    if idempotency_key is None and session is not None and sequence is not None:
        try:
            return SessionId.from_bytes(bytes.fromhex(session)).to_bytes(), None
        except ValueError as error:
            raise InterfaceError(f"{session!r} is no session") from error
    raise InterfaceError("give an idempotency key, or session and sequence")


def may_retry(error: Error) -> bool:
    """Whether a transaction that ended so may be run again as a whole: nothing was applied, and it
    may go better."""
    if error.outcome != NOT_APPLIED or isinstance(error, DeadlineError):
        return False
    return error.retryable


class Transactions:
    """The part of Connection that has to do with transactions and outcomes."""

    options: Options
    foreign_keys: bool
    _core: Core
    _work: Work
    _plain: bool
    _last_index: int

    def _run(self, steps: Steps[_Value]) -> _Value:
        raise NotImplementedError

    def _check_open(self) -> None:
        raise NotImplementedError

    def _took_work(self) -> None:
        self._plain = self._work.open is None and self._work.autocommit

    def _do_work(self, steps: Steps[_Value]) -> _Value:
        try:
            return self._run(steps)
        finally:
            self._took_work()

    def begin(self, mode: str = "deferred", *, timeout: float | None = None) -> None:
        """Begin a transaction. `deferred`: its snapshot is taken by its first statement;
        `immediate` and `exclusive`: now. None of them waits for other transactions, or makes them
        wait. Raises ProgrammingError when one is open."""
        timeout_s = with_timeout(self.options, timeout)
        self._do_work(self._work.begin(mode, self.foreign_keys, timeout_s))

    def commit(
        self,
        *,
        idempotency_key: str | None = None,
        horizon: int | None = None,
        timeout: float | None = None,
        durability: str | None = None,
    ) -> None:
        """Commit the transaction that is open; harmless when none is. `durability`: what it waits
        for, such as `locations=3`; None for the connection's own.

        Raises OperationalError with code `transaction_conflict` or `transaction_lost` when nothing
        was applied and the transaction may be tried again (`run_transaction` does), IntegrityError
        when deferred foreign keys stand in the way (it is still open then)."""
        self._check_open()
        if self._work.open is not None:
            key = None if idempotency_key is None else key_of(idempotency_key, horizon)
            timeout_s, level = with_timeout(self.options, timeout), level_of(durability)
            self._do_work(self._work.commit(key, timeout_s, level))
            self._last_index = max(self._last_index, self._work.index)

    def rollback(self, *, timeout: float | None = None) -> None:
        """Roll back the transaction that is open; harmless when none is."""
        self._check_open()
        if self._work.open is not None:
            self._do_work(self._work.rollback(with_timeout(self.options, timeout)))

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open; also one that is lost and was not rolled back yet."""
        return self._work.open is not None

    @property
    def autocommit(self) -> bool:
        """True: each request is a transaction of its own unless one was begun. False: the first
        statement begins a transaction, as PEP 249 has it, and commit() or rollback() ends it."""
        return self._work.autocommit

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        if type(value) is not bool:
            raise InterfaceError(f"autocommit is {value!r}", hint="True or False")
        if value and self._work.open is not None and not self._work.autocommit:
            self.commit()
        self._work.autocommit = value
        self._took_work()

    @contextmanager
    def transaction(
        self,
        mode: str = "deferred",
        *,
        idempotency_key: str | None = None,
        horizon: int | None = None,
        durability: str | None = None,
    ) -> Iterator[Any]:
        """`with connection.transaction():` commits when the block ends, rolls back when it
        raises. The options are those of `commit`."""
        self.begin(mode)
        try:
            yield self
        except BaseException:
            self.rollback()
            raise
        try:
            self.commit(idempotency_key=idempotency_key, horizon=horizon, durability=durability)
        except BaseException:
            self.rollback()
            raise

    def run_transaction(
        self,
        work: Callable[[Any], _Value],
        *,
        mode: str = "deferred",
        attempts: int = ATTEMPTS,
        idempotency_key: str | None = None,
        horizon: int | None = None,
        durability: str | None = None,
    ) -> _Value:
        """Call `work(connection)` within a transaction and commit it; again, as a whole, when it
        conflicts with another one or its leader is lost. `work` must have no effects besides.
        Returns what it returned. Raises what cannot be mended so, and the last error."""
        for attempt in range(attempts):
            try:
                with self._attempt(mode, idempotency_key, horizon, durability):
                    return work(self)
            except Error as error:
                if not may_retry(error) or attempt == attempts - 1:
                    raise
            self._run(backoff(self._core, attempt, self._core.random()))
        raise InterfaceError(f"{attempts} attempts", hint="give 1 or more")

    @contextmanager
    def _attempt(
        self, mode: str, key: str | None, horizon: int | None, durability: str | None
    ) -> Iterator[None]:
        self.begin(mode)
        try:
            yield
            if self._work.open is None:
                raise InterfaceError(
                    "the transaction was ended within run_transaction",
                    hint="leave COMMIT and ROLLBACK out, or raise to roll back",
                )
            self.commit(idempotency_key=key, horizon=horizon, durability=durability)
        except BaseException:
            self.rollback()
            raise

    # ---- outcomes

    def horizon(self, *, timeout: float | None = None) -> int:
        """A number to keep beside an idempotency key before it is first used. A request with it is
        refused, rather than applied again, once the key may have been forgotten."""
        timeout_s = with_timeout(self.options, timeout)
        return int(self._run(self._core.status(timeout_s=timeout_s))["horizon"])

    @property
    def last_write(self) -> tuple[str, int] | None:
        """Session (hexadecimal) and sequence of the write that was sent last: `outcome` takes
        them, from any connection. Whoever knows the session may ask."""
        found = self._core.last_write
        return None if found is None else (found[0].hex(), found[1])

    def outcome(
        self,
        *,
        idempotency_key: str | None = None,
        horizon: int | None = None,
        session: str | None = None,
        sequence: int | None = None,
        timeout: float | None = None,
    ) -> RequestOutcome:
        """What became of a request, by its idempotency key or by session and sequence, from any
        connection. The answer is final: a request that was not seen yet never takes effect."""
        session_id, key = session_of(idempotency_key, horizon, session, sequence)
        timeout_s = with_timeout(self.options, timeout)
        steps = self._core.outcome(session_id, sequence or 0, key, timeout_s=timeout_s)
        return outcome_of(self._run(steps))


__all__ = ["RequestOutcome", "Transactions", "Work"]
