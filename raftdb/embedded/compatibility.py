"""What this release computes and writes with: compared before a node joins."""

from __future__ import annotations

from typing import Any

from raftdb.base.release import SAMPLE
from raftdb.consensus.messages import PROTOCOL_VERSION
from raftdb.consensus.seams import PINNED_VERSION
from raftdb.journal.format import FORMAT_VERSION
from raftdb.machine import arithmetic_sample, fingerprint

__all__ = ["compatibility", "computes"]


def compatibility() -> dict[str, Any]:
    """Plain values by name; replicas with other ones could diverge, or not understand each other.

    `format_version` is the database's; `compile_options` and `arithmetic` are digests.
    """
    arithmetic_sample()  # It takes a while: now, and not when somebody asks.
    return {
        **fingerprint().to_wire(),
        "journal_format": FORMAT_VERSION,
        "peer_protocol": PROTOCOL_VERSION,
        "pysyncobj": PINNED_VERSION,
    }


def computes() -> dict[str, Any]:
    """The same, with what 0.1.0 does not know: it is compared with those that tell it too."""
    return {**compatibility(), SAMPLE: arithmetic_sample()}
