"""Which archive a destination held when this node was last there, noted beside the node's data.

A directory that is not mounted, or a bucket that was made anew, looks like a destination that
never had an archive: an uploader would found one there, which no restore would look for.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress

from raftdb.archive import layout
from raftdb.archive.archive import Archive
from raftdb.archive.envelope import Sealer
from raftdb.archive.errors import ArchiveUnavailableError
from raftdb.archive.store import Store
from raftdb.base.atomic import replace_file
from raftdb.base.ports import Files

__all__ = ["known_path", "open_known"]

NOTE_BYTES_MAX = 4096


def known_path(data_dir: str, destination: str) -> str:
    """Where the note on a destination (by its id) is."""
    return os.path.join(data_dir, "archive", f"known-{destination}.json")


def open_known(
    store: Store, sealer: Sealer, cluster_id: str, now_ms: int, files: Files, path: str
) -> Archive:
    """The cluster's archive there, founded where there is none and this node never knew of one;
    on a lane. Raises ArchiveUnavailableError (code `archive_gone`) where the one that it knew is
    not there, or is another; and what `Archive.open_or_create` does."""
    known = _read(files, path)
    if known and store.get(layout.ROOT) is None:
        raise _gone(f"the archive {known} that was in {store.url} is not there", path)
    archive = Archive.open_or_create(store, sealer, cluster_id, now_ms)
    found = archive.root.archive
    if known and found != known:
        raise _gone(f"{store.url} holds the archive {found}, and this node knew {known}", path)
    if not known:
        # A full disk does not stand against archiving.
        with suppress(OSError):
            note = {"archive": found, "url": store.url}
            replace_file(files, path, (json.dumps(note) + "\n").encode())
    return archive


def _read(files: Files, path: str) -> str:
    """The archive's id; `` where there is no note that reads."""
    try:
        if not files.exists(path):
            return ""
        note = json.loads(files.read_file(path)[:NOTE_BYTES_MAX])
        return str(note["archive"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def _gone(what: str, path: str) -> ArchiveUnavailableError:
    return ArchiveUnavailableError(
        what,
        code="archive_gone",
        hint="check the mount and the URL: it goes on by itself when the archive is back. If that "
        f"is lost for good, and another is to begin there, delete {path} on every node",
    )
