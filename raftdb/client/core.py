"""The client's core: sessions and exactly once, reads, and the other questions. No IO.

How a write is applied exactly once (DESIGN.md has the reasons):

- Every write carries (session, sequence, floor). Sequences are 1, 2, 3, … without gaps; a sequence
  is taken when its outcome is known, and only then does the next one go out. So at most one write
  of a session is open, and the floor is always the sequence before it.
- A retry carries the same session, sequence and statements, whatever happened in between. The
  cluster answers the first outcome.
- A write that ends with an unknown outcome stays *unsettled*. Before the connection does anything
  else that the user could compare with it (a write, or a read that is not local), the session is
  closed by a log entry: after that the write either is in or never will be. `resume` asks for
  its outcome instead, by sending it again.
- The session is gone (expired, another history): a write that was never sent goes out in a new
  one; a write that may have been applied ends as unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from raftdb.base.errors import (
    APPLIED,
    NOT_APPLIED,
    UNKNOWN,
    DeadlineError,
    Error,
    InterfaceError,
    InternalError,
    SessionError,
)
from raftdb.base.frozen import frozen
from raftdb.base.limits import DEFAULT_LIMITS, Limits
from raftdb.base.ports import Clock, Random
from raftdb.client.actions import Steps
from raftdb.client.answers import (
    GAP,
    decode_answer,
    ends_session,
    in_doubt,
    info_of,
    is_order,
    not_applied,
    results_of,
    still_unknown,
    transaction_lost,
)
from raftdb.client.calls import Answered, Call, Peer
from raftdb.client.courier import Courier
from raftdb.client.levels import goes_to_leader
from raftdb.client.options import Options
from raftdb.command import (
    Failed,
    Key,
    Opened,
    ReadToken,
    Results,
    Statement,
)
from raftdb.wire import (
    LINEARIZABLE,
    LOCAL,
    SESSION,
    Ask,
    AttachSession,
    CloseSession,
    ContentHash,
    Execute,
    OpenSession,
    Ping,
    Query,
    Request,
    Status,
    Transfer,
)
from raftdb.wire import Outcome as AskOutcome

NEW_SESSIONS_MAX = 3
FAREWELL_MS = 1_000
NOT_READS = ("not_a_query", "not_a_read")
"""Codes by which a node says that a Query would write."""
OTHER_HISTORY, OTHER_FORK = "token_other_history", "token_other_fork"
"""Codes of a read token that is of another state of the cluster than this one."""
BURNED = "burned"
"""The code of an outcome that was asked for before the request was seen: it never takes effect."""
PENDING = "durability_pending"
"""The code of a write that is committed, and not yet in as many locations as were asked for."""


@dataclass(slots=True)
class Session:
    """A session as its client sees it."""

    session_id: bytes
    settled: int = 0
    """The outcomes of all sequences up to this one are known."""


@frozen
class Write:
    """One write: what a retry has to repeat exactly."""

    session: Session
    sequence: int
    statements: tuple[Statement, ...]
    foreign_keys: bool
    key: Key | None = None
    durability: str = ""
    is_commit: bool = False
    """The COMMIT of a transaction: it cannot be sent again, only asked for."""


@frozen
class Outcome:
    """What a request brought."""

    results: Results
    index: int
    """Log index of the write, or applied index of the read's snapshot; 0 where it is not known."""
    age_ms: int = -1
    """Of a read: all that was committed longer ago than this is in it; -1: not known."""


class _SessionGone(Exception):
    """The session cannot be used any more."""

    def __init__(self, error: Error, unsure: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.unsure = unsure


class Core:
    """One client. Its methods are generators of actions; run one at a time."""

    def __init__(
        self, options: Options, clock: Clock, random: Random, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        self.courier = Courier(options, clock, random, limits)
        self.random = random.random
        self._label = options.name[:128]
        self.durability = options.durability
        """What writes wait for that say nothing of their own."""
        self.seen: ReadToken | None = None
        """What this client has seen: reads of level `session` reflect that at least."""
        self._left: ReadToken | None = None
        """What it had seen before a restore of the cluster, and was not told yet that is lost."""
        self.session: Session | None = None
        """What writes belong to; None: the next one opens it."""
        self._unsettled: tuple[Write, ...] = ()
        self.last_write: tuple[bytes, int] | None = None
        """Session and sequence of the write that was sent last."""

    @property
    def unsettled(self) -> bool:
        """Whether the last write's outcome is unknown and not settled yet."""
        return bool(self._unsettled)

    @property
    def in_doubt(self) -> bool:
        """Whether the call that was stopped may take effect, or have taken it: a write's, or an
        order's about the cluster."""
        call = self.courier.latest
        return self.unsettled or (call is not None and call.writes and call.unsure)

    @property
    def unsettled_writes(self) -> tuple[Write, ...]:
        """That write; several, in order, when a pipeline ended so."""
        return self._unsettled

    def leave_unsettled(self, writes: tuple[Write, ...]) -> None:
        """The outcomes of these are not known: settle them before anything else is done."""
        self._unsettled = writes

    # ---- writes

    def execute(
        self,
        statements: tuple[Statement, ...],
        *,
        foreign_keys: bool = True,
        timeout_s: float,
        key: Key | None = None,
        durability: str | None = None,
    ) -> Steps[Outcome]:
        """Apply the statements in one transaction, exactly once. `durability`: None for the
        connection's own."""
        level = self.durability if durability is None else durability
        call = self.courier.call(timeout_s, writes=True)
        yield from self.settle(call)
        for _ in range(NEW_SESSIONS_MAX):
            session = self.session
            if session is None:
                session = yield from self.open(call)
            write = Write(session, session.settled + 1, statements, foreign_keys, key, level)
            try:
                return (yield from self._write(write, call))
            except _SessionGone as gone:
                self.session, self._unsettled = None, ()
                last = gone.error
                if gone.unsure:
                    raise still_unknown(
                        last, "the session ended while the write was open"
                    ) from None
                call.unsure = False
        raise not_applied(last)

    def resume(self, *, timeout_s: float) -> Steps[Outcome]:
        """Ask for the outcome of the unsettled write, by sending it again: it is applied now, if it
        was not. Raises InterfaceError when no write is unsettled."""
        if not self._unsettled:
            raise InterfaceError(
                "there is nothing to resume: the last write's outcome is known",
                hint="resume only after an error with outcome 'unknown', as the next thing",
            )
        (write,) = self._unsettled
        call = self.courier.call(timeout_s, writes=True)
        call.unsure = True
        if write.is_commit:
            return Outcome(Results(()), (yield from self.resolve(write, call)))
        try:
            return (yield from self._write(write, call))
        except _SessionGone as gone:
            self.session, self._unsettled = None, ()
            raise still_unknown(
                gone.error, "the session ended, so its outcome cannot be told"
            ) from None

    def _write(self, write: Write, call: Call) -> Steps[Outcome]:
        """Send one write until its outcome is known. On any error `_unsettled` says whether it is
        open still."""

        def make(peer: Peer, timeout_ms: int) -> Sequence[Request]:
            floor = write.sequence - 1
            execute = Execute(
                peer.request_id(),
                write.sequence,
                floor,
                timeout_ms,
                write.statements,
                write.foreign_keys,
                write.key,
                write.durability,
            )
            return self.attached(peer, write.session, execute)

        self._unsettled = (write,)
        self.last_write = (write.session.session_id, write.sequence)
        try:
            answered = yield from self.courier.ask_leader(make, call)
        except BaseException:
            # Also when interrupted from outside (Ctrl-C): what was sent may be applied.
            if not call.unsure:
                self._unsettled = ()
            raise
        if answered.error is not None:
            raise self._refused(write, answered, answered.error, call)
        return self._outcome(write, answered)

    def _refused(self, write: Write, answered: Answered, error: Error, call: Call) -> Exception:
        """The error to raise for a write that was answered by an error, not by a result."""
        if ends_session(error):
            answered.peer.attached = b""
            return _SessionGone(error, answered.unsure)
        if error.outcome == APPLIED:
            self.take(write)
            self.note_applied(answered.peer, error)
            return error
        if isinstance(error, DeadlineError):
            error = call.too_late(error.message)
        if not call.unsure:
            self._unsettled = ()
            return error
        return (
            error if error.outcome == UNKNOWN else still_unknown(error, "an earlier try was sent")
        )

    def _outcome(self, write: Write, answered: Answered) -> Outcome:
        """The committed outcome: the sequence is taken, whatever it was."""
        reply = decode_answer(answered.encoded)
        # Also where the session is gone: what is read next shows whether an earlier try got there.
        self.note_seen(answered.peer, answered.index)
        if isinstance(reply, Failed):
            if reply.error.code == GAP:
                raise still_unknown(
                    reply.error, "the cluster misses earlier writes of this session"
                )
            if ends_session(reply.error):
                answered.peer.attached = b""
                raise _SessionGone(reply.error, answered.unsure)
        self.take(write)
        return Outcome(results_of(reply), answered.index)

    # ---- outcomes

    def outcome(
        self, session_id: bytes, sequence: int, key: Key | None, *, timeout_s: float
    ) -> Steps[Answered]:
        """What became of a request: the answer of a log entry, so it is final. An error says of
        the question whether it took effect: it burns what was not seen."""
        call = self.courier.call(timeout_s, writes=True)
        answered = yield from self._ask_outcome(session_id, sequence, key, self.durability, call)
        if answered.error is None:
            self.note_seen(answered.peer, answered.index)
            session = self.session
            own = session is not None and session_id == session.session_id and not self._unsettled
            if session is not None and own and sequence == session.settled + 1:
                # Of a write that was refused before the log: its number is taken by the question.
                session.settled = sequence
        return answered

    def _ask_outcome(
        self, session_id: bytes, sequence: int, key: Key | None, durability: str, call: Call
    ) -> Steps[Answered]:
        def make(peer: Peer, timeout_ms: int) -> Sequence[Request]:
            ask = AskOutcome(peer.request_id(), timeout_ms, session_id, sequence, key, durability)
            return (ask,)

        return (yield from self.courier.ask_leader(make, call))

    def resolve(self, write: Write, call: Call) -> Steps[int]:
        """The log index of a COMMIT whose reply was lost. Raises what it failed with."""
        answered = yield from self._ask_outcome(
            write.session.session_id, write.sequence, None, write.durability, call
        )
        if answered.error is not None and answered.error.code == PENDING:
            # Committed, or the answer would not have to wait; not yet everywhere.
            self.take(write)
            self.note_applied(answered.peer, answered.error)
            raise answered.error
        if answered.error is not None:
            raise still_unknown(answered.error, "the COMMIT was sent")
        reply = decode_answer(answered.encoded)
        if isinstance(reply, Failed):
            if reply.error.code == BURNED:
                self.take(write)
                raise transaction_lost("its COMMIT did not reach the log")
            if ends_session(reply.error):
                self.session, self._unsettled = None, ()
                self.note_seen(answered.peer, answered.index)
                raise still_unknown(reply.error, "the session ended after the COMMIT was sent")
        return self.committed(write, answered)

    def committed(self, write: Write, answered: Answered) -> int:
        """The log index of a COMMIT that was answered. Raises what it failed with."""
        reply = decode_answer(answered.encoded)
        if isinstance(reply, Failed) and ends_session(reply.error):
            # It was refused, and it is sent once only.
            answered.peer.attached = b""
            self.session, self._unsettled = None, ()
            raise transaction_lost(reply.error.message)
        self.take(write)
        self.note_seen(answered.peer, answered.index)
        results_of(reply)
        return answered.index

    def take(self, write: Write) -> None:
        """Its outcome is known."""
        write.session.settled = write.sequence
        self._unsettled = ()

    # ---- sessions

    def attached(self, peer: Peer, session: Session, message: Request) -> Sequence[Request]:
        """The message, behind what attaches the session to that connection if need be."""
        if peer.attached == session.session_id:
            return (message,)
        peer.attached = session.session_id
        return (AttachSession(peer.request_id(), session.session_id), message)

    def open(self, call: Call) -> Steps[Session]:
        """Open a session. Opening twice, after a lost reply, leaves one that expires unused."""
        opening = Call(call.deadline_s, call.timeout_s)
        answered = yield from self.courier.ask_leader(
            lambda peer, timeout_ms: (OpenSession(peer.request_id(), self._label, timeout_ms),),
            opening,
        )
        if isinstance(answered.error, DeadlineError):
            raise opening.too_late(answered.error.message)
        if answered.error is not None:
            raise not_applied(answered.error)
        reply = decode_answer(answered.encoded)
        if isinstance(reply, Failed):
            raise not_applied(reply.error)
        if not isinstance(reply, Opened):
            raise InternalError(
                f"a session was answered by {type(reply).__name__}", outcome=NOT_APPLIED
            )
        session_id = reply.session.to_bytes()
        answered.peer.attached = session_id
        self.session = Session(session_id)
        return self.session

    def settle(self, call: Call) -> Steps[None]:
        """Close the session of a write whose outcome is unknown, so that it is decided for good."""
        if not self._unsettled:
            return
        session = self._unsettled[0].session
        closing = Call(call.deadline_s, call.timeout_s)

        def make(peer: Peer, timeout_ms: int) -> Sequence[Request]:
            # A node lets go of a session that it is asked to close, also where nothing comes of it
            # (it was busy): what is asked again has to name it again.
            peer.attached = b""
            return self.attached(peer, session, CloseSession(peer.request_id(), timeout_ms))

        while True:
            answered = yield from self.courier.ask_leader(make, closing)
            answered.peer.attached = b""
            error = answered.error
            if error is None or isinstance(error, SessionError):
                break
            if not isinstance(error, DeadlineError):
                raise not_applied(error)
        # The write is in by that entry, or never will be: what is read from now on has to tell.
        if error is None:
            self.note_seen(answered.peer, answered.index)
        self._unsettled, self.session = (), None

    # ---- reads

    def query(
        self,
        statements: tuple[Statement, ...],
        *,
        level: str = LINEARIZABLE,
        max_age_ms: int = 0,
        timeout_s: float,
        max_rows: int = 0,
        foreign_keys: bool = True,
    ) -> Steps[Outcome]:
        """Run reads, all on one snapshot. What turns out to be no read is executed as a write."""
        call = self.courier.call(timeout_s)
        if level != LOCAL:
            yield from self.settle(call)

        def make(peer: Peer, timeout_ms: int) -> Sequence[Request]:
            token = self.token() if level == SESSION else ""
            request_id = peer.request_id()
            return (Query(request_id, level, timeout_ms, statements, max_rows, token, max_age_ms),)

        courier = self.courier
        to_leader = goes_to_leader(level, courier.options.prefer)
        ask = courier.ask_leader if to_leader else courier.ask_near
        answered = yield from ask(make, call)
        if answered.error is not None:
            if answered.error.code in NOT_READS:
                left_s = max(call.deadline_s - self.courier.now_s(), 0.001)
                return (
                    yield from self.execute(statements, foreign_keys=foreign_keys, timeout_s=left_s)
                )
            raise self.note_refused(not_applied(answered.error))
        results = results_of(decode_answer(answered.encoded))
        self.note_seen(answered.peer, answered.index, kept=level == SESSION)
        return Outcome(results, answered.index, answered.age_ms)

    def note_seen(self, peer: Peer, index: int, *, kept: bool = False) -> None:
        """Something of that log index was shown to the user. `kept`: the node took the token, so
        that all that was seen is in its history, whichever it is."""
        if kept and self.seen is not None and self.seen.history.hex() != peer.history:
            self.seen = None
        self.note_shown(peer.history, index)

    def note_shown(self, of_history: str, index: int) -> None:
        """The same, of that history."""
        seen = self.seen
        history = bytes.fromhex(of_history)
        if seen is None or seen.history != history:
            # Another history: the cluster was restored. What was seen may be in it no more.
            self._left = self._left or seen
            self.seen = ReadToken(history, 0, index)
        elif index > seen.index:
            self.seen = ReadToken(history, seen.fork, index)

    def token(self) -> str:
        """What stands for all that was seen; `` before the first answer. Raises InterfaceError once
        when the cluster was restored meanwhile: what was seen before may be gone."""
        if self._left is not None:
            self._left = None
            raise InterfaceError(
                "the cluster was restored: what this connection had seen before may be gone",
                code=OTHER_HISTORY,
                hint="look again at what matters; from now on it goes by what it has seen since",
            )
        return self.seen.to_text() if self.seen is not None else ""

    def note_refused(self, error: Error) -> Error:
        """The same error. A node that refuses the token has told of the restore: it goes without
        from now on."""
        if error.code in (OTHER_HISTORY, OTHER_FORK):
            self.seen = self._left = None
        return error

    def note_applied(self, peer: Peer, error: Error) -> None:
        """An error said that a write is applied; where, if it tells."""
        index = error.detail.get("index")
        if isinstance(index, int):
            self.note_seen(peer, index)

    def see(self, text: str) -> None:
        """Count what a token stands for among what this client has seen. Raises InterfaceError."""
        if not text:
            return
        token, seen = ReadToken.from_text(text), self.seen
        if seen is None:
            self.seen = token
        elif (token.history, token.fork) != (seen.history, seen.fork):
            raise InterfaceError(
                "the read token is of other data than this connection has seen",
                code=OTHER_HISTORY,
                hint="the cluster was restored, or the token is another cluster's: drop it",
            )
        elif token.index > seen.index:
            self.seen = token

    # ---- other questions

    def status(self, *, timeout_s: float) -> Steps[dict[str, Any]]:
        """What the preferred (else the first given) node says of itself."""
        call = self.courier.call(timeout_s)
        answered = yield from self.courier.ask_any(
            lambda peer, _timeout_ms: (Status(peer.request_id()),), call
        )
        return info_of(answered)

    def ping(self, *, timeout_s: float) -> Steps[str]:
        """The id of the node that answered."""
        call = self.courier.call(timeout_s)
        answered = yield from self.courier.ask_any(
            lambda peer, _timeout_ms: (Ping(peer.request_id()),), call
        )
        if answered.error is not None:
            raise answered.error
        return answered.peer.node_id

    def content_hash(
        self, index: int | None, *, timeout_s: float, exact: bool = False
    ) -> Steps[dict[str, Any]]:
        """Content hash of the preferred (else the first given) node, once `index` is applied."""
        call = self.courier.call(timeout_s)
        answered = yield from self.courier.ask_any(
            lambda peer, timeout_ms: (ContentHash(peer.request_id(), index, timeout_ms, exact),),
            call,
        )
        return info_of(answered)

    def ask(
        self, what: str, arguments: dict[str, Any], *, timeout_s: float, anywhere: bool = False
    ) -> Steps[dict[str, Any]]:
        """A question or an order about the cluster, to the leader; or (`anywhere`) about a node, to
        the preferred one. An order whose reply is lost ends with outcome `unknown`."""
        call = self.courier.call(timeout_s, writes=is_order(what, arguments))
        answered = yield from (self.courier.ask_any if anywhere else self.courier.ask_leader)(
            lambda peer, timeout_ms: (Ask(peer.request_id(), what, arguments, timeout_ms),), call
        )
        return info_of(in_doubt(answered, call))

    def await_durable(
        self, error: Error | None, durability: str | None, *, timeout_s: float
    ) -> Steps[int]:
        """Wait until a write is as durable as it was to be, by the error that said it is not; None:
        until all that this client has seen is. Gives the log index."""
        if error is None:
            token = self.token()
            level = self.durability if durability is None else durability
        elif error.code == PENDING:
            token = str(error.detail.get("token", ""))
            level = durability or str(error.detail.get("durability", ""))
        else:
            raise InterfaceError(
                "that error does not say that a write is committed",
                hint=f"give one of code {PENDING}, or none",
            )
        arguments = {"token": token, "durability": level}
        info = yield from self.ask("await_durable", arguments, timeout_s=timeout_s)
        return int(info["index"])

    def transfer_leadership(self, target: str | None, *, timeout_s: float) -> Steps[None]:
        """Have the leader hand over. As with `ask`, the outcome may be `unknown`."""
        call = self.courier.call(timeout_s, writes=True)
        answered = yield from self.courier.ask_leader(
            lambda peer, timeout_ms: (Transfer(peer.request_id(), target, timeout_ms),), call
        )
        error = in_doubt(answered, call).error
        if error is not None:
            raise error

    def close(self) -> Steps[None]:
        """Give the session back if that costs nothing, and drop all connections."""
        session = self.session
        peer = self.courier.attached_peer(session.session_id) if session is not None else None
        self.session, self._unsettled = None, ()
        farewell = (peer, CloseSession(peer.request_id(), FAREWELL_MS)) if peer else None
        yield from self.courier.close(farewell)
