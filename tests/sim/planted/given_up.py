"""Bugs in what a member does whose log is damaged before its last segment: what it gives up there
has to be in its database, or it may be what nobody has committed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from raftdb.embedded import opening
from tests.sim.planted.bug import Bug, Patch
from tests.sim.planted.script import Script

SEGMENT_BYTES = 1024


def tail_given_up(s: Script) -> None:
    """Two of five have a long tail that nobody has committed. One of them joins the other three,
    its log damaged in the midst of that tail: it must not acknowledge, in the place of what it has
    given up, what it never got. The other, with two that lack it, would lead and take it back."""
    old = s.leader()
    tail, *rest = s.others(old)
    s.written(2)
    s.only([old, tail], rest)
    for _ in range(60):
        s.cluster.call(old, s.node(old).assembly.replica.tick)
        s.run_for(0.005)
    s.until(lambda: any(node.role == "leader" and node.name in rest for node in s.cluster.live()))
    leader = next(one.name for one in s.cluster.live() if one.role == "leader" and one.name in rest)
    other, _lacks = [one for one in rest if one != leader]
    segments = s.node(tail).journal._segments
    assert len(segments.sealed) > 3
    path = segments.path_of(segments.sealed[-1].number)
    s.down(tail, power=False)
    s.host(tail).damaged = True
    files = s.host(tail).files
    files.overwrite(path, len(files.durable_content(path)) - 40, bytes(40))
    s.only([leader, other, tail])
    s.up(tail)
    for _ in range(3):
        s.write()
        s.run_for(1.0)
    s.down(leader)
    s.down(other)
    s.heal()
    s.run_for(4.0)
    s.up(leader, other)
    s.run_for(2.0)


def _whatever_it_holds() -> list[Patch]:
    """What the database lacks is to come with a copy; until then the log alone votes and
    acknowledges."""
    after = opening._after

    def comes_with_a_copy(opened: Any, damage: Any, *rest: Any) -> Any:
        journal, machine = opened.journal, opened.machine
        if damage is None or int(machine.applied()[0]) >= journal.first_index - 1:
            return after(opened, damage, *rest)
        machine.close()
        return opening._without(journal, replace(opened.note, damage=damage), damage, rest[1])

    return [
        (opening, "_stored", lambda database, ports: 1 << 40),
        (opening, "_after", comes_with_a_copy),
    ]


BUGS: tuple[Bug, ...] = (
    Bug(
        "uncommitted-given-up",
        "J2",
        "a log begins behind damage, whether or not the database has what is gone",
        make=_whatever_it_holds,
    ),
)

SCRIPTED = {"uncommitted-given-up": "tail-given-up"}
PLAYS: dict[str, tuple[Callable[[Script], None], dict[str, Any]]] = {
    "tail-given-up": (
        tail_given_up,
        {"nodes": 5, "limits": {"journal_segment_bytes": SEGMENT_BYTES, "entry_requests_max": 1}},
    ),
}
