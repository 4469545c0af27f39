"""Replace a file so that a crash at any point leaves either the old content or the new."""

from __future__ import annotations

import posixpath

from raftdb.base.ports import Files

__all__ = ["NEW_SUFFIX", "make_directory_durably", "replace_file"]

NEW_SUFFIX = ".new"
"""Ending of a file that was being written; whoever finds one after a crash may remove it."""


def replace_file(files: Files, path: str, data: bytes) -> None:
    """Write `data` to `path`; durable, name included, when this returns.

    Raises OSError; then `path` is as it was before, or (when only the directory's sync failed)
    possibly new. Nothing is tidied up then, since after a failed sync nothing should be written:
    a `.new` file may be left, and the next call writes over it.
    """
    new = path + NEW_SUFFIX
    file = files.open(new, create=True)
    try:
        file.truncate(0)
        file.write_at(0, data)
        file.sync()
    finally:
        file.close()
    files.rename(new, path)
    files.sync_directory(posixpath.dirname(path))


def make_directory_durably(files: Files, path: str) -> None:
    """Make a directory and the missing ones above it; their names are durable on return."""
    parents = [posixpath.dirname(path)]
    while not files.exists(parents[-1]) and parents[-1] not in ("", "/"):
        parents.append(posixpath.dirname(parents[-1]))
    files.make_directory(path)
    for parent in reversed(parents):
        files.sync_directory(parent)
