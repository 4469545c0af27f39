"""pysyncobj behind its wall: one log, the same on a majority, durably.

Owns: the Raft engine (elections, replication, commit, linearizable reads, transfer of leadership),
the members' own transport, and every touch of pysyncobj.
Promises: nothing is acknowledged, voted or asked for before it is on disk; a committed entry is
never replaced; each proposal gets exactly one outcome; nothing that came from outside is unpickled.
May import: base, journal (entry and hard state), pysyncobj (only in seams), msgpack,
zstandard (only in packing).
Never: SQL, commands, a thread, a socket, a file or a clock of its own.
"""

from raftdb.consensus.engine import Engine
from raftdb.consensus.port import (
    DAMAGE,
    Applied,
    CommittedEntry,
    Copied,
    CopyJob,
    CopySettings,
    CopyStore,
    DurabilityLevel,
    EngineEvents,
    EnginePort,
    EngineStatus,
    Greeting,
    Member,
    NotApplied,
    OutcomeUnknown,
    PeerStatus,
    ProposalOutcome,
    ReadOutcome,
    ReadReady,
    StateMachine,
    Timing,
    Waiting,
)

__all__ = [
    "DAMAGE",
    "Applied",
    "CommittedEntry",
    "Copied",
    "CopyJob",
    "CopySettings",
    "CopyStore",
    "DurabilityLevel",
    "Engine",
    "EngineEvents",
    "EnginePort",
    "EngineStatus",
    "Greeting",
    "Member",
    "NotApplied",
    "OutcomeUnknown",
    "PeerStatus",
    "ProposalOutcome",
    "ReadOutcome",
    "ReadReady",
    "StateMachine",
    "Timing",
    "Waiting",
]
