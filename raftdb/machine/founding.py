"""An empty database of a new history."""

from __future__ import annotations

import hashlib

import apsw

from raftdb.base.ids import HistoryId
from raftdb.machine import stored
from raftdb.machine.format import FORMAT_VERSION, HASH_BYTES, PAGE_BYTES, PREFIX, TABLES
from raftdb.machine.pages import CHECKSUM_BYTES, open_vfs
from raftdb.machine.rowhash import to_bytes
from raftdb.machine.stored import run_on

__all__ = ["found"]


def found(path: str, history: HistoryId, vfs_base: str) -> None:
    """Make the file, with all of it in the file. Raises apsw.Error."""
    vfs = open_vfs(vfs_base)
    connection = apsw.Connection(
        path, flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE, vfs=vfs.name
    )
    try:
        run = run_on(connection)
        connection.reserve_bytes("main", CHECKSUM_BYTES)
        for pragma in (
            f"page_size = {PAGE_BYTES}",
            "encoding = 'UTF-8'",
            "auto_vacuum = INCREMENTAL",
            "journal_mode = WAL",
            "synchronous = FULL",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        key = hashlib.blake2b(history.encode("ascii"), digest_size=HASH_BYTES).digest()
        with connection:
            connection.execute(TABLES)
            for name, value in (
                ("format_version", str(FORMAT_VERSION)),
                ("history", history),
                ("hash_key", key.hex()),
            ):
                run(f"INSERT INTO {PREFIX}meta VALUES (?, ?)", (name, value))
            run(f"INSERT INTO {PREFIX}applied VALUES (1, 0, 0, 0, 0, 0, ?)", (bytes(HASH_BYTES),))
            schema = stored.recomputed_hash(run, key).schema
            for kind, total in (("s", schema), ("q", to_bytes(0))):
                run(f"INSERT INTO {PREFIX}hash(kind, name, total) VALUES (?, '', ?)", (kind, total))
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    finally:
        connection.close()
