"""Which times fit together, and how they follow from the distance to the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from raftdb.base.errors import ConfigError
from raftdb.base.locations import majority
from raftdb.consensus.port import Timing

ROUND_TRIPS = 3.0
"""An election asks twice (pre-vote, vote), and the answer to its heartbeat comes after that: who is
so many round trips from a majority has won or lost before another one stands."""
STRETCH_MAX = 20.0
"""Times grow to so many times the configured ones at most."""
LEADER_LOST_FACTOR = 0.6
"""When the leader's connection is lost, an election is due after up to this share of the minimum
timeout: long enough apart for two followers not to stand at once."""
ROUNDS_REMEMBERED = 128
"""Heartbeat rounds whose sending time is kept, for round-trip times."""


def stretched(base: Timing, voters: int, round_trips_s: Sequence[float]) -> Timing:
    """The times for a member of so many voters that measured these round trips to others of them.

    What counts is the way to the nearest majority: a distant minority slows nobody down. Nothing
    becomes shorter than configured. Heartbeats stay below a third of the *configured* minimum
    election time-out, so that a member that has measured nothing yet follows as well."""
    needed = min(majority(voters) - 1, len(round_trips_s))
    if needed < 1:
        return base
    way_s = sorted(round_trips_s)[needed - 1]
    election_min_s = min(
        max(base.election_min_s, ROUND_TRIPS * way_s), STRETCH_MAX * base.election_min_s
    )
    factor = election_min_s / base.election_min_s
    return replace(
        base,
        election_min_s=election_min_s,
        election_max_s=base.election_max_s * factor,
        leader_timeout_s=base.leader_timeout_s * factor,
        heartbeat_s=max(base.heartbeat_s, min(way_s / 2, base.election_min_s / 3)),
        connect_timeout_s=max(base.connect_timeout_s, 2 * ROUND_TRIPS * way_s),
    )


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
