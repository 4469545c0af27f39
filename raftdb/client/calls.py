"""One call of the user's and what becomes of it: its connection, its deadline, its answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from raftdb.base.errors import (
    UNKNOWN,
    AuthError,
    DataError,
    DeadlineError,
    Error,
    NotSupportedError,
)
from raftdb.base.ids import Address
from raftdb.client.actions import Link, LinkError
from raftdb.wire import (
    CursorRows,
    Done,
    ErrorMessage,
    Info,
    Message,
    Pong,
    Request,
    Result,
    Rows,
    Welcome,
)


class Peer:
    """One open connection, after the welcome."""

    __slots__ = (
        "address",
        "attached",
        "cluster_id",
        "draining",
        "frame_bytes_max",
        "history",
        "leads",
        "link",
        "next_request_id",
        "node_id",
        "used",
    )

    def __init__(self, address: Address, link: Link, welcome: Welcome) -> None:
        self.address = address
        self.link = link
        self.node_id = welcome.node_id
        self.cluster_id = welcome.cluster_id
        self.history = welcome.history
        self.frame_bytes_max = welcome.frame_bytes_max
        self.leads = welcome.role == "leader"
        self.attached = b""
        """The session that the other end has attached to this connection."""
        self.draining = False
        self.next_request_id = 1
        self.used = 0

    def request_id(self) -> int:
        """A fresh one."""
        self.next_request_id += 1
        return self.next_request_id - 1


@dataclass(slots=True)
class Call:
    """One call of the user's, over all its attempts."""

    deadline_s: float
    timeout_s: float
    writes: bool = False
    unsure: bool = False
    """An attempt was sent and its fate is not known: the write may have taken effect, or will."""
    attempts: int = 0
    alive: bool = False
    """The node that was asked last has not answered, but it is heard of."""
    refused: Error | None = None
    """Why the leader would not take it the last time, when it says more than a time-out."""
    beside: dict[int, Message] | None = None
    """By request id, the replies to all messages of an attempt but its last, for who wants them."""

    def unanswered(self, address: object) -> Error:
        """The error at the deadline, when the node at that address was asked and said nothing."""
        if not self.alive:
            return self.too_late(f"{address} does not answer")
        error = self.too_late(f"{address} is alive, and not done with it")
        if error.outcome != UNKNOWN:
            error.hint = "it needs more time (timeout=), or less to do"
        return error

    def too_late(self, why: str) -> Error:
        """The error at the deadline."""
        reasons = f": {why}" if why else ""
        if self.writes and self.unsure:
            return DeadlineError(
                f"no reply within {self.timeout_s:g} s, and the write was sent{reasons}",
                outcome=UNKNOWN,
                hint="it may or may not be applied: read before you write it again",
            )
        return DeadlineError(
            f"no reply within {self.timeout_s:g} s{reasons}",
            outcome="not_applied",
            retryable=True,
            hint="is a majority of the nodes running and reachable?",
        )


@dataclass(slots=True)
class Answered:
    """The reply to the last message of an attempt. Rows are joined."""

    peer: Peer
    message: Result | CursorRows | Info | Pong | Done | None
    error: Error | None = None
    index: int = 0
    encoded: bytes = b""
    """command.encode_reply bytes of Result and Rows."""
    age_ms: int = -1
    unsure: bool = False
    """An attempt before the one that was answered may have taken effect."""


_PERMANENT_CODES = frozenset(("wrong_cluster", "wrong_history", "version"))

Make = Callable[[Peer, int], Sequence[Request]]
"""(connection, timeout_ms) to the messages of one attempt; the last one's reply is the answer."""


def answer_of(peer: Peer, message: Message, refused: Error | None, chunks: list[bytes]) -> Answered:
    """The reply that ends an attempt; `refused`: why a message sent ahead of it was refused."""
    if type(message) is ErrorMessage:
        error = message.exception()
        # A companion (attach) that was refused is why this one was.
        return Answered(peer, None, refused if refused is not None else error)
    if type(message) is Result:
        return Answered(peer, message, index=message.index, encoded=message.reply)
    if type(message) is Rows:
        encoded = b"".join(chunks)
        return Answered(peer, None, index=message.index, encoded=encoded, age_ms=message.age_ms)
    if type(message) is CursorRows:
        encoded = b"".join(chunks)
        return Answered(peer, message, index=message.index, encoded=encoded, age_ms=message.age_ms)
    if isinstance(message, Info | Pong | Done):
        return Answered(peer, message)
    raise LinkError(f"answers with {type(message).__name__}")


def too_large(size: int) -> Error:
    """The error of a result that came to more bytes than a client takes."""
    return DataError(
        f"the result has more than {size} bytes",
        code="result_too_large",
        hint="ask for fewer rows at a time, such as by LIMIT",
    )


def permanent(error: Error) -> Error | None:
    """The error, if trying the address that answered it again soon would not help."""
    lasting = isinstance(error, AuthError | NotSupportedError) or error.code in _PERMANENT_CODES
    return error if lasting else None
