"""The replica: one call down for each request, one call up for each outcome.

Everything here runs on the loop. `done` callbacks are called exactly once, never from inside the
call that took them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from raftdb.base.errors import (
    Error,
    NotLeaderError,
    OperationalError,
    SessionError,
    UnavailableError,
)
from raftdb.base.ids import HistoryId, NodeId
from raftdb.base.limits import Limits
from raftdb.base.ports import Ports
from raftdb.command import (
    CloseSession,
    Execute,
    Key,
    OpenSession,
    Outcome,
    ReadToken,
    SessionId,
    Statement,
    Tick,
    encode_request,
)
from raftdb.command.requests import Stamp
from raftdb.consensus.port import (
    Applied,
    EnginePort,
    EngineStatus,
    NotApplied,
    OutcomeUnknown,
    ProposalOutcome,
    ReadOutcome,
)
from raftdb.machine import Machine
from raftdb.node.admission import Admission
from raftdb.node.calls import (
    Answer,
    Done,
    UnderWay,
    read_deadline,
    write_deadline,
)
from raftdb.node.congestion import Congestion
from raftdb.node.deadlines import Deadlines
from raftdb.node.durable import Durable, earlier
from raftdb.node.hashes import ASKED_MAX, Hashes
from raftdb.node.identity import Identity
from raftdb.node.reading import LOCAL, RETRY_AFTER_MS, SESSION, Reading, busy_error
from raftdb.node.transactions import Transactions
from raftdb.node.trials import Trials
from raftdb.node.vacuum import Vacuum

if TYPE_CHECKING:
    from raftdb.node.releases import Releases

_VERIFIED_SESSIONS_MAX = 4_096


class Cancellable(Protocol):
    """A read under way."""

    def cancel(self) -> None:
        """Have it end now, by an error of code `cancelled`; harmless when it has ended."""


class Replica:
    """Admits, proposes, waits, reads."""

    def __init__(
        self,
        *,
        identity: Identity,
        engine: EnginePort,
        machine: Machine,
        ports: Ports,
        limits: Limits,
        refusal: Callable[..., Error | None] | None = None,
    ) -> None:
        """`refusal(local=…)` says why this node may not answer now, if it may not."""
        self._identity = identity
        self._engine = engine
        self._machine = machine
        self._clock = ports.clock
        self._random = ports.random
        self._executor = ports.executor
        self._log = ports.log
        self._limits = limits
        self.admission = Admission(limits)
        self._deadlines = Deadlines(ports.clock, ports.executor)
        self.durable = Durable(
            engine, lambda: self._identity.voting, identity.node_id, self._token_at
        )
        """What replies wait for, beyond the quorum."""
        self.transactions = Transactions(
            self, machine, self.admission, limits, ports.clock, ports.random, ports.executor
        )
        """Interactive ones, that are open here."""
        self._trials = Trials(self.call, self.transactions.submit, machine, ports, limits)
        self._history = bytes.fromhex(identity.history)
        self._lineage = {bytes.fromhex(name): last for name, last in machine.lineage}
        """Histories that this one continues, and the last session of each that is still good."""
        self._verified: dict[int, bytes] = {}
        self._reading = Reading(
            identity=identity,
            engine=engine,
            machine=machine,
            ports=ports,
            limits=limits,
            not_applied=self._not_applied,
        )
        self._hashes = Hashes(
            machine, engine, ports.executor, identity.node_id, self.call, self._not_applied
        )
        self._reads_waiting = 0
        self._awaiting = 0
        """Questions for durability, whose index is not applied here yet."""
        self.successor: Callable[[], NodeId | None] = lambda: None
        """To whom leadership goes when this node is asked to stop."""
        self.settings_asked: Callable[[Mapping[str, Any], float, Done], None] | None = None
        """Who declares and tells the cluster's settings."""
        self.members_asked: Callable[[Mapping[str, Any], float, Done], None] | None = None
        """Who changes and tells its members."""
        self.compatibility: Mapping[str, Any] = {}
        """What this release computes and writes with, for those who want to join."""
        self.releases: Releases | None = None
        """Who runs which release (raftdb.node.releases), and whether the cluster does something."""
        self._writes = Congestion(ports.clock.monotonic_s, limits.queue_age_ms_max)
        self._refusal = refusal or _none
        self.vacuum = Vacuum(machine, ports, self._refusal)
        self.read_only: Callable[[], Error | None] = lambda: None
        """Why nothing may be written now, though reads go on."""
        self._draining = False
        self._under_way = 0
        self._on_idle: Callable[[], None] | None = None

    # ---- what is asked of it

    @property
    def identity(self) -> Identity:
        """Who this replica is."""
        return self._identity

    @property
    def history(self) -> HistoryId:
        """The history that this replica's data belongs to."""
        return self._identity.history

    def status(self) -> EngineStatus:
        """The engine's view, as of now."""
        return self._engine.status()

    def writes_retry_ms(self) -> int:
        """0: one more write may wait. Else it would for longer than `limits.queue_age_ms_max`, and
        should come again after so long. To be asked before `execute` and `open_session`; what ends
        something (a COMMIT, an outcome) is taken all the same, up to the queue's hard bounds."""
        return self._writes.refusal_ms()

    def reads_retry_ms(self) -> int:
        """The same of reads. `query` asks for itself."""
        return self._reading.turns.refusal_ms()

    def load(self) -> dict[str, Any]:
        """What waits here, and what was refused because too much did."""
        reading = self._reading
        return {
            "writes_waiting": self._writes.count,
            "writes_refused": self._writes.refused + self._trials.queue.refused,
            "reads_waiting": self._reads_waiting,
            "reads_refused": reading.turns.refused + reading.queries.refused,
        }

    def now_s(self) -> float:
        """The monotonic clock."""
        return self._clock.monotonic_s()

    def open_session(self, label: str, timeout_s: float, done: Done) -> None:
        """Open a session through the log (rule S2). The answer's body is an encoded Opened."""
        request = OpenSession(self.stamp(), self._random.randbytes(16), label[:128])
        self.propose(encode_request(request), timeout_s, done)

    def close_session(self, session: SessionId, timeout_s: float, done: Done) -> None:
        """Forget a session through the log."""
        refused = self.refuse_session(session)
        if refused is not None:
            self._executor.call_soon(done, None, refused)
            return
        self._verified.pop(session.number, None)
        request = CloseSession(self.stamp(), session.number)
        self.propose(encode_request(request), timeout_s, done)

    def execute(
        self,
        session: SessionId,
        sequence: int,
        floor: int,
        statements: tuple[Statement, ...],
        *,
        foreign_keys: bool,
        timeout_s: float,
        done: Done,
        key: Key | None = None,
        durability: str = "",
    ) -> None:
        """Execute once, whatever is retried. The answer's body is an encoded reply. `durability`:
        what it waits for (base.durability), `` for the database's default."""
        refused = self._refuse() or self.refuse_session(session)
        if refused is not None:
            self._executor.call_soon(done, None, refused)
            return
        number = session.number

        def enter(left_s: float) -> None:
            try:
                payload = self.admission.encode(
                    Execute(self.stamp(), number, sequence, floor, statements, foreign_keys, key)
                )
            except Error as error:
                # It takes no place in the sequence: a corrected request may use the number again.
                self._executor.call_soon(done, None, error)
                return
            durable = self.durable
            if not durability and durable.cell.current is durable.plain_for:
                self.propose(payload, left_s, done)
                return
            # A retry of what is applied is told so, however few can be reached.
            refuse = not self._machine.was_applied(number, sequence)
            self.propose_durably(payload, left_s, done, durability, refuse)

        trials = self._trials
        if trials.wanted(number, statements) and not self._machine.was_applied(number, sequence):
            trials.begin(number, sequence, statements, foreign_keys, timeout_s, done, enter)
        else:
            enter(timeout_s)

    def outcome(
        self,
        session: SessionId | None,
        sequence: int,
        key: Key | None,
        timeout_s: float,
        done: Done,
        durability: str = "",
    ) -> None:
        """What became of a request (rule S3). The answer's body is an encoded reply."""
        refused = self._refuse() or (self.refuse_session(session) if session is not None else None)
        if refused is not None:
            self._executor.call_soon(done, None, refused)
            return
        number = session.number if session is not None else 0
        request = Outcome(self.stamp(), number, sequence, key)
        payload = encode_request(request)
        # A question is answered however few can be reached; a success only when it is durable.
        self.propose_durably(payload, timeout_s, done, durability, refuse=False)

    def await_durable(self, token: str, durability: str, timeout_s: float, done: Done) -> None:
        """Wait until what `token` stands for is as durable as wanted. The answer's body is a dict.
        Only the leader knows."""
        try:
            wanted = self.durable.wanted(durability)
            seen = self._reading.check(SESSION, token, 0)
            refused = self.refuse()
            if refused is not None:
                raise refused
            index = seen.index if seen is not None else 0
            waits = index > self._engine.applied_index
            if waits and self._awaiting >= ASKED_MAX:
                raise busy_error(RETRY_AFTER_MS, "questions")
        except Error as error:
            self._executor.call_soon(done, None, error)
            return
        self._awaiting += waits

        def over(answer: Answer | None, error: Error | None) -> None:
            self._awaiting -= waits
            done(answer, error)

        call = self.call(earlier(timeout_s), over, read_deadline)

        def applied(reason: str) -> None:
            # Applied here and committed: so what stands at that index is what the token means.
            if reason:
                call.end(None, self._not_applied(NotApplied(reason)))
            elif not call.ended:
                answer = Answer({"index": index}, index)
                if wanted is None:
                    call.end(answer, None)
                else:
                    self.durable.wait(wanted, answer, call)

        call.wait = self._engine.when_applied(index, applied) or call.wait

    def tick(self) -> None:
        """Move logged time (leader only), so that idle sessions end everywhere alike."""
        self.propose(encode_request(Tick(self.stamp())), 5.0, _ignore)

    def query(
        self,
        level: str,
        statements: tuple[Statement, ...],
        rows_max: int,
        timeout_s: float,
        done: Done,
        *,
        token: str = "",
        max_age_s: float = 0.0,
        page_rows: int = 0,
    ) -> Cancellable | None:
        """Read at a level, all statements against one snapshot. The answer's body is an encoded
        reply. `token`: of SESSION, what the answer has to reflect; `max_age_s`: of BOUNDED. What
        comes back can be cancelled; None when it was refused. `page_rows`: of one statement, only
        so many rows, and a cursor for the rest."""
        try:
            refused = self._refusal(local=level == LOCAL)
            if refused is not None:
                raise refused
            self.admission.check_statements(statements)
            seen = self._reading.check(level, token, self._reads_waiting)
        except Error as error:
            self._executor.call_soon(done, None, error)
            return None
        self._reads_waiting += 1
        call = self.call(timeout_s, done, read_deadline)
        call.is_read = True
        self._reading.begin(level, statements, rows_max, seen, max_age_s, call, page_rows)
        return call

    def fetch(self, cursor: int, rows: int, timeout_s: float, done: Done) -> Cancellable:
        """The next rows of a cursor. The answer's body is an encoded reply."""
        call = self.call(timeout_s, done, read_deadline)
        self._executor.call_soon(self._reading.fetch, cursor, rows, call)
        return call

    def close_cursor(self, cursor: int) -> None:
        """Let go of a cursor; harmless when it is closed."""
        self._reading.cursors.close(cursor)

    def content_hash(
        self, index: int | None, timeout_s: float, done: Done, *, exact: bool = False
    ) -> None:
        """The content hash, once `index` is applied here. The answer's body is a dict. `exact`: of
        the first index from that one on at which every replica can tell it."""
        self._hashes.ask(index, timeout_s, done, exact)

    def transfer_leadership(self, target: NodeId | None, timeout_s: float, done: Done) -> None:
        """Hand leadership over to `target`, or to the most advanced follower."""
        call = self.call(timeout_s, done, write_deadline)
        self._engine.transfer_leadership(target, lambda reason: self._transferred(reason, call))

    def _transferred(self, reason: str, call: UnderWay) -> None:
        if not reason:
            call.end(Answer(None, int(self.status().applied_index)), None)
        elif reason == "not_leader":
            call.end(None, self._not_leader())
        else:
            call.end(None, OperationalError(f"no hand-over: {reason}", code="transfer"))

    def attach(self, session: SessionId) -> Error | None:
        """Why the session can't be used here; None when it can, or when only the leader knows."""
        if self._engine.status().role != "leader":
            return None
        return self.refuse_session(session)

    def drain(self, done: Callable[[], None]) -> None:
        """Admit no more, hand leadership over, let what is under way finish, then `done`."""
        if self._draining:
            return
        self._draining = True
        status = self._engine.status()
        if status.role != "leader" or len(self._identity.voters) == 1:
            self._finish(done)
            return
        self._log.info("handing_over", term=status.term)
        self._engine.transfer_leadership(
            self.successor(), lambda reason: self._handed_over(reason, done)
        )

    # ---- what it lends to its transactions

    def refuse(self) -> Error | None:
        """Why nothing is admitted here: it does not lead, or not for long."""
        refused = self._refuse()
        if refused is None and self._engine.status().role != "leader":
            return self._not_leader()
        return refused

    def confirm(self, done: Callable[[int, Error | None], None]) -> None:
        """Call `done` with a log index, once that is applied here and it is known that every write
        that was acknowledged before this call is in the log up to there."""

        def on_read_index(outcome: ReadOutcome) -> None:
            if isinstance(outcome, NotApplied):
                done(0, self._not_applied(outcome))
            else:
                done(int(outcome.index), None)

        refused = self.refuse()
        if refused is not None:
            self._executor.call_soon(done, 0, refused)
        else:
            self._engine.read_index(on_read_index)

    def applied_index(self) -> int:
        """As of now."""
        return int(self._machine.applied()[0])

    # ---- proposals

    def stamp(self) -> Stamp:
        """Time and chance for one request."""
        return Stamp(self._clock.wall_ms(), self._random.randbytes(8))

    def propose(self, payload: bytes, timeout_s: float, done: Done) -> None:
        """Into the log; `done` gets the outcome."""
        refused = self._refuse()
        if refused is not None:
            self._executor.call_soon(done, None, refused)
            return
        call = self.call(timeout_s, done, write_deadline)
        self._writes.entered(call)
        self._engine.propose(payload, lambda outcome: self._on_outcome(outcome, call))

    def propose_durably(
        self, payload: bytes, timeout_s: float, done: Done, durability: str, refuse: bool = True
    ) -> None:
        """`propose`, with a success reply only when it is as durable as is wanted (rule C3). With
        `refuse` it is not even begun while that cannot be reached."""
        durable = self.durable
        if not durability and durable.default.is_plain:
            self.propose(payload, timeout_s, done)
            return
        try:
            wanted = durable.wanted(durability)
            refused = self.refuse() if wanted is not None else None
            if wanted is not None and refused is None and refuse:
                refused = durable.refusal(wanted)
        except Error as error:
            refused = error
        if refused is not None:
            self._executor.call_soon(done, None, refused)
        elif wanted is None:
            self.propose(payload, timeout_s, done)
        else:
            level = wanted
            call = self.call(earlier(timeout_s), done, write_deadline)
            self._writes.entered(call)

            def on_outcome(outcome: ProposalOutcome) -> None:
                if isinstance(outcome, Applied):
                    self._writes.left(call)
                    durable.hold(level, Answer(outcome.reply, int(outcome.index)), call)
                else:
                    self._on_outcome(outcome, call)

            self._engine.propose(payload, on_outcome)

    def _token_at(self, index: int) -> str:
        return ReadToken(self._history, self._identity.fork, index).to_text()

    def _on_outcome(self, outcome: ProposalOutcome, call: UnderWay) -> None:
        self._writes.left(call)
        if isinstance(outcome, Applied):
            call.end(Answer(outcome.reply, int(outcome.index)), None)
        elif isinstance(outcome, OutcomeUnknown):
            call.end(
                None,
                OperationalError(
                    f"the outcome is not known: {outcome.reason}",
                    code="outcome_unknown",
                    retryable=True,
                    outcome="unknown",
                    hint="retry with the same session and sequence: it is applied at most once",
                ),
            )
        else:
            call.end(None, self._not_applied(outcome))

    def _not_applied(self, outcome: NotApplied) -> Error:
        if outcome.reason == "overloaded":
            return busy_error(RETRY_AFTER_MS, "requests")
        if outcome.reason == "not_leader":
            return self._not_leader()
        return UnavailableError(f"not applied: {outcome.reason}", hint="try another node")

    def _refuse(self) -> Error | None:
        if self._draining:
            return self._not_leader()
        refused = self._refusal(local=False) or self.read_only()
        # Who does not lead says so, whatever else is the matter.
        leads = refused is not None and self._engine.status().role == "leader"
        return refused if leads else None

    def _not_leader(self) -> Error:
        status = self._engine.status()
        leader = status.leader if status.leader != self._identity.node_id else None
        detail: dict[str, Any] = {"term": int(status.term)}
        address = self._identity.client_address(leader)
        if leader is not None and address is not None:
            detail |= {"leader": str(leader), "address": str(address)}
            return NotLeaderError(
                f"{self._identity.node_id} does not lead, {leader} does", detail=detail
            )
        return NotLeaderError(
            f"{self._identity.node_id} does not lead and knows no leader",
            hint="an election may be under way: try again, also on other nodes",
            detail=detail,
        )

    def refuse_session(self, session: SessionId) -> Error | None:
        """Why that session may not be used here; None when it may, or when only the log knows."""
        known = session.history == self._history
        if not known and session.number > self._lineage.get(session.history, -1):
            return SessionError(
                "the session belongs to another history of this cluster",
                code="session_other_history",
                outcome="unknown",
                hint="the cluster was restored or this is another cluster: open a new session",
            )
        token = self._verified.get(session.number)
        if token is None:
            token = self._machine.session_token(session.number)
            if token is None:
                # Not applied here yet, expired, or never opened: the log decides (an unknown
                # session number is a committed failure), so let it through unverified.
                return None
            if len(self._verified) >= _VERIFIED_SESSIONS_MAX:
                self._verified.pop(next(iter(self._verified)))
            self._verified[session.number] = token
        if token != session.token:
            return SessionError(
                "the session id is not genuine",
                code="session_forged",
                hint="open a new session",
            )
        return None

    # ---- calls under way

    def call(self, timeout_s: float, done: Done, late: Callable[[float], Error]) -> UnderWay:
        """Begin a call; `late` makes the error at its deadline."""
        bounded_s = min(max(timeout_s, 0.001), 3_600.0)
        call = UnderWay(self._call_over, done, late, bounded_s)
        call.slot = self._deadlines.add(call, bounded_s)
        self._under_way += 1
        return call

    def _call_over(self, call: UnderWay) -> None:
        self._under_way -= 1
        if call.is_read:
            self._reads_waiting -= 1
        if self._under_way == 0 and self._on_idle is not None:
            self._executor.call_soon(self._on_idle)
            self._on_idle = None

    def _handed_over(self, reason: str, done: Callable[[], None]) -> None:
        if reason:
            self._log.warning("hand_over_failed", reason=reason)
        self._finish(done)

    def _finish(self, done: Callable[[], None]) -> None:
        """`done` once nothing is under way: every call has a deadline, so that comes."""
        if self._under_way:
            self._on_idle = done
        else:
            done()


def _none(*, local: bool) -> Error | None:
    return None


def _ignore(_answer: Answer | None, _error: Error | None) -> None:
    pass


__all__ = ["Replica"]
