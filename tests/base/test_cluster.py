"""What may be declared for a cluster, against the voters that there are."""

from __future__ import annotations

from typing import Any

import pytest

from raftdb.base.cluster import (
    ClusterSettings,
    check_change,
    goal_problem,
    impossible,
    read_settings,
    remarks,
)
from raftdb.base.durability import parse_durability
from raftdb.base.errors import ConfigError
from tests.base.test_locations import voters_at


@pytest.mark.parametrize(
    ("name", "given", "stored"),
    [
        ("survive", "region", "region"),
        ("durability", "locations=3@region", "locations=3"),
        ("leader_preference", "eu/madrid, us", ["eu/madrid", "us"]),
        ("leader_preference", ("eu",), ["eu"]),
        ("survive", None, None),
    ],
)
def test_what_is_stored(name: str, given: Any, stored: Any) -> None:
    assert check_change(name, given) == stored
    if stored is not None:
        assert check_change(name, stored) == stored


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("survive", "planet"),
        ("durability", "locations=0"),
        ("durability", 3),
        ("leader_preference", ""),
        ("leader_preference", "eu,eu"),
        ("leader_preference", [1]),
        ("leader_preference", ["EU"]),
        ("colour", "red"),
    ],
)
def test_what_is_refused(name: str, given: Any) -> None:
    with pytest.raises(ConfigError):
        check_change(name, given)


def test_a_later_releases_values_are_left_alone() -> None:
    stored = {"survive": "galaxy", "feature_level": 9, "durability": "locations=2"}
    assert read_settings(stored) == ClusterSettings(durability=parse_durability("locations=2"))


def test_the_goal_is_kept_or_says_which_loss_breaks_it() -> None:
    region = ClusterSettings(survive="region")
    assert goal_problem(region, voters_at("eu", "us", "asia")) == ""
    assert goal_problem(ClusterSettings(), voters_at("eu")) == ""
    problem = goal_problem(region, voters_at("eu", "eu", "us", "asia"))
    assert "without eu (n1, n2) 2 of 4 voters are left, and 3 are a majority" in problem
    down = goal_problem(region, voters_at("eu", "us", "asia"), {"n3"})
    assert "with n3 down" in down


def test_locations_together_with_a_goal_need_one_more() -> None:
    both = ClusterSettings("region", parse_durability("locations=3"))
    three = voters_at("eu", "us", "asia")
    assert "needs 4 regions" in goal_problem(both, three)
    assert goal_problem(both, voters_at("eu", "eu", "us", "asia", "sa")) == ""
    # Zones of two regions: a region may take both its zones along.
    zones = ClusterSettings("region", parse_durability("locations=3@zone"))
    assert goal_problem(zones, voters_at("eu/a", "eu/b", "us/a", "asia/a", "sa/a")) == ""
    assert goal_problem(zones, voters_at("eu/a", "eu/b", "us/a", "us/b", "asia/a")) == ""
    assert "3 zones" not in goal_problem(zones, three)
    assert "needs 4" in goal_problem(zones, three)


def test_what_is_impossible_and_what_is_remarked() -> None:
    wanted = ClusterSettings(durability=parse_durability("locations=4"))
    assert "in 3 regions (asia, eu, us)" in impossible(wanted, voters_at("eu", "us", "asia"))
    assert impossible(ClusterSettings(), []) == ""
    three = ClusterSettings("", parse_durability("locations=3"), ("eu/madrid", "mars"))
    found = remarks(three, voters_at("eu/madrid/r1", "us", "asia"))
    assert [("stop when one" in one, "mars" in one) for one in found] == [
        (True, False),
        (False, True),
    ]
