"""Bugs in what a member does whose disk is full: it takes no entries, and takes part otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raftdb.consensus.core import Core
from raftdb.consensus.messages import Append
from tests.sim.planted.bug import Bug, Patch
from tests.sim.planted.scenarios_requests import keep_writing
from tests.sim.planted.script import Script


def fill(s: Script, name: str) -> None:
    """Something else takes the room on a node's disk; until the node has seen it."""
    s.host(name).files.free = 0
    s.until(lambda: s.node(name).assembly.space.full)


def make_room(s: Script, name: str) -> None:
    """It goes again; until the node has seen it."""
    s.host(name).files.free = 1 << 50
    s.until(lambda: not s.node(name).assembly.space.full)


def full_with_a_tail(s: Script) -> None:
    """A deposed leader has entries that nobody else has, and no room for those of the next one. It
    hears what that one has committed under the same numbers, and must not take its own for it."""
    old = s.leader()
    s.written(2)
    s.only([old], s.others(old))
    for _ in range(12):
        s.cluster.call(old, s.node(old).assembly.replica.tick)
        s.run_for(0.005)
    fill(s, old)
    s.until(lambda: any(node.role == "leader" and node.name != old for node in s.cluster.live()))
    s.written(6)
    s.heal()
    s.run_for(2.0)
    make_room(s, old)
    s.run_for(1.0)


def full_under_load(s: Script) -> None:
    """One member after the other has no room for a while, the leader too, and somebody writes."""
    stop = keep_writing(s, [], every_s=0.01)
    for name in (s.leader(), *s.cluster.hosts):
        fill(s, name)
        s.run_for(1.0)
        make_room(s, name)
        s.run_for(0.3)
    stop()


def _verified_though_left_out() -> list[Patch]:
    """What a leader has shown to match counts, taken or not."""
    append = Core.on_append

    def on_append(self: Core, peer: str, message: Append) -> None:
        placed = self.wall.put_at_index(message, self.log, self.library.commit_index)
        append(self, peer, message)
        term, index = self._verified
        if term == message.term:
            self._verified = term, max(index, placed.verified)

    return [(Core, "on_append", on_append)]


BUGS: tuple[Bug, ...] = (
    Bug(
        "verified-though-left-out",
        "row 4",
        "a follower commits its own tail in the place of entries that it had no room for",
        make=_verified_though_left_out,
    ),
)

SCRIPTED = {"verified-though-left-out": "full-with-a-tail"}
PLAYS: dict[str, tuple[Callable[[Script], None], dict[str, Any]]] = {
    "full-with-a-tail": (full_with_a_tail, {"limits": {"entry_requests_max": 1}}),
}
