"""Bugs in replies that wait for several locations, and the script that shows them (C3, L1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from raftdb.base.errors import Error
from raftdb.command import Statement, is_failure
from raftdb.node.durable import PENDING, TOO_FEW, Durable, InLocations
from raftdb.node.replica import Replica
from tests.sim.checkers import Broken
from tests.sim.checkers.durable_in_places import DurableInPlaces
from tests.sim.planted.bug import Bug, Patch
from tests.sim.planted.script import Script

PLACES = ("eu/a/r1", "eu/b/r1", "us/a/r1", "asia/a/r1", "sa/a/r1")
LEVEL = "locations=3"
TIMEOUT_S = 2.0


def _counts_members() -> list[Patch]:
    """Three members have it: two of them in one region."""

    def upto(self: InLocations, durable: Mapping[str, int]) -> int:
        return sorted(durable.values(), reverse=True)[self._wanted.locations - 1]

    return [(InLocations, "upto", upto)]


def _stored_replies_at_once() -> list[Patch]:
    """What is in the log already is answered from there, without waiting once more."""
    propose = Replica.propose_durably

    def propose_durably(
        self: Replica, payload: bytes, timeout_s: float, done: Any, level: str, refuse: bool = True
    ) -> None:
        propose(self, payload, timeout_s, done, level if refuse else "quorum", refuse)

    return [(Replica, "propose_durably", propose_durably)]


def _deadline_is_success() -> list[Patch]:
    """At the deadline the write is committed, so it is said to be done."""
    wait = Durable.wait

    def give_in(self: Durable, wanted: Any, answer: Any, call: Any) -> None:
        wait(self, wanted, answer, call)
        expire = call.late

        def late(timeout_s: float) -> Error:
            call.end(answer, None)
            error: Error = expire(timeout_s)
            return error

        call.late = late

    return [(Durable, "wait", give_in)]


def _kept_rows_at_once() -> list[Patch]:
    """What failed is told at once."""
    hold = Durable.hold

    def tell(self: Durable, wanted: Any, answer: Any, call: Any) -> None:
        if is_failure(answer.body) and not call.ended:
            call.end(answer, None)
        else:
            hold(self, wanted, answer, call)

    return [(Durable, "hold", tell)]


BUGS: tuple[Bug, ...] = (
    Bug(
        "members-counted-for-locations",
        "L1",
        "locations=3 counts three members' disks, wherever they are",
        make=_counts_members,
    ),
    Bug(
        "stored-replies-do-not-wait",
        "C3",
        "what is asked for again is answered from the log at once",
        make=_stored_replies_at_once,
    ),
    Bug(
        "deadline-taken-for-success",
        "C3",
        "a write that is in two of three locations at its deadline is acknowledged",
        make=_deadline_is_success,
    ),
    Bug(
        "kept-rows-do-not-wait",
        "C3",
        "what a failed statement has kept (OR FAIL) is told before it is where it should be",
        make=_kept_rows_at_once,
    ),
)


def in_three_places(s: Script) -> None:
    """Five nodes in four regions. Two regions are cut off: a majority is left, in two regions."""
    [checker] = [one for one in s.checkers if isinstance(one, DurableInPlaces)]
    s.make_leader("n1")
    client = s.new_client()
    client._core.durability = LEVEL
    made = s.create("placed", client)
    s.until(lambda: bool(made))
    _sound(s, client, 1)
    s.slow_disk(0.5, "n4", "n5")
    s.cluster.fabric.block(_cut("n4", "n5", s.others()))
    pending = _write(s, client, 2)
    if not isinstance(pending, Error) or pending.code != PENDING:
        raise Broken("says how far it is", f"{pending!r} while two regions are cut off")
    session, sequence = client._core.last_write
    asked = ask(s, client, client._core.outcome(session, sequence, None, timeout_s=TIMEOUT_S))
    if asked.error is None or asked.error.code != PENDING:
        raise Broken("outcomes wait too", f"{asked!r} while two regions are cut off")
    refused = _write(s, client, 3)
    if not isinstance(refused, Error) or refused.code != TOO_FEW:
        raise Broken("refused up front", f"{refused!r} with two regions gone for long")
    s.heal()
    s.slow_disk(0.0, "n4", "n5")
    index = ask(s, client, client._core.await_durable(pending, None, timeout_s=10.0))
    assert index == pending.detail["index"]
    _sound(s, client, 4)
    counted = ask(
        s, client, client._core.query((Statement("SELECT a FROM placed"),), timeout_s=TIMEOUT_S)
    )
    rows = [row[0] for row in counted.results.statements[0].rows]
    if rows != [1, 2, 4]:
        raise Broken("applied or not as it was said", f"rows {rows}")
    assert checker.seen >= 2, "nothing was watched"


def kept_rows(s: Script) -> None:
    """A statement fails at its third row and keeps the first two, while two regions are cut off."""
    s.make_leader("n1")
    client = s.new_client()
    made = s.create("placed", client)
    s.until(lambda: bool(made))
    _sound(s, client, 1)
    unique = (Statement("CREATE UNIQUE INDEX once ON placed(a)"),)
    ask(s, client, client._core.execute(unique, timeout_s=TIMEOUT_S))
    s.slow_disk(0.5, "n4", "n5")
    s.cluster.fabric.block(_cut("n4", "n5", s.others()))
    keeping = (Statement("INSERT OR FAIL INTO placed VALUES (2), (3), (2)"),)
    steps = client._core.execute(keeping, timeout_s=TIMEOUT_S, durability=LEVEL)
    told = ask(s, client, steps, failing=True)
    s.heal()
    s.slow_disk(0.0, "n4", "n5")
    if not isinstance(told, Error) or told.code != PENDING:
        raise Broken("durable in places", f"{told!r} while two regions are cut off")


def _cut(*rest: Any) -> set[tuple[str, str]]:
    *gone, others = rest
    return {pair for one in gone for other in others for pair in ((one, other), (other, one))}


def _sound(s: Script, client: Any, number: int) -> None:
    found = _write(s, client, number)
    if isinstance(found, Error):
        raise Broken("liveness", f"all regions are there, and a write got {found!r}")


def _write(s: Script, client: Any, number: int) -> Any:
    statements = (Statement("INSERT INTO placed VALUES (?)", ((number,),)),)
    core = client._core
    return ask(
        s, client, core.execute(statements, timeout_s=TIMEOUT_S, durability=LEVEL), failing=True
    )


def ask(s: Script, client: Any, steps: Any, failing: bool = False) -> Any:
    """What the steps of a client come to; what they raise is raised, or returned."""
    found: list[tuple[Any, BaseException | None]] = []
    client.life.run(client._driver.run, steps, lambda value, error: found.append((value, error)))
    s.until(lambda: bool(found))
    value, error = found[0]
    if error is not None and not failing:
        raise error
    return value if error is None else error


SCRIPTED = {
    **dict.fromkeys([bug.name for bug in BUGS], "in-three-places"),
    "kept-rows-do-not-wait": "kept-rows",
}
PLAYS: dict[str, tuple[Callable[[Script], None], dict[str, Any]]] = {
    "in-three-places": (in_three_places, {"nodes": 5, "places": PLACES}),
    "kept-rows": (kept_rows, {"nodes": 5, "places": PLACES}),
}
