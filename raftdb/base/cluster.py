"""Settings of a cluster as a whole: kept in the log, the same on every node.

What is stored is a map of names to plain values; a node reads what it knows of it and leaves the
rest alone, so that a later release may keep more there. What may be declared is checked by the
leader, against the voters there are, before it is logged.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raftdb.base.durability import QUORUM, Durability, parse_durability
from raftdb.base.errors import ConfigError
from raftdb.base.ids import parse_location
from raftdb.base.locations import (
    LEVELS,
    Placed,
    fatal_places,
    is_within,
    majority,
    places,
    places_left_min,
)
from raftdb.base.release import SETTING as FEATURE_LEVEL

PREFERENCE_MAX = 16
SETTINGS_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """The settings that this release knows, read."""

    survive: str = ""
    """The loss of any one place at this level must leave a majority; `` for no such goal."""
    durability: Durability = QUORUM
    """What writes wait for that say nothing of their own."""
    leader_preference: tuple[str, ...] = ()
    """Locations where the leader should be, the best first."""


def _survive(value: Any) -> str:
    if value not in LEVELS:
        raise ConfigError(f"survive is {value!r}", hint="one of " + ", ".join(LEVELS))
    return str(value)


def _durability(value: Any) -> str:
    return str(parse_durability(value if isinstance(value, str) else repr(value)))


def _preference(value: Any) -> list[str]:
    found = value.split(",") if isinstance(value, str) else value
    if not isinstance(found, list | tuple) or not 1 <= len(found) <= PREFERENCE_MAX:
        raise ConfigError(
            f"leader_preference is {value!r:.80}",
            hint=f"1 to {PREFERENCE_MAX} locations, the best first, such as eu/madrid,us",
        )
    read = [parse_location(one.strip() if isinstance(one, str) else "") for one in found]
    if len(set(read)) != len(read):
        raise ConfigError("leader_preference names a location twice")
    return read


KINDS: Mapping[str, Callable[[Any], Any]] = {
    "survive": _survive,
    "durability": _durability,
    "leader_preference": _preference,
}
"""By name: from what a user gives to what is stored. Raises ConfigError."""


def check_change(name: str, value: Any) -> Any:
    """A setting as it is stored; None takes it away. Raises ConfigError."""
    kind = KINDS.get(name)
    if name == FEATURE_LEVEL:
        raise ConfigError(
            "the feature level is not set like this", hint="raise it by raftdb upgrade finalize"
        )
    if kind is None:
        raise ConfigError(
            f"{name[:80]!r} is no setting of a cluster", hint="settings are " + ", ".join(KINDS)
        )
    return None if value is None else kind(value)


def read_settings(stored: Mapping[str, Any]) -> ClusterSettings:
    """What this release knows of them. A value that it cannot read counts as not set (a later
    release may have written it)."""
    known: dict[str, Any] = {}
    for name, kind in KINDS.items():
        if name in stored:
            try:
                known[name] = kind(stored[name])
            except ConfigError:
                continue
    return ClusterSettings(
        known.get("survive", ""),
        parse_durability(known.get("durability", "quorum")),
        tuple(known.get("leader_preference", ())),
    )


def goal_problem(
    settings: ClusterSettings, voters: Sequence[Placed], gone: Collection[str] = ()
) -> str:
    """Why the survival goal is not kept by these voters, of whom `gone` are down; `` when it is
    (or when there is none). A change of members asks this before it is made."""
    goal = settings.survive
    if not goal:
        return ""
    fatal = fatal_places(voters, goal, gone)
    if fatal:
        lost = fatal[0]
        nodes = places(voters, goal)[lost]
        left = len({str(voter.node_id) for voter in voters} - set(gone) - set(nodes))
        down = f", with {', '.join(sorted(gone))} down," if gone else ""
        return (
            f"survive={goal} is not kept: without {lost} ({', '.join(nodes)}){down} {left} of"
            f" {len(voters)} voters are left, and {majority(len(voters))} are a majority"
        )
    wanted = settings.durability
    left = places_left_min(voters, goal, wanted.level, gone)
    if left < wanted.locations:
        return (
            f"{wanted} together with survive={goal} needs {wanted.locations + 1} {goal}s, if writes"
            f" are to go on when one is lost: then {left} {wanted.level}s would be left"
        )
    return ""


def impossible(settings: ClusterSettings, voters: Sequence[Placed]) -> str:
    """Why no write could ever be acknowledged; `` when one can."""
    wanted = settings.durability
    there = places(voters, wanted.level)
    if len(there) >= wanted.locations:
        return ""
    known = ", ".join(there)
    return f"{wanted} cannot be met: the voters are in {len(there)} {wanted.level}s ({known})"


def remarks(settings: ClusterSettings, voters: Sequence[Placed]) -> tuple[str, ...]:
    """What to say at a declaration that is not refused."""
    found = []
    wanted = settings.durability
    there = len(places(voters, wanted.level))
    if wanted.locations and there == wanted.locations:
        found.append(
            f"writes stop when one of the {there} {wanted.level}s is lost: {wanted} needs"
            f" {wanted.locations + 1} of them to go on then"
        )
    for location in settings.leader_preference:
        if not any(is_within(voter.location, location) for voter in voters):
            found.append(f"no voter is in {location}")
    return tuple(found)
