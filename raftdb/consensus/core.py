"""The member's Raft state: pysyncobj's, entered only through the wall.

No timers, no callbacks to clients, no sockets: `Core` takes one event at a time (a message, a
deadline, the journal's wake-up) and sends messages. What follows from a change (resolving
proposals, applying, timers) is the engine's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from raftdb.base.errors import FatalError, InternalError, ProtocolError
from raftdb.base.ids import Index, Term
from raftdb.base.limits import Limits
from raftdb.base.ports import Clock, Log, Random
from raftdb.consensus.electorate import Electorate
from raftdb.consensus.entry import CONFIGURATION
from raftdb.consensus.gate import PersistGate
from raftdb.consensus.intake import Intake
from raftdb.consensus.link import Links
from raftdb.consensus.log import DurableLog, LogEntry
from raftdb.consensus.membership import Configuration, Configurations, encode_configuration
from raftdb.consensus.messages import (
    Ack,
    Append,
    CopyNeeded,
    Heartbeat,
    HeartbeatAck,
    Message,
    PreVote,
    PreVoteResponse,
    RequestVote,
    TermHint,
    TimeoutNow,
    Vote,
    check_jump,
    check_terms,
)
from raftdb.consensus.port import DAMAGE, Timing
from raftdb.consensus.replication import Replicator
from raftdb.consensus.seams import Library
from raftdb.consensus.timing import LEADER_LOST_FACTOR, ROUNDS_REMEMBERED, check_timing
from raftdb.consensus.wall import LEADER, Wall


class Core:
    """One member. Every `on_…` takes one message of `peer`; all run on the loop."""

    may_lead = True
    """Otherwise it votes and follows only."""
    handed_over_term = 0
    """The term in which this leader asked another member to stand."""
    forgotten = False
    """This member's promises are lost: it takes no part (row 22)."""

    def __init__(
        self,
        *,
        node_id: str,
        configurations: Configurations,
        log: DurableLog,
        wall: Wall,
        clock: Clock,
        random: Random,
        log_port: Log,
        timing: Timing,
        limits: Limits,
        links: Links,
        on_copy_needed: Callable[[str, int], None] | None = None,
        on_configuration: Callable[[Configuration], None] | None = None,
    ) -> None:
        self.node_id = node_id
        self.electorate = Electorate(node_id, configurations, wall)
        self._on_configuration = on_configuration
        self.log = log
        self.wall = wall
        self._clock = clock
        self._log_port = log_port
        self.timing = timing
        self.links = links
        self._random = random
        self._on_copy_needed = on_copy_needed
        self.intake = Intake()
        self._campaigning = self._forced = False
        self._stand_downs: dict[str, str] = {}
        self._heard_at_s = float("-inf")
        """When the leader of this term last spoke."""
        self._verified = (0, 0)
        """(term, index): how far that term's leader has shown its log to match ours."""
        self._answering: Append | None = None
        """The Append that the library is working on, and how far it verified."""
        self._answer_cap = 0
        self._pre_vote: tuple[int, set[str]] | None = None
        self._voters: set[str] = set()
        self._count_again = False
        """Something that counts for the commit index has changed."""
        self.round = 0
        """Of the last heartbeat sent; never starts over."""
        self._round_sent_s: dict[int, float] = {}
        self._rounds_acked: dict[str, int] = {}
        self._round_trip_s: dict[str, float] = {}
        self.library = Library(
            node_id=node_id,
            peers=(),
            log=log,
            calls=self,
            clock=clock,
            random=random,
            election_min_s=timing.election_min_s,
            election_max_s=timing.election_max_s,
        )
        self.gate = PersistGate(log, self._send_held)
        self.replicator = Replicator(
            library=self.library,
            log=log,
            wall=wall,
            limits=limits,
            log_port=log_port,
            connected=links.connected,
            send=links.send,
            directory=self.electorate.directory,
        )
        self._handlers = self._handler_table()
        self.configure()

    def _handler_table(self) -> dict[type[Any], Callable[[str, Any], None]]:
        return {
            Append: self.on_append,
            Ack: self.on_ack,
            Heartbeat: self.on_heartbeat,
            HeartbeatAck: self.on_heartbeat_ack,
            PreVote: self.on_pre_vote,
            PreVoteResponse: self.on_pre_vote_response,
            RequestVote: self.on_request_vote,
            Vote: self.on_vote,
            TermHint: self.on_term_hint,
            TimeoutNow: self.on_timeout_now,
            CopyNeeded: self.on_copy_needed,
        }

    # -- who counts ------------------------------------------------------------------------------

    def configure(self) -> None:
        """Another configuration is in force, or is known to be committed (row 19)."""
        electorate = self.electorate
        electorate.update()
        self.library.set_peers(electorate.voters, electorate.learners)
        self._rounds_acked = {name: self._rounds_acked.get(name, 0) for name in electorate.peers}
        if self._on_configuration is not None:
            self._on_configuration(electorate.configurations.latest)
        self.replicator.set_peers(electorate.peers, leads=self.library.role == LEADER)
        self._count_again = True

    def append_configuration(self, configuration: Configuration) -> int:
        """As the leader: in force at once. Returns the index of its entry."""
        data = CONFIGURATION + encode_configuration(configuration)
        self.electorate.appended(self.log.last_index + 1, [(self.library.term, data)])
        index = self.append_own(data)
        self.configure()
        return index

    def settle(self) -> bool:
        """Whether another configuration is known to be committed since the last time."""
        if settled := self.electorate.settle(self.library.commit_index):
            self.configure()
        return settled

    # -- what the library calls ------------------------------------------------------------------

    def library_may_campaign(self) -> bool:
        """Row 9: only after a pre-vote, or by the leader's wish."""
        return self._campaigning

    def library_leads(self) -> None:
        """Won: begin the term at every follower."""
        self._rounds_acked = dict.fromkeys(self.electorate.peers, 0)
        self._count_again = True
        self.replicator.begin_term()

    def library_appends(self, first: int, entries: Sequence[tuple[int, bytes]]) -> None:
        """Into the log."""
        self.electorate.appended(first, entries)

    def library_truncates(self, index: int) -> None:
        """From the log."""
        self.electorate.truncated(index)

    def library_sends(self, peer: str, message: dict[str, Any]) -> None:
        """Translate, and hold what promises (row 1)."""
        kind = message["type"]
        sent: Message
        if kind == "next_node_idx":
            sent = self._make_ack(message)
        elif kind == "response_vote":
            sent = Vote(message["term"])
        elif kind == "request_vote":
            sent = RequestVote(
                message["term"],
                message["last_log_index"],
                message["last_log_term"],
                self._forced,
            )
        elif kind == "timeout_now":
            sent = TimeoutNow(message["term"])
        else:
            raise InternalError(f"pysyncobj sends {kind!r}, which no peer would understand")
        self._dispatch(peer, sent)

    def _make_ack(self, message: dict[str, Any]) -> Ack:
        append = self._answering
        if append is None:
            raise InternalError("pysyncobj answers an append that it was not given")
        term = self.library.term
        if message["success"]:
            index = self.wall.acknowledged(message["next_node_idx"] - 1, self._answer_cap)
            return Ack(term, append.sequence, True, index)
        hint = self.wall.conflict_hint(append.prev_index, self.log, self.library.commit_index)
        return Ack(term, append.sequence, False, hint)

    def _dispatch(self, peer: str, message: Message) -> None:
        if self.wall.waits_for_disk(message):
            self.gate.pass_or_hold(peer, self.links.epoch(peer), message)
        else:
            self.links.send(peer, message)

    def _send_held(self, peer: str, epoch: int, message: Message) -> None:
        # A vote is as good on a newer connection; an ack answers a message of its own connection.
        if not isinstance(message, Ack) or epoch == self.links.epoch(peer):
            self.links.send(peer, message)

    # -- messages --------------------------------------------------------------------------------

    def on_message(self, peer: str, message: Message) -> None:
        """Raises ProtocolError for what a correct peer never says."""
        handler = self._handlers.get(type(message))
        if handler is None:
            raise ProtocolError(f"{type(message).__name__} is not for the engine")
        if not self.forgotten or self.wall.heeds_forgotten(message):
            check_jump(peer, message, self.library.term)
            handler(peer, message)

    def handle(self, kind: type[Any], handler: Callable[[str, Any], None]) -> None:
        """Have messages of a type that is not for the core itself go to `handler`."""
        self._handlers[kind] = handler

    def on_append(self, peer: str, message: Append) -> None:
        """Rows 3 and 4: put at its index, commit what it verified, answer when durable."""
        check_terms(peer, message)
        if not self._accept_leader(peer, message.term):
            return
        placed = self.wall.put_at_index(message, self.log, self.library.commit_index)
        verified = self._verified[1] if self._verified[0] == message.term else 0
        left_out = bool(placed.entries) and self.intake.leaves_out(peer, message)
        # Of what is left out, as if it were on its way still, only what lies before it is here.
        shown = min(placed.verified, placed.prev_index) if left_out else placed.verified
        self._verified = (message.term, max(verified, shown))
        if left_out:
            self.library.deliver_heartbeat(peer, message.term, self.library.commit_index)
            return
        self._answering, self._answer_cap = message, placed.verified
        try:
            self.library.deliver_append(
                peer,
                message.term,
                self.wall.follower_commit(message.commit_index, placed.verified),
                (placed.prev_index, placed.prev_term),
                placed.entries,
            )
        finally:
            self._answering = None
        if self.electorate.changed:
            self.configure()

    def on_heartbeat(self, peer: str, message: Heartbeat) -> None:
        """Answered at once: it says nothing that a disk would have to hold."""
        if not self._accept_leader(peer, message.term):
            return
        verified = self._verified[1] if self._verified[0] == message.term else 0
        commit = self.wall.follower_commit(message.commit_index, verified)
        self.library.deliver_heartbeat(peer, message.term, commit)
        self.links.send(peer, HeartbeatAck(message.term, message.round))

    def _accept_leader(self, peer: str, term: int) -> bool:
        """Whether `peer` leads this term as far as this node can know; it was heard then."""
        library = self.library
        if term < library.term:
            self._hint(peer)
            return False
        if term == library.term:
            other = library.leader
            if library.role == LEADER or (other is not None and other != peer):
                raise FatalError(
                    f"{peer} leads term {term}, and so does {other}",
                    code="two_leaders",
                    hint="a member's data directory was copied or set back: find out which one",
                )
        self._heard_at_s = self._clock.monotonic_s()
        self._pre_vote = None
        return True

    def on_ack(self, peer: str, message: Ack) -> None:
        """Rows 3, 6 and 8."""
        if self._adopt(message.term):
            return
        library = self.library
        if library.role != LEADER or not self.wall.ack_counts(message.term, library.term):
            return
        if peer not in self._rounds_acked:
            return
        if message.success:
            self.replicator.on_success(peer, message)
            self._count_again = True
        else:
            self.replicator.on_reject(peer, message)
        library.note_response(peer, self._clock.monotonic_s())

    def on_heartbeat_ack(self, peer: str, message: HeartbeatAck) -> None:
        """Rows 9 and 10: this peer still takes us for the leader."""
        if self._adopt(message.term):
            return
        library = self.library
        if library.role != LEADER or not self.wall.ack_counts(message.term, library.term):
            return
        if peer not in self._rounds_acked:
            return
        if message.round > self.round:
            raise ProtocolError(f"{peer} answers heartbeat {message.round}, which was never sent")
        now_s = self._clock.monotonic_s()
        library.note_response(peer, now_s)
        self._rounds_acked[peer] = max(self._rounds_acked[peer], message.round)
        sent_s = self._round_sent_s.get(message.round)
        if sent_s is not None:
            old_s = self._round_trip_s.get(peer, now_s - sent_s)
            self._round_trip_s[peer] = old_s + (now_s - sent_s - old_s) / 8
        self.replicator.retry(peer)

    def on_pre_vote(self, peer: str, message: PreVote) -> None:
        """Row 9. Changes nothing here, so it needs no disk."""
        library, log = self.library, self.log
        if message.term < library.term:
            self._hint(peer)
            return
        last = (log.last_index, log.last_term)
        if not self.wall.grants_pre_vote(message, library.term, *last, self._hears_other(peer)):
            return
        pending = self._pre_vote is not None and self._pre_vote[0] == message.term + 1
        if pending and (message.last_index, message.last_term) == last and self.node_id < peer:
            # Both ask at once and are equally good: one of them yields, or the votes split.
            return
        self._pre_vote = None
        self._wait_before_asking()
        self.links.send(peer, PreVoteResponse(library.term, message.term + 1))

    def on_pre_vote_response(self, peer: str, message: PreVoteResponse) -> None:
        """Row 9: a majority would vote, so ask them to."""
        pending = self._pre_vote
        if pending is None or message.asked_term != pending[0]:
            return
        if pending[0] != self.library.term + 1 or self.library.role == LEADER:
            self._pre_vote = None
            return
        pending[1].update({peer}.intersection(self.electorate.voters))
        if self.wall.may_campaign(len(pending[1]), self.electorate.size):
            self.campaign(forced=False)

    def on_request_vote(self, peer: str, message: RequestVote) -> None:
        """Row 9, then the library's vote (thesis 3.6.1)."""
        library = self.library
        if message.term < library.term:
            self._hint(peer)
            return
        if not self.wall.considers_vote(message, self._hears_other(peer)):
            return
        library.deliver(
            peer,
            {
                "type": "request_vote",
                "term": message.term,
                "last_log_index": message.last_index,
                "last_log_term": message.last_term,
            },
        )

    def on_vote(self, peer: str, message: Vote) -> None:
        """Row 7."""
        if self._adopt(message.term) or message.term != self.library.term:
            return
        if peer in self.electorate.voters and self.wall.vote_counts(peer, self._voters):
            self._voters.add(peer)
            self.library.deliver(peer, {"type": "response_vote", "term": message.term})

    def on_term_hint(self, peer: str, message: TermHint) -> None:
        """A peer is in a later term. A leader whom nobody replaced there claims it again at once,
        so that a member that comes back with a high term costs one election, not one time-out.
        Not when it asked somebody to stand: requests for votes wait for the disk, hints do not."""
        library = self.library
        led, handing_over = library.role == LEADER, library.term == self.handed_over_term
        if self._adopt(message.term) and led:
            if handing_over:
                library.set_election_deadline(self._clock.monotonic_s() + library.draw_timeout_s())
            elif not message.leader_alive:
                self.on_election_deadline()

    def on_timeout_now(self, peer: str, message: TimeoutNow) -> None:
        """Thesis 3.10: the leader hands over."""
        library = self.library
        if not self.may_lead or not self.electorate.may_stand:
            return
        library.deliver(peer, {"type": "timeout_now", "term": message.term})
        if library.transfer_pending:
            self.campaign(forced=True)

    def on_copy_needed(self, peer: str, message: CopyNeeded) -> None:
        """The leader's log does not reach down to ours any more (row 13)."""
        if self._accept_leader(peer, message.term) and self._on_copy_needed is not None:
            self._on_copy_needed(peer, message.first_index)

    def set_timing(self, timing: Timing) -> None:
        """These times hold from now on. Raises ConfigError."""
        check_timing(timing)
        self.timing.take(timing)
        self.library.set_election_timeouts(timing.election_min_s, timing.election_max_s)

    def stand_down(self, cause: str, reason: str) -> None:
        """Causes add up: only when none is left this member may lead again."""
        self._stand_downs.pop(cause, None)
        if reason:
            self._stand_downs[cause] = reason
        self.may_lead = not self._stand_downs

    def refuses_copies(self) -> str:
        """Why this member's database is no good for others; `` when it is good."""
        if DAMAGE in self._stand_downs:
            return DAMAGE
        return "" if self.may_lead else "this node stands down"

    # -- deadlines -------------------------------------------------------------------------------

    def on_election_deadline(self) -> None:
        """No leader was heard: ask for pre-votes, and try again later."""
        library = self.library
        if library.role == LEADER:
            return
        if self.forgotten or not self.may_lead or not self.electorate.may_stand:
            library.set_election_deadline(0.0)
            self._wait_before_asking()
            return
        if not self.electorate.voters:
            self.campaign(forced=False)
            return
        library.set_election_deadline(0.0)
        self._wait_before_asking()
        self._pre_vote = (library.term + 1, set())
        ask = PreVote(library.term, self.log.last_index, self.log.last_term)
        for peer in self.electorate.voters:
            self.links.send(peer, ask)

    def campaign(self, *, forced: bool) -> None:
        """Stand for election in the next term."""
        self._pre_vote = None
        self._voters = set()
        self._campaigning, self._forced = True, forced
        try:
            self.library.campaign(self._clock.monotonic_s())
            if not self.electorate.is_voter:
                self.library.discount_own_vote()
        finally:
            self._campaigning = self._forced = False

    def send_heartbeats(self) -> int:
        """A round to every follower; returns its number."""
        self.round += 1
        self._round_sent_s[self.round] = self._clock.monotonic_s()
        self._round_sent_s.pop(self.round - ROUNDS_REMEMBERED, None)
        library = self.library
        message = Heartbeat(library.term, self.round, library.commit_index)
        for peer in self.electorate.peers:
            self.links.send(peer, message)
        return self.round

    def check_quorum(self) -> None:
        """Row 9: step down when no majority answers, and let those who don't know it."""
        library, timeout_s = self.library, self.timing.leader_timeout_s
        heard_s = [library.last_response_s(peer) for peer in self.electorate.voters]
        silences_s = self.electorate.silences_s(heard_s, self._clock.monotonic_s())
        if self.wall.keeps_leading(silences_s, timeout_s):
            return
        self._log_port.warning("leader_without_quorum", term=library.term)
        library.step_down()
        for peer, silence_s in zip(self.electorate.voters, silences_s, strict=False):
            if self.wall.hangs_up(silence_s, timeout_s):
                self.links.hang_up(peer)

    def advance_commit(self) -> None:
        """Rows 2 and 6; thesis 3.6.2."""
        library, log = self.library, self.log
        if not self._count_again or library.role != LEADER:
            return
        self._count_again = False
        own = self.wall.own_copy(log.last_index, log.durable_index)
        matches = [library.match_index(peer) for peer in self.electorate.holders]
        own, matches = self.electorate.holds(own, matches)
        commit = library.commit_index
        moved = self.wall.commit_index(own, matches, commit, library.term, log.term_at)
        if moved > commit:
            library.set_commit_index(moved)

    def on_durable(self) -> None:
        """The journal has synced: promises may leave, and the own copy counts."""
        self._count_again = True
        self.gate.release()

    def on_bulk(self, peer: str) -> None:
        """A piece of a long message came in, or was answered: that peer is alive."""
        library, now_s = self.library, self._clock.monotonic_s()
        if library.role == LEADER:
            if peer in self._rounds_acked:
                library.note_response(peer, now_s)
        elif library.leader == peer and not library.transfer_pending:
            self._heard_at_s = now_s
            library.set_election_deadline(now_s + library.draw_timeout_s())

    def on_disconnected(self, peer: str) -> bool:
        """The connection to the leader is gone, as when its process is killed: do not wait for the
        whole time-out. Others who still hear it refuse the pre-vote, so a mere reset of a
        connection disturbs nobody. Returns whether the election deadline came nearer."""
        library = self.library
        if library.role == LEADER or library.leader != peer:
            return False
        self._heard_at_s = float("-inf")
        soon_s = self._clock.monotonic_s() + self.timing.election_min_s * (
            LEADER_LOST_FACTOR * self._random.random()
        )
        if soon_s >= library.election_deadline_s:
            return False
        library.set_election_deadline(soon_s)
        return True

    def on_connected(self, peer: str) -> None:
        """A new connection of `peer`."""
        if self.library.role == LEADER and peer in self._rounds_acked:
            self.replicator.on_connected(peer)

    def append_own(self, data: bytes) -> int:
        """One entry of this leader's; returns its index."""
        index = self.log.last_index + 1
        self.log.append([LogEntry(Index(index), Term(self.library.term), data)])
        self.replicator.replicate_all()
        return index

    # -- views -----------------------------------------------------------------------------------

    def rounds_acked(self) -> list[int]:
        """Per other voter, the newest heartbeat round that it answered in this term."""
        return self.electorate.rounds(self._rounds_acked)

    def durable(self) -> dict[str, int]:
        """Up to which index each member is known to have this leader's log on disk: an ack leaves
        a member only when what it says is synced there (row 1), and counts in its term (row 6)."""
        durable = {peer: self.library.match_index(peer) for peer in self.electorate.peers}
        durable[self.node_id] = self.log.durable_index
        return durable

    def round_trip_s(self, peer: str) -> float | None:
        """By its answers to heartbeats; None when none was measured."""
        return self._round_trip_s.get(peer)

    def silent_s(self, peer: str) -> float:
        """As the leader: since it last answered."""
        return self._clock.monotonic_s() - self.library.last_response_s(peer)

    # -- helpers ---------------------------------------------------------------------------------

    def _hears_other(self, candidate: str) -> bool:
        """Row 9: a live leader is heard here, other than the candidate itself."""
        library = self.library
        if library.role == LEADER:
            return True
        if library.leader is None or library.leader == candidate:
            return False
        silence_s = self._clock.monotonic_s() - self._heard_at_s
        return self.wall.hears_leader(silence_s, self.timing.election_min_s)

    def _wait_before_asking(self) -> None:
        """Give an election that may be under way its time."""
        wait_s = self.timing.election_min_s * (0.3 + 0.5 * self._random.random())
        deadline_s = max(self._clock.monotonic_s() + wait_s, self.library.election_deadline_s)
        self.library.set_election_deadline(deadline_s)

    def _hint(self, peer: str) -> None:
        self.links.send(peer, TermHint(self.library.term, self._hears_other(peer)))

    def _adopt(self, term: int) -> bool:
        """Follow in a higher term; whether it was one."""
        if term <= self.library.term:
            return False
        self.library.adopt_term(term)
        return True
