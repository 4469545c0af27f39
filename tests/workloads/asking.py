"""An operation by the client library's core: the same for simulated clients and for real ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raftdb.base.errors import Error
from raftdb.client.actions import Pause, Steps
from raftdb.client.core import Core
from raftdb.client.core import Outcome as Reply
from raftdb.client.levels import parse_level
from raftdb.client.transactions import OpenTransaction
from tests.workloads.base import OK, Operation, Outcome, Workload, outcome_of_error


@dataclass(frozen=True, slots=True)
class Committed:
    """What an interactive transaction came to."""

    value: Any
    index: int


def ask(core: Core, operation: Operation, timeout_s: float) -> Steps[Reply | Committed]:
    """Send the operation to the cluster. Raises the client library's errors."""
    if operation.dialogue is not None:
        return converse(core, operation, timeout_s)
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


def outcome_of(
    workload: Workload,
    operation: Operation,
    reply: Reply | Committed | None,
    error: BaseException | None,
) -> Outcome:
    """What became of it: `reply`, or the `error` that was raised."""
    if isinstance(reply, Committed):
        return Outcome(OK, reply.value, index=reply.index)
    if reply is not None:
        value = workload.value(operation, reply.results)
        return Outcome(OK, value, index=reply.index, age_s=reply.age_ms / 1000)
    assert isinstance(error, Error)
    is_dialogue = operation.dialogue is not None
    return outcome_of_error(error, is_read=operation.is_read, is_dialogue=is_dialogue)
