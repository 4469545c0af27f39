"""Orders about the cluster: no sessions, so that a lost reply is told as what it is."""

from __future__ import annotations

from typing import Any

import pytest

from raftdb.base.errors import NOT_APPLIED, UNKNOWN, ConfigError, DeadlineError, Error
from raftdb.client.core import Core
from tests.client.world import T, World

PROMOTE: dict[str, Any] = {"change": "promote", "node": "n4"}
ORDERS = [
    ("members", PROMOTE),
    ("settings", {"changes": {"survive": None}}),
    ("release", {"raise_to": 2}),
]
QUESTIONS = [
    ("members", {}),
    ("settings", {}),
    ("release", {}),
    ("compatibility", {"release": "1"}),
    ("await_durable", {"token": "", "durability": ""}),
]


def failure(world: World, core: Core, what: str, arguments: dict[str, Any]) -> Error:
    with pytest.raises(Error) as caught:
        world.run(core.ask(what, arguments, timeout_s=T))
    return caught.value


@pytest.mark.parametrize(("what", "arguments"), ORDERS)
def test_an_order_that_was_sent_and_not_answered_may_be_done(
    what: str, arguments: dict[str, Any]
) -> None:
    world = World()
    world.nodes["n1"].mute_orders = True
    error = failure(world, world.core(), what, arguments)
    assert isinstance(error, DeadlineError)
    assert error.outcome == UNKNOWN


@pytest.mark.parametrize(("what", "arguments"), QUESTIONS)
def test_a_question_changes_nothing(what: str, arguments: dict[str, Any]) -> None:
    world = World()
    world.nodes["n1"].mute_orders = True
    assert failure(world, world.core(), what, arguments).outcome == NOT_APPLIED


def test_a_hand_over_that_was_not_answered_may_come() -> None:
    world = World()
    world.nodes["n1"].mute_orders = True
    with pytest.raises(DeadlineError) as caught:
        world.run(world.core().transfer_leadership("n3", timeout_s=T))
    assert caught.value.outcome == UNKNOWN


def test_an_order_that_nobody_got_is_not_done() -> None:
    world = World(leader=None)
    assert failure(world, world.core(), "members", PROMOTE).outcome == NOT_APPLIED


def test_a_refusal_is_one_unless_an_earlier_try_was_sent() -> None:
    world = World()
    core = world.core()
    refused = ConfigError("n4 is no member", code="no_member")
    world.nodes["n1"].refuse = [refused]
    assert failure(world, core, "members", PROMOTE).outcome == NOT_APPLIED
    world.nodes["n1"].lose_orders = 1
    world.nodes["n1"].refuse_orders = [refused]
    error = failure(world, core, "members", PROMOTE)
    assert (type(error), error.code, error.outcome) == (ConfigError, "no_member", UNKNOWN)
    assert "ask again" in error.hint
