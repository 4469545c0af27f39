"""Transactions and outcomes for asyncio: the part of AsyncConnection that has to do with them.

A transaction belongs to the task that began it. Until it has ended, calls of other tasks on the
same connection wait for their turn, as they wait for a pipeline: nothing of theirs gets into it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from raftdb.base.errors import Error, InterfaceError
from raftdb.client.actions import Steps
from raftdb.client.core import Core, Outcome
from raftdb.client.options import Options, level_of
from raftdb.client.values import key_of
from raftdb.client.work import (
    ATTEMPTS,
    RequestOutcome,
    Work,
    backoff,
    may_retry,
    outcome_of,
    session_of,
)
from raftdb.command import Key, Statement

_Value = TypeVar("_Value")


class AsyncTransactions:
    """Begin, commit, rollback, and what became of a request."""

    options: Options
    foreign_keys: bool
    _core: Core
    _work: Work
    _last_index: int

    async def _run(self, steps: Callable[[float], Steps[_Value]], timeout: float | None) -> _Value:
        raise NotImplementedError

    async def _pause(self, steps: Steps[None]) -> None:
        raise NotImplementedError

    def _check_open(self) -> None:
        raise NotImplementedError

    def _is_mine(self) -> bool:
        """Whether a transaction is open, and this task began it."""
        raise NotImplementedError

    def _open_here(self) -> bool:
        """The same; raises InterfaceError when another task's is open."""
        self._check_open()
        if self._work.open is not None and not self._is_mine():
            raise InterfaceError(
                "the transaction that is open belongs to another task",
                hint="end it in the task that began it, or give this one a connection of its own",
            )
        return self._work.open is not None

    # ---- single steps

    async def begin(self, mode: str = "deferred", *, timeout: float | None = None) -> None:
        """Begin a transaction; as Connection.begin. Calls of other tasks on this connection wait
        until this task has ended it."""
        keys = self.foreign_keys
        await self._run(lambda left_s: self._work.begin(mode, keys, left_s), timeout)

    async def commit(
        self,
        *,
        idempotency_key: str | None = None,
        horizon: int | None = None,
        timeout: float | None = None,
        durability: str | None = None,
    ) -> None:
        """Commit the transaction that is open; harmless when none is. As Connection.commit."""
        if self._open_here():
            key = None if idempotency_key is None else key_of(idempotency_key, horizon)
            level = level_of(durability)
            await self._run(lambda left_s: self._work.commit(key, left_s, level), timeout)
            self._last_index = max(self._last_index, self._work.index)

    async def rollback(self, *, timeout: float | None = None) -> None:
        """Roll back the transaction that is open; harmless when none is."""
        if self._open_here():
            await self._run(self._work.rollback, timeout)

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction of this task is open; also one that is lost and was not rolled
        back yet."""
        return self._is_mine()

    @property
    def autocommit(self) -> bool:
        """As Connection.autocommit; `set_autocommit` changes it."""
        return self._work.autocommit

    async def set_autocommit(self, value: bool) -> None:
        """True: each request is a transaction of its own unless one was begun. False: the first
        statement begins one, and commit() or rollback() ends it. Going back to True commits what
        is open."""
        if type(value) is not bool:
            raise InterfaceError(f"autocommit is {value!r}", hint="True or False")
        if value and not self._work.autocommit:
            await self.commit()
        self._work.autocommit = value

    # ---- as a whole

    @asynccontextmanager
    async def transaction(
        self,
        mode: str = "deferred",
        *,
        idempotency_key: str | None = None,
        horizon: int | None = None,
        durability: str | None = None,
    ) -> AsyncIterator[Any]:
        """`async with db.transaction():` commits when the block ends, rolls back when it raises
        or is cancelled. The options are those of `commit`."""
        await self.begin(mode)
        try:
            yield self
            await self.commit(
                durability=durability, idempotency_key=idempotency_key, horizon=horizon
            )
        except BaseException:
            await self.rollback()
            raise

    async def run_transaction(
        self,
        work: Callable[[Any], Awaitable[_Value]],
        *,
        mode: str = "deferred",
        attempts: int = ATTEMPTS,
        idempotency_key: str | None = None,
        horizon: int | None = None,
        durability: str | None = None,
    ) -> _Value:
        """`await work(connection)` within a transaction, and commit it; again, as a whole, when it
        conflicts with another one or its leader is lost. As Connection.run_transaction."""
        for attempt in range(attempts):
            try:
                async with self._attempt(mode, idempotency_key, horizon, durability):
                    return await work(self)
            except Error as error:
                if not may_retry(error) or attempt == attempts - 1:
                    raise
            await self._pause(backoff(self._core, attempt, self._core.random()))
        raise InterfaceError(f"{attempts} attempts", hint="give 1 or more")

    @asynccontextmanager
    async def _attempt(
        self, mode: str, key: str | None, horizon: int | None, durability: str | None
    ) -> AsyncIterator[None]:
        await self.begin(mode)
        try:
            yield
            if not self._is_mine():
                raise InterfaceError(
                    "the transaction was ended within run_transaction",
                    hint="leave COMMIT and ROLLBACK out, or raise to roll back",
                )
            await self.commit(idempotency_key=key, horizon=horizon, durability=durability)
        except BaseException:
            await self.rollback()
            raise

    def _transact(
        self,
        statements: tuple[Statement, ...],
        level: str | None,
        key: Key | None,
        durability: str | None,
        left_s: float,
    ) -> Steps[Outcome]:
        """Within a transaction, or at its beginning or end."""
        if key is not None:
            raise InterfaceError(
                "an idempotency key names a whole transaction", hint="give it to commit()"
            )
        if durability is not None:
            raise InterfaceError(
                "a transaction is durable as a whole", hint="give `durability` to commit()"
            )
        if level is not None:
            raise InterfaceError(
                "a transaction reads its own snapshot", hint="leave `read` out until it has ended"
            )
        results = yield from self._work.execute(statements, self.foreign_keys, left_s)
        return Outcome(results, self._work.index)

    # ---- outcomes

    async def horizon(self, *, timeout: float | None = None) -> int:
        """As Connection.horizon."""
        status = await self._run(lambda left_s: self._core.status(timeout_s=left_s), timeout)
        return int(status["horizon"])

    @property
    def last_write(self) -> tuple[str, int] | None:
        """As Connection.last_write."""
        found = self._core.last_write
        return None if found is None else (found[0].hex(), found[1])

    async def outcome(
        self,
        *,
        idempotency_key: str | None = None,
        horizon: int | None = None,
        session: str | None = None,
        sequence: int | None = None,
        timeout: float | None = None,
    ) -> RequestOutcome:
        """What became of a request, by its idempotency key or by session and sequence; final. As
        Connection.outcome."""
        session_id, key = session_of(idempotency_key, horizon, session, sequence)
        return outcome_of(
            await self._run(
                lambda left_s: self._core.outcome(session_id, sequence or 0, key, timeout_s=left_s),
                timeout,
            )
        )


__all__ = ["AsyncTransactions"]
