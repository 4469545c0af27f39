"""The engine: one member's consensus, behind `EnginePort`.

The engine owns the order of things. Every event (a message, a timer, the journal's wake-up, a call)
goes through `_event`, which does it and then takes `_step`: what follows from the state as it is
now. No batching timer, no polling: timers exist for the election deadline, the heartbeat, and a
transfer's end.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from raftdb.base.errors import InternalError, ProtocolError
from raftdb.base.ids import ClusterId, Index, NodeId
from raftdb.base.limits import DEFAULT_LIMITS, Limits
from raftdb.base.ports import Ports
from raftdb.consensus.apply import Applier
from raftdb.consensus.copies import Copies
from raftdb.consensus.core import Core
from raftdb.consensus.entry import encode_batch
from raftdb.consensus.followers_reads import FollowersReads
from raftdb.consensus.link import Link
from raftdb.consensus.log import DurableLog
from raftdb.consensus.members import Members, known_configurations
from raftdb.consensus.membership import Configuration, Member, MemberChange
from raftdb.consensus.messages import (
    NOTE_BYTES_MAX,
    PROTOCOL_VERSION,
    Hello,
    Message,
    Note,
    ReadIndex,
    ReadIndexIs,
    Superseded,
)
from raftdb.consensus.port import (
    ChangeOutcome,
    CommittedEntry,
    CopySettings,
    DurabilityLevel,
    EngineEvents,
    EngineStatus,
    Greeting,
    NotApplied,
    ProposalOutcome,
    ReadOutcome,
    ReadReady,
    StateMachine,
    Timing,
)
from raftdb.consensus.proposals import Proposals
from raftdb.consensus.reads import Reads
from raftdb.consensus.seams import PINNED_VERSION
from raftdb.consensus.timers import Timers
from raftdb.consensus.timing import check_timing
from raftdb.consensus.transfer import Transfer
from raftdb.consensus.transport import Transport, check_members, own_member
from raftdb.consensus.views import engine_status
from raftdb.consensus.waits import AppliedWaits, DurableWaits, Wait
from raftdb.consensus.wall import LEADER, Wall

FOLLOWER_BEHIND_ENTRIES = 32
"""How many committed entries a follower may hold back while its disk is busy."""


class Engine:
    """One member. Everything is called on the loop; see EnginePort for what each method promises.

    `journal` is founded and recovered; `machine` belongs to it; the node closes both, after `stop`.
    `fingerprint` names what replicas must agree on to compute alike, `former` the histories that
    `history_id` continues. `forgotten`: what this member had promised is lost, so it takes no part
    in anything; its journal is an empty one (row 22). Raises ConfigError.
    """

    _stop_done: Callable[[], None] | None = None

    def __init__(
        self,
        *,
        node_id: NodeId,
        members: Sequence[Member],
        cluster_id: ClusterId,
        journal: DurableLog,
        machine: StateMachine,
        ports: Ports,
        events: EngineEvents,
        timing: Timing | None = None,
        limits: Limits = DEFAULT_LIMITS,
        wall: Wall | None = None,
        fingerprint: bytes = b"",
        history_id: str = "",
        former: Collection[str] = (),
        copies: CopySettings | None = None,
        greeting: Greeting | None = None,
        forgotten: bool = False,
    ) -> None:
        timing, wall = (timing or Timing()).copy(), wall or Wall()
        check_timing(timing)
        others = check_members(me := own_member(node_id, members), members)
        self._ports, self._timing, self._events = ports, timing, events
        self._wall, self._limits, self._journal = wall, limits, journal
        self._started = self._stopped = self._pump_scheduled = False
        self._led_term = self._entry_sequence = 0
        """The term in which this node takes proposals and reads, 0 when it does not lead; and
        the journal sequence of the last own entry: the next is made when this is on disk."""
        self._view: tuple[int, int, object] = (-1, -1, None)
        """The library's role, term and leader as of the last step."""
        self._proposals = Proposals(limits, self._resolve)
        self._reads = Reads(wall, self._resolve)
        self._applier = self._make_applier(machine)
        self._transport = Transport(
            me=me,
            peers=others,
            hello=Hello(
                PROTOCOL_VERSION, cluster_id, node_id, history_id, PINNED_VERSION, fingerprint
            ),
            wall=wall,
            ports=ports,
            timing=timing,
            limits=limits,
            events=self,
            greeting=greeting,
            former=former,
        )
        self._core = Core(
            node_id=node_id,
            configurations=known_configurations(machine, members),
            log=journal,
            wall=wall,
            clock=ports.clock,
            random=ports.random,
            log_port=ports.log,
            timing=timing,
            limits=limits,
            links=self._transport,
            on_copy_needed=self._copy_needed,
            on_configuration=self._configured,
        )
        self._core.forgotten = forgotten
        self._waits, self._followers_reads = self._make_waits()
        self.copies = None if copies is None else self._make_copies(copies)
        self._transfer = Transfer(self._core, ports.executor, self._pump_soon)
        self._timers = Timers(self._core, ports, timing, self._event)
        self._members = Members(
            self._core, self._transport, ports, events, self._call, timing.election_min_s
        )

    def _make_waits(self) -> tuple[AppliedWaits, FollowersReads]:
        self._durable_waits = DurableWaits()
        waits = AppliedWaits(lambda: self._applier.applied)
        reads = FollowersReads(
            self._transport.send, self._ports.clock.monotonic_s, waits, self._resolve
        )
        self._core.handle(ReadIndex, self._on_read_index)
        self._core.handle(Superseded, self._transport.superseded)
        self._core.handle(ReadIndexIs, reads.on_answer)
        return waits, reads

    def _make_copies(self, settings: CopySettings) -> Copies:
        return Copies(
            settings=settings,
            ports=self._ports,
            limits=self._limits,
            wall=self._wall,
            dial=self._transport.dial_copy,
            applied=lambda: self._applier.applied,
            refuses=self._core.refuses_copies,
            first_index=lambda: self._journal.first_index,
            on_installed=lambda: self._call(self._events.on_copied),
            on_failed=self._fatal,
        )

    def _make_applier(self, machine: StateMachine) -> Applier:
        return Applier(
            machine=machine,
            log=self._journal,
            executor=self._ports.executor,
            wall=self._wall,
            own_payloads=self._proposals.payloads_at,
            on_applied=self._on_applied,
            on_batch=self._on_batch,
            on_failed=self._fatal,
            on_waiting=self._on_waiting,
        )

    # -- EnginePort ------------------------------------------------------------------------------

    def start(self) -> None:
        """Open the peer port and take part. `on_fatal` reports what goes wrong."""
        self._started = True
        try:
            self._applier.start()
            self._members.start(self._applier.applied)
        except Exception as error:
            self._fatal(error)
            return
        if self.copies is not None:
            self.copies.start()
        self._core.library.seed_applied(self._applier.applied)
        self._journal.wake(self._on_durable, self._fatal)
        self._transport.start(self._on_listening)
        self._event(self._timers.arm_election)

    def propose(self, payload: bytes, done: Callable[[ProposalOutcome], None]) -> None:
        """Replicate one request. `done` is called exactly once, never before this returns."""
        reason = self._why_not(len(payload))
        if reason:
            self._ports.executor.call_soon(self._resolve, done, NotApplied(reason))
            return
        self._proposals.add(payload, done)
        self._pump_soon()

    def read_index(self, done: Callable[[ReadOutcome], None]) -> None:
        """Confirm leadership for a linearizable read. `done` is called once, not before this
        returns; how long it waits is bounded by the leader's own time-out (check-quorum)."""
        reason = self._why_not(0)
        reads: Reads | FollowersReads = self._reads
        if reason == "not_leader" and self._started and self._core.library.leader is not None:
            reads, reason = self._followers_reads, ""
        if not reason and reads.count + len(self._waits) >= self._limits.proposals_waiting_max:
            reason = "overloaded"
        if reason:
            self._ports.executor.call_soon(self._resolve, done, NotApplied(reason))
            return
        reads.add(done)
        self._pump_soon()

    def when_applied(self, index: int, done: Callable[[str], None]) -> Wait | None:
        """Call `done` with `` once the machine has applied `index`, or with the reason why this
        node will not. Not before this returns."""
        reason = "stopping" if self._stopped else ""
        if not reason and len(self._waits) >= self._limits.proposals_waiting_max:
            reason = "overloaded"
        if reason or index <= self._applier.applied:
            self._ports.executor.call_soon(self._resolve, done, reason)
            return None
        return self._waits.add(index, lambda reason: self._resolve(done, reason))

    def when_durable(
        self, index: int, level: DurabilityLevel, done: Callable[[str], None]
    ) -> Wait | None:
        """Call `done` with `` once `level` holds up to `index`. See EnginePort."""
        reason = self._why_not(0)
        if not reason and self._durable_waits.count >= self._limits.proposals_waiting_max:
            reason = "overloaded"
        if reason:
            self._ports.executor.call_soon(self._resolve, done, reason)
            return None
        self._pump_soon()
        return self._durable_waits.add(index, level, lambda reason: self._resolve(done, reason))

    def durability_moved(self) -> None:
        """Something else that a level looks at has changed."""
        if self._durable_waits.count:
            self._pump_soon()

    def durable_indexes(self) -> Mapping[str, int]:
        """Leader: up to which index each member has the log on disk, as known here."""
        return self._core.durable()

    @property
    def applied_index(self) -> Index:
        """The last entry whose effect is committed in the machine."""
        return Index(self._applier.applied)

    def _on_read_index(self, peer: str, message: ReadIndex) -> None:
        """A follower's question."""

        def answer(outcome: ReadOutcome) -> None:
            known = isinstance(outcome, ReadReady)
            index = int(outcome.index) if isinstance(outcome, ReadReady) else 0
            self._transport.send(peer, ReadIndexIs(message.number, index, known))

        if self._why_not(0):
            answer(NotApplied("not_leader"))
        else:
            self._reads.add(answer)

    def transfer_leadership(self, target: NodeId | None, done: Callable[[str], None]) -> None:
        """Hand over to `target` (None: the most advanced). `done` gets `` or the reason why not.

        While it is under way proposals wait; bounded by twice the maximum election timeout.
        """

        def finished(reason: str) -> None:
            self._resolve(done, reason)

        if self._stopped:
            self._ports.executor.call_soon(self._resolve, done, "stopping")
            return
        self._event(self._transfer.begin, target, finished, 2 * self._timing.election_max_s)

    def change_members(self, change: MemberChange, done: Callable[[ChangeOutcome], None]) -> None:
        """One change of members (row 19). See EnginePort."""
        if self._stopped or not self._started:
            self._members.refuse(done)
            return
        self._event(self._members.change, change, done, self._transfer.active)

    def _configured(self, latest: Configuration) -> None:
        if self._started and not self._stopped:
            self._members.configured(latest)

    def tell(self, data: bytes, to: NodeId | None = None) -> None:
        """Say something to members that are connected now. See EnginePort."""
        if len(data) > NOTE_BYTES_MAX:
            raise InternalError(f"a note has {len(data)} bytes, at most {NOTE_BYTES_MAX} fit")
        if self._started and not self._stopped:
            note = Note(data)
            # Who has forgotten may not know any more who leads.
            lost, known = self._core.forgotten, self._core.electorate.peers
            for peer in self._transport.everybody() if lost else known:
                if to is None or peer == to:
                    self._transport.send(peer, note)

    def disconnect(self, peer: NodeId, reason: str) -> None:
        """Close that member's connection. See EnginePort."""
        self._transport.disconnect(peer, reason)

    def take_entries(self, takes: bool) -> None:
        """See EnginePort."""
        core = self._core
        if takes != core.intake.open and not self._stopped:
            self._event(core.intake.turn, takes, core)

    def has_lost_log(self, peer: NodeId) -> None:
        """That member says so (row 22). See EnginePort."""
        if not self._stopped and self._core.library.role == LEADER:
            self._event(self._core.replicator.forget, peer)

    def set_timing(self, timing: Timing, far: Sequence[str] = ()) -> None:
        """From now on these times hold, and these are far. See EnginePort."""
        self._transport.set_far(far)
        self._core.set_timing(timing)

    def stand_down(self, reason: str, *, cause: str = "content") -> None:
        """Never lead from now on; with `` the way is free again. See EnginePort."""
        self._core.stand_down(cause, reason)
        self._ports.log.info("stand_down", reason=reason, cause=cause)

    def step_down(self) -> None:
        """Lead no longer, without waiting for anything; harmless when it does not lead."""
        if not self._stopped and self._core.library.role == LEADER:
            self._event(self._core.library.step_down)

    def status(self) -> EngineStatus:
        """As of now."""
        running = self._started and not self._stopped
        return engine_status(self._core, running, self._applier.applied)

    def stop(self, done: Callable[[], None]) -> None:
        """Close connections and the port. Open proposals end as OutcomeUnknown, then `done`, once
        the machine has finished what it was given."""
        self._shut("stopping")
        if self._applier.busy:
            self._stop_done = done
        else:
            self._ports.executor.call_soon(self._call, done)

    # -- TransportEvents -------------------------------------------------------------------------

    def on_connected(self, peer: str) -> None:
        """A peer said hello."""
        self._event(self._core.on_connected, peer)

    def on_disconnected(self, peer: str) -> None:
        """A connection was lost."""
        self._event(self._disconnected, peer)

    def on_message(self, peer: str, message: Message) -> None:
        """Raises ProtocolError for what a correct peer never says."""
        if type(message) is Note:
            if self._events.on_note is not None and not self._stopped:
                self._call(self._events.on_note, NodeId(peer), message.data)
            return
        self._event(self._core.on_message, peer, message)

    def on_superseded(self, peer: str, history: str) -> None:
        """Nothing that this node does counts any more."""
        if not self._stopped:
            self._ports.log.error("superseded", peer=peer, history=history)
            self._call(self._events.on_superseded, peer, history)

    def on_bulk(self, peer: str) -> None:
        """A long message makes progress."""
        self._event(self._core.on_bulk, peer)

    def on_copy_open(self, link: Link) -> None:
        """Connected to fetch a copy, or somebody who wants one is."""
        if self.copies is None:
            raise ProtocolError("this node sends no copies")
        self.copies.on_open(link)

    def on_copy_message(self, link: Link, message: Message) -> None:
        """Beside everything else: nothing here touches the log."""
        if self.copies is not None and not self._stopped:
            self.copies.on_message(link, message)

    def on_copy_lost(self, link: Link, reason: str) -> None:
        """Such a connection is gone."""
        if self.copies is not None and not self._stopped:
            self.copies.on_lost(link, reason)

    def _copy_needed(self, peer: str, first_index: int) -> None:
        if self.copies is not None and self._core.intake.open:
            self.copies.need((peer,), first_index - 1)

    # -- events ----------------------------------------------------------------------------------

    def _event(self, call: Callable[..., None], *arguments: Any) -> None:
        """One event, then what follows from it. Whatever goes wrong in here stops the node: its
        state could not be relied on afterwards."""
        if self._stopped:
            return
        try:
            call(*arguments)
            self._step()
        except ProtocolError:
            raise
        except Exception as error:
            self._fatal(error)

    def _step(self) -> None:
        """What follows from the state as it is now."""
        core, journal = self._core, self._journal
        self._note_role()
        if self._led_term:
            self._make_entry()
            core.advance_commit()
            self._begin_read_round()
            if self._durable_waits.count:
                self._durable_waits.look(core.durable())
        elif self._followers_reads.count:
            self._followers_reads.step(core.library.leader, self._transport)
        if self._members.busy:
            self._members.step()
        upto = self._wall.may_apply(core.library.commit_index, journal.durable_index)
        if self._led_term or not self._acks_wait(upto):
            self._applier.advance(upto)
        if self._led_term and self._members.may_leave_office(self._applier.applied):
            self._members.leave_office()
            self._note_role()
        if self._transfer.active:
            self._transfer.step(
                drained=not self._proposals.logged and self._applier.applied == journal.last_index
            )

    def _acks_wait(self, upto: int) -> bool:
        """A follower's acknowledgement waits for the disk, and a commit for the acknowledgement:
        applying meanwhile would take the interpreter away from both. It follows when the disk has
        answered (`_on_durable` comes through here again), or when too much has gathered."""
        journal = self._journal
        return (
            journal.durable_sequence < journal.sequence()
            and upto - self._applier.applied < FOLLOWER_BEHIND_ENTRIES
        )

    def _note_role(self) -> None:
        library = self._core.library
        view = library.view()
        if view == self._view:
            return
        self._view = view
        role, term = library.role, library.term
        if self._led_term and (role != LEADER or term != self._led_term):
            self._led_term = 0
            self._proposals.fail("not_leader", "leadership_lost")
            self._reads.fail("not_leader")
            self._durable_waits.fail("not_leader")
            self._members.fail("leadership_lost")
        if role == LEADER and not self._led_term:
            self._led_term = term
            self._followers_reads.fail("not_leader")
            self._entry_sequence = self._journal.sequence()
            self._timers.arm_heartbeat()
        elif role != LEADER:
            self._timers.arm_election()
        self._ports.log.info("raft_role", role=role, term=term, leader=library.leader)
        self._call(self._events.on_role, self.status())

    def _on_durable(self) -> None:
        self._event(self._core.on_durable)

    def _on_listening(self, error: BaseException | None) -> None:
        if error is not None:
            self._fatal(error)

    # -- proposals and reads ---------------------------------------------------------------------

    def _why_not(self, size: int) -> str:
        if self._stopped:
            return "stopping"
        if not self._started or not self._wall.admits_proposal(self._core.library.role):
            return "not_leader"
        return "" if self._proposals.has_room(size) else "overloaded"

    def _pump_soon(self) -> None:
        """After what the loop has at hand: requests that came in together share one entry."""
        if not self._pump_scheduled:
            self._pump_scheduled = True
            self._ports.executor.call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_scheduled = False
        self._event(_nothing)

    def _make_entry(self) -> None:
        """All that waits becomes one entry, as soon as the disk has taken the previous one: group
        commit without a timer (row 18). Replication of earlier entries goes on meanwhile."""
        if not self._proposals.waiting or self._transfer.active:
            return
        if not self._core.electorate.is_voter:
            # It leads until its removal is committed, and makes nothing more.
            return
        if self._journal.durable_sequence < self._entry_sequence:
            return
        index = self._journal.last_index + 1
        payloads = self._proposals.take_entry(index, self._led_term)
        self._core.append_own(encode_batch(payloads))
        self._entry_sequence = self._journal.sequence()

    def _begin_read_round(self) -> None:
        """Answers first: reads that came in during a round begin theirs as soon as it ends."""
        core, reads = self._core, self._reads
        if not reads.count:
            return
        reads.on_rounds(core.rounds_acked(), self._applier.applied)
        if reads.wants_round():
            library = core.library
            if self._wall.may_read(library.commit_index, library.noop_index):
                commit = library.commit_index
                begun_s = self._ports.clock.monotonic_s()
                reads.begin_round(core.send_heartbeats(), commit, begun_s)
                # A single member is its own majority.
                reads.on_rounds(core.rounds_acked(), self._applier.applied)

    def _on_applied(self, entry: CommittedEntry, replies: Sequence[bytes]) -> None:
        self._proposals.on_applied(entry.index, entry.term, replies)

    def _on_waiting(self) -> None:
        if self._events.on_waiting is not None and not self._stopped:
            self._call(self._events.on_waiting)

    def _on_batch(self) -> None:
        if self._stopped:
            done, self._stop_done = self._stop_done, None
            if done is not None:
                self._call(done)
            return
        self._core.library.note_applied(self._applier.applied)
        self._reads.on_applied(self._applier.applied)
        self._waits.on_applied(self._applier.applied)
        self._event(_nothing)

    def _disconnected(self, peer: str) -> None:
        if self._core.on_disconnected(peer):
            self._timers.election_is_nearer()

    # -- ends ------------------------------------------------------------------------------------

    def _fatal(self, error: BaseException) -> None:
        """This node can't go on (row 17): everything ends, and the node hears why, once."""
        if self._stopped:
            return
        self._ports.log.error("consensus_fatal", error=repr(error))
        self._shut("stopped_by_error")
        self._call(self._events.on_fatal, error)

    def _shut(self, reason: str) -> None:
        if self._stopped:
            return
        self._stopped = True
        self._timers.stop()
        self._core.gate.clear()
        self._applier.stop()
        if self.copies is not None:
            self.copies.stop()
        self._transport.stop()
        self._transfer.fail(reason)
        self._members.fail(reason)
        self._proposals.fail("stopping", reason)
        self._reads.fail("stopping")
        self._followers_reads.fail("stopping")
        self._waits.fail("stopping")
        self._durable_waits.fail("stopping")

    def _resolve(self, done: Callable[[Any], None], outcome: Any) -> None:
        self._call(done, outcome)

    def _call(self, call: Callable[..., None], *arguments: Any) -> None:
        """Someone else's code: what it raises is logged and breaks nothing here (row 17)."""
        try:
            call(*arguments)
        except Exception as error:
            self._ports.log.error("consensus_callback_failed", error=repr(error))


def _nothing() -> None:
    """An event without an action of its own: only what follows."""
