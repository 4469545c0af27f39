"""Bugs in what becomes of sessions: while many of their requests are on their way, when outcomes
are asked for ahead of them, when they are in use for long (rules S1 to S3)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from unittest import mock

from raftdb.client.actions import Steps
from raftdb.client.core import Write
from raftdb.client.flight import Flight, Item
from raftdb.machine import format
from raftdb.machine.sessions import BURNED, Sessions
from raftdb.node.replica import Replica
from tests.sim.checkers import Broken
from tests.sim.planted.bug import Bug, Patch
from tests.sim.planted.scenarios_requests import (
    TIMEOUT_S,
    expect_rows,
    insert,
    sound,
    table,
    write,
)
from tests.sim.planted.script import Script

IDLE_MS = 2_000


# -- scripts ---------------------------------------------------------------------------------------


def ends_in_flight(s: Script) -> None:
    """A client has many requests on their way, their answers are lost, and before it can send them
    again its session is closed. They are done, and must not be done once more in another one."""
    table(s)
    client, other = s.new_client(), s.new_client()
    core = client._core
    sound(s, client, core.open(core.courier.call(TIMEOUT_S)))
    session = core.session
    assert session is not None

    def flight() -> Steps[None]:
        deadline_s = core.courier.now_s() + 20.0
        under_way = Flight(core)
        for number in range(1, 6):
            yield from under_way.submit(Item(insert(number), True, deadline_s, 20.0))
        yield from under_way.settle()

    done: list[Any] = []
    s.cluster.fabric.block({(name, client.name) for name in s.cluster.hosts})
    client.life.run(client._driver.run, flight(), lambda value, error: done.append((value, error)))
    leader = s.leader()
    s.until(lambda: s.node(leader).machine._applier.sessions.last_sequence(_number(session)) >= 5)
    other._core.leave_unsettled((Write(session, 1, insert(1), True),))
    sound(s, other, other._core.settle(other._core.courier.call(TIMEOUT_S)))
    s.reset(client.name, leader)
    s.heal()
    s.until(lambda: bool(done), within_s=40.0)
    core.leave_unsettled(())
    expect_rows(s, [1, 2, 3, 4, 5], "exactly once")


def _number(session: Any) -> int:
    return int.from_bytes(session.session_id[16:24], "big")


def asked_far_ahead(s: Script) -> None:
    """The outcome of a client's third request is asked for when its first has not arrived: none of
    the three may take effect when they come after all."""
    table(s)
    client = s.new_client()
    core = client._core
    sound(s, client, core.open(core.courier.call(TIMEOUT_S)))
    of = core.session.session_id
    found = sound(s, client, core.outcome(of, 3, None, timeout_s=TIMEOUT_S))
    assert found.error is None, found.error
    for sequence in (1, 2, 3):
        write(s, client, sequence)
    expect_rows(s, [], "an outcome is final")


@contextlib.contextmanager
def short_sessions() -> Iterator[None]:
    """Sessions end when they are idle for seconds, not for a day."""
    with mock.patch.object(format, "SESSION_IDLE_MS", IDLE_MS):
        yield


def long_in_use(s: Script) -> None:
    """A session is used again and again, for longer than an idle one lasts. Another one is idle."""
    table(s)
    busy, idle = s.new_client(), s.new_client()
    write(s, busy, 1)
    write(s, idle, 1)
    for number in range(2, 14):
        s.run_for(0.4)
        error = write(s, busy, number)
        if error is not None:
            raise Broken("sessions in use go on", f"request {number}: {error!r}")
    if write(s, idle, 2) is None:
        raise Broken("idle sessions end", "one goes on that was idle for seconds")


def forged(s: Script) -> None:
    """Somebody names another client's session by its number, and does not know its secret."""
    table(s)
    client, thief = s.new_client(), s.new_client()
    write(s, client, 1)
    core = thief._core
    sound(s, thief, core.open(core.courier.call(TIMEOUT_S)))
    mine, theirs = core.session, client._core.session
    assert mine is not None
    assert theirs is not None
    mine.session_id = theirs.session_id[:24] + mine.session_id[24:]
    write(s, thief, 2)
    error = write(s, client, 3)
    if error is None:
        raise Broken("a session is its client's", "a stranger took a number of it")
    expect_rows(s, [1], "a session is its client's")


# -- bugs ------------------------------------------------------------------------------------------


def _resends_what_was_lost() -> list[Patch]:
    """All that has no answer goes out again in the new session."""
    gone = Flight._session_gone

    def session_gone(self: Flight, peer: Any, error: Any) -> None:
        for item in self._queue:
            item.lost = False
        gone(self, peer, error)

    return [(Flight, "_session_gone", session_gone)]


def _anybody() -> list[Patch]:
    """A session's number is enough."""
    refuse = Replica.refuse_session

    def by_number(self: Replica, session: Any) -> Any:
        token = self._machine.session_token(session.number)
        return refuse(self, replace(session, token=token or session.token))

    return [(Replica, "refuse_session", by_number)]


def _burns_one() -> list[Patch]:
    """Of those that were not seen the first is taken."""
    burn = Sessions.burn

    def one(self: Sessions, number: int, sequence: int, now_ms: int) -> Any:
        session = self._sessions.get(number)
        if session is not None and sequence > session.sequence + 1:
            self.record(number, session.sequence + 1, session.floor, BURNED, now_ms)
            return BURNED
        return burn(self, number, sequence, now_ms)

    return [(Sessions, "burn", one)]


def _use_unnoted() -> list[Patch]:
    """A session's age counts from its opening."""
    record = Sessions.record

    def quiet(self: Sessions, number: int, *rest: Any) -> None:
        used_ms = self._sessions[number].used_ms
        record(self, number, *rest)
        self._sessions[number].used_ms = used_ms

    return [(Sessions, "record", quiet)]


def _floor_ahead() -> list[Patch]:
    """The reply after those that the client has is forgotten as well."""
    record = Sessions.record

    def early(
        self: Sessions, number: int, sequence: int, floor: int, reply: bytes, now_ms: int
    ) -> None:
        record(self, number, sequence, min(floor + 1, sequence - 1), reply, now_ms)

    return [(Sessions, "record", early)]


BUGS: tuple[Bug, ...] = (
    Bug("flight-goes-on-elsewhere", "S2", "done in two sessions", make=_resends_what_was_lost),
    Bug("session-by-its-number", "S2", "a session's secret is not asked for", make=_anybody),
    Bug("burns-the-first-alone", "S3", "a later one takes effect after all", make=_burns_one),
    Bug("use-not-noted", "S2", "a session in use ends as if idle", make=_use_unnoted),
    Bug("reply-forgotten-early", "S1", "a reply goes that the client lacks", make=_floor_ahead),
)

SCRIPTED = {
    "session-by-its-number": "forged",
    "flight-goes-on-elsewhere": "ends-in-flight",
    "burns-the-first-alone": "asked-far-ahead",
    "use-not-noted": "long-in-use",
}
PLAYS: dict[str, tuple[Callable[[Script], None], dict[str, Any]]] = {
    "ends-in-flight": (ends_in_flight, {}),
    "forged": (forged, {}),
    "asked-far-ahead": (asked_far_ahead, {}),
    "long-in-use": (long_in_use, {"environment": short_sessions, "checkers": ()}),
}
