"""What an engine says of itself."""

from __future__ import annotations

from raftdb.base.ids import Index, NodeId, Term
from raftdb.consensus.core import Core
from raftdb.consensus.port import EngineStatus


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
        peers=tuple(core.peer_status(peer) for peer in electorate.peers),
        configuration_index=electorate.configurations.latest_index,
        members=electorate.configurations.latest.members,
        removed=electorate.configurations.latest.removed,
    )
