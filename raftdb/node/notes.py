"""What nodes tell each other when they compare: JSON, small, and read with bounds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raftdb.machine import MARK_EVERY, Sample

NOTE_BYTES_MAX = 60_000
"""Fits a peer message with room to spare."""
HEARD_MAX = 1_024
"""Digests kept of one other member."""
_SAMPLES_MAX = 64
_INDEX_MAX = (1 << 63) - 1
_NAME_BYTES_MAX = 200
_TABLE_BYTES_MAX = 50_000
_PARTS = ("(schema)", "(sequences)")
"""What has a sum beside the tables."""
NAMED_MAX = 16
"""Tables that are named of one member."""


@dataclass(frozen=True, slots=True)
class Note:
    """One note, read."""

    values: dict[int, tuple[bytes, bytes]]
    """Index to (content, results)."""
    tables: dict[int, dict[str, bytes]]
    """Index to tables' sums; of the newest sample that has them."""
    differs: bool
    """The sender knows of a difference, and wants to be told tables' sums."""


def encode_note(samples: Sequence[Sample], *, differs: bool, first: int = 0) -> bytes:
    """At most NOTE_BYTES_MAX bytes: of very many tables only as many as fit are told, from place
    `first` on (see `told_tables`)."""
    value: dict[str, Any] = {
        "samples": [
            [int(one.index), one.content.hex(), one.results.hex()]
            for one in samples[-_SAMPLES_MAX:]
        ],
        "differs": differs,
    }
    detailed = with_tables(samples)
    if detailed is not None:
        assert detailed.tables is not None
        value["tables_index"] = int(detailed.index)
        value["tables"] = told_tables(detailed.tables, first)[0]
    return json.dumps(value, separators=(",", ":")).encode()


def with_tables(samples: Sequence[Sample]) -> Sample | None:
    """Whose tables' sums are told: of the newest mark, since all nodes commit there, or else of the
    newest."""
    detailed = [one for one in samples if one.tables is not None]
    marks = [one for one in detailed if one.index % MARK_EVERY == 0]
    newest = marks or detailed
    return newest[-1] if newest else None


def told_tables(tables: dict[str, bytes], first: int) -> tuple[dict[str, str], int]:
    """As many sums as fit, in hexadecimal, those of schema and sequences always; and the place of
    the next table that was not told, 0 when they begin again."""
    names = [name for name in tables if _is_told(name) and name not in _PARTS]
    told = {name: tables[name].hex() for name in _PARTS if name in tables}
    room = _TABLE_BYTES_MAX - sum(map(_size, told))
    place = first if first < len(names) else 0
    while place < len(names):
        room -= _size(names[place])
        if room < 0:
            return told, place
        told[names[place]] = tables[names[place]].hex()
        place += 1
    return told, 0


def differing(ours: Mapping[str, bytes], theirs: Mapping[str, bytes]) -> tuple[str, ...]:
    """Tables whose sums differ, of those that both are told of. Where there is room for all, each
    one that only one of them has differs too."""
    names = ours.keys() & theirs.keys()
    if _is_whole(ours) and _is_whole(theirs):
        names = ours.keys() | theirs.keys()
    differ = (n for n in names if ours.get(n) != theirs.get(n) and _is_told(n))
    return tuple(sorted(differ)[:NAMED_MAX])


def _is_whole(tables: Mapping[str, bytes]) -> bool:
    return sum(map(_size, tables)) <= _TABLE_BYTES_MAX - _size("x" * _NAME_BYTES_MAX)


def _is_told(name: str) -> bool:
    return len(name) <= _NAME_BYTES_MAX


def _size(name: str) -> int:
    """In a note, at most."""
    return 6 * len(name) + 40


def decode_note(data: bytes) -> Note:
    """Read what `encode_note` wrote. Raises ValueError."""
    if len(data) > NOTE_BYTES_MAX:
        raise ValueError(f"{len(data)} bytes")
    try:
        value = json.loads(data)
        samples = value["samples"]
        if not isinstance(samples, list) or len(samples) > _SAMPLES_MAX:
            raise ValueError("samples")
        values = {
            _index(index): (_digest(content), _digest(results))
            for index, content, results in samples
        }
        tables: dict[int, dict[str, bytes]] = {}
        if "tables" in value:
            told = {str(name): _digest(total) for name, total in value["tables"].items()}
            tables[_index(value["tables_index"])] = told
        return Note(values, tables, value["differs"] is True)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(repr(error)) from error


def _index(value: object) -> int:
    if type(value) is not int or not 0 <= value <= _INDEX_MAX:
        raise ValueError(f"index {value!r}")
    return value


def _digest(value: object) -> bytes:
    if not isinstance(value, str) or len(value) != 32:
        raise ValueError(f"digest {value!r}")
    return bytes.fromhex(value)
