"""The durable Raft log and hard state.

Owns: segments, checksums, group commit, recovery, reading a stopped node's journal.
Promises: what `durable_index` and `durable_sequence` report survives every crash and power cut;
a torn tail is cut, anything else that does not verify raises; nothing is written after a failure.
May import: base.
Never: SQL, the network, a thread or a clock of its own; a retry of a failed write or sync.
"""

from raftdb.journal.format import HardState, LogEntry
from raftdb.journal.inspect import (
    Damage,
    JournalReport,
    SegmentReport,
    inspect_journal,
    read_entries,
    read_on,
)
from raftdb.journal.journal import Journal
from raftdb.journal.recovery import Salvage, refound_journal
from raftdb.journal.retention import Pin, RetentionBounds

__all__ = [
    "Damage",
    "HardState",
    "Journal",
    "JournalReport",
    "LogEntry",
    "Pin",
    "RetentionBounds",
    "Salvage",
    "SegmentReport",
    "inspect_journal",
    "read_entries",
    "read_on",
    "refound_journal",
]
