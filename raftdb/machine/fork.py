"""A restored database: the same rows in a new history, or without raftdb's own tables.

A new history begins where the old one was left (rule S4). Sessions of the old one stay good, so
that clients' retries find their replies, or are forgotten.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

import apsw

from raftdb.base.errors import ConfigError
from raftdb.base.ids import HistoryId, Index
from raftdb.base.ports import Files
from raftdb.command.requests import session_number
from raftdb.machine import failures, generations, stored
from raftdb.machine.format import DATABASE_FILE, OWN_TABLES, PREFIX
from raftdb.machine.pages import open_vfs
from raftdb.machine.stored import run_on

__all__ = ["begin_history", "make_plain"]


def begin_history(
    directory: str,
    history: HistoryId,
    lineage: Sequence[tuple[HistoryId, Index, int]],
    *,
    files: Files,
) -> None:
    """Make the closed database in `directory` the beginning of a new history.

    `lineage` has the histories that it continues, each with where it was left: (history, index,
    requests of the next entry); those that the database knows of already stay. Sessions stay
    then, and those that were opened before are good.
    Without any it is a line of its own, and all sessions are forgotten. Raises ConfigError and
    FatalError.
    """
    generation = generations.current(files, directory)
    if generation is None:
        raise ConfigError(f"{directory} has no database", code="database_missing")
    path = os.path.join(generation, DATABASE_FILE)
    connection = _open(path)
    try:
        run = run_on(connection)
        before = dict(stored.read_meta(run, path).lineage) if lineage else {}
        known = before | {
            name: session_number(index + 1, position) - 1 for name, index, position in lineage
        }
        with connection:
            if not known:
                for table in ("session", "reply", "key", "horizon"):
                    run(f"DELETE FROM {PREFIX}{table}")
            # The members of the old cluster are not those of the new one.
            run(f"DELETE FROM {PREFIX}meta WHERE key = 'configuration'")
            for key, value in (("history", history), ("lineage", json.dumps(list(known.items())))):
                run(f"INSERT OR REPLACE INTO {PREFIX}meta VALUES (?, ?)", (key, value))
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    except apsw.Error as error:
        raise failures.fatal(error, f"writing {path}") from error
    finally:
        connection.close(True)


def make_plain(path: str) -> None:
    """Take raftdb's own tables out of a database's file, which nobody has open: what is left is the
    users' alone. Rows keep their rowids. Raises FatalError."""
    connection = _open(path)
    try:
        for table in sorted(OWN_TABLES):
            connection.execute(f"DROP TABLE IF EXISTS {table}")
        connection.execute("PRAGMA journal_mode = DELETE").fetchall()
    except apsw.Error as error:
        raise failures.fatal(error, f"writing {path}") from error
    finally:
        connection.close(True)


def _open(path: str) -> apsw.Connection:
    try:
        vfs = open_vfs("").name
        connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE, vfs=vfs)
    except apsw.Error as error:
        raise failures.fatal(error, f"opening {path}") from error
    connection.execute("PRAGMA synchronous = FULL").fetchall()
    return connection
