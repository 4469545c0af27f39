"""What a node says of the members, as it sees them."""

from __future__ import annotations

from typing import Any

from raftdb.base.ids import Index
from raftdb.consensus.port import EngineStatus, PeerStatus
from raftdb.node import Identity, Proximity, Releases

__all__ = ["member_facts"]


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
