"""Where things are in a node's data directory.

<data_dir>/node.json     whose data it is (raftdb.base.startup)
<data_dir>/node.json.copy  the same, with its checksum
<data_dir>/journal/      the log
<data_dir>/database/     the SQLite database, by generation
<data_dir>/quarantine.json  why this node does not serve; only while it does not
<data_dir>/removed.json  this node is no member any more; only since it knows that
<data_dir>/superseded.json  the cluster goes on without these data; only since this node knows that
<data_dir>/reserve       room that is kept for the time when the disk is full
<data_dir>/amnesia.json  the end of the log is lost, and with it what this node promised
<data_dir>/amnesia/      an empty log for that time
<data_dir>/copies/       a copy of it on its way to another node, or from one
"""

from __future__ import annotations

import posixpath

JOURNAL_DIRECTORY = "journal"
DATABASE_DIRECTORY = "database"
QUARANTINE_FILE = "quarantine.json"
REMOVED_FILE = "removed.json"
SUPERSEDED_FILE = "superseded.json"
AMNESIA_FILE = "amnesia.json"
AMNESIA_DIRECTORY = "amnesia"
COPIES_DIRECTORY = "copies"
RESERVE_FILE = "reserve"


def journal_path(data_dir: str) -> str:
    """The directory of the journal."""
    return posixpath.join(data_dir, JOURNAL_DIRECTORY)


def quarantine_path(data_dir: str) -> str:
    """The file that exists while the node is quarantined."""
    return posixpath.join(data_dir, QUARANTINE_FILE)


def removed_path(data_dir: str) -> str:
    """The file that exists when the node was removed from its cluster."""
    return posixpath.join(data_dir, REMOVED_FILE)


def superseded_path(data_dir: str) -> str:
    """The file that exists when the node learned that its history was left."""
    return posixpath.join(data_dir, SUPERSEDED_FILE)


def database_path(data_dir: str) -> str:
    """The directory of the database."""
    return posixpath.join(data_dir, DATABASE_DIRECTORY)


def reserve_path(data_dir: str) -> str:
    """The file that takes up the room that is kept."""
    return posixpath.join(data_dir, RESERVE_FILE)


def copies_path(data_dir: str) -> str:
    """The directory for copies that are under way."""
    return posixpath.join(data_dir, COPIES_DIRECTORY)


def amnesia_path(data_dir: str) -> str:
    """The file that exists from the loss of the log's end until the node is what it was."""
    return posixpath.join(data_dir, AMNESIA_FILE)


def empty_log_path(data_dir: str) -> str:
    """The directory of the log that a node without memory runs on."""
    return posixpath.join(data_dir, AMNESIA_DIRECTORY)
