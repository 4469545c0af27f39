"""What a node says of itself, and of the members as it sees them: the status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raftdb._version import __version__
from raftdb.base.ids import Index
from raftdb.consensus.port import EngineStatus, PeerStatus
from raftdb.machine import fingerprint
from raftdb.node import Identity, Proximity, Releases, damage_facts

if TYPE_CHECKING:
    from raftdb.embedded.assembly import Assembly

__all__ = ["describe", "member_facts"]


def describe(node: Assembly) -> dict[str, Any]:
    """The status that clients are told."""
    status, config = node.engine.status(), node.config
    return {
        "node_id": config.node_id,
        "cluster_id": config.cluster_id,
        "history": config.history,
        "location": config.location,
        "version": __version__,
        "sqlite_version": fingerprint().sqlite_version,
        "uptime_s": round(node._ports.clock.monotonic_s() - node._started_s, 3),
        "role": status.role,
        "term": int(status.term),
        "leader": status.leader,
        "first_index": int(status.first_index),
        "last_index": int(status.last_index),
        "durable_index": int(status.durable_index),
        "commit_index": int(status.commit_index),
        "applied_index": int(status.applied_index),
        "client_connections": node.listener.connections,
        "stopping": node._stopping,
        "configuration_index": int(status.configuration_index),
        "members": member_facts(node.replica.identity, status, node.proximity, node.releases),
        **node.releases.facts(),
        "durable_database_index": int(node.machine.durable_index),
        "sessions": node.machine.sessions_open(),
        "transactions": len(node.replica.transactions),
        "load": node.replica.load(),
        "horizon": node.machine.horizon(),
        "wal_pages": node.machine.wal_pages,
        "journal_bytes": node.journal.bytes,
        "disk_stalled": node.disk.stalled,
        **node.space.facts(),
        "scrub_files": node.scrub.facts(),
        "archive": [] if node._archive is None else node._archive.status(),
        **node.comparison.facts(),
        **node.goals.facts(),
        "damage": damage_facts(node.damage, node._healing),
        "forgotten": node._reliever.facts(),
        "timing": node.pace.facts(),
        "scrub_content": node._scrub.facts(),
        "copy": node.engine.copies.status() if node.engine.copies is not None else None,
        **node._facts(),
    }


def member_facts(
    identity: Identity, status: EngineStatus, proximity: Proximity, releases: Releases
) -> list[dict[str, Any]]:
    """For the status: one map a member. What is not known of one is left out."""
    seen = {peer.node_id: peer for peer in status.peers}
    return [
        {
            "node_id": member.node_id,
            "role": member.role,
            "location": member.location,
            "peer_address": str(member.peer_address),
            "client_address": str(member.client_address),
            **releases.member_facts(str(member.node_id)),
            **_peer_facts(seen.get(member.node_id), status.last_index, proximity),
        }
        for member in identity.members
    ]


def _peer_facts(peer: PeerStatus | None, last_index: Index, proximity: Proximity) -> dict[str, Any]:
    if peer is None:
        return {}
    trip_s = proximity.round_trip_s(str(peer.node_id))
    return {
        "connected": peer.connected,
        "match_index": int(peer.match_index),
        "lag_entries": max(0, int(last_index) - int(peer.match_index)),
        "round_trip_ms": peer.round_trip_ms if trip_s is None else round(trip_s * 1000, 3),
    }
