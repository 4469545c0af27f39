"""Scripts about content that differs between members, and about requests that run long.

That content differs is done to a member's memory, as a bad module of it would: nothing else in here
could. That requests run long is a matter of bounds, which are small in these runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from raftdb.command import Statement
from raftdb.machine import patience
from raftdb.wire import LOCAL
from tests.sim.checkers import Broken
from tests.sim.planted.scenarios_requests import (
    client_of,
    keep_writing,
    reader,
    register_in,
    run,
)
from tests.sim.planted.script import Script
from tests.workloads import Outcome

NEVER_WRITTEN = 999_999
LONG = (
    "INSERT INTO long WITH RECURSIVE n(i) AS"
    " (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) SELECT i FROM n"
)


def spoil(s: Script, name: str) -> None:
    """One value changes at one member, behind everybody's back."""
    node, end = s.node(name), s.node(s.leader()).journal.last_index
    s.until(lambda: node.applied_index >= end)
    machine = node.machine
    s.cluster.note("content spoilt", name)
    sql = f"UPDATE w_register SET value = {NEVER_WRITTEN} WHERE key = 0 /*raftdb*/"
    with machine._writer_lock:
        machine._writer.execute(sql).fetchall()


def compare(s: Script) -> None:
    """Something for the members to compare."""
    s.written(3, key=1)


def all_agree(s: Script, spoilt: int) -> None:
    """Everybody is sound again, those that differed by a copy."""
    s.within(
        30.0,
        lambda: (
            s.cluster.copies_installed >= spoilt
            and len(s.cluster.live()) == len(s.cluster.hosts)
            and all(node.assembly.comparison.state == "agrees" for node in s.cluster.live())
            and all(_value(node) != NEVER_WRITTEN for node in s.cluster.live())
        ),
        "the majority decides",
        "members that differed from the majority have not become sound",
    )


def _value(node: Any) -> int:
    [(value,)] = (
        node.machine.query(Statement("SELECT value FROM w_register WHERE key = 0"))
        .statements[0]
        .rows
    )
    return int(value)


def leader_differs(s: Script) -> None:
    """The one that leads is the one that differs."""
    s.written(2)
    leader = s.leader()
    spoil(s, leader)
    compare(s)
    s.run_for(1.0)
    for name in s.others(leader):
        if s.node(name).assembly.comparison.quarantined:
            raise Broken("the majority decides", f"{name} is quarantined, and {leader} differs")
    all_agree(s, 1)


def follower_differs(s: Script) -> None:
    """A member that differs is asked for the very value."""
    s.written(2)
    name = s.others(s.leader())[0]
    client = client_of(s, name)
    value = s._value
    spoil(s, name)
    compare(s)
    node = s.node(name)
    s.until(lambda: node.assembly.comparison.quarantined)
    found, error = run(s, client, reader(client, LOCAL)())
    if error is None and register_in(found) != value:
        raise Broken("who differs is silent", f"{name} answers {register_in(found)}, not {value}")
    all_agree(s, 1)


def differs_and_starts_anew(s: Script) -> None:
    """A member that differs starts anew before it has a sound copy, and nobody else is in reach."""
    s.written(2)
    name = s.others(s.leader())[0]
    client = client_of(s, name)
    spoil(s, name)
    compare(s)
    s.until(lambda: s.node(name).assembly.comparison.quarantined)
    s.only(s.others(name), [name, client.name])
    s.run_for(0.2)
    s.cluster.kill(name, power=False)
    s.cluster.start(name)
    s.run_for(0.5)
    found, error = run(s, client, reader(client, LOCAL)())
    if error is None and register_in(found) == NEVER_WRITTEN:
        raise Broken("who differs is silent", f"{name} answers again, as nobody contradicts it")
    s.heal()
    all_agree(s, 1)


def found_by_a_scrub(s: Script) -> None:
    """A scrub has found damage that digests do not show: the member gets another database, however
    equal its digests are."""
    s.written(2)
    name = s.others(s.leader())[0]
    comparison = s.node(name).assembly.comparison
    s.cluster.call(name, comparison.quarantine, "rows and indexes differ")
    s.until(lambda: comparison.quarantined)
    compare(s)
    s.until(lambda: not s.node(name).assembly.comparison.quarantined)
    s.run_for(1.0)
    if not s.cluster.copies_installed:
        raise Broken("who is damaged is silent", f"{name} answers from the database that it had")
    all_agree(s, 1)


def two_differ(s: Script) -> None:
    """Two of five differ, and they are equal."""
    s.written(2)
    for name in s.others(s.leader())[:2]:
        spoil(s, name)
    compare(s)
    all_agree(s, 2)


def nobody_knows(s: Script) -> None:
    """One of three is down, and the other two differ."""
    s.written(2)
    leader = s.leader()
    down, other = s.others(leader)
    spoil(s, other)
    s.down(down)
    compare(s)
    s.run_for(3.0)
    late = s.write(key=1)
    s.run_for(3.0)
    if late and late[0].status == "ok":
        raise Broken("in doubt nothing is written", f"{leader} and {other} differ: {late[0]}")
    s.up(down)
    all_agree(s, 1)


def healed_under_load(s: Script) -> None:
    """A member that differs gets a copy, and its log goes on meanwhile."""
    s.written(2)
    name = s.others(s.leader())[0]
    stop = keep_writing(s, [], every_s=0.02, key=1)
    spoil(s, name)
    all_agree(s, 1)
    stop()


# -- requests that run long ------------------------------------------------------------------------


@contextlib.contextmanager
def impatient() -> Iterator[None]:
    """What is long, and what is too long, is little."""
    with (
        mock.patch.object(patience, "HOLD_STEPS", 5_000),
        mock.patch.object(patience, "ABORT_STEPS", 60_000),
        mock.patch.object(patience, "GRAIN", 100),
    ):
        yield


def _long(s: Script, rows: int, client: Any) -> list[Outcome]:
    operation = s._setup.operation(Statement(LONG.format(rows=rows)), "long")
    found: list[Outcome] = []
    client.life.run(client.execute, operation, found.append, s._setup)
    return found


def long_requests(s: Script) -> None:
    """A request that runs long among others, then one that runs too long, and their neighbours."""
    clients = [s.new_client() for _ in range(5)]
    made = [s.write(key=1, client=one) for one in clients]
    s.until(lambda: all(made))
    created = s._setup.operation(Statement("CREATE TABLE long(i)"))
    done: list[Outcome] = []
    clients[0].life.run(clients[0].execute, created, done.append, s._setup)
    s.until(lambda: bool(done))
    for rows, code in ((1_000, ""), (40_000, "statement_too_long"), (900, "")):
        leader = s.leader()
        for node in s.cluster.live():
            # Processors have become slow: no moment passes without.
            node.assembly.cpu_clock.look_s = 0.005
        s.slow_disk(0.03, leader)
        waiting = [s.write(key=2)]
        s.run_for(0.01)
        # Neighbours whose replies differ, and one that is known by its key.
        waiting += [s.swap(1, -1, 0, clients[0]), s.write(key=0, client=clients[1], name=str(rows))]
        s.run_for(0.003)
        long = _long(s, rows, clients[2])
        s.run_for(0.003)
        waiting += [s.write(key=2, client=one) for one in clients[3:]]
        s.slow_disk(0.0, leader)
        s.until(lambda long=long, waiting=waiting: bool(long) and all(waiting))
        if (long[0].status, long[0].error) not in (("ok", code), ("refused", code)):
            raise Broken("one verdict for all", f"{rows} rows: {long[0]}, expected {code or 'ok'}")
        shown = [s.read(key=key) for key in (0, 1)]
        s.until(lambda shown=shown: all(shown))
    s.run_for(1.0)
    for node in s.cluster.live():
        node.assembly.cpu_clock.look_s = 0.0


PLAYS: dict[str, tuple[Callable[[Script], None], dict[str, Any]]] = {
    "leader-differs": (leader_differs, {}),
    "follower-differs": (follower_differs, {}),
    "differs-and-starts-anew": (differs_and_starts_anew, {}),
    "found-by-a-scrub": (found_by_a_scrub, {}),
    "two-differ": (two_differ, {"nodes": 5}),
    "nobody-knows": (nobody_knows, {}),
    "healed-under-load": (healed_under_load, {}),
    "long-requests": (
        long_requests,
        {"environment": impatient, "limits": {"write_ms_max": 100}},
    ),
}
"""By name: the script, and the options of its run."""

SCRIPTED = {
    "quarantine-forgotten": "differs-and-starts-anew",
    "released-as-it-is": "found-by-a-scrub",
    "leaders-content-is-right": "leader-differs",
    "differs-and-serves": "follower-differs",
    "heals-from-a-minority": "two-differ",
    "writes-in-doubt": "nobody-knows",
    "log-dropped-behind-a-copy": "healed-under-load",
    "own-clock-ends-a-request": "long-requests",
    "verdict-ignored": "long-requests",
    "held-request-takes-neighbours": "long-requests",
}
