"""Who this replica is, and who the others are."""

from __future__ import annotations

from dataclasses import dataclass

from raftdb.base.ids import Address, ClusterId, HistoryId, NodeId
from raftdb.consensus.membership import VOTER, Member


@dataclass(slots=True)
class Identity:
    """One replica's place in its cluster. Only `members` ever changes, on the loop: they are those
    of the configuration in force (raftdb.consensus.membership)."""

    cluster_id: ClusterId
    history: HistoryId
    node_id: NodeId
    members: tuple[Member, ...]
    fork: int = 0
    """Which fork of the history: a restore begins another."""

    @property
    def voters(self) -> tuple[NodeId, ...]:
        """Those that count."""
        return tuple(one.node_id for one in self.members if one.role == VOTER)

    @property
    def voting(self) -> tuple[Member, ...]:
        """Those that count, with all that is known of them."""
        return tuple(one for one in self.members if one.role == VOTER)

    def member(self, node_id: NodeId) -> Member | None:
        """The member of that name."""
        for member in self.members:
            if member.node_id == node_id:
                return member
        return None

    def client_address(self, node_id: NodeId | None) -> Address | None:
        """Where clients reach that member."""
        member = self.member(node_id) if node_id is not None else None
        return member.client_address if member else None
