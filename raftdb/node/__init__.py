"""One replica: what stands between a client's request and the log.

Owns: admission (leadership, bounds, stamps), the wait for the outcome, read levels, housekeeping
(checkpoints, logged ticks), comparing with other replicas, draining.
Promises: every call ends once, within its deadline, with a reply or an error that says whether it
took effect. A read never sees less than its level allows.
May import: consensus, machine, journal, command, base.
Never: a socket, a thread, a clock of its own; SQL; the client protocol.
"""

from raftdb.machine import cursor_gone
from raftdb.node.admission import Admission
from raftdb.node.amnesia import MARK as AMNESIA_MARK
from raftdb.node.amnesia import Forgetful, Reliever
from raftdb.node.calls import Answer, Done
from raftdb.node.comparison import Comparison
from raftdb.node.copying import MachineCopies
from raftdb.node.diskspace import FULL as DISK_FULL
from raftdb.node.diskspace import DiskSpace, Room
from raftdb.node.diskwatch import DiskWatch
from raftdb.node.goals import Goals
from raftdb.node.healing import Healing, damage_facts, quarantined
from raftdb.node.housekeeping import Housekeeping
from raftdb.node.identity import Identity
from raftdb.node.membership import Membership
from raftdb.node.pace import Pace
from raftdb.node.preference import Preference
from raftdb.node.proximity import MARK as PROXIMITY_MARK
from raftdb.node.proximity import Proximity
from raftdb.node.reading import RETRY_AFTER_MS, busy_error
from raftdb.node.releases import Releases
from raftdb.node.replica import Cancellable, Replica
from raftdb.node.scrub_content import ContentScrub
from raftdb.node.scrub_files import FileScrub
from raftdb.node.transactions import Transaction
from raftdb.node.verdicts import Verdicts

__all__ = [
    "AMNESIA_MARK",
    "DISK_FULL",
    "RETRY_AFTER_MS",
    "Admission",
    "Answer",
    "Cancellable",
    "Comparison",
    "ContentScrub",
    "DiskSpace",
    "DiskWatch",
    "Done",
    "Forgetful",
    "Goals",
    "Healing",
    "Housekeeping",
    "Identity",
    "Membership",
    "MachineCopies",
    "PROXIMITY_MARK",
    "Pace",
    "Preference",
    "Proximity",
    "Releases",
    "Reliever",
    "Replica",
    "Room",
    "FileScrub",
    "Transaction",
    "Verdicts",
    "busy_error",
    "cursor_gone",
    "damage_facts",
    "quarantined",
]
