"""What must be true in every run: one invariant per file.

A checker is told what the cluster's observers see and raises `Broken` at once when its invariant
does not hold. It sees the nodes from outside and trusts none of them.
"""

from tests.sim.checkers.acknowledged_kept import AcknowledgedKept
from tests.sim.checkers.applied_equal import AppliedEqual
from tests.sim.checkers.base import Broken, Checker, NodeView, told
from tests.sim.checkers.committed_stays import CommittedStays
from tests.sim.checkers.hash_equal import HashEqual
from tests.sim.checkers.indexes_forward import IndexesForward
from tests.sim.checkers.leader_completeness import LeaderCompleteness
from tests.sim.checkers.linearizable_reads import LinearizableReads
from tests.sim.checkers.log_matching import LogMatching
from tests.sim.checkers.nothing_again import NothingAgain
from tests.sim.checkers.on_the_device import OnTheDevice
from tests.sim.checkers.one_leader import OneLeader
from tests.sim.checkers.promise_durable import PromiseDurable

__all__ = [
    "AcknowledgedKept",
    "AppliedEqual",
    "Broken",
    "Checker",
    "CommittedStays",
    "HashEqual",
    "IndexesForward",
    "LeaderCompleteness",
    "LinearizableReads",
    "LogMatching",
    "NodeView",
    "NothingAgain",
    "OnTheDevice",
    "OneLeader",
    "PromiseDurable",
    "all_checkers",
    "told",
    "whole_checkers",
]


def all_checkers(*, without: type[Checker] | None = None) -> list[Checker]:
    """A fresh set for one run, perhaps without one of them."""
    kinds = (
        OneLeader,
        LogMatching,
        CommittedStays,
        LeaderCompleteness,
        AppliedEqual,
        PromiseDurable,
        AcknowledgedKept,
        LinearizableReads,
    )
    return [kind() for kind in kinds if kind is not without]


WHOLE = (
    OneLeader,
    LogMatching,
    CommittedStays,
    LeaderCompleteness,
    IndexesForward,
    AppliedEqual,
    PromiseDurable,
    OnTheDevice,
    NothingAgain,
    HashEqual,
)
"""What watches whole nodes; the workloads judge their histories themselves."""


def whole_checkers(*, without: type[Checker] | None = None) -> list[Checker]:
    """A fresh set for one run of whole nodes, perhaps without one of them."""
    return [kind() for kind in WHOLE if kind is not without]
