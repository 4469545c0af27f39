"""Times and compression follow what was measured, and stay where they are for small changes."""

from __future__ import annotations

from typing import Any

import pytest

from raftdb.consensus import Timing
from raftdb.node.pace import Pace
from tests.node.fakes import MEMBERS, Bench


class World:
    """n1 among three."""

    def __init__(self) -> None:
        self.trips: dict[str, float | None] = {"n2": None, "n3": None}
        self.set: list[tuple[Timing, tuple[str, ...]]] = []
        here: Any = self
        self.pace = Pace(here, Timing(), "n1", lambda: MEMBERS, here, Bench().ports)

    def round_trip_s(self, name: str) -> float | None:
        return self.trips.get(name)

    def set_timing(self, timing: Timing, far: Any = ()) -> None:
        self.set.append((timing, tuple(far)))

    def measure(self, **trips: float) -> None:
        self.trips.update(trips)
        self.pace.measured()


def test_on_a_lan_nothing_changes() -> None:
    world = World()
    world.measure(n2=0.001)
    world.measure(n3=0.004)
    assert world.set == []
    assert world.pace.facts()["election_min_ms"] == 300.0


def test_far_members_stretch_the_times_and_get_compressed_entries() -> None:
    world = World()
    world.measure(n2=0.25)
    [(timing, far)] = world.set
    assert timing.election_min_s == pytest.approx(0.75)
    assert far == ("n2",)
    world.measure(n2=0.26)
    assert len(world.set) == 1, "less than a fifth"
    world.measure(n3=0.001)
    assert world.set[1] == (Timing(), ("n2",)), "a majority is near; one of them is far still"
    world.measure(n2=0.007)
    assert len(world.set) == 2, "not near enough to be sure"
    world.measure(n2=0.002)
    assert world.set[2] == (Timing(), ())
