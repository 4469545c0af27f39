"""Bugs in what a client takes for refused, for never sent, and for decided, while its connections
break, its time is over, and its session ends (row 16, rules S1 to S3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from raftdb.base.errors import NOT_APPLIED, UNKNOWN, Error
from raftdb.client import core as core_module
from raftdb.client import flight as flight_module
from raftdb.client.actions import LinkError, Steps
from raftdb.client.core import Core, Write
from raftdb.client.flight import Flight, Item
from raftdb.client.routing import Routes
from raftdb.client.transactions import OpenTransaction
from raftdb.command import Statement
from raftdb.node.reading import Reading
from raftdb.wire import BOUNDED, LOCAL, SESSION, ClientSide, CloseSession, Execute, Request, Rows
from tests.sim.checkers import Broken
from tests.sim.planted.bug import Bug, Patch
from tests.sim.planted.scenarios_requests import (
    ROWS,
    TIMEOUT_S,
    client_of,
    expect_rows,
    insert,
    run,
    sound,
    table,
)
from tests.sim.planted.script import Script

LATE_S = 3.0
PATIENT_S = 20.0
LARGE = Statement("SELECT a, hex(zeroblob(2000)) FROM asked ORDER BY a")


# -- scripts ---------------------------------------------------------------------------------------


def rows_now(s: Script, client: Any) -> list[int]:
    """What a client reads."""
    found = sound(s, client, client._core.query((ROWS,), timeout_s=TIMEOUT_S))
    return [row[0] for row in found.results.statements[0].rows]


def opened(s: Script, client: Any) -> Any:
    """The client's session."""
    core = client._core
    sound(s, client, core.open(core.courier.call(TIMEOUT_S)))
    return core.session


def begun(client: Any, steps: Steps[Any]) -> list[tuple[Any, BaseException | None]]:
    """A client does this; the list that its end is put into."""
    found: list[tuple[Any, BaseException | None]] = []
    client.life.run(client._driver.run, steps, lambda value, error: found.append((value, error)))
    return found


def last_sequence(s: Script, name: str, session: Any) -> int:
    """The last request of a session that a node has applied."""
    number = int.from_bytes(session.session_id[16:24], "big")
    return int(s.node(name).machine._applier.sessions.last_sequence(number))


def closed_by(s: Script, client: Any, session: Any) -> None:
    """Another one closes that session: as its owner would who has given up a request of it."""
    core = client._core
    core.leave_unsettled((Write(session, 1, insert(1), True),))
    sound(s, client, core.settle(core.courier.call(TIMEOUT_S)))


def flying(core: Core, items: Sequence[Item]) -> Steps[None]:
    """A pipeline, to its end."""
    flight = Flight(core)
    for item in items:
        yield from flight.submit(item)
    yield from flight.settle()


def items_of(core: Core, numbers: Sequence[int], timeout_s: float) -> list[Item]:
    """Requests that insert these."""
    deadline_s = core.courier.now_s() + timeout_s
    return [Item(insert(number), True, deadline_s, timeout_s) for number in numbers]


def late_write(s: Script) -> None:
    """A client's write is on a slow way still when its time is over. What the client then reads
    stays as it is, whenever the write arrives: it was decided before."""
    client = table(s)
    leader = s.leader()
    s.cluster.fabric.slow[client.name, leader] = LATE_S
    error = run(s, client, client._core.execute(insert(1), timeout_s=1.0))[1]
    assert isinstance(error, Error)
    assert error.outcome == UNKNOWN, error
    s.cluster.fabric.slow.clear()
    before = rows_now(s, client)
    s.run_for(LATE_S)
    after = rows_now(s, client)
    if before != after:
        raise Broken("what was read stays", f"{before}, and then {after}, and nobody wrote")


def busy_when_it_settles(s: Script) -> None:
    """The same, and the leader has too much to do to close the session of that write at once."""
    client = table(s)
    leader = s.leader()
    others = [s.new_client() for _ in range(8)]
    for one in others:
        first = s.write(client=one)
        s.until(lambda first=first: bool(first))
    s.cluster.fabric.slow[client.name, leader] = LATE_S
    error = run(s, client, client._core.execute(insert(1), timeout_s=1.0))[1]
    assert isinstance(error, Error)
    assert error.outcome == UNKNOWN, error
    s.cluster.fabric.slow.clear()
    s.slow_disk(0.5, *s.cluster.hosts)
    waiting = [s.write(client=one) for one in others]
    s.run_for(0.05)
    before = rows_now(s, client)
    s.slow_disk(0.0, *s.cluster.hosts)
    s.until(lambda: all(waiting))
    s.run_for(LATE_S)
    after = rows_now(s, client)
    if before != after:
        raise Broken("what was read stays", f"{before}, and then {after}, and nobody wrote")


def bounded_at_one_node(s: Script) -> None:
    """A follower that gets everything late has just found out how late, for one client, when
    another one asks it and nobody else."""
    table(s)
    leader = s.leader()
    follower = s.others(leader)[0]
    writer, near = s.new_client(), [client_of(s, follower), client_of(s, follower)]
    s.cluster.fabric.slow[leader, follower] = 0.7
    s.run_for(1.0)
    for one in near:
        one._core.courier.routes = Routes(one._core.courier.options.addresses, pin=True)
        run(s, one, one._core.query((ROWS,), level=LOCAL, timeout_s=1.0))
    for number in range(1, 4):
        first, second = (
            one._core.query((ROWS,), level=BOUNDED, max_age_ms=300, timeout_s=1.0) for one in near
        )
        done = begun(near[0], first)
        s.run_for(0.3)
        sound(s, writer, writer._core.execute(insert(number), timeout_s=TIMEOUT_S))
        s.run_for(0.41)
        value, error = run(s, near[1], second)
        if error is None and len(value.results.statements[0].rows) < number:
            what = f"{number} was acknowledged 0.4 s before, and is not there"
            raise Broken("bounded staleness", what)
        s.until(lambda done=done: bool(done))  # type: ignore[misc]
    s.cluster.fabric.slow.clear()


def ends_while_open(s: Script) -> None:
    """A write is done, its answer is lost, and its session is closed before it can be sent again:
    it must not be done once more in another session."""
    table(s)
    client, other = s.new_client(), s.new_client()
    session, leader = opened(s, client), s.leader()
    s.cluster.fabric.block({(name, client.name) for name in s.cluster.hosts})
    done = begun(client, client._core.execute(insert(1), timeout_s=PATIENT_S))
    s.until(lambda: last_sequence(s, leader, session) >= 1)
    closed_by(s, other, session)
    s.reset(client.name, leader)
    s.heal()
    s.until(lambda: bool(done), within_s=2 * PATIENT_S)
    expect_rows(s, [1], "exactly once")


def broken_off(s: Script) -> None:
    """A connection breaks while a write is put into it, and nobody is reached any more."""
    client = table(s)
    opened(s, client)
    client._driver.breaks_off = True
    done = begun(client, client._core.execute(insert(1), timeout_s=1.0))
    s.only(s.cluster.hosts, [client.name])
    s.until(lambda: bool(done))
    s.heal()
    _require_honest(s, done[0][1])


def _require_honest(s: Script, error: BaseException | None) -> None:
    """Who said that the only write was not applied?"""
    rows = rows_now(s, s.new_client())
    if rows and isinstance(error, Error) and error.outcome == NOT_APPLIED:
        raise Broken("failed means nothing", f"{rows} are there, the client was told: {error!r}")


def refused_in_flight(s: Script) -> None:
    """One request of a pipeline is refused for good, before the log: those behind it are done."""
    table(s)
    client = s.new_client()
    core = client._core
    opened(s, client)
    items = items_of(core, range(1, 6), TIMEOUT_S)
    # There are three regions.
    items[1].durability = "locations=4"
    sound(s, client, flying(core, items))
    told = [type(item.error).__name__ if item.error is not None else "done" for item in items]
    if told.count("done") != 4 or items[1].error is None:
        raise Broken("a refusal stops nobody", f"{told}, and only the second is impossible")
    expect_rows(s, [1, 3, 4, 5], "a refusal stops nobody")


def unknown_in_flight(s: Script) -> None:
    """A leader loses its office with a pipeline in its log, and does not know what will
    become of it. It is done under the next one, where the session is closed before its client can
    ask there."""
    table(s)
    client, other = s.new_client(), s.new_client()
    session, old = opened(s, client), s.leader()
    rows_now(s, other)
    items = items_of(client._core, range(1, 6), PATIENT_S)
    s.slow_disk(0.4, *s.others(old))
    end = s.node(old).journal.last_index
    done = begun(client, flying(client._core, items))
    s.until(lambda: s.node(old).journal.last_index > end)
    s.run_for(0.05)
    end = s.node(old).journal.last_index
    s.until(lambda: all(s.node(name).journal.last_index >= end for name in s.others(old)))
    s.only([old, client.name], [*s.others(old), other.name])
    s.until(lambda: all(int(s.node(name).journal.durable_index) >= end for name in s.others(old)))
    s.slow_disk(0.0, *s.others(old))
    s.until(lambda: any(node.role == "leader" and node.name != old for node in s.cluster.live()))
    s.until(lambda: s.node(old).role != "leader")
    s.run_for(0.2)
    closed_by(s, other, session)
    s.heal()
    s.until(lambda: bool(done), within_s=2 * PATIENT_S)
    client._core.leave_unsettled(())
    expect_rows(s, [1, 2, 3, 4, 5], "exactly once")


def answers_lost_in_flight(s: Script) -> None:
    """A pipeline is done, and none of its answers arrives; all are there when it asks again."""
    table(s)
    client = s.new_client()
    session, leader = opened(s, client), s.leader()
    items = items_of(client._core, range(1, 6), PATIENT_S)
    s.cluster.fabric.block({(name, client.name) for name in s.cluster.hosts})
    done = begun(client, flying(client._core, items))
    s.until(lambda: last_sequence(s, leader, session) >= len(items))
    s.reset(client.name, leader)
    s.heal()
    s.until(lambda: bool(done), within_s=2 * PATIENT_S)
    if any(item.outcome is None for item in items):
        raise Broken("replies are kept", f"asked for again: {[item.error for item in items]}")
    expect_rows(s, [1, 2, 3, 4, 5], "exactly once")


def in_many_pieces(s: Script) -> None:
    """An answer is larger than what one message takes."""
    client = table(s)
    count = 300
    numbers = tuple((number,) for number in range(count))
    statement = Statement("INSERT INTO asked VALUES (?)", numbers)
    sound(s, client, client._core.execute((statement,), timeout_s=TIMEOUT_S))
    value, error = run(s, client, client._core.query((LARGE,), timeout_s=TIMEOUT_S))
    found = 0 if error is not None else len(value.results.statements[0].rows)
    if found != count:
        raise Broken("answers are whole", f"{found} of {count} rows: {error!r}")


def reads_after_its_commit(s: Script) -> None:
    """A client commits a transaction, and then reads at level `session` at a follower that gets
    everything late."""
    table(s)
    leader = s.leader()
    follower = s.others(leader)[0]
    writer, near = s.new_client(), client_of(s, follower)
    s.cluster.fabric.slow[leader, follower] = 0.7
    s.run_for(1.0)
    one = OpenTransaction(writer._core, True)
    [statement] = insert(1)
    sound(s, writer, one.execute(statement, timeout_s=TIMEOUT_S))
    sound(s, writer, one.commit(None, timeout_s=TIMEOUT_S))
    near._core.seen = writer._core.seen
    steps = near._core.query((ROWS,), level=SESSION, timeout_s=TIMEOUT_S)
    value, error = run(s, near, steps)
    if error is None and not value.results.statements[0].rows:
        raise Broken("session reads go forward", "a client does not see what it has committed")
    s.cluster.fabric.slow.clear()


# -- bugs ------------------------------------------------------------------------------------------


def _reads_beside() -> list[Patch]:
    """A read is no write: it need not wait for what is open."""
    query = Core.query

    def beside(self: Core, *arguments: Any, **named: Any) -> Steps[Any]:
        open_still, self._unsettled = self._unsettled, ()
        found = yield from query(self, *arguments, **named)
        self._unsettled = open_still
        return found

    return [(Core, "query", beside)]


def _closed_by_word() -> list[Patch]:
    """A connection on which a session was to be closed needs no more to be told of which."""
    attached, asked = Core.attached, set[int]()

    def once(self: Core, peer: Any, session: Any, message: Request) -> Sequence[Request]:
        if isinstance(message, CloseSession):
            if id(peer) in asked:
                peer.attached = session.session_id
            asked.add(id(peer))
        return attached(self, peer, session, message)

    return [(Core, "attached", once)]


def _commit_unseen() -> list[Patch]:
    """What a transaction has done is not counted among what its client has seen."""
    commit = OpenTransaction.commit

    def quietly(self: OpenTransaction, *arguments: Any, **named: Any) -> Steps[int]:
        seen = self._core.seen
        index = yield from commit(self, *arguments, **named)
        self._core.seen = seen
        return index

    return [(OpenTransaction, "commit", quietly)]


def _sent_again_elsewhere() -> list[Patch]:
    """A session that is gone has done nothing."""
    gone = core_module._SessionGone.__init__

    def sure(self: Any, error: Error, unsure: bool) -> None:
        gone(self, error, False)

    return [(core_module._SessionGone, "__init__", sure)]


def _broken_off_is_unsent() -> list[Patch]:
    """What could not be written to the end was not sent."""
    lost = LinkError.__init__

    def unsent(self: LinkError, *arguments: Any, **named: Any) -> None:
        lost(self, *arguments, **{**named, "unsent": True})

    return [(LinkError, "__init__", unsent)]


def _renumbered() -> list[Patch]:
    """Those behind one that was refused move up."""

    def fill(self: Flight, item: Item, error: Error) -> None:
        item.end(None, error)
        self._queue.remove(item)
        for other in self._queue:
            if other.sequence > item.sequence:
                other.sequence -= 1
        self._numbered -= 1

    return [(Flight, "_fill", fill)]


def _unknown_is_new() -> list[Patch]:
    """An answer came, so nothing is lost."""
    take = Flight._error

    def answered(self: Flight, peer: Any, item: Item, error: Error) -> None:
        before = item.lost
        take(self, peer, item, error)
        item.lost = before

    return [(Flight, "_error", answered)]


def _bounded_with_slack() -> list[Patch]:
    """Half a second more or less."""
    begin = Reading.begin

    def generous(
        self: Reading, level: str, what: Any, rows: int, seen: Any, age_s: float, *rest: Any
    ) -> None:
        begin(self, level, what, rows, seen, age_s + 0.5, *rest)

    return [(Reading, "begin", generous)]


def _floor_ahead() -> list[Patch]:
    """What has been sent has been answered."""

    def ahead(request_id: int, sequence: int, _floor: int, *rest: Any) -> Execute:
        return Execute(request_id, sequence, sequence - 1, *rest)

    return [(flight_module, "Execute", ahead)]


def _first_piece() -> list[Patch]:
    """Rows have come: that is the answer."""
    receive = ClientSide.receive

    def last(self: ClientSide, data: bytes) -> Any:
        return [
            replace(one, last=True) if isinstance(one, Rows) else one for one in receive(self, data)
        ]

    return [(ClientSide, "receive", last)]


BUGS: tuple[Bug, ...] = (
    Bug("reads-beside-the-unknown", "row 16", "what it read changes", make=_reads_beside),
    Bug(
        "closed-by-word", "row 16", "a session is not closed, and said to be", make=_closed_by_word
    ),
    Bug("commit-unseen", "read level session", "a transaction is forgotten", make=_commit_unseen),
    Bug("sent-again-elsewhere", "row 16, S2", "done in two sessions", make=_sent_again_elsewhere),
    Bug("broken-off-is-unsent", "row 16", "a torn write is unsent", make=_broken_off_is_unsent),
    Bug("renumbered-in-flight", "S1", "a refused one's number is used again", make=_renumbered),
    Bug("unknown-in-flight-is-new", "S2", "a lost one goes out as a new one", make=_unknown_is_new),
    Bug("bounded-with-slack", "R1", "older than it may be", make=_bounded_with_slack),
    Bug("floor-ahead-in-flight", "S1", "replies go that it lacks", make=_floor_ahead),
    Bug("first-piece-is-all", "reads", "a large answer is cut off", make=_first_piece),
)

SCRIPTED = {
    "reads-beside-the-unknown": "late-write",
    "closed-by-word": "busy-when-it-settles",
    "commit-unseen": "reads-after-its-commit",
    "sent-again-elsewhere": "ends-while-open",
    "broken-off-is-unsent": "broken-off",
    "renumbered-in-flight": "refused-in-flight",
    "unknown-in-flight-is-new": "unknown-in-flight",
    "bounded-with-slack": "bounded-at-one-node",
    "floor-ahead-in-flight": "answers-lost-in-flight",
    "first-piece-is-all": "in-many-pieces",
}
PLAYS: dict[str, tuple[Callable[[Script], None], dict[str, Any]]] = {
    "late-write": (late_write, {}),
    "busy-when-it-settles": (busy_when_it_settles, {"limits": {"proposals_waiting_max": 4}}),
    "reads-after-its-commit": (reads_after_its_commit, {}),
    "ends-while-open": (ends_while_open, {}),
    "broken-off": (broken_off, {}),
    "refused-in-flight": (refused_in_flight, {}),
    "unknown-in-flight": (unknown_in_flight, {}),
    "bounded-at-one-node": (bounded_at_one_node, {}),
    "answers-lost-in-flight": (answers_lost_in_flight, {}),
    "in-many-pieces": (in_many_pieces, {}),
}
