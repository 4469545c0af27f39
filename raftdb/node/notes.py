"""What nodes tell each other when they compare: JSON, small, and read with bounds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from raftdb.machine import Sample

NOTE_BYTES_MAX = 60_000
"""Fits a peer message with room to spare."""
HEARD_MAX = 1_024
"""Digests kept of one other member."""
_SAMPLES_MAX = 64
_INDEX_MAX = (1 << 63) - 1
_NAME_BYTES_MAX = 200
_TABLE_BYTES_MAX = 50_000


@dataclass(frozen=True, slots=True)
class Note:
    """One note, read."""

    values: dict[int, tuple[bytes, bytes]]
    """Index to (content, results)."""
    tables: dict[int, dict[str, bytes]]
    """Index to tables' sums; of the newest sample that has them."""
    differs: bool
    """The sender knows of a difference, and wants to be told tables' sums."""


def encode_note(samples: Sequence[Sample], *, differs: bool) -> bytes:
    """At most NOTE_BYTES_MAX bytes: with very many tables only as many as fit are told."""
    value: dict[str, Any] = {
        "samples": [
            [int(one.index), one.content.hex(), one.results.hex()]
            for one in samples[-_SAMPLES_MAX:]
        ],
        "differs": differs,
    }
    detailed = [one for one in samples if one.tables is not None]
    if detailed:
        last = detailed[-1]
        assert last.tables is not None
        value["tables_index"] = int(last.index)
        value["tables"] = _as_many_as_fit(last.tables)
    return json.dumps(value, separators=(",", ":")).encode()


def _as_many_as_fit(tables: dict[str, bytes]) -> dict[str, str]:
    told: dict[str, str] = {}
    size = 0
    for name, value in tables.items():
        size += 6 * len(name) + 40
        if size > _TABLE_BYTES_MAX:
            break
        if len(name) <= _NAME_BYTES_MAX:
            told[name] = value.hex()
    return told


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
