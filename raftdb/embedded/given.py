"""What a node's configuration gives to the engine, in the engine's words."""

from __future__ import annotations

from dataclasses import replace

from raftdb.base.config import NodeConfig
from raftdb.consensus.port import Member, Timing

__all__ = ["listening", "members_of", "timing_of"]


def members_of(config: NodeConfig) -> tuple[Member, ...]:
    """As the configuration lists them."""
    return tuple(
        Member(one.node_id, one.location, one.peer_address, one.client_address)
        for one in config.members
    )


def listening(members: tuple[Member, ...], config: NodeConfig) -> tuple[Member, ...]:
    """The members as the engine wants them: this one by the address where it listens, which may
    differ from the address by which others reach it (behind NAT, in a container)."""
    return tuple(
        replace(member, peer_address=config.peer_listen)
        if member.node_id == config.node_id
        else member
        for member in members
    )


def timing_of(config: NodeConfig) -> Timing:
    """In seconds."""
    timing = config.timing
    return Timing(
        election_min_s=timing.election_min_ms / 1000,
        election_max_s=timing.election_max_ms / 1000,
        heartbeat_s=timing.heartbeat_ms / 1000,
        leader_timeout_s=timing.leader_timeout_ms / 1000,
        connect_timeout_s=timing.connect_timeout_ms / 1000,
        reconnect_s=timing.reconnect_ms / 1000,
    )
