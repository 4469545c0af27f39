"""What a node's configuration gives to the engine, in the engine's words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from raftdb.base.config import NodeConfig
from raftdb.base.layout import copies_path, database_path
from raftdb.base.ports import Files
from raftdb.consensus.port import CopySettings, Held, Member, Timing
from raftdb.machine import Machine
from raftdb.node import MachineCopies

__all__ = ["copy_settings", "listening", "members_of", "timing_of"]


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


def copy_settings(
    config: NodeConfig,
    machine: Machine,
    pin: Callable[[int], Held],
    files: Files,
    vfs_base: str,
) -> CopySettings:
    """A copy leaves room for the reserve and as much again: with less this node would take no
    writes, and whoever heals must not stop the others."""
    spare_bytes = 2 * config.disk.reserve_bytes
    database = database_path(config.data_dir)
    store = MachineCopies(machine, database, config.history, files, vfs_base, spare_bytes)
    rate = config.copy.rate_bytes_per_s
    return CopySettings(store, copies_path(config.data_dir), pin, rate, spare_bytes)


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
