"""An operation by the client library's core: the same for simulated clients and for real ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raftdb.base.errors import Error
from raftdb.client.actions import Pause, Steps
from raftdb.client.core import Core
from raftdb.client.core import Outcome as Reply
from raftdb.client.flight import Flight, Item
from raftdb.client.levels import parse_level
from raftdb.client.transactions import OpenTransaction
from raftdb.command import Key
from tests.workloads.base import (
    FAILED,
    OK,
    REFUSED,
    UNKNOWN,
    Operation,
    Outcome,
    Workload,
    outcome_of_error,
)

RESUMES_MAX = 5
"""So often a pipeline is asked for again; then its client goes on without it."""


@dataclass(frozen=True, slots=True)
class Committed:
    """What an interactive transaction came to."""

    value: Any
    index: int


@dataclass(frozen=True, slots=True)
class Flown:
    """What became of each request of a pipeline."""

    items: tuple[Item, ...]
    """Those that were submitted."""


def ask(core: Core, operation: Operation, timeout_s: float) -> Steps[Reply | Committed | Flown]:
    """Send the operation to the cluster. Raises the client library's errors."""
    if operation.pipeline:
        return fly(core, operation, timeout_s)
    if operation.dialogue is not None:
        return converse(core, operation, timeout_s)
    if operation.key:
        return keep_asking(core, operation, timeout_s)
    if operation.is_read:
        level, max_age_ms = parse_level(operation.level)
        return core.query(
            operation.statements, level=level, max_age_ms=max_age_ms, timeout_s=timeout_s
        )
    return core.execute(operation.statements, timeout_s=timeout_s)


def converse(core: Core, operation: Operation, timeout_s: float) -> Steps[Committed]:
    """An interactive transaction, from BEGIN to COMMIT. One that fails is rolled back."""
    assert operation.dialogue is not None
    transaction = OpenTransaction(core, foreign_keys=True)
    dialogue = operation.dialogue()
    try:
        statement = next(dialogue)
        while True:
            outcome = yield from transaction.execute(statement, timeout_s=timeout_s)
            if operation.think_s:
                yield Pause(core.courier.now_s() + operation.think_s)
            statement = dialogue.send(outcome.results.statements[0])
    except StopIteration as said:
        index = yield from transaction.commit(None, timeout_s=timeout_s)
        return Committed(said.value, index)
    except Error:
        yield from transaction.rollback(timeout_s=timeout_s)
        raise


def keep_asking(core: Core, operation: Operation, timeout_s: float) -> Steps[Reply]:
    """A request with a key, again as a new one while nobody knows what became of it."""
    unknown: Error | None = None
    for _ in range(RESUMES_MAX):
        try:
            key = Key(operation.key)
            return (yield from core.execute(operation.statements, timeout_s=timeout_s, key=key))
        except Error as error:
            if error.outcome == UNKNOWN:
                unknown = error
            elif unknown is None or error.detail.get("statement", -1) >= 0:
                raise
    assert unknown is not None
    raise unknown


def fly(core: Core, operation: Operation, timeout_s: float) -> Steps[Flown]:
    """A pipeline, to its end. What ends as unknown is asked for again, if that is wanted."""
    flight = Flight(core)
    deadline_s = core.courier.now_s() + timeout_s
    items: list[Item] = []
    for statements in operation.pipeline:
        if flight.broken:
            break
        item = Item(statements, True, deadline_s, timeout_s, core.durability)
        items.append(item)
        yield from flight.submit(item)
    yield from flight.settle()
    for _ in range(RESUMES_MAX if operation.resume else 0):
        writes = core.unsettled_writes
        if not flight.broken or not writes:
            break
        deadline_s = core.courier.now_s() + timeout_s
        again = [
            Item(write.statements, True, deadline_s, timeout_s, write.durability)
            for write in writes
        ]
        flight = Flight(core)
        yield from flight.resume(writes, again)
        later = {item.sequence: item for item in again}
        items = [item if _is_told(item) else later.get(item.sequence, item) for item in items]
    return Flown(tuple(items))


def _is_told(item: Item) -> bool:
    return item.error is None or item.error.outcome != UNKNOWN


def _told(workload: Workload, operation: Operation, item: Item) -> tuple[str, Any]:
    if item.outcome is not None:
        return OK, workload.value(operation, item.outcome.results)
    assert item.error is not None, "every request of a pipeline ends"
    outcome = outcome_of_error(item.error, is_read=False)
    return FAILED if outcome.status == OK else outcome.status, outcome.error


def outcome_of(
    workload: Workload,
    operation: Operation,
    reply: Reply | Committed | Flown | None,
    error: BaseException | None,
) -> Outcome:
    """What became of it: `reply`, or the `error` that was raised."""
    if isinstance(reply, Flown):
        told = [list(_told(workload, operation, item)) for item in reply.items]
        told += [[REFUSED, "not submitted"]] * (len(operation.pipeline) - len(told))
        indexes = [item.outcome.index for item in reply.items if item.outcome is not None]
        return Outcome(OK, told, index=max(indexes, default=0))
    if isinstance(reply, Committed):
        return Outcome(OK, reply.value, index=reply.index)
    if reply is not None:
        value = workload.value(operation, reply.results)
        return Outcome(OK, value, index=reply.index, age_s=reply.age_ms / 1000)
    assert isinstance(error, Error)
    is_dialogue = operation.dialogue is not None
    return outcome_of_error(error, is_read=operation.is_read, is_dialogue=is_dialogue)
