"""What this release computes and writes with: compared before a node joins."""

from __future__ import annotations

from typing import Any

from raftdb.consensus.messages import PROTOCOL_VERSION
from raftdb.consensus.seams import PINNED_VERSION
from raftdb.journal.format import FORMAT_VERSION
from raftdb.machine import fingerprint

__all__ = ["compatibility"]


def compatibility() -> dict[str, Any]:
    """Plain values by name; replicas with other ones could diverge, or not understand each other.

    `format_version` is the database's; `compile_options` and `arithmetic` are digests.
    """
    return {
        **fingerprint().to_wire(),
        "journal_format": FORMAT_VERSION,
        "peer_protocol": PROTOCOL_VERSION,
        "pysyncobj": PINNED_VERSION,
    }
