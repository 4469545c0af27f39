"""The archive: log and copies of the database off-site, and the way back from there.

Owns: the format of an archive's objects, keys and sealing, stores, uploading, reading chains,
plans of restores and their execution, retention, verification.
Promises: every object is made once and verified when read; what is missing, cut, changed, swapped
or replayed is named, and never stood in for in silence; uploaders that meet do each other no harm;
a node's hot path never waits for a store.
May import: base, command, journal, machine; obstore, zstandard, cryptography (and no other room
uses obstore or zstandard).
Never: consensus, node, the network by itself; a way to delete for who uploads.
"""

from raftdb.archive.archive import Archive
from raftdb.archive.chain import Chain, Link, Problem, Timeline, load_chain, load_timeline
from raftdb.archive.envelope import Sealer
from raftdb.archive.errors import (
    ArchiveDamagedError,
    ArchiveUnavailableError,
    ChainMovedError,
    NotRestorableError,
    SupersededError,
)
from raftdb.archive.keys import KEYS_VARIABLE, Keyring, new_key_line, parse_keys
from raftdb.archive.near import Near, load_near
from raftdb.archive.plan import Plan, Point, Source, Sources
from raftdb.archive.points import load_points
from raftdb.archive.progress import NOTE_MARK, Progress
from raftdb.archive.records import ArchiveEntry, BaseRecord, Claim, Manifest, Segment
from raftdb.archive.rehearsal import Verified, Verifier
from raftdb.archive.restore import Restored, restore
from raftdb.archive.service import ArchiveService, Standing, load_keys
from raftdb.archive.store import Listed, PruneStore, Store
from raftdb.archive.stores import open_store
from raftdb.archive.writer import ChainWriter, Tail, replay_s

__all__ = [
    "KEYS_VARIABLE",
    "NOTE_MARK",
    "Archive",
    "ArchiveDamagedError",
    "ArchiveEntry",
    "ArchiveService",
    "ArchiveUnavailableError",
    "BaseRecord",
    "Chain",
    "ChainMovedError",
    "ChainWriter",
    "Claim",
    "Keyring",
    "Link",
    "Listed",
    "Manifest",
    "Near",
    "NotRestorableError",
    "Plan",
    "Point",
    "Problem",
    "Progress",
    "PruneStore",
    "Restored",
    "Sealer",
    "Segment",
    "Source",
    "Sources",
    "Standing",
    "Store",
    "SupersededError",
    "Tail",
    "Timeline",
    "Verified",
    "Verifier",
    "load_chain",
    "load_keys",
    "load_near",
    "load_points",
    "load_timeline",
    "new_key_line",
    "open_store",
    "parse_keys",
    "replay_s",
    "restore",
]
