"""Arithmetic of locations, against definitions that count everything."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftdb.base.durability import QUORUM, Durability, parse_durability
from raftdb.base.errors import ConfigError
from raftdb.base.locations import (
    LEVELS,
    durable_places,
    durable_upto,
    fatal_places,
    is_within,
    losses,
    majority,
    place_of,
    places,
    places_left_min,
)


@dataclass(frozen=True)
class Voter:
    node_id: str
    location: str


def voters_at(*locations: str) -> list[Voter]:
    return [Voter(f"n{number}", location) for number, location in enumerate(locations, 1)]


part = st.sampled_from(["a", "b", "c"])
location = st.lists(part, min_size=1, max_size=4).map("/".join)
clusters = st.lists(location, min_size=1, max_size=7).map(lambda found: voters_at(*found))
levels = st.sampled_from(LEVELS)


def test_levels_take_one_two_and_all_parts() -> None:
    voter = Voter("n1", "eu/madrid/rack3")
    assert [place_of(voter, level) for level in LEVELS] == ["eu", "eu/madrid", "eu/madrid/rack3/n1"]
    assert place_of(Voter("n1", "eu"), "zone") == "eu"


@pytest.mark.parametrize(
    ("locations", "level", "fatal"),
    [
        (["a", "b", "c"], "region", ()),
        (["a", "a", "b"], "region", ("a",)),
        # 2 + 1 + 1 fails with the pair: two of four are no majority.
        (["a", "a", "b", "c"], "region", ("a",)),
        (["a", "a", "b", "b", "c"], "region", ()),
        (["a/x", "a/y", "a/z"], "region", ("a",)),
        (["a/x", "a/y", "a/z"], "zone", ()),
        (["a", "a", "a"], "node", ()),
        (["a"], "node", ("a/n1",)),
        (["a", "b"], "node", ("a/n1", "b/n2")),
    ],
)
def test_which_losses_leave_no_majority(
    locations: list[str], level: str, fatal: tuple[str, ...]
) -> None:
    assert fatal_places(voters_at(*locations), level) == fatal


@given(clusters, levels, st.data())
def test_a_loss_is_survived_when_a_majority_of_all_is_left(
    voters: list[Voter], level: str, data: st.DataObject
) -> None:
    gone = data.draw(st.sets(st.sampled_from([voter.node_id for voter in voters])))
    for loss in losses(voters, level, gone):
        left = [
            voter
            for voter in voters
            if place_of(voter, level) != loss.place and voter.node_id not in gone
        ]
        assert loss.survives == (2 * len(left) > len(voters))
    assert sorted(node for loss in losses(voters, level) for node in loss.nodes) == sorted(
        voter.node_id for voter in voters
    )


@given(clusters, st.data())
def test_more_failures_never_make_more_losses_survivable(
    voters: list[Voter], data: st.DataObject
) -> None:
    ids = [voter.node_id for voter in voters]
    gone = data.draw(st.sets(st.sampled_from(ids)))
    more = gone | {data.draw(st.sampled_from(ids))}
    for level in LEVELS:
        assert set(fatal_places(voters, level, gone)) <= set(fatal_places(voters, level, more))


@given(clusters)
def test_a_wider_goal_contains_the_narrower_ones(voters: list[Voter]) -> None:
    for wide, narrow in combinations(LEVELS, 2):
        if not fatal_places(voters, wide):
            assert not fatal_places(voters, narrow)


@given(clusters, levels, st.integers(1, 4), st.data())
def test_durable_upto_is_the_highest_index_that_enough_places_hold(
    voters: list[Voter], level: str, count: int, data: st.DataObject
) -> None:
    durable = {voter.node_id: data.draw(st.integers(0, 6)) for voter in voters}
    upto = durable_upto(voters, durable, level, count)
    held = [
        index
        for index in range(1, 8)
        if len(durable_places(voters, durable, level, index)) >= count
    ]
    assert upto == max(held, default=0)


@given(clusters, levels, levels)
def test_places_left_after_the_worst_loss(voters: list[Voter], goal: str, level: str) -> None:
    counted = [
        len(places([v for v in voters if place_of(v, goal) != lost], level))
        for lost in places(voters, goal)
    ]
    assert places_left_min(voters, goal, level) == min(counted)
    if goal == level:
        # locations = N together with survive at the same level needs N + 1 places.
        assert places_left_min(voters, goal, level) == len(places(voters, level)) - 1


@given(st.integers(1, 50))
def test_two_majorities_share_a_voter(count: int) -> None:
    assert 2 * majority(count) > count >= majority(count)


def test_within() -> None:
    found = {
        (inner, outer)
        for inner in ("eu/madrid", "eur/madrid", "eu")
        for outer in ("eu",)
        if is_within(inner, outer)
    }
    assert found == {("eu/madrid", "eu"), ("eu", "eu")}
    assert not is_within("eu", "eu/madrid")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("quorum", QUORUM),
        ("locations=3", Durability(3, "region")),
        ("locations=2@zone", Durability(2, "zone")),
    ],
)
def test_levels_as_text(text: str, value: Durability) -> None:
    assert parse_durability(text) == value
    assert str(value) == text
    assert value.is_plain == (text == "quorum")


@pytest.mark.parametrize(
    "text", ["", "locations", "locations=0", "locations=65", "locations=2@node", "locations=2,"]
)
def test_what_is_no_level(text: str) -> None:
    with pytest.raises(ConfigError, match="locations=3@zone"):
        parse_durability(text)
