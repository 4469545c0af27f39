"""Which times fit together."""

from __future__ import annotations

from raftdb.base.errors import ConfigError
from raftdb.consensus.port import Timing


def check_timing(timing: Timing) -> None:
    """Raises ConfigError when elections could not work with it."""
    if not 0 < timing.heartbeat_s <= timing.election_min_s / 2:
        raise ConfigError(
            f"a heartbeat of {timing.heartbeat_s} s does not fit elections after "
            f"{timing.election_min_s} s",
            hint="make the heartbeat at most half of the minimum election timeout",
        )
    if not timing.election_min_s < timing.election_max_s:
        raise ConfigError("the minimum election timeout must be below the maximum")
    if timing.leader_timeout_s < timing.election_min_s:
        raise ConfigError("the leader's timeout must not be below the minimum election timeout")
    if timing.connect_timeout_s <= 0 or timing.reconnect_s <= 0:
        raise ConfigError("connect and reconnect times must be above 0")
