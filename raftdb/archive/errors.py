"""What goes wrong with an archive, told apart by what to do about it."""

from __future__ import annotations

from raftdb.base.errors import ConfigError, FatalError, OperationalError

__all__ = [
    "ArchiveDamagedError",
    "ArchiveUnavailableError",
    "ChainMovedError",
    "NotRestorableError",
    "SupersededError",
]


class ArchiveUnavailableError(OperationalError):
    """A destination does not answer, refuses, or answers too slowly: try again later."""

    default_code = "archive_unavailable"
    default_retryable = True


class ArchiveDamagedError(FatalError):
    """An object is missing, truncated, swapped, replayed or changed. `detail` has `object`.

    Nothing is taken from such an object. It is fatal for a restore that has no other source, and
    an alarm for a node, which goes on.
    """

    default_code = "archive_damaged"
    default_outcome = "not_applied"

    def __init__(self, name: str, what: str, *, hint: str = "", missing: bool = False) -> None:
        super().__init__(
            f"{name}: {what}",
            hint=hint or "restore from another destination, or to a moment before it",
            detail={"object": name},
        )
        self.name = name
        self.what = what
        self.missing = missing


class ChainMovedError(OperationalError):
    """Somebody else added the next manifest: read it, and go on from there."""

    default_code = "archive_chain_moved"
    default_retryable = True


class SupersededError(FatalError):
    """A restore claimed a later epoch of this archive: this history is over (rule A2)."""

    default_code = "superseded"


class NotRestorableError(ConfigError):
    """The archive has no such moment."""

    default_code = "not_restorable"
