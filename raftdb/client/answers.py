"""What an answer holds: results, or the error to raise; and what an error says of the outcome."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raftdb.base.errors import (
    APPLIED,
    NOT_APPLIED,
    UNKNOWN,
    Error,
    InternalError,
    OperationalError,
    SessionError,
)
from raftdb.client.calls import Answered, Call
from raftdb.command import CodecError, Failed, Reply, ResultDropped, Results, decode_reply
from raftdb.wire import Info

LOST = "transaction_lost"
GAP = "sequence_gap"
"""The code of a sequence that came too early: the session goes on, unlike with other errors."""
TOO_OLD = "key_too_old"
"""The code of an idempotency key that is from before what is kept: an outcome of its request, which
nobody can tell any more. The session goes on."""
_ORDERS = {"members": "change", "settings": "changes", "release": "raise_to"}
"""By name, the argument that makes an order of a question about the cluster."""


def decode_answer(encoded: bytes) -> Reply:
    """Read a reply. Raises InternalError."""
    try:
        return decode_reply(encoded)
    except CodecError as error:
        raise InternalError(f"the node's answer cannot be read: {error}") from error


def results_of(reply: Reply) -> Results:
    """The results that a reply holds; raises the error that it holds instead."""
    if isinstance(reply, Results):
        return reply
    if isinstance(reply, Failed):
        error = reply.error
        error.detail.setdefault("statement", reply.statement)
        raise error
    if isinstance(reply, ResultDropped):
        raise OperationalError(
            f"the write is applied, but its result of {reply.result_bytes} bytes was not kept for"
            " this retry",
            code="result_dropped",
            outcome=APPLIED,
            hint="read what you need; large results of writes are kept only for their first reply",
        )
    raise InternalError(f"a request was answered by {type(reply).__name__}")


def ends_session(error: Error) -> bool:
    """Whether it says that the session cannot be used any more; else it is about one request."""
    if not isinstance(error, SessionError) or error.outcome == APPLIED:
        return False
    return error.code not in (GAP, TOO_OLD)


def info_of(answered: Answered) -> dict[str, Any]:
    """What was told of the cluster, or a node. Raises the error that the answer is."""
    if answered.error is not None:
        raise answered.error
    if not isinstance(answered.message, Info):
        raise InternalError(f"a question was answered by {type(answered.message).__name__}")
    return answered.message.info


def is_order(what: str, arguments: Mapping[str, Any]) -> bool:
    """Whether asking that changes the cluster, where the arguments are good."""
    return arguments.get(_ORDERS.get(what, "")) not in (None, "", {})


def in_doubt(answered: Answered, call: Call) -> Answered:
    """The same answer to an order: a refusal says nothing of an earlier try, whose reply was lost
    and which may be done, or be done yet."""
    error = answered.error
    if error is None or not call.writes:
        return answered
    if call.unsure and error.outcome == NOT_APPLIED:
        error = answered.error = still_unknown(error, "an earlier try was sent")
    if error.outcome == UNKNOWN:
        error.hint = "ask again: what is done already is answered as done"
    return answered


def transaction_lost(why: str) -> OperationalError:
    """Nothing of a transaction is applied, nor will be."""
    return OperationalError(
        f"the transaction is lost: {why}",
        code=LOST,
        retryable=True,
        hint="nothing was applied: retry the transaction",
    )


def still_unknown(error: Error, why: str) -> Error:
    """The same error, honest about earlier tries."""
    return type(error)(
        f"{error.message}; {why}",
        code=error.code,
        retryable=False,
        outcome=UNKNOWN,
        hint="the write may or may not be applied: read before you write it again",
        detail=error.detail,
    )


def not_applied(error: Error) -> Error:
    """The same error, for a request that itself was never sent."""
    error.outcome = NOT_APPLIED
    return error
