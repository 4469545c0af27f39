"""What a node tells of its content, as plain values; hashes are hexadecimal."""

from __future__ import annotations

from typing import Any

from raftdb.machine import MARK_EVERY, ContentHash, Sample


def hash_facts(content: ContentHash) -> dict[str, Any]:
    """The content hash as of the last commit; `mark`: the last index where all replicas commit."""
    return {
        "index": int(content.index),
        "position": content.position,
        "total": content.total.hex(),
        "schema": content.schema.hex(),
        "sequences": content.sequences.hex(),
        "results": content.results.hex(),
        "mark": int(content.index) // MARK_EVERY * MARK_EVERY,
        "tables": {name: value.hex() for name, value in content.tables.items()},
    }


def sample_facts(sample: Sample) -> dict[str, Any]:
    """The digest at an index at which all replicas commit. Its `total` is no content hash; `tables`
    is empty where nobody asked before the index was reached."""
    return {
        "index": int(sample.index),
        "position": 0,
        "total": sample.content.hex(),
        "results": sample.results.hex(),
        "tables": {name: value.hex() for name, value in (sample.tables or {}).items()},
    }


__all__ = ["hash_facts", "sample_facts"]
