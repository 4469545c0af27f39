"""The client for asyncio: `raftdb.aio`. The same core, another driver.

Tasks may share a connection: their calls take turns, in order, and the time they wait counts. A
pipeline, and a transaction from BEGIN to its end, are one turn. To have several writes on their way
at once, use a pipeline; to have calls side by side, several connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from raftdb.base.errors import (
    DeadlineError,
    Error,
    InterfaceError,
    OverloadedError,
)
from raftdb.client import forks
from raftdb.client.actions import Steps
from raftdb.client.aiocursor import AsyncCursor
from raftdb.client.aiodriver import AsyncDriver
from raftdb.client.aiowork import AsyncTransactions
from raftdb.client.connection import complete_options
from raftdb.client.core import Core, Outcome
from raftdb.client.cursor import ResultSet, RowFactory, result_sets
from raftdb.client.flight import Flight, Item, ended_in_flight, resume_all
from raftdb.client.levels import parse_level
from raftdb.client.options import Options, level_of, make_options, with_timeout
from raftdb.client.pipeline import (
    PipelineBase,
    Reply,
    Wishes,
    pipeline_is_open,
    pipeline_of_transaction,
)
from raftdb.client.sqltext import READ, classify
from raftdb.client.stream import Stream, not_streamed, open_stream
from raftdb.client.values import BatchItem, batch_items, key_of
from raftdb.client.work import Work
from raftdb.command import Key, Statement

WAITING_MAX = 1_024
"""Calls that wait for their turn on one connection."""

_Value = TypeVar("_Value")


def connect(url: str | None = None, /, **options: Any) -> AsyncConnection:
    """A connection to a cluster: options as `raftdb.connect`. Nothing is dialled before the first
    request. Raises ConfigError."""
    return AsyncConnection(complete_options(make_options(url, options), None))


class AsyncConnection(AsyncTransactions):
    """One user's connection to the cluster, used by the tasks of one event loop."""

    def __init__(self, options: Options) -> None:
        # Late: the real clock brings the real ports with it, which nobody needs before.
        from raftdb.runtime.clock import RealClock
        from raftdb.runtime.random import RealRandom

        clock = RealClock()
        self.options = options
        self.row_factory: RowFactory | None = None
        """Makes what cursors give from (cursor, row): `raftdb.Row`, or any function."""
        self.foreign_keys = True
        """Whether foreign keys are enforced in the writes of this connection."""
        self._core = Core(options, clock, RealRandom())
        self._driver = AsyncDriver(options, clock)
        self._clock = clock
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._closed = False
        self._last_index = 0
        self._last_age_ms = -1
        self._pipeline_task: asyncio.Task[Any] | None = None
        self._work = Work(self._core, options)
        self._running = False
        """A call is under way."""
        self._is_parents = False
        forks.watch(self)
        self._owner: asyncio.Task[Any] | None = None
        """The task whose transaction is open: it keeps its turn until that has ended."""
        # What cursors ask of a connection:
        self._link = None
        self._reads_here = False

    # ---- statements

    def cursor(self) -> AsyncCursor:
        """A new cursor."""
        self._check_open()
        return AsyncCursor(self)

    async def execute(self, sql: str, parameters: Any = (), /, **options: Any) -> AsyncCursor:
        """`await cursor().execute(…)`."""
        return await self.cursor().execute(sql, parameters, **options)

    async def executemany(
        self, sql: str, parameter_sets: Iterable[Any], /, **options: Any
    ) -> AsyncCursor:
        """`await cursor().executemany(…)`: one request, all or nothing."""
        return await self.cursor().executemany(sql, parameter_sets, **options)

    async def executescript(self, script: str, /, **options: Any) -> AsyncCursor:
        """`await cursor().executescript(…)`: one request, all or nothing."""
        return await self.cursor().executescript(script, **options)

    async def batch(
        self,
        statements: Iterable[BatchItem],
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        horizon: int | None = None,
        durability: str | None = None,
    ) -> list[ResultSet]:
        """Run statements as one request, all or nothing; the result of each. As
        Connection.batch."""
        items = batch_items(statements)
        if not items:
            return []
        reads = all(classify(item.sql).kind == READ for item in items)
        key = None if idempotency_key is None else key_of(idempotency_key, horizon)
        outcome = await self._request(items, reads, None, timeout, durability, key)
        return result_sets(items, outcome.results)

    @asynccontextmanager
    async def pipeline(self) -> AsyncIterator[AsyncPipeline]:
        """`async with db.pipeline() as p: await p.execute(…)`: writes whose answers nobody waits
        for one by one. They are applied in order, each exactly once; leaving the block waits for
        all and raises the first error. Other calls of this connection wait meanwhile."""
        deadline_s = self._clock.monotonic_s() + self.options.timeout
        await self._take_turn(deadline_s)
        if self._work.open is not None or not self._work.autocommit:
            self._leave_turn()
            raise pipeline_of_transaction()
        self._pipeline_task = asyncio.current_task()
        pipeline = AsyncPipeline(self)
        try:
            try:
                yield pipeline
            except BaseException:
                await pipeline._finish()
                raise
            await pipeline.sync()
        finally:
            pipeline._flight = None
            self._pipeline_task = None
            self._turn.release()

    # ---- after an unknown outcome

    @property
    def unsettled(self) -> bool:
        """Whether the last write ended with outcome `unknown`, and may still be resumed."""
        return self._core.unsettled

    async def resume(self, *, timeout: float | None = None) -> list[ResultSet]:
        """Bring the writes whose outcome is unknown to their end; as Connection.resume."""
        core = self._core
        writes = core.unsettled_writes

        def steps(timeout_s: float) -> Steps[Outcome]:
            if ended_in_flight(core):
                return resume_all(core, timeout_s)
            return core.resume(timeout_s=timeout_s)

        outcome = await self._run(steps, timeout)
        self._last_index = outcome.index
        statements = [statement for write in writes for statement in write.statements]
        return result_sets(statements, outcome.results)

    # ---- the cluster

    @property
    def last_index(self) -> int:
        """Log index of the last write, or applied index that the last read saw; 0 before."""
        return self._last_index

    @property
    def token(self) -> str:
        """As Connection.token."""
        return self._core.token()

    def see(self, token: str) -> None:
        """As Connection.see."""
        self._core.see(token)

    async def status(self, *, timeout: float | None = None) -> dict[str, Any]:
        """What the preferred (else the first given and reachable) node says of itself."""
        return await self._run(lambda left_s: self._core.status(timeout_s=left_s), timeout)

    async def await_durable(
        self,
        error: Error | None = None,
        *,
        durability: str | None = None,
        timeout: float | None = None,
    ) -> int:
        """As Connection.await_durable."""
        level = level_of(durability)
        return await self._run(
            lambda left_s: self._core.await_durable(error, level, timeout_s=left_s), timeout
        )

    async def content_hash(
        self, index: int | None = None, *, timeout: float | None = None, exact: bool = False
    ) -> dict[str, Any]:
        """As Connection.content_hash."""
        return await self._run(
            lambda left_s: self._core.content_hash(index, timeout_s=left_s, exact=exact), timeout
        )

    async def ask(
        self,
        what: str,
        /,
        *,
        timeout: float | None = None,
        anywhere: bool = False,
        **arguments: Any,
    ) -> dict[str, Any]:
        """As Connection.ask."""
        core = self._core
        return await self._run(
            lambda left_s: core.ask(what, arguments, timeout_s=left_s, anywhere=anywhere), timeout
        )

    async def transfer_leadership(
        self, target: str | None = None, *, timeout: float | None = None
    ) -> None:
        """Have the leader hand over to the node `target`, or to the most advanced one."""
        await self._run(
            lambda left_s: self._core.transfer_leadership(target, timeout_s=left_s), timeout
        )

    async def ping(self, *, timeout: float | None = None) -> str:
        """The id of the node that answered."""
        return await self._run(lambda left_s: self._core.ping(timeout_s=left_s), timeout)

    # ---- closing

    async def close(self) -> None:
        """Close; using the connection afterwards is an error. Closing twice is none."""
        if self._closed:
            return
        self._closed = True
        if not self._running:
            # Else it has its answer, and lets go of its turn by itself.
            self._abandon()
        async with self._turn:
            self._work.forget()
            await self._driver.run(self._core.close())
            await self._driver.close()

    async def __aenter__(self) -> AsyncConnection:
        self._check_open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        hosts = ",".join(str(address) for address in self.options.addresses)
        return f"<raftdb.aio.AsyncConnection to {hosts}{', closed' if self._closed else ''}>"

    # ---- inside

    async def _request(
        self,
        statements: tuple[Statement, ...],
        reads: bool,
        level: str | None,
        timeout: float | None,
        durability: str | None = None,
        key: Key | None = None,
    ) -> Outcome:
        wanted, max_age_ms = parse_level(self.options.read if level is None else level)
        keys, durable = self.foreign_keys, level_of(durability)

        def steps(left_s: float) -> Steps[Outcome]:
            work = self._work
            if (
                work.open is not None
                or not work.autocommit
                or (not reads and work.is_step(statements))
            ):
                return self._transact(statements, level, key, durability, left_s)
            if not reads or key is not None:
                return self._core.execute(
                    statements, foreign_keys=keys, timeout_s=left_s, key=key, durability=durable
                )
            return self._core.query(
                statements,
                level=wanted,
                max_age_ms=max_age_ms,
                timeout_s=left_s,
                foreign_keys=keys,
            )

        outcome = await self._run(steps, timeout)
        self._last_index = (
            max(self._last_index, outcome.index) if self._is_mine() else outcome.index
        )
        self._last_age_ms = outcome.age_ms
        return outcome

    async def _stream(
        self, statement: Statement, level: str | None, timeout: float | None
    ) -> Stream:
        name, max_age_ms = parse_level(self.options.read if level is None else level)

        def steps(left_s: float) -> Steps[Stream]:
            if self._work.open is not None or not self._work.autocommit:
                raise not_streamed()
            return open_stream(
                self._core, statement, level=name, max_age_ms=max_age_ms, timeout_s=left_s
            )

        stream = await self._run(steps, timeout)
        self._last_index, self._last_age_ms = stream.index, stream.age_ms
        return stream

    async def _run(self, steps: Callable[[float], Steps[_Value]], timeout: float | None) -> _Value:
        """Take a turn, and run what `steps` makes for the time that is left."""
        timeout_s = with_timeout(self.options, timeout)
        deadline_s = self._clock.monotonic_s() + timeout_s
        await self._take_turn(deadline_s)
        try:
            left_s = max(deadline_s - self._clock.monotonic_s(), 0.001)
            self._running = True
            return await self._driver.run(steps(left_s))
        finally:
            self._running = False
            self._leave_turn()

    async def _pause(self, steps: Steps[None]) -> None:
        await self._driver.run(steps)

    def _is_mine(self) -> bool:
        return self._owner is not None and self._owner is _this_task()

    def _leave_turn(self) -> None:
        """The next one's, unless this task's transaction is open."""
        task = asyncio.current_task()
        if self._work.open is not None and task is not None and not self._closed:
            if self._owner is None:
                self._owner = task
                task.add_done_callback(self._task_ended)
            return
        if self._owner is not None:
            self._owner.remove_done_callback(self._task_ended)
            self._owner = None
        self._turn.release()

    def _task_ended(self, task: asyncio.Task[Any]) -> None:
        """It left its transaction open. The leader forgets it with the next one, or in a while."""
        if task is self._owner:
            self._abandon()

    def _abandon(self) -> None:
        """Whatever is open is forgotten; nothing of it was, or will be, applied."""
        owner, self._owner = self._owner, None
        self._work.forget()
        if owner is not None:
            owner.remove_done_callback(self._task_ended)
            self._turn.release()

    async def _take_turn(self, deadline_s: float) -> None:
        self._check_open()
        if self._is_mine():
            return
        if self._pipeline_task is not None and self._pipeline_task is asyncio.current_task():
            raise pipeline_is_open()
        if self._waiting >= WAITING_MAX:
            raise OverloadedError(
                f"{WAITING_MAX} calls wait for this connection",
                hint="use several connections, or a pipeline",
            )
        self._waiting += 1
        try:
            async with asyncio.timeout(deadline_s - self._clock.monotonic_s()):
                await self._turn.acquire()
        except TimeoutError:
            what = "other calls" if self._owner is None else "another task's transaction"
            raise DeadlineError(
                f"{what} of this connection took all the time",
                outcome="not_applied",
                retryable=True,
                hint="use several connections, or a pipeline",
            ) from None
        finally:
            self._waiting -= 1
        if self._closed:
            self._turn.release()
            self._check_open()

    def forked(self) -> None:
        """This process is a child of the one that made it: nothing of it is used here."""
        # Its event loop is the parent's too, so nothing of that is touched.
        self._closed = self._is_parents = True

    def _check_open(self) -> None:
        if self._is_parents:
            raise forks.of_the_parent()
        if self._closed:
            raise InterfaceError("the connection is closed", hint="connect again")


class AsyncPipeline(PipelineBase):
    """As Pipeline, with calls to await: a call waits only while 64 others wait for answers."""

    def __init__(self, connection: AsyncConnection) -> None:
        super().__init__(connection._core, connection.options)
        self._connection = connection
        self._flight = Flight(self._core)
        self._turn = asyncio.Lock()

    async def execute(
        self,
        sql: str,
        parameters: Any = (),
        /,
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        horizon: int | None = None,
        durability: str | None = None,
    ) -> Reply:
        """Send one statement; its answer comes later. Options as Cursor.execute. Raises what is
        wrong with the call itself."""
        keys = self._connection.foreign_keys
        wishes = Wishes(keys, timeout, durability, idempotency_key, horizon)
        return await self._submit(self._one(sql, parameters, wishes))

    async def executemany(
        self,
        sql: str,
        parameter_sets: Iterable[Any],
        /,
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        horizon: int | None = None,
        durability: str | None = None,
    ) -> Reply:
        """Send one statement for many parameter sets: one request, all or nothing."""
        keys = self._connection.foreign_keys
        wishes = Wishes(keys, timeout, durability, idempotency_key, horizon)
        return await self._submit(self._many(sql, parameter_sets, wishes))

    async def batch(
        self,
        statements: Iterable[BatchItem],
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        horizon: int | None = None,
        durability: str | None = None,
    ) -> Reply:
        """Send statements as one request, all or nothing."""
        keys = self._connection.foreign_keys
        wishes = Wishes(keys, timeout, durability, idempotency_key, horizon)
        return await self._submit(self._batch(statements, wishes))

    async def sync(self) -> None:
        """Wait for all answers. Raises the first error since the last `sync`."""
        await self._settle()
        error = self._first_error()
        if error is not None:
            raise error

    async def _submit(self, item: Item) -> Reply:
        reply = Reply(item, item.statements)
        async with self._turn:
            flight = self._flight
            if flight is None:
                raise InterfaceError("the pipeline is not open")
            await self._connection._driver.run(flight.submit(item))
        return reply

    async def _settle(self) -> None:
        async with self._turn:
            flight = self._flight
            if flight is None:
                raise InterfaceError("the pipeline is not open")
            await self._connection._driver.run(flight.settle())

    async def _finish(self) -> None:
        """The block raised: that error goes on, whatever becomes of the answers."""
        try:
            await self._settle()
        except Error:
            self._first = None


def _this_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # No loop runs: a property is looked at from outside.
        return None


__all__ = ["AsyncConnection", "AsyncCursor", "AsyncPipeline", "connect"]
