"""The wall: every guard around pysyncobj as one small, pure rule.

The library elects, matches logs and counts votes; by itself it does not keep raftdb's promises.
Each rule here closes one hole that was reproduced on the pinned version. It takes a message and a
view of the state and returns what to do; nothing here reads a clock, a disk or a socket. The number
is the row of DESIGN.md's table; "Without it" is what was seen to go wrong.

The rules are methods so that a simulation can put the library's own behaviour in place of one of
them, by a subclass, and show that it notices. Production code has no such switch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple, Protocol

from raftdb.base.errors import FatalError
from raftdb.consensus.membership import Configuration
from raftdb.consensus.messages import (
    Ack,
    Append,
    Directory,
    PreVote,
    Removed,
    RequestVote,
    Vote,
)

FOLLOWER, CANDIDATE, LEADER = "follower", "candidate", "leader"

PROMISES = (Ack, RequestVote, Vote)
"""Messages that promise something which must be on disk before they leave."""


class LogView(Protocol):
    """What the rules see of the log: entries first_index to last_index, and the term of the one
    before them (the base). What lies below was applied and dropped."""

    @property
    def first_index(self) -> int: ...
    @property
    def last_index(self) -> int: ...
    def term_at(self, index: int) -> int: ...


class Placed(NamedTuple):
    """An Append as the library may see it: it truncates after `prev_index`, then adds."""

    prev_index: int
    prev_term: int
    entries: tuple[tuple[int, bytes], ...]
    """What is really new here, after `prev_index`."""
    verified: int
    """Last index that this message showed to be the leader's; 0 when it does not match here."""


class Wall:
    """The rules. Stateless: one instance may serve many engines."""

    # -- row 1: nothing promised before it is on disk --------------------------------------------

    def waits_for_disk(self, message: object) -> bool:
        """Row 1, rule C1: acknowledgements, votes and a candidate's own vote wait for the sync.

        Without it: un-synced entries and votes are lost in a power cut, so acknowledged writes
        vanish and one node votes twice in a term.
        """
        return isinstance(message, PROMISES)

    # -- rows 2, 4, 5, 6: what counts as committed -----------------------------------------------

    def own_copy(self, last_index: int, durable_index: int) -> int:
        """Row 2: the leader's own copy counts up to what its disk has returned.

        Without it: an entry counts as held by a majority of which one copy was never written.
        """
        return min(last_index, durable_index)

    def commit_index(
        self,
        own: int,
        matches: Iterable[int],
        commit: int,
        term: int,
        term_at: Callable[[int], int],
    ) -> int:
        """Thesis 3.6.2: the highest index that a majority holds, if it is of the leader's term.

        Without the condition on the term: an entry of an older term commits by count and is then
        overwritten by a leader that never had it.
        """
        held = sorted((own, *matches), reverse=True)
        candidate = held[len(held) // 2]
        if candidate <= commit or term_at(candidate) != term:
            return commit
        return candidate

    def follower_commit(self, leader_commit: int, verified: int) -> int:
        """Row 4: a follower commits no further than this leader has shown its log to match.

        Without it: the follower commits a divergent tail behind the verified prefix and applies
        entries that exist nowhere else. (Row 5, commits from snapshot messages, cannot arise:
        there is no message that carries one.)
        """
        return min(leader_commit, verified)

    def acknowledged(self, claimed: int, verified: int) -> int:
        """Row 5: an acknowledgement claims what its message verified, not all that lies here.

        Without it: a divergent tail is acknowledged, and the leader commits entries that this
        node does not have.
        """
        return min(claimed, verified)

    def ack_counts(self, ack_term: int, term: int) -> bool:
        """Row 6: an acknowledgement counts in the term in which it was given.

        Without it: an acknowledgement of term 1, delivered late, commits entries of term 3 that
        its sender never saw.
        """
        return ack_term == term

    # -- row 3: put at index ---------------------------------------------------------------------

    def put_at_index(self, message: Append, log: LogView, commit: int) -> Placed:
        """Row 3: skip what matches, truncate only from the first conflicting term.

        Without it: every append deletes what follows its previous index, so a late or repeated
        message un-writes entries that were acknowledged. Raises FatalError when a conflict lies
        at or below the commit index: going on would replace what is committed.
        """
        prev, last = message.prev_index, log.last_index
        entries, base = message.entries, log.first_index - 1
        if prev < base:
            skipped = min(len(entries), base - prev)
            prev, entries = prev + skipped, entries[skipped:]
            if prev < base:
                # All of it lies below the base: committed long ago, so it matches.
                return Placed(last, log.term_at(last), (), prev)
            prev_term = log.term_at(prev)
        else:
            prev_term = message.prev_term
        if prev > last or log.term_at(prev) != prev_term:
            return Placed(prev, prev_term, entries, 0)
        verified = prev + len(entries)
        position = 0
        for entry_term, _data in entries:
            index = prev + 1 + position
            if index > last or log.term_at(index) != entry_term:
                break
            position += 1
        if position == len(entries):
            return Placed(last, log.term_at(last), (), verified)
        conflict = prev + 1 + position
        if conflict <= commit:
            raise FatalError(
                f"the leader's entry {conflict} differs from the one committed here",
                code="committed_conflict",
                hint="this node's log or the leader's is damaged: keep both data directories",
            )
        before = conflict - 1
        return Placed(before, log.term_at(before), entries[position:], verified)

    def next_after_success(self, before: int, after: int) -> int:
        """Row 3: success never moves the next index back.

        Without it: whatever is in flight is sent again with each acknowledgement, and with
        truncating appends that loses acknowledged entries by delays alone.
        """
        return max(before, after)

    # -- rows 11 to 13: copies of the database -------------------------------------------------

    def same_copy(self, have: bytes, offered: bytes) -> bool:
        """Row 12: what is there of a copy is gone on with only if it is of that very copy.

        Without it: the beginning of one copy and the end of another make a database that never was.
        """
        return have == offered

    def copy_counts(self, log_index: int, applied: int, damaged: bool) -> bool:
        """Row 13: a copy of what is applied here already is not installed, unless the database
        here is damaged.

        Without it: a copy that comes late takes the database back behind entries whose log may be
        gone by now.
        """
        return damaged or log_index > applied

    def keeps_log(self, log: LogView, index: int, term: int) -> bool:
        """Row 12: a log that holds the copy's last entry stays, and what is behind it too.

        Without it: entries that this node acknowledged vanish, and a majority no longer has them.
        """
        return log.first_index - 1 <= index <= log.last_index and log.term_at(index) == term

    # -- row 7: votes ----------------------------------------------------------------------------

    def vote_counts(self, voter: str, voters: Collection[str]) -> bool:
        """Row 7: one vote per voter and term.

        Without it: a repeated answer elects a leader whom a minority chose.
        """
        return voter not in voters

    # -- row 8: finding the place where logs part ------------------------------------------------

    def conflict_hint(self, refused: int, log: LogView, commit: int) -> int:
        """Row 8: answer a refusal with where to go on, past a whole conflicting term.

        Without it: 10,000 divergent entries take 10,000 heartbeats.
        """
        if refused > log.last_index:
            return log.last_index + 1
        if refused < log.first_index:
            return log.first_index
        term = log.term_at(refused)
        low, high = log.first_index, refused
        while low < high:
            middle = (low + high) // 2
            if log.term_at(middle) < term:
                low = middle + 1
            else:
                high = middle
        return max(low, min(commit + 1, refused))

    def reject_counts(self, sequence: int, generation: int) -> bool:
        """Row 8: a refusal counts when it answers something sent after the last rewind.

        Without it: refusals of messages already in flight rewind again and again, for ever.
        """
        return sequence > generation

    def next_after_reject(self, hint: int, match: int, last_index: int) -> int:
        """Row 8: back to the hint, yet never below what is known to match.

        Without it: a late refusal makes the leader send what the follower has acknowledged.
        """
        return max(min(hint, last_index + 1), match + 1)

    # -- row 9: disturbing a healthy leader ------------------------------------------------------

    def hears_leader(self, silence_s: float, election_min_s: float) -> bool:
        """Row 9: a leader was heard within the minimum election timeout."""
        return silence_s < election_min_s

    def grants_pre_vote(
        self, message: PreVote, term: int, last_index: int, last_term: int, hears_other: bool
    ) -> bool:
        """Row 9, thesis 9.6: would this node vote so, and is there no live leader?

        Without it: a node that was cut off raises its term and deposes a healthy leader when it
        comes back.
        """
        if hears_other or message.term < term:
            return False
        return (message.last_term, message.last_index) >= (last_term, last_index)

    def considers_vote(self, message: RequestVote, hears_other: bool) -> bool:
        """Row 9, thesis 4.2.3: a request to vote against a leader that is heard is not even read,
        unless that leader itself asked for the election."""
        return message.forced or not hears_other

    def may_campaign(self, grants: int, members: int) -> bool:
        """Row 9: an election starts only when a majority would take part."""
        return grants + 1 > members / 2

    def keeps_leading(self, silences_s: Iterable[float], leader_timeout_s: float) -> bool:
        """Row 9: check-quorum. A leader that no majority answers steps down.

        Without it: a leader on the small side of a split keeps its clients waiting for 30 s.
        """
        heard, members = 1, 1
        for silence_s in silences_s:
            members += 1
            heard += silence_s < leader_timeout_s
        return heard > members / 2

    def hangs_up(self, silence_s: float, leader_timeout_s: float) -> bool:
        """Row 9: a leader that steps down breaks its connections to those who did not answer.

        Without it: followers that hear it, and that it does not hear, go on following it for an
        election time-out, and then grant it pre-votes, again and again, that it does not hear
        either; each grant makes them wait before they ask themselves.
        """
        return silence_s >= leader_timeout_s

    # -- row 10: linearizable reads --------------------------------------------------------------

    def may_read(self, commit: int, noop_index: int) -> bool:
        """Row 10, thesis 6.4: reads wait until the term's no-op is committed.

        Without it: a new leader does not know yet what its predecessor acknowledged, and answers
        from before it.
        """
        return commit >= noop_index

    def read_confirmed(self, round_sent: int, rounds_acked: Iterable[int]) -> bool:
        """Row 10: a majority answered a heartbeat sent after the read came in.

        Without it: a deposed leader answers from the past.
        """
        heard, members = 1, 1
        for acked in rounds_acked:
            members += 1
            heard += acked >= round_sent
        return heard > members / 2

    def read_index_reached(self, read_index: int, applied: int) -> bool:
        """Row 10, rule C2: the machine has applied what was committed when the read came in."""
        return applied >= read_index

    # -- row 19: members that come and go --------------------------------------------------------

    def electorate(self, latest: Configuration, committed: Configuration) -> tuple[str, ...]:
        """Row 19, thesis 4.1: who counts in elections, commits and reads: the voters of the latest
        configuration in this member's log, committed or not, and nobody else.

        Without it: two majorities that share no member, so two leaders acknowledge; or a learner's
        copy is taken for a voter's, and what was acknowledged is on no majority.
        """
        return latest.voters

    def holders(self, latest: Configuration, committed: Configuration) -> tuple[str, ...]:
        """Row 19: whose copies make an entry committed: the electorate's.

        Without it: learners' copies count, which nobody asks when the next leader is elected.
        """
        return self.electorate(latest, committed)

    def change_after_noop(self, commit: int, noop_index: int) -> bool:
        """Row 19: no change before an entry of the leader's own term is committed (the flaw in the
        thesis's first form, raft-dev 2015).

        Without it: two leaders of neighbouring terms each add a member to a configuration that the
        other never saw, and their majorities need not meet.
        """
        return commit >= noop_index

    def change_alone(self, uncommitted_index: int) -> bool:
        """Row 19: one change at a time: the one before is committed.

        Without it: two changes in flight make majorities that do not overlap.
        """
        return uncommitted_index == 0

    def keeps_configuration(self, index: int, truncated_from: int) -> bool:
        """Row 19: a configuration goes with its entry when the log is cut.

        Without it: a member counts by a list of members that no log holds any more.
        """
        return index < truncated_from

    def may_stand(self, node_id: str, latest: Configuration, committed: Configuration) -> bool:
        """Row 19, thesis 4.2.2: voters stand for election; so does one whose removal is in its log
        and not committed as far as it knows, since it may be the only one with that entry.

        Without it: learners campaign, or a member that was removed disturbs the others for ever.
        """
        return node_id in latest.voters or node_id in committed.voters

    def refuses_removed(self, node_id: str, committed: Configuration) -> bool:
        """Row 19: who was removed is told so, and not listened to. Not before that is committed.

        Without it: a member that never heard of its removal goes on asking for votes.
        """
        return node_id in committed.removed

    # -- row 22: a member that has lost what it promised -----------------------------------------

    def heeds_forgotten(self, message: object) -> bool:
        """Row 22: a member whose votes and entries are lost takes no part: as if it were down. It
        hears only who the members are, and that it is none any more.

        Without it: it votes for a candidate without the entries that it had acknowledged, or a
        second time in a term; it acknowledges a leader that it had voted out of office.
        """
        return isinstance(message, Directory | Removed)

    def still_has(self, match: int) -> int:
        """Row 22: a member that says it has lost its log has nothing, whatever it acknowledged.

        Without it: as a voter again, it counts for entries that it held before.
        """
        return 0

    # -- rows 14, 16, rule C2 --------------------------------------------------------------------

    def connection_counts(self, epoch: int, current: int) -> bool:
        """Row 14: only the newest connection of a peer speaks for it.

        Without it: a connection that was replaced keeps delivering messages of its past.
        """
        return epoch == current

    def admits_proposal(self, role: str) -> bool:
        """Row 16: only a leader takes proposals; nobody forwards them.

        Without it: the library's forwarding retries by itself and applies a command twice.
        """
        return role == LEADER

    def may_apply(self, commit: int, durable_index: int) -> int:
        """Rule C2: apply what is committed and on this node's own disk too.

        Without it: after a power cut the database is ahead of its own journal, and the node has no
        log that leads to what it shows.
        """
        return min(commit, durable_index)
