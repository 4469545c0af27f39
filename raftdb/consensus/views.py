"""What an engine says of itself."""

from __future__ import annotations

from raftdb.base.ids import Index, NodeId, Term
from raftdb.consensus.core import Core
from raftdb.consensus.port import EngineStatus, PeerStatus
from raftdb.consensus.wall import LEADER


def engine_status(core: Core, running: bool, applied: int) -> EngineStatus:
    """As of now."""
    library, journal, electorate = core.library, core.log, core.electorate
    leader = library.leader
    return EngineStatus(
        node_id=NodeId(core.node_id),
        role=library.role if running else "stopped",
        term=Term(library.term),
        leader=NodeId(leader) if leader is not None and running else None,
        first_index=Index(journal.first_index),
        last_index=Index(journal.last_index),
        durable_index=Index(journal.durable_index),
        commit_index=Index(library.commit_index),
        applied_index=Index(applied),
        peers=tuple(peer_status(core, peer) for peer in electorate.peers),
        configuration_index=electorate.configurations.latest_index,
        members=electorate.configurations.latest.members,
        removed=electorate.configurations.latest.removed,
    )


def peer_status(core: Core, peer: str) -> PeerStatus:
    """Of one other member; what only a leader knows is 0 or None elsewhere."""
    leads, connected = core.library.role == LEADER, core.links.connected(peer)
    trip_s = core.round_trip_s(peer) if leads else None
    return PeerStatus(
        node_id=NodeId(peer),
        connected=connected,
        answers=leads and connected and core.silent_s(peer) <= core.timing.leader_timeout_s,
        match_index=Index(core.library.match_index(peer) if leads else 0),
        round_trip_ms=None if trip_s is None else round(trip_s * 1000, 3),
    )
