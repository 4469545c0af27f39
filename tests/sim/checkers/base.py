"""What checkers are told."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from raftdb.command import Request, decode_request
from raftdb.consensus import CommittedEntry


@functools.lru_cache(256)
def decoded(payload: bytes) -> Request:
    """A request of the log, which several checkers look at."""
    return decode_request(payload)


class Broken(BaseException):
    """An invariant does not hold. Not an Exception: no code under test may catch it."""

    def __init__(self, invariant: str, what: str) -> None:
        super().__init__(f"{invariant}: {what}")
        self.invariant = invariant


class JournalView(Protocol):
    """A node's log, as a checker reads it."""

    first_index: Any
    last_index: Any

    def term_at(self, index: int) -> int: ...
    def entry(self, index: int) -> Any: ...


class NodeView(Protocol):
    """One live node."""

    name: str

    @property
    def role(self) -> str: ...
    @property
    def term(self) -> int: ...
    @property
    def commit_index(self) -> int: ...
    @property
    def journal(self) -> Any: ...


class Checker:
    """Override what you need."""

    hears: tuple[type, ...] = ()
    """Kinds of messages that `on_send` and `on_send_to` look at; empty: all."""

    def on_started(self, node: Any) -> None:
        """A process has opened its journal and its database, and said nothing yet."""

    def after_event(self, node: NodeView) -> None:
        """A live node has done something by which its role, term or commit index changed."""

    def on_cut_short(self, node: NodeView) -> None:
        """A node ends in the midst of an event: at one of its disk calls."""

    def on_append(self, node: NodeView, entries: list[Any]) -> None:
        """Entries were put into a node's journal."""

    def on_truncate(self, node: NodeView, index: int) -> None:
        """A node's journal is about to be cut from `index`."""

    def on_send(self, node: NodeView, message: Any) -> None:
        """A node is about to put a message on the wire."""

    def on_send_to(self, node: Any, peer: str, message: Any) -> None:
        """The same, to whom."""

    def on_ack_made(self, node: Any, ack: Any) -> None:
        """A follower answers an Append; it leaves when what it says is on disk."""

    def on_vote(self, node: Any, term: int, candidate: str) -> None:
        """A node has put a vote into its hard state, where it is not durable yet."""

    def on_dropped(self, node: Any) -> None:
        """A node's journal has let go of its oldest entries."""

    def on_reset(self, node: Any) -> None:
        """A node's journal forgets all entries: a copy of the database takes their place."""

    def on_removed(self, node: Any, path: str) -> None:
        """A node has removed a file, which a power cut could still bring back."""

    def on_asked(self, node: Any) -> Any:
        """A linearizable read came in at a node. What is returned comes again in `on_answer`."""

    def on_answer(self, node: Any, asked: Any, index: int) -> None:
        """It may be answered there now, from `index` on."""

    def on_fresh(self, node: Any, since_s: float) -> None:
        """A node takes itself to have all that was committed before then."""

    def on_round_asked(self, node: Any) -> Any:
        """A read, its own or a follower's, waits for a round at a leader. As `on_asked`."""

    def on_round(self, node: Any, asked: Any, index: int) -> None:
        """The leader takes it for confirmed."""

    def on_durable_answer(self, node: Any, durability: str, answer: Any) -> None:
        """A node answers a request that was to be durable so."""

    def on_session_ended(self, node: Any, number: int) -> None:
        """A machine ended a session because it was idle, or had too many."""

    def on_applied(self, name: str, entry: CommittedEntry) -> None:
        """A node's machine applied an entry."""

    def on_progress(self, node: Any, index: int, results: bytes) -> None:
        """A node's machine has committed up to `index`; `results` chains all replies so far."""

    def on_replies(self, node: Any, entries: Any, replies: list[list[bytes]]) -> None:
        """A node's machine has applied entries: the replies of those that are complete."""

    def on_looked(self, node: Any) -> None:
        """A node has looked at its write-ahead log, before a checkpoint or by itself, and found
        nothing."""

    def on_hash(self, name: str, index: int, total: str) -> None:
        """A node's content hash at an index."""

    def on_invoke(self, record: Any) -> None:
        """A client began an operation (tests.workloads.Record)."""

    def on_return(self, record: Any) -> None:
        """It ended, or its outcome is unknown for good."""

    def on_event(self, kind: str, name: str, facts: dict[str, Any]) -> None:
        """Something happened to a machine, its process, or the network."""

    def finish(self, world: Any) -> None:
        """All healed and converged; `world` is the simulation."""


def told_of(checkers: Sequence[Checker], what: str, kind: type) -> list[Callable[..., None]]:
    """The same, of those who look at that kind of message."""
    return told([one for one in checkers if not one.hears or kind in one.hears], what)


def told(checkers: Sequence[Checker], what: str) -> list[Callable[..., None]]:
    """That method of those checkers that have one of their own: most hear little, and events are
    many."""
    common = getattr(Checker, what)
    return [getattr(one, what) for one in checkers if getattr(type(one), what) is not common]
