"""The state machine: SQLite, the same on every replica.

Owns: the database's files, apply, sessions, determinism, the content hash, queries, checkpoints,
copies of the database.
Promises: equal entries give equal content, equal replies and equal hashes, whatever this process
lived through; an entry's effect, its replies, the hash and the applied index are one transaction.
May import: base, command; apsw (and no other room does).
Never: the network, consensus, a clock or a random number that is not the request's.
"""

from raftdb.machine.absent import AbsentMachine
from raftdb.machine.captures import Capture, CaptureJob, write_description
from raftdb.machine.fingerprint import Fingerprint, arithmetic_sample, fingerprint
from raftdb.machine.fork import begin_history, make_plain
from raftdb.machine.format import CAPTURE_FILE, DATABASE_FILE, PAGE_BYTES
from raftdb.machine.inspect import DatabaseReport, SessionReport, TableReport, inspect_database
from raftdb.machine.machine import Machine
from raftdb.machine.reader import QueryStop
from raftdb.machine.rowhash import ContentHash
from raftdb.machine.samples import MARK_EVERY, Sample
from raftdb.machine.scan import Part
from raftdb.machine.sqltext import leading_verb
from raftdb.machine.statements import check_no_listing
from raftdb.machine.streams import RowStream, cursor_gone
from raftdb.machine.workspace import Executed, Workspace

__all__ = [
    "CAPTURE_FILE",
    "DATABASE_FILE",
    "MARK_EVERY",
    "PAGE_BYTES",
    "AbsentMachine",
    "Capture",
    "CaptureJob",
    "ContentHash",
    "DatabaseReport",
    "Executed",
    "Fingerprint",
    "Machine",
    "Part",
    "QueryStop",
    "RowStream",
    "Sample",
    "SessionReport",
    "TableReport",
    "Workspace",
    "arithmetic_sample",
    "begin_history",
    "check_no_listing",
    "cursor_gone",
    "fingerprint",
    "inspect_database",
    "leading_verb",
    "make_plain",
    "write_description",
]
