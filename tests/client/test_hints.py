"""Hints that lead nowhere: in a circle, or back to who gave them."""

from __future__ import annotations

from typing import Any

import pytest

from raftdb.base.errors import DeadlineError, NotLeaderError
from raftdb.command import Statement
from tests.client.world import World

WAIT_S = 1.0
MESSAGES_MAX = 250
"""In WAIT_S, at one question in 20 ms to each node, with what stands around them."""


def write(world: World) -> Any:
    core = world.core()
    return world.run(core.execute((Statement("add a"),), foreign_keys=True, timeout_s=WAIT_S))


def test_nodes_that_name_each_other_are_not_asked_as_fast_as_they_answer() -> None:
    world = World(nodes=2, leader=None)
    one, two = world.nodes.values()
    for node, other in ((one, two), (two, one)):
        told = {**node.describe(), "leader": other.node_id}
        node.describe = lambda told=told: told  # type: ignore[method-assign,misc]
    with pytest.raises(DeadlineError):
        write(world)
    assert 10 < len(world.heard) < MESSAGES_MAX


def test_a_leader_that_hands_over_is_not_asked_as_fast_as_it_answers() -> None:
    """By its status it leads; it takes no writes any more, and knows nobody who does."""
    world = World(nodes=1)
    node = world.nodes["n1"]
    node.refuse = [NotLeaderError("hands over", detail={"term": 1}) for _ in range(5_000)]
    with pytest.raises(DeadlineError):
        write(world)
    assert 10 < len(world.heard) < MESSAGES_MAX
    node.refuse.clear()
    write(world)
    assert world.effects == ["a"], "nothing is held against it"


def test_when_it_took_over_after_all_it_is_found_at_once() -> None:
    world = World()
    node = world.nodes["n1"]
    node.refuse = [NotLeaderError("hands over", detail={"term": 1}) for _ in range(3)]
    begun_s = world.now_s
    write(world)
    assert world.effects == ["a"]
    assert world.now_s - begun_s < WAIT_S / 2
