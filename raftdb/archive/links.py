"""The links of a chain, packed: some 0.4 KB each instead of 1.5, since a chain may have a hundred
thousand, and most of them are looked at once or twice.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, fields
from typing import Any

import msgpack

from raftdb.archive.records import Manifest

__all__ = ["KINDS", "Link", "Links"]

KINDS = ("segment", "base", "gap", "mark", "verified")
_OTHER = len(KINDS)
_FIELDS = tuple(one.name for one in fields(Manifest))
_SHARED = tuple(_FIELDS.index(name) for name in ("history", "node", "build", "kind"))
"""Fields of which a chain has few values: kept once."""


@dataclass(frozen=True, slots=True)
class Link:
    """A manifest, verified."""

    manifest: Manifest
    name: str
    digest: bytes
    adopted: bool = False
    """Made up from a segment, or a second copy, whose manifest is missing."""
    merged_from: int = 0
    """It stands for all manifests from this one to its own, whose segments were made one; 0: for
    its own alone."""
    merged_ms: int = 0
    """When they were."""

    @property
    def begins(self) -> int:
        """The first manifest that it stands for."""
        return self.merged_from or self.manifest.sequence


class Links(MutableMapping[int, Link]):
    """By sequence."""

    __slots__ = ("_numbers", "_rows", "_shared")

    def __init__(self) -> None:
        self._rows: dict[int, bytes] = {}
        """Kind (a byte), then MessagePack of all values."""
        self._shared: list[Any] = []
        self._numbers: dict[Any, int] = {}
        """By shared value: its place."""

    def __setitem__(self, sequence: int, link: Link) -> None:
        manifest = link.manifest
        values = [getattr(manifest, name) for name in _FIELDS]
        for place in _SHARED:
            value = values[place]
            number = self._numbers.get(value)
            if number is None:
                number = self._numbers[value] = len(self._shared)
                self._shared.append(value)
            values[place] = number
        values += (link.name, link.digest, link.adopted, link.merged_from, link.merged_ms)
        kind = KINDS.index(manifest.kind) if manifest.kind in KINDS else _OTHER
        self._rows[sequence] = bytes((kind,)) + msgpack.packb(values)

    def __getitem__(self, sequence: int) -> Link:
        values = msgpack.unpackb(memoryview(self._rows[sequence])[1:], use_list=True)
        for place in _SHARED:
            values[place] = self._shared[values[place]]
        count = len(_FIELDS)
        return Link(Manifest(*values[:count]), *values[count:])

    def __delitem__(self, sequence: int) -> None:
        del self._rows[sequence]

    def __contains__(self, sequence: object) -> bool:
        return sequence in self._rows

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def of_kind(self, *kinds: str) -> Iterator[Link]:
        """Links of these kinds, in order."""
        wanted = {KINDS.index(one) for one in kinds}
        for sequence in sorted(self._rows):
            if self._rows[sequence][0] in wanted:
                yield self[sequence]
