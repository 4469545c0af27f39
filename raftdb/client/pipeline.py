"""Pipelines: what the user holds of a flight (flight.py has the rules)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from raftdb.base.errors import Error, InterfaceError
from raftdb.client.cursor import ResultSet, result_sets
from raftdb.client.flight import Flight, Item
from raftdb.client.options import level_of, with_timeout
from raftdb.client.sqltext import BLANK, classify
from raftdb.client.values import BatchItem, adapt_parameters, adapt_sets, batch_items, key_of
from raftdb.command import Statement

if TYPE_CHECKING:
    from raftdb.client.connection import Connection
    from raftdb.client.core import Core, Outcome
    from raftdb.client.options import Options


class Reply:
    """What one request of a pipeline will bring: known once `done`."""

    __slots__ = ("_item", "_statements")

    def __init__(self, item: Item, statements: tuple[Statement, ...]) -> None:
        self._item = item
        self._statements = statements

    @property
    def done(self) -> bool:
        """Whether the answer has come."""
        return self._item.done

    @property
    def error(self) -> Error | None:
        """Why it failed; None when it did not, or is not done."""
        return self._item.error

    @property
    def index(self) -> int:
        """Its log index. Raises as `results`."""
        return self._outcome().index

    @property
    def results(self) -> list[ResultSet]:
        """The result of each of its statements. Raises its error; InterfaceError when its answer
        has not come yet."""
        return result_sets(self._statements, self._outcome().results)

    @property
    def rows(self) -> tuple[tuple[Any, ...], ...]:
        """Rows of its last statement. Raises as `results`."""
        return self.results[-1].rows

    @property
    def rowcount(self) -> int:
        """Rows that its last statement changed; -1 if it is none that changes rows."""
        return self.results[-1].rowcount

    @property
    def lastrowid(self) -> int | None:
        """Row id of the last INSERT. Raises as `results`."""
        return self.results[-1].lastrowid

    @property
    def write(self) -> tuple[str, int] | None:
        """Its session (hexadecimal) and sequence, as Connection.last_write has them: `outcome`
        takes them. None: it was not sent."""
        item = self._item
        return (item.session_id.hex(), item.sequence) if item.session_id else None

    def _outcome(self) -> Outcome:
        item = self._item
        if item.error is not None:
            raise item.error
        if item.outcome is None:
            raise InterfaceError(
                "the answer has not come yet", hint="leave the pipeline, or call its sync()"
            )
        return item.outcome

    def __repr__(self) -> str:
        state = "waiting" if not self.done else "failed" if self.error else "done"
        return f"<raftdb.Reply, {state}>"


class Wishes(NamedTuple):
    """What a call of a pipeline wants beside its statements; as Cursor.execute has them."""

    foreign_keys: bool
    timeout: float | None
    durability: str | None
    idempotency_key: str | None
    horizon: int | None


class PipelineBase:
    """What blocking and asynchronous pipelines share: making requests, noting the first error."""

    def __init__(self, core: Core, options: Options) -> None:
        self._core = core
        self._options = options
        self._flight: Flight | None = None
        self._first: Item | None = None
        self._waiting: list[Item] = []
        """Those whose error may still come; pruned as answers come."""

    def _one(self, sql: str, parameters: Any, wishes: Wishes) -> Item:
        if not isinstance(sql, str) or classify(sql).kind == BLANK:
            raise InterfaceError("there is no statement", hint="give one statement of SQL")
        statement = Statement(sql, (adapt_parameters(parameters),))
        return self._item((statement,), wishes)

    def _many(self, sql: str, sets: Iterable[Any], wishes: Wishes) -> Item:
        statement = Statement(sql, adapt_sets(sets))
        if not statement.parameter_sets:
            raise InterfaceError("there are no parameter sets", hint="leave the call out")
        return self._item((statement,), wishes)

    def _batch(self, given: Iterable[BatchItem], wishes: Wishes) -> Item:
        statements = batch_items(given)
        if not statements:
            raise InterfaceError("there are no statements", hint="leave the call out")
        return self._item(statements, wishes)

    def _item(self, statements: tuple[Statement, ...], wishes: Wishes) -> Item:
        if self._flight is None:
            raise InterfaceError(
                "the pipeline is not open", hint="use it inside its own `with` block"
            )
        timeout_s = with_timeout(self._options, wishes.timeout)
        deadline_s = self._core.courier.now_s() + timeout_s
        level, name = level_of(wishes.durability), wishes.idempotency_key
        level = self._core.durability if level is None else level
        key = None if name is None else key_of(name, wishes.horizon)
        item = Item(statements, wishes.foreign_keys, deadline_s, timeout_s, level, key)
        if len(self._waiting) >= 256:
            self._note()
        self._waiting.append(item)
        return item

    def _note(self) -> None:
        """Remember the first error; forget what is answered."""
        for item in self._waiting:
            if item.error is not None and self._first is None:
                self._first = item
        self._waiting = [item for item in self._waiting if not item.done]

    def _first_error(self) -> Error | None:
        self._note()
        first, self._first = self._first, None
        return first.error if first is not None else None


class Pipeline(PipelineBase):
    """Writes on their way at once, of one connection, which does nothing else meanwhile.

    Every request is a transaction of its own. They are applied in the order of the calls; one that
    fails does not stop those behind it. Up to 64 wait for their answer; then a call waits for room.
    Queries are executed in their turn too, through the log, so that they see what stands before.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection._core, connection.options)
        self._connection = connection

    def execute(
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
        return self._submit(self._one(sql, parameters, wishes))

    def executemany(
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
        return self._submit(self._many(sql, parameter_sets, wishes))

    def batch(
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
        return self._submit(self._batch(statements, wishes))

    def sync(self) -> None:
        """Wait for all answers. Raises the first error since the last `sync`."""
        flight = self._flight
        if flight is None:
            raise InterfaceError("the pipeline is not open")
        self._connection._run(flight.settle(), self)
        error = self._first_error()
        if error is not None:
            raise error

    def _submit(self, item: Item) -> Reply:
        assert self._flight is not None
        reply = Reply(item, item.statements)
        self._connection._run(self._flight.submit(item), self)
        return reply

    def __enter__(self) -> Pipeline:
        if self._connection._pipeline is not None:
            raise pipeline_is_open()
        if not self._connection._plain:
            raise pipeline_of_transaction()
        self._connection._check_open()
        self._connection._pipeline = self
        self._flight = Flight(self._core)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Waits for all answers, also when the block raised; then its error goes on."""
        connection = self._connection
        try:
            if connection._pipeline is self:
                try:
                    self.sync()
                except Error:
                    if kind is None:
                        raise
        finally:
            if connection._pipeline is self:
                connection._pipeline = None
            self._flight = None


def pipeline_is_open() -> InterfaceError:
    """A connection does one thing at a time."""
    return InterfaceError(
        "a pipeline is open on this connection",
        hint="use the pipeline, or leave its `with` block first",
    )


def pipeline_of_transaction() -> InterfaceError:
    """A pipeline's requests are transactions of their own."""
    return InterfaceError(
        "a transaction is open on this connection (or autocommit is off), and a pipeline commits"
        " each of its requests by itself",
        hint="end it first; within a transaction, executemany and batch save round trips",
    )


__all__ = [
    "Pipeline",
    "PipelineBase",
    "Reply",
    "Wishes",
    "pipeline_is_open",
    "pipeline_of_transaction",
]
