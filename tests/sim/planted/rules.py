"""The rules of the wall, each in the library's own way: what planted bugs and the transcripts of
tests/consensus put in a rule's place. The switch is a subclass here; production code has none.

Some rules are masked by others (a guard behind a guard): those are removed together.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from raftdb.consensus.membership import Configuration
from raftdb.consensus.messages import Ack, Append, PreVote, RequestVote, Vote
from raftdb.consensus.wall import LogView, Placed, Wall


class NothingWaits(Wall):
    """Row 1: promises leave before the disk has them."""

    def waits_for_disk(self, message: object) -> bool:
        return False


class AcksDoNotWait(Wall):
    """Row 1, only acknowledgements."""

    def waits_for_disk(self, message: object) -> bool:
        return super().waits_for_disk(message) and not isinstance(message, Ack)


class VotesDoNotWait(Wall):
    """Row 1, only votes."""

    def waits_for_disk(self, message: object) -> bool:
        return super().waits_for_disk(message) and not isinstance(message, Vote)


class OwnVoteDoesNotWait(Wall):
    """Rule C1: request_vote leaves before the candidate's own vote is on disk."""

    def waits_for_disk(self, message: object) -> bool:
        return super().waits_for_disk(message) and not isinstance(message, RequestVote)


class OwnCopyCountsAtOnce(Wall):
    """Row 2."""

    def own_copy(self, last_index: int, durable_index: int) -> int:
        return last_index


class OwnCopyCountsAndApplies(OwnCopyCountsAtOnce):
    """Row 2 together with C2's rule, which masks it: what is applied here is on this disk too."""

    def may_apply(self, commit: int, durable_index: int) -> int:
        return commit


class StockAppend(Wall):
    """Row 3: everything after the previous index is deleted."""

    def put_at_index(self, message: Append, log: LogView, commit: int) -> Placed:
        verified = message.prev_index + len(message.entries)
        return Placed(message.prev_index, message.prev_term, message.entries, verified)


class StockAppendAndNext(StockAppend):
    """Row 3, whole: and success moves the next index back."""

    def next_after_success(self, before: int, after: int) -> int:
        return after


class FollowerCommitsItsTail(Wall):
    """Row 4."""

    def follower_commit(self, leader_commit: int, verified: int) -> int:
        return leader_commit


class AcknowledgesItsTail(Wall):
    """Row 5."""

    def acknowledged(self, claimed: int, verified: int) -> int:
        return claimed


class AcksOfAnyTerm(Wall):
    """Row 6."""

    def ack_counts(self, ack_term: int, term: int) -> bool:
        return True


class CommitsOlderTerms(Wall):
    """Thesis 3.6.2, figure 3.7: an entry of an older term commits by count."""

    def commit_index(
        self,
        own: int,
        matches: Iterable[int],
        commit: int,
        term: int,
        term_at: Callable[[int], int],
    ) -> int:
        held = sorted((own, *matches), reverse=True)
        return max(commit, held[len(held) // 2])


class CommitsByMinority(Wall):
    """A majority counted wrongly by one."""

    def commit_index(
        self,
        own: int,
        matches: Iterable[int],
        commit: int,
        term: int,
        term_at: Callable[[int], int],
    ) -> int:
        held = sorted((own, *matches), reverse=True)
        candidate = held[len(held) // 2 - 1]
        return candidate if candidate > commit and term_at(candidate) == term else commit


class HintIsOneBack(Wall):
    """Row 8: one entry per refusal. Slow, not wrong."""

    def conflict_hint(self, refused: int, log: LogView, commit: int) -> int:
        return min(refused, log.last_index + 1)


class AnyRejectRewinds(Wall):
    """Row 8: refusals of older messages count too, below what matches."""

    def reject_counts(self, sequence: int, generation: int) -> bool:
        return True

    def next_after_reject(self, hint: int, match: int, last_index: int) -> int:
        return max(1, min(hint, last_index + 1))


class NoStickiness(Wall):
    """Row 9: votes against a leader that is heard."""

    def grants_pre_vote(
        self, message: PreVote, term: int, last_index: int, last_term: int, hears_other: bool
    ) -> bool:
        return True

    def considers_vote(self, message: RequestVote, hears_other: bool) -> bool:
        return True

    def may_campaign(self, grants: int, members: int) -> bool:
        return True


class LeadsWithoutQuorum(Wall):
    """Row 9: no check-quorum."""

    def keeps_leading(self, silences_s: Iterable[float], leader_timeout_s: float) -> bool:
        return True


class ReadsBeforeNoop(Wall):
    """Row 10."""

    def may_read(self, commit: int, noop_index: int) -> bool:
        return True


class ReadsWithoutRound(Wall):
    """Row 10: a leader answers because it believes to lead."""

    def read_confirmed(self, round_sent: int, rounds_acked: Iterable[int]) -> bool:
        return True


class ReadsBeforeApplied(Wall):
    """Row 10, rule C2."""

    def read_index_reached(self, read_index: int, applied: int) -> bool:
        return True


class OldConnectionsSpeak(Wall):
    """Row 14."""

    def connection_counts(self, epoch: int, current: int) -> bool:
        return True


class OldConnectionsAndTerms(OldConnectionsSpeak, AcksOfAnyTerm):
    """Rows 6 and 14 together: each masks the other over ordered streams."""


class AppliesBeforeDurable(Wall):
    """Rule C2: the machine gets ahead of its own journal."""

    def may_apply(self, commit: int, durable_index: int) -> int:
        return commit


class CountsEveryVote(Wall):
    """Row 7."""

    def vote_counts(self, voter: str, voters: Collection[str]) -> bool:
        return True


class InstallsOldCopies(Wall):
    """Row 13: a copy of what is applied already is installed."""

    def copy_counts(self, log_index: int, applied: int, damaged: bool) -> bool:
        return True


class MixesCopies(Wall):
    """Row 12: the beginning of one copy is gone on with from another."""

    def same_copy(self, have: bytes, offered: bytes) -> bool:
        return True


class DropsLogBehindCopy(Wall):
    """Row 12: a log that holds the copy's last entry goes, and what was acknowledged behind it."""

    def keeps_log(self, log: LogView, index: int, term: int) -> bool:
        return False


class ChangesBeforeNoop(Wall):
    """Row 19: a new leader changes members before an entry of its own term is committed."""

    def change_after_noop(self, commit: int, noop_index: int) -> bool:
        return True


class TwoChangesAtOnce(Wall):
    """Row 19: changes do not wait for each other."""

    def change_alone(self, uncommitted_index: int) -> bool:
        return True


class OldQuorumCounts(Wall):
    """Row 19: the voters of the committed configuration count, not those of the latest one."""

    def electorate(self, latest: Configuration, committed: Configuration) -> tuple[str, ...]:
        return committed.voters


class KeepsCutConfigurations(Wall):
    """Row 19: a configuration stays in force when its entry is cut from the log."""

    def keeps_configuration(self, index: int, truncated_from: int) -> bool:
        return True


class LearnersCopiesCount(Wall):
    """Row 19: a learner's acknowledgement is taken for a voter's."""

    def holders(self, latest: Configuration, committed: Configuration) -> tuple[str, ...]:
        return (*latest.voters, *latest.learners)


class AnybodyStands(Wall):
    """Row 19: learners and removed members campaign."""

    def may_stand(self, node_id: str, latest: Configuration, committed: Configuration) -> bool:
        return True


class RemovedDisturbs(AnybodyStands, NoStickiness):
    """Rows 9 and 19: nobody tells a removed member, and nothing stops its campaigns."""

    def refuses_removed(self, node_id: str, committed: Configuration) -> bool:
        return False
