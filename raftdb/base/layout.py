"""Where things are in a node's data directory.

<data_dir>/node.json     whose data it is (raftdb.base.startup)
<data_dir>/journal/      the log
<data_dir>/database/     the SQLite database, by generation
"""

from __future__ import annotations

import posixpath

JOURNAL_DIRECTORY = "journal"
DATABASE_DIRECTORY = "database"


def journal_path(data_dir: str) -> str:
    """The directory of the journal."""
    return posixpath.join(data_dir, JOURNAL_DIRECTORY)


def database_path(data_dir: str) -> str:
    """The directory of the database."""
    return posixpath.join(data_dir, DATABASE_DIRECTORY)
