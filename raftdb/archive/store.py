"""The Store port: objects by name, made once and never changed.

Four calls, so that faults can stand between an archive and any store. Names are relative, parts
joined by `/`. Every call may raise ArchiveUnavailableError; they block, so they are made on lanes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["Listed", "PruneStore", "Store"]


@dataclass(frozen=True, slots=True)
class Listed:
    """One object as a listing shows it."""

    name: str
    size: int
    modified_ms: int
    """Unix milliseconds by the store's clock."""


class Store(Protocol):
    """What uploading and restoring need: there is no way to delete here (rule A6)."""

    @property
    def url(self) -> str:
        """For messages; without credentials."""

    def put(self, name: str, data: bytes) -> bool:
        """Make the object, durably, if there is none of that name: whether it was made."""

    def get(self, name: str) -> bytes | None:
        """Its bytes, or None when there is none."""

    def listing(self, prefix: str, after: str = "") -> list[Listed]:
        """All objects whose names begin with the folder `prefix` (ending in /), by name; only those
        whose names sort after `after`."""


class PruneStore(Store, Protocol):
    """What pruning needs besides, with credentials of its own."""

    def delete(self, name: str) -> None:
        """Remove the object; harmless when there is none."""
