"""The errors that the journal raises, each with what, where and what to do."""

from __future__ import annotations

import errno

from raftdb.base.errors import ConfigError, FatalError, JournalCorruptError
from raftdb.journal.format import FormatError, UnknownVersionError

__all__ = ["corrupt", "format_problem", "io_problem", "opening_problem"]

_CORRUPT_HINT = (
    "a member of a cluster asks the others to relieve it of its vote, and begins anew with a copy "
    "(raftdb status tells); one that is alone keeps the directory and is restored from the archive "
    "(raftdb restore)"
)
_IO_HINTS = {
    errno.ENOSPC: "free some space on that file system, then start the node again",
    errno.EDQUOT: "raise the quota, then start the node again",
    errno.EFBIG: "raise the limit on file sizes, then start the node again",
    errno.EROFS: "the file system is read-only: find out why, then start the node again",
    errno.EMFILE: "raise the limit on open files, then start the node again",
}
_IO_HINT = "check the device and the kernel's log, then start the node again"


_ACCESS_HINT = (
    "all of a node's files belong to the user that runs it: look for some that another one made "
    "(a command that was run as root, say), and give them back (chown -R)"
)


def corrupt(path: str, offset: int, text: str) -> JournalCorruptError:
    """Something that was durable does not verify."""
    return JournalCorruptError(
        f"the journal is damaged: {path}, offset {offset}: {text}",
        hint=_CORRUPT_HINT,
        detail={"file": path, "offset": offset},
    )


def format_problem(path: str, problem: FormatError, base: int = 0) -> ConfigError | FatalError:
    """A FormatError found in `path`; its offset counts from `base`."""
    if isinstance(problem, UnknownVersionError):
        return ConfigError(
            f"{path} has {problem.text}",
            hint="start it with the release of raftdb that wrote it, or a later one",
        )
    return corrupt(path, base + problem.offset, problem.text)


def opening_problem(doing: str, error: OSError) -> ConfigError | FatalError:
    """The same at a start, when nothing was written yet: what this user may not do is no damage."""
    if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
        return io_problem(doing, error)
    return ConfigError(
        f"{doing} failed: {error}",
        code="journal_access",
        hint=_IO_HINTS.get(error.errno, _ACCESS_HINT),
    )


def io_problem(doing: str, error: OSError) -> FatalError:
    """The system refused. Nothing is tried again: what a failed sync left is unknown."""
    return FatalError(
        f"{doing} failed: {error}",
        code="journal_io",
        hint=_IO_HINTS.get(error.errno or 0, _IO_HINT),
        detail={"file": str(error.filename or ""), "errno": error.errno or 0},
    )
