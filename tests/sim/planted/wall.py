"""The rules of the wall, each in the library's own way."""

from __future__ import annotations

from tests.sim.planted import rules
from tests.sim.planted.bug import Bug


class TruncatesWhatIsCommitted(rules.FollowerCommitsItsTail):
    """Rows 3 and 4 together: the guard that stops a node when a conflict lies below its commit
    index masks what a follower's divergent commit does to the log."""

    def put_at_index(self, message, log, commit):  # type: ignore[no-untyped-def]
        return super().put_at_index(message, log, 0)


BUGS = [
    Bug("nothing-waits-for-the-disk", "row 1", "promises leave first", rules.NothingWaits),
    Bug("acks-before-fsync", "row 1, classic", "acknowledgements leave first", rules.AcksDoNotWait),
    Bug("votes-before-fsync", "row 1", "votes leave first", rules.VotesDoNotWait),
    Bug("own-vote-before-fsync", "C1", "the candidate asks first", rules.OwnVoteDoesNotWait),
    Bug(
        "own-copy-counts-at-once",
        "row 2",
        "the leader counts itself before its disk has it",
        rules.OwnCopyCountsAtOnce,
    ),
    Bug(
        "own-copy-counts-and-applies",
        "rows 2 and C2 together",
        "and applies it",
        rules.OwnCopyCountsAndApplies,
    ),
    Bug("stock-append", "row 3", "an append deletes what follows", rules.StockAppend),
    Bug(
        "stock-append-and-next",
        "row 3, whole",
        "and success moves the next index back",
        rules.StockAppendAndNext,
    ),
    Bug(
        "truncation-below-commit",
        "rows 3 and 4 together, classic",
        "a conflict is cut out wherever it lies",
        TruncatesWhatIsCommitted,
    ),
    Bug(
        "follower-commits-its-tail",
        "row 4",
        "commit = what the leader says, verified or not",
        rules.FollowerCommitsItsTail,
    ),
    Bug(
        "acknowledges-its-tail",
        "row 5",
        "an acknowledgement speaks for all that lies here",
        rules.AcknowledgesItsTail,
    ),
    Bug("acks-of-any-term", "row 6", "old acknowledgements count", rules.AcksOfAnyTerm),
    Bug("hint-is-one-back", "row 8", "one entry back per refusal", rules.HintIsOneBack),
    Bug("no-stickiness", "row 9", "votes against a leader that is heard", rules.NoStickiness),
    Bug("leads-without-quorum", "row 9", "no check-quorum", rules.LeadsWithoutQuorum),
    Bug(
        "reads-before-the-no-op",
        "row 10, classic",
        "a new leader answers before its no-op is committed",
        rules.ReadsBeforeNoop,
    ),
    Bug(
        "reads-without-a-round",
        "row 10",
        "a leader answers because it believes to lead",
        rules.ReadsWithoutRound,
    ),
    Bug(
        "reads-before-applied",
        "row 10, C2",
        "a read does not wait for the machine",
        rules.ReadsBeforeApplied,
    ),
    Bug(
        "old-connections-and-terms",
        "rows 6 and 14 together",
        "messages of a replaced connection and of an older term count",
        rules.OldConnectionsAndTerms,
    ),
    Bug(
        "applies-before-durable",
        "C2",
        "a machine ahead of its log",
        rules.AppliesBeforeDurable,
    ),
    Bug(
        "commits-older-terms",
        "thesis 3.6.2, classic",
        "an entry of an older term commits by count",
        rules.CommitsOlderTerms,
    ),
    Bug("commits-by-minority", "thesis 3.6.2", "a majority counted short", rules.CommitsByMinority),
]
