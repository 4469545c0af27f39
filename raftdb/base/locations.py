"""Arithmetic of locations: which places a set of voters has, and which of them it may lose (L1).

A location is a path, widest part first: `eu/madrid/rack3`. At level `region` its first part counts,
at level `zone` the first two, at level `node` each node is a place of its own (two nodes in one
rack are not lost with one of them). A path that is shorter than the level counts as a whole.

A majority is always of all voters, never of those that happen to be reachable: nodes that are down
count in it. So nothing here depends on who is up, unless a parameter `gone` says so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

REGION = "region"
ZONE = "zone"
NODE = "node"
LEVELS = (REGION, ZONE, NODE)
"""Widest first."""

_PARTS = {REGION: 1, ZONE: 2}


class Placed(Protocol):
    """A voter, as far as this module looks at it."""

    @property
    def node_id(self) -> str: ...

    @property
    def location(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Loss:
    """One place that may be lost as a whole."""

    place: str
    nodes: tuple[str, ...]
    """Voters there, sorted."""
    survives: bool
    """Whether the other voters are a majority of all."""


def place_of(voter: Placed, level: str) -> str:
    """The place that `voter` is in at a level of LEVELS."""
    if level == NODE:
        return f"{voter.location}/{voter.node_id}"
    return "/".join(voter.location.split("/")[: _PARTS[level]])


def is_within(location: str, place: str) -> bool:
    """Whether a location lies at or below another one: eu/madrid/rack3 is within eu/madrid."""
    return location == place or location.startswith(place + "/")


def places(voters: Iterable[Placed], level: str) -> dict[str, tuple[str, ...]]:
    """Each place with the ids of its voters; both sorted."""
    found: dict[str, list[str]] = {}
    for voter in voters:
        found.setdefault(place_of(voter, level), []).append(voter.node_id)
    return {place: tuple(sorted(found[place])) for place in sorted(found)}


def majority(voters: int) -> int:
    """How many of so many voters decide."""
    return voters // 2 + 1


def losses(voters: Sequence[Placed], level: str, gone: Collection[str] = ()) -> tuple[Loss, ...]:
    """For each place: would a majority of all voters be left without it, and without the nodes
    `gone`, which are down already?"""
    needed = majority(len(voters))
    up = {voter.node_id for voter in voters} - set(gone)
    return tuple(
        Loss(place, nodes, len(up.difference(nodes)) >= needed)
        for place, nodes in places(voters, level).items()
    )


def fatal_places(
    voters: Sequence[Placed], level: str, gone: Collection[str] = ()
) -> tuple[str, ...]:
    """The places whose loss would leave no majority; none: the goal `survive = level` is kept."""
    return tuple(loss.place for loss in losses(voters, level, gone) if not loss.survives)


def places_left_min(
    voters: Sequence[Placed],
    goal: str,
    level: str,
    gone: Collection[str] = (),
) -> int:
    """How many distinct places at `level` hold a voter after the worst loss of one place at `goal`:
    what `locations = N` may ask for if writes are to go on then. 0 without voters."""
    left = [voter for voter in voters if voter.node_id not in set(gone)]
    counts = [
        len(places([voter for voter in left if voter.node_id not in nodes], level))
        for nodes in places(voters, goal).values()
    ]
    return min(counts, default=0)


def durable_places(
    voters: Iterable[Placed], durable: Mapping[str, int], level: str, index: int
) -> tuple[str, ...]:
    """The places where some voter holds everything up to `index` on its disk; sorted."""
    holders = [voter for voter in voters if durable.get(voter.node_id, 0) >= index]
    return tuple(places(holders, level))


def durable_upto(
    voters: Iterable[Placed], durable: Mapping[str, int], level: str, count: int
) -> int:
    """The highest index that is on disk in `count` distinct places; 0 when there are fewer."""
    best: dict[str, int] = {}
    for voter in voters:
        place = place_of(voter, level)
        best[place] = max(best.get(place, 0), durable.get(voter.node_id, 0))
    if len(best) < count:
        return 0
    return sorted(best.values(), reverse=True)[count - 1]
