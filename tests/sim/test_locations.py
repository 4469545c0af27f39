"""Whole nodes in places: the leader goes home, with nobody noticing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raftdb.command import Statement
from tests.sim.checkers import Broken
from tests.sim.planted.locations import PLACES, ask
from tests.sim.planted.script import Script

PROBE = (Statement("INSERT INTO w_probe VALUES (1)"),)


def played(play: Callable[[Script], None], **options: Any) -> None:
    result = Script(play, nodes=5, places=PLACES, **options).run()
    assert not result.broken, (result.broken, result.notes[-30:], result.traceback)


def leader_goes_home(s: Script) -> None:
    """Its region is killed and comes back: leadership leaves, and returns. No write fails."""
    client = s.new_client()
    core = client._core
    changes = {"leader_preference": ("us", "eu/b")}
    told = ask(s, client, core.ask("settings", {"changes": changes}, timeout_s=5.0))
    assert tuple(told["settings"]["leader_preference"]) == ("us", "eu/b")

    def writes_until(leads: Callable[[str], bool], within_s: float, what: str) -> None:
        end_s = s.world.now_s + within_s
        while not leads(s.leader()):
            ask(s, client, core.execute(PROBE, timeout_s=5.0))
            s.run_for(0.3)
            if s.world.now_s > end_s:
                raise Broken("leader's place", what)

    writes_until(lambda name: name == "n3", 15.0, "it did not go to us")
    s.down("n3")
    s.run_for(1.0)
    writes_until(lambda name: name == "n2", 15.0, "us is gone: eu/b is next")
    s.up("n3")
    writes_until(lambda name: name == "n3", 45.0, "it did not come back to us")
    s.cluster.terminate("n3")
    s.until(lambda: s.leader() != "n3")
    assert s.leader() == "n2", "who is stopped hands over to the next best place"


def an_ocean_apart(s: Script) -> None:
    """With the times of a LAN, 250 ms from each other: quiet, and soon well after a failure."""
    client = s.new_client()
    s.run_for(6.0)
    leader = s.leader()
    term = s.node(leader).term
    timing = s.node(leader).assembly.pace.timing
    assert 0.6 < timing.election_min_s < 1.2, timing
    for _ in range(15):
        ask(s, client, client._core.execute(PROBE, timeout_s=5.0))
        s.run_for(1.0)
    if (s.leader(), s.node(leader).term) != (leader, term):
        raise Broken("healthy leader stays", "leaders changed an ocean apart, without a failure")
    s.down(leader)
    s.within(
        5.0,
        lambda: any(node.name != leader for node in s.cluster.leaders()),
        "liveness",
        "no leader 5 s after the old one lost its power",
    )
    ask(s, client, client._core.execute(PROBE, timeout_s=5.0))
    s.up(leader)
    s.run_for(4.0)


def test_times_follow_the_distance() -> None:
    script = Script(an_ocean_apart, nodes=3)
    script.cluster.fabric.weather.round_trip_s = 0.25
    script.cluster.fabric.weather.jitter = 0.3
    result = script.run()
    assert not result.broken, (result.broken, result.notes[-30:], result.traceback)


def test_the_leader_goes_home_and_no_write_fails() -> None:
    played(leader_goes_home)
