"""Bugs in what a node says to its clients, and in what a client makes of it."""

from __future__ import annotations

from typing import Any

from raftdb.base.errors import NOT_APPLIED, UNKNOWN, Error, OperationalError
from raftdb.client.calls import Call
from raftdb.client.core import Core as ClientCore
from raftdb.consensus.core import Core
from raftdb.consensus.messages import RequestVote
from raftdb.consensus.port import OutcomeUnknown
from raftdb.consensus.proposals import Proposals
from raftdb.node.replica import Replica
from raftdb.wire import LINEARIZABLE, LOCAL
from tests.sim.planted.bug import Bug, Patch


def _local_reads() -> list[Patch]:
    """Every read is answered from what this node has."""
    query = Replica.query

    def local(self: Replica, level: str, *rest: Any, **more: Any) -> Any:
        return query(self, LOCAL if level == LINEARIZABLE else level, *rest, **more)

    return [(Replica, "query", local)]


def _unknown_is_refused() -> list[Patch]:
    """A write whose leader lost its place is said not to be applied."""
    outcome = Replica._on_outcome

    def on_outcome(self: Replica, found: Any, call: Any) -> None:
        if isinstance(found, OutcomeUnknown):
            error = OperationalError("the leader changed", code="lost", outcome=NOT_APPLIED)
            call.end(None, error)
            return
        outcome(self, found, call)

    return [(Replica, "_on_outcome", on_outcome), *_trusting_client()]


def _trusting_client() -> list[Patch]:
    """The client believes `not_applied` though it has sent the write before (T2)."""
    refused = ClientCore._refused

    def believe(self: ClientCore, write: Any, answered: Any, error: Any, call: Any) -> Exception:
        if error.outcome == NOT_APPLIED:
            call.unsure = False
            answered.unsure = False
        return refused(self, write, answered, error, call)

    return [(ClientCore, "_refused", believe)]


def _never_unsure() -> list[Patch]:
    """A client takes silence for refusal: a write that got no answer `was not applied`."""
    late = Call.too_late

    def too_late(self: Call, why: str) -> Error:
        error = late(self, why)
        error.outcome = NOT_APPLIED
        self.unsure = False
        return error

    def execute(self: ClientCore, *arguments: Any, **options: Any) -> Any:
        try:
            return (yield from original(self, *arguments, **options))
        except Error as error:
            if error.outcome == UNKNOWN:
                error.outcome = NOT_APPLIED
            raise

    original = ClientCore.execute
    return [(Call, "too_late", too_late), (ClientCore, "execute", execute)]


def _sequence_used_again() -> list[Patch]:
    """A write of unknown outcome is forgotten; the next one takes its sequence."""

    def forget(self: ClientCore, call: Any) -> Any:
        self.leave_unsettled(())
        return
        yield

    return [(ClientCore, "settle", forget)]


def _retry_is_a_new_write() -> list[Patch]:
    """A write whose reply was lost is written again in another session (row 16)."""
    resume = ClientCore.resume

    def again(self: ClientCore, *, timeout_s: float) -> Any:
        writes = self.unsettled_writes
        if not writes:
            return (yield from resume(self, timeout_s=timeout_s))
        self.session = None
        self.leave_unsettled(())
        return (yield from self.execute(writes[0].statements, timeout_s=timeout_s))

    return [(ClientCore, "resume", again)]


def _reply_of_the_entry() -> list[Patch]:
    """All requests of an entry get the first one's reply."""
    applied = Proposals.on_applied

    def first(self: Proposals, index: int, term: int, replies: Any) -> None:
        applied(self, index, term, [replies[0]] * len(replies) if replies else replies)

    return [(Proposals, "on_applied", first)]


def _votes_for_anybody() -> list[Patch]:
    """A vote does not ask whose log is longer."""
    asked, pre = Core.on_request_vote, Core.on_pre_vote

    def on_request_vote(self: Core, peer: str, message: RequestVote) -> None:
        asked(self, peer, message._replace(last_index=1 << 40, last_term=1 << 40))

    def on_pre_vote(self: Core, peer: str, message: Any) -> None:
        pre(self, peer, message._replace(last_index=1 << 40, last_term=1 << 40))

    return [(Core, "on_request_vote", on_request_vote), (Core, "on_pre_vote", on_pre_vote)]


BUGS = [
    Bug(
        "reads-are-local",
        "row 10",
        "a linearizable read is answered from what this node has",
        make=_local_reads,
    ),
    Bug(
        "unknown-said-to-be-refused",
        "row 16",
        "a write in the log of a leader that lost its place is said not to be applied",
        make=_unknown_is_refused,
    ),
    Bug(
        "silence-taken-for-refusal",
        "row 16",
        "the client says `not applied` of a write that it sent and got no answer to",
        make=_never_unsure,
    ),
    Bug(
        "sequence-used-again",
        "row 16, S1",
        "the client forgets a write of unknown outcome and uses its sequence for the next",
        make=_sequence_used_again,
    ),
    Bug(
        "retry-is-a-new-write",
        "row 16",
        "a write whose reply was lost is written again in a new session",
        make=_retry_is_a_new_write,
    ),
    Bug(
        "one-reply-for-the-entry",
        "M1",
        "all requests of an entry get the reply of its first",
        make=_reply_of_the_entry,
    ),
    Bug(
        "votes-for-anybody",
        "thesis 3.6.1",
        "a vote does not ask whose log is longer",
        make=_votes_for_anybody,
    ),
]
