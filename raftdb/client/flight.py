"""Several writes of one session on their way at once: in order, each exactly once. No IO.

The rules (DESIGN.md has the reasons):

- Writes are numbered and sent in the order of `submit`; the cluster applies a session's sequences
  strictly in order, so whatever is lost or refused in the middle holds up those behind it: they
  are answered `sequence_gap`, which means not applied, and are sent again behind the missing one.
- After a lost connection, or when leadership moved, all that is unanswered is sent again, in
  order, with the numbers it had.
- A write that the leader refuses for good before the log has taken no number. Its place is filled
  by a request that does nothing, because those behind it carry their numbers already.
- Each write is a transaction of its own: one that fails does not stop those behind it.
- At a deadline, everything unanswered ends: what was sent as `unknown`, the rest as not applied.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from raftdb.base.errors import (
    APPLIED,
    UNKNOWN,
    Error,
    InterfaceError,
    NotLeaderError,
)
from raftdb.client.actions import Await, LinkError, Steps, Transmit
from raftdb.client.answers import GAP, decode_answer, ends_session, results_of, still_unknown
from raftdb.client.calls import Call, Peer
from raftdb.client.core import NEW_SESSIONS_MAX, Core, Outcome, Write
from raftdb.client.courier import STALL_S
from raftdb.client.values import statement_bytes
from raftdb.command import Failed, Key, Results, Statement, StatementResult
from raftdb.wire import ErrorMessage, Execute, Message, Request, Result

IN_FLIGHT_MAX = 64
"""Writes that wait for their answer; `submit` waits for room."""
IN_FLIGHT_BYTES_MAX = 128 * 1024
"""Their bytes, about: what fits into the buffers of a connection, so that sending never waits for
an end that itself waits for us to read. A larger write goes alone."""
GATHER = 16
"""While others are on their way, so many are gathered before they are sent in one piece."""
_NOTHING = (Statement("SELECT 1"),)
"""Takes the number of a write that was refused."""


class Item:
    """One write of a flight, and what became of it."""

    __slots__ = (
        "deadline_s",
        "done",
        "durability",
        "error",
        "filler",
        "foreign_keys",
        "key",
        "lost",
        "outcome",
        "request_id",
        "sequence",
        "session_id",
        "size",
        "statements",
        "timeout_s",
    )

    def __init__(
        self,
        statements: tuple[Statement, ...],
        foreign_keys: bool,
        deadline_s: float,
        timeout_s: float,
        durability: str = "",
        key: Key | None = None,
    ) -> None:
        self.statements = statements
        self.foreign_keys = foreign_keys
        self.durability = durability
        """What its answer waits for; `` for the database's own."""
        self.key = key
        self.deadline_s = deadline_s
        self.timeout_s = timeout_s
        self.size = 64 + sum(statement_bytes(statement) for statement in statements)
        self.sequence = 0
        self.session_id = b""
        """Whose number it carries, once it has one."""
        self.request_id = 0
        """Of the attempt that is on its way; 0: none is."""
        self.lost = False
        """An attempt was sent and never answered: it may have taken effect."""
        self.filler = False
        self.done = False
        self.outcome: Outcome | None = None
        self.error: Error | None = None

    @property
    def unsure(self) -> bool:
        """Whether it may have taken effect, as far as is known now."""
        return self.lost or self.request_id > 0

    def end(self, outcome: Outcome | None, error: Error | None) -> None:
        """It is over (a filler's own fate interests nobody)."""
        if not self.done:
            self.outcome, self.error = outcome, error
        self.done = True
        self.request_id = 0


class Flight:
    """The writes under way of one core, which does nothing else meanwhile."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._courier = core.courier
        self._queue: deque[Item] = deque()
        """Unanswered, in order. Sequences are those after the session's `settled`, in order."""
        self._on_way: dict[int, Item] = {}
        self._peer: Peer | None = None
        self._sessions_left = NEW_SESSIONS_MAX
        self._numbered = 0
        """The last sequence that was given out."""
        self._one_by_one = False
        self._refused: Error | None = None
        """Why the last one was refused for the moment."""
        self.broken = False
        """It ended with writes whose outcome is unknown; nothing more can be submitted."""

    # ---- from outside

    def submit(self, item: Item) -> Steps[None]:
        """Put a write behind the others, and wait until there is room for one more."""
        if self.broken:
            raise InterfaceError(
                "the pipeline ended with writes whose outcome is unknown",
                hint="resume, or look what was applied, and begin another pipeline",
            )
        self._queue.append(item)
        if not self._on_way or self._unsent() >= GATHER:
            yield from self._turn(wait=False)
        while self._full():
            yield from self._turn(wait=True)

    def settle(self) -> Steps[None]:
        """Until every write has its answer."""
        while self._queue:
            yield from self._turn(wait=True)

    def resume(self, writes: Sequence[Write], items: Sequence[Item]) -> Steps[None]:
        """Send writes again whose outcome is unknown; `items` as `submit` takes them."""
        self.broken = False
        session, timed = writes[0].session, items[0]
        unknown = {write.sequence: item for write, item in zip(writes, items, strict=True)}
        for sequence in range(session.settled + 1, writes[-1].sequence + 1):
            item = unknown.get(sequence)
            if item is None:
                # It was refused before the log when its flight ended: its place has to be filled.
                item = Item(_NOTHING, True, timed.deadline_s, timed.timeout_s, "quorum")
                item.filler = True
            else:
                item.lost = True
            item.sequence = self._numbered = sequence
            item.session_id = session.session_id
            self._queue.append(item)
        self._core.session = session
        self._core.leave_unsettled(())
        yield from self.settle()

    # ---- one turn: a leader, what is unsent, what came

    def _unsent(self) -> int:
        return len(self._queue) - len(self._on_way)

    def _full(self) -> bool:
        queue = self._queue
        if len(queue) < GATHER:
            return sum(item.size for item in queue) > IN_FLIGHT_BYTES_MAX and len(queue) > 1
        return len(queue) >= IN_FLIGHT_MAX or sum(item.size for item in queue) > IN_FLIGHT_BYTES_MAX

    def _turn(self, wait: bool) -> Steps[None]:
        head = self._queue[0]
        call = Call(head.deadline_s, head.timeout_s, writes=True, unsure=head.unsure)
        try:
            yield from self._prepare(call)
            peer = self._peer
            assert peer is not None
            yield from self._send(peer, call)
            if wait and self._on_way:
                yield from self._receive(peer, call)
        except LinkError as lost:
            yield from self._lose(lost, call)
        except Error as error:
            self._break(error)
        except BaseException:
            # Ctrl-C: what is on its way may be applied, and its answers come too late.
            if self._peer is not None:
                self._peer.draining = True
            self._break(InterfaceError("interrupted", code="interrupted"))
            raise

    def _prepare(self, call: Call) -> Steps[None]:
        """A session, and a connection to the leader that is fit to be written to."""
        core = self._core
        refused, self._refused = self._refused, None
        if refused is not None and not (yield from self._courier.pause(call, refused)):
            raise refused
        yield from core.settle(call)
        if core.session is None:
            yield from core.open(call)
        peer = self._peer
        if peer is None or (not self._on_way and (peer.draining or not peer.leads)):
            self._peer = None
            self._peer = yield from self._courier.leader(call)

    def _send(self, peer: Peer, call: Call) -> Steps[None]:
        session = self._core.session
        assert session is not None
        if peer.draining or not peer.leads:
            return
        room = IN_FLIGHT_BYTES_MAX
        messages: list[Request] = []
        sent: list[Item] = []
        for item in self._queue:
            room -= item.size
            if room < 0 and item is not self._queue[0]:
                break
            if item.sequence == 0:
                item.sequence = self._numbered = max(self._numbered, session.settled) + 1
                item.session_id = session.session_id
                self._core.last_write = (session.session_id, item.sequence)
            if item.request_id == 0 and len(self._on_way) + len(sent) < IN_FLIGHT_MAX:
                left_s = item.deadline_s - self._courier.now_s()
                item.request_id = peer.request_id()
                messages.append(
                    Execute(
                        item.request_id,
                        item.sequence,
                        session.settled,
                        max(1, int(left_s * 1000)),
                        item.statements,
                        item.foreign_keys,
                        item.key,
                        item.durability,
                    )
                )
                sent.append(item)
                if self._one_by_one:
                    break
        if not messages:
            return
        messages[:1] = self._core.attached(peer, session, messages[0])
        try:
            yield Transmit(peer.link, messages, call.deadline_s, STALL_S)
        except Error as error:
            # Our own side refused to send it (too large): nothing of it left.
            peer.attached = b""
            yield from self._too_large(sent, error)
            return
        except LinkError as lost:
            if lost.unsent:
                for item in sent:
                    item.request_id = 0
            raise
        for item in sent:
            self._on_way[item.request_id] = item

    def _too_large(self, sent: list[Item], error: Error) -> Steps[None]:
        for item in sent:
            item.request_id = 0
        yield from self._lose(LinkError("was given up"), None)
        if len(sent) > 1:
            self._one_by_one = True
        else:
            self._one_by_one = False
            self._fill(sent[0], error)

    def _receive(self, peer: Peer, call: Call) -> Steps[None]:
        """Until at least one answer came."""
        hedge_s = self._courier.options.hedge
        probe_s = self._courier.now_s() + hedge_s
        while True:
            arrived: Sequence[Message] = yield Await(peer.link, min(call.deadline_s, probe_s))
            answered = 0
            for message in arrived:
                answered += self._take_in(peer, message)
            if answered:
                return
            now_s = self._courier.now_s()
            if arrived:
                probe_s = now_s + hedge_s
            elif now_s >= call.deadline_s:
                yield from self._courier.drop(peer)
                raise call.unanswered(peer.address)
            elif now_s >= probe_s:
                if (yield from self._courier.has_moved(peer, call)):
                    raise LinkError("is silent, and leadership moved", silent=True)
                probe_s = self._courier.now_s() + hedge_s / 2

    # ---- answers

    def _take_in(self, peer: Peer, message: Message) -> int:
        """1 when it answers one of ours."""
        item = self._on_way.pop(getattr(message, "request_id", 0), None)
        if item is None:
            if type(message) is ErrorMessage and message.request_id > 0:
                error = message.exception()
                if ends_session(error):
                    peer.attached = b""  # The attach was refused: so will be what stands behind it.
            self._courier.notice(peer, message)
            return 0
        if type(message) is Result:
            self._result(peer, item, message)
        elif type(message) is ErrorMessage:
            item.request_id = 0
            self._error(peer, item, message.exception())
        else:
            raise LinkError(f"answers with {type(message).__name__}")
        return 1

    def _result(self, peer: Peer, item: Item, message: Result) -> None:
        # What cannot be read may say that it is applied: until then its attempt counts.
        reply = decode_answer(message.reply)
        item.request_id = 0
        self._core.note_seen(peer, message.index)
        if isinstance(reply, Failed):
            error = reply.error
            if error.code == GAP and item is not self._queue[0]:
                return
            if error.code == GAP:
                raise still_unknown(error, "the cluster misses earlier writes of this session")
            if ends_session(error):
                self._session_gone(peer, error)
                return
        try:
            item.end(Outcome(results_of(reply), message.index), None)
        except Error as failed:
            item.end(None, failed)
        self._advance(item)

    def _error(self, peer: Peer, item: Item, error: Error) -> None:
        if isinstance(error, NotLeaderError):
            self._courier.not_leader(peer, error)
        elif ends_session(error):
            self._session_gone(peer, error)
        elif error.outcome == APPLIED:
            item.end(None, error)
            self._core.note_applied(peer, error)
            self._advance(item)
        elif error.outcome == UNKNOWN:
            item.lost = True
            self._refused = error
        elif error.retryable:
            self._refused = error
        elif item.lost:
            raise still_unknown(error, "an earlier try was sent")
        else:
            self._fill(item, error)

    def _fill(self, item: Item, error: Error) -> None:
        """Refused for good, before the log. Its number is taken by a request that does nothing."""
        item.end(None, error)
        item.filler = True
        item.statements, item.key, item.durability = _NOTHING, None, "quorum"
        item.size = 64

    def _advance(self, item: Item) -> None:
        self._queue.remove(item)
        session = self._core.session
        assert session is not None
        first = self._queue[0].sequence if self._queue else 0
        session.settled = first - 1 if first else self._numbered

    # ---- what goes wrong

    def _lose(self, lost: LinkError, call: Call | None) -> Steps[None]:
        """The connection is gone: all that was on its way may have arrived or not."""
        peer, self._peer = self._peer, None
        self._on_way.clear()
        for item in self._queue:
            if item.request_id:
                item.request_id, item.lost = 0, True
        if peer is not None:
            yield from self._courier.lost(peer, lost)
            if call is not None:
                yield from self._courier.pause(call)

    def _session_gone(self, peer: Peer, error: Error) -> None:
        """What was never lost is not applied: it goes out in a new session. What was lost before
        may have been applied while the session was there."""
        peer.attached = b""
        self._core.session = None
        self._sessions_left -= 1
        self._numbered = 0
        self._on_way.clear()
        for item in list(self._queue):
            item.sequence = item.request_id = 0
            if item.lost:
                item.end(None, still_unknown(error, "the session ended while it was open"))
            if item.done:
                self._queue.remove(item)
        if self._sessions_left <= 0:
            raise error

    def _break(self, error: Error) -> None:
        """The end of it: everything that is unanswered ends."""
        unsettled: list[Write] = []
        session = self._core.session
        for item in self._queue:
            if item.unsure and session is not None:
                write = Write(
                    session,
                    item.sequence,
                    item.statements,
                    item.foreign_keys,
                    item.key,
                    item.durability,
                )
                unsettled.append(write)
                item.end(None, still_unknown(error, "the write was sent"))
            else:
                item.end(None, _never_sent(error))
        self._queue.clear()
        self._on_way.clear()
        self._peer = None
        if not self._core.unsettled:
            # Else one from before this flight could not even be settled, and nothing was sent.
            self._core.leave_unsettled(tuple(unsettled))
        self.broken = bool(unsettled)


def ended_in_flight(core: Core) -> bool:
    """Whether it takes `resume_all` to resume: several writes are unsettled, or one whose
    predecessors took no number."""
    writes = core.unsettled_writes
    return len(writes) > 1 or any(one.sequence > one.session.settled + 1 for one in writes)


def resume_all(core: Core, timeout_s: float) -> Steps[Outcome]:
    """Have all unsettled writes done, in order: the results of all, and the last index. Raises the
    first error, after all were tried."""
    writes = core.unsettled_writes
    deadline_s = core.courier.now_s() + timeout_s
    items = [
        Item(one.statements, one.foreign_keys, deadline_s, timeout_s, one.durability, one.key)
        for one in writes
    ]
    yield from Flight(core).resume(writes, items)
    statements: list[StatementResult] = []
    index = 0
    for item in items:
        if item.error is not None:
            raise item.error
        assert item.outcome is not None
        statements += item.outcome.results.statements
        index = item.outcome.index
    return Outcome(Results(tuple(statements)), index)


def _never_sent(error: Error) -> Error:
    return type(error)(
        error.message,
        code=error.code,
        retryable=error.retryable,
        outcome="not_applied",
        hint=error.hint,
        detail=error.detail,
    )
