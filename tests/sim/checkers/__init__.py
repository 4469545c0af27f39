"""What must be true in every run: one invariant per file.

A checker is told what the cluster's observers see and raises `Broken` at once when its invariant
does not hold. It sees the nodes from outside and trusts none of them.
"""

from tests.sim.checkers.acknowledged_committed import AcknowledgedCommitted
from tests.sim.checkers.applied_equal import AppliedEqual
from tests.sim.checkers.applied_in_log import AppliedInLog
from tests.sim.checkers.base import Broken, Checker, NodeView, told, told_of
from tests.sim.checkers.blame import blamed
from tests.sim.checkers.commit_held import CommitHeld
from tests.sim.checkers.commit_verified import CommitVerified
from tests.sim.checkers.committed_stays import CommittedStays
from tests.sim.checkers.copies_on_the_device import CopiesOnTheDevice
from tests.sim.checkers.cuts_conflicts import CutsConflicts
from tests.sim.checkers.durable_in_places import DurableInPlaces
from tests.sim.checkers.elected_by_voters import ElectedByVoters
from tests.sim.checkers.forgotten_is_silent import ForgottenIsSilent
from tests.sim.checkers.hash_equal import HashEqual
from tests.sim.checkers.indexes_forward import IndexesForward
from tests.sim.checkers.leader_completeness import LeaderCompleteness
from tests.sim.checkers.log_behind_database import LogBehindDatabase
from tests.sim.checkers.log_matching import LogMatching
from tests.sim.checkers.members_by_log import MembersByLog
from tests.sim.checkers.memory_is_disk import MemoryIsDisk
from tests.sim.checkers.nobody_waits import NobodyWaits
from tests.sim.checkers.nothing_again import NothingAgain
from tests.sim.checkers.on_the_device import OnTheDevice
from tests.sim.checkers.one_change import OneChange
from tests.sim.checkers.one_leader import OneLeader
from tests.sim.checkers.promise_durable import PromiseDurable
from tests.sim.checkers.promises_kept import PromisesKept
from tests.sim.checkers.reads_confirmed import ReadsConfirmed
from tests.sim.checkers.reads_see_acknowledged import ReadsSeeAcknowledged
from tests.sim.checkers.removed_for_good import RemovedForGood
from tests.sim.checkers.replies_at_hand import RepliesAtHand
from tests.sim.checkers.session_reads_forward import SessionReadsForward
from tests.sim.checkers.sessions_stored import SessionsStored
from tests.sim.checkers.starts_as_it_is import StartsAsItIs
from tests.sim.checkers.strays_seen import StraysSeen
from tests.sim.checkers.time_forward import TimeForward
from tests.sim.checkers.votes_once import VotesOnce

__all__ = [
    "AcknowledgedCommitted",
    "AppliedEqual",
    "AppliedInLog",
    "Broken",
    "Checker",
    "CommitHeld",
    "CommitVerified",
    "CommittedStays",
    "CopiesOnTheDevice",
    "CutsConflicts",
    "DurableInPlaces",
    "ForgottenIsSilent",
    "ElectedByVoters",
    "HashEqual",
    "IndexesForward",
    "LeaderCompleteness",
    "LogBehindDatabase",
    "LogMatching",
    "MembersByLog",
    "MemoryIsDisk",
    "NobodyWaits",
    "NodeView",
    "NothingAgain",
    "OnTheDevice",
    "OneChange",
    "OneLeader",
    "PromiseDurable",
    "PromisesKept",
    "ReadsConfirmed",
    "ReadsSeeAcknowledged",
    "RemovedForGood",
    "RepliesAtHand",
    "SessionReadsForward",
    "SessionsStored",
    "StartsAsItIs",
    "StraysSeen",
    "TimeForward",
    "VotesOnce",
    "blamed",
    "told",
    "told_of",
    "whole_checkers",
]


WHOLE = (
    OneLeader,
    LogMatching,
    CommittedStays,
    LeaderCompleteness,
    IndexesForward,
    AppliedEqual,
    AppliedInLog,
    CommitHeld,
    ElectedByVoters,
    OneChange,
    MembersByLog,
    RemovedForGood,
    PromiseDurable,
    PromisesKept,
    OnTheDevice,
    ForgottenIsSilent,
    NothingAgain,
    HashEqual,
    ReadsSeeAcknowledged,
    ReadsConfirmed,
    VotesOnce,
    LogBehindDatabase,
    CutsConflicts,
    CommitVerified,
    NobodyWaits,
    MemoryIsDisk,
    AcknowledgedCommitted,
    SessionsStored,
    SessionReadsForward,
    DurableInPlaces,
    CopiesOnTheDevice,
    TimeForward,
    RepliesAtHand,
    StartsAsItIs,
    StraysSeen,
)
"""What watches whole nodes; the workloads judge their histories themselves."""


def whole_checkers() -> list[Checker]:
    """A fresh set for one run of whole nodes."""
    return [kind() for kind in WHOLE]
