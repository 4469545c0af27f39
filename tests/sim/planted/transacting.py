"""Bugs in what becomes of interactive transactions, of keyed requests, and of requests that come
twice into one entry (rules M9, S1 and S3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from raftdb.base.errors import IntegrityError
from raftdb.client.actions import Steps
from raftdb.client.answers import decode_answer, results_of
from raftdb.client.core import Core, Session
from raftdb.client.transactions import OpenTransaction
from raftdb.command import Key, Statement
from raftdb.machine import format, replay
from raftdb.machine.applier import Applier
from raftdb.machine.replay import Replay
from raftdb.machine.sessions import Sessions
from raftdb.node.replica import Replica
from raftdb.node.transactions import Transaction
from raftdb.server import Dispatcher
from raftdb.wire import Execute, Request
from tests.sim.checkers import Broken
from tests.sim.planted.bug import Bug, Patch
from tests.sim.planted.clients import begun, opened, rows_now
from tests.sim.planted.scenarios_requests import (
    COUNT,
    TIMEOUT_S,
    expect_rows,
    insert,
    run,
    sound,
    table,
)
from tests.sim.planted.script import Script

NOW = Statement("INSERT INTO asked VALUES (CAST(unixepoch('subsec') * 1000 AS INTEGER))")
LATEST = Statement("SELECT max(a) FROM asked")
RETURNING = "INSERT INTO asked VALUES (?) RETURNING a"
KEYS = 5


# -- scripts ---------------------------------------------------------------------------------------


def _does(s: Script, client: Any, statements: Sequence[Statement]) -> tuple[OpenTransaction, int]:
    """A transaction of these, open still; and the number that the last one brought, if it did."""
    transaction, value = OpenTransaction(client._core, True), 0
    for statement in statements:
        found = sound(s, client, transaction.execute(statement, timeout_s=TIMEOUT_S))
        rows = found.results.statements[0].rows
        value = rows[0][0] if rows else 0
    return transaction, value


def _commits(s: Script, client: Any, transaction: OpenTransaction) -> BaseException | None:
    return run(s, client, transaction.commit(None, timeout_s=TIMEOUT_S))[1]


def writes_before_it_reads(s: Script) -> None:
    """Transactions that write first and look afterwards: alone, and beside another one."""
    table(s)
    clients = [s.new_client(), s.new_client()]
    alone, _ = _does(s, clients[0], (*insert(1), COUNT))
    error = _commits(s, clients[0], alone)
    rows = rows_now(s, clients[0])
    if error is not None or rows != [1]:
        raise Broken("acknowledged kept", f"a transaction was answered {error!r}; rows {rows}")
    both = [_does(s, one, (*insert(n), COUNT))[0] for n, one in enumerate(clients, 2)]
    expected = [1]
    for number, (client, transaction) in enumerate(zip(clients, both, strict=True), 2):
        if _commits(s, client, transaction) is None:
            expected.append(number)
    expect_rows(s, expected, "a conflict leaves nothing")


def sees_its_own_time(s: Script) -> None:
    """A transaction writes what time it is, looks at it, and is committed seconds later."""
    client = table(s)
    transaction, shown = _does(s, client, (NOW, LATEST))
    s.run_for(2.0)
    error = _commits(s, client, transaction)
    rows = rows_now(s, client)
    if error is not None or rows != [shown]:
        raise Broken("serializable", f"it saw {shown}, alone; then {error!r}, and rows {rows}")


def keys_in_one_session(s: Script) -> None:
    """A client uses one key after the other, and somebody the first one once more."""
    client = table(s)
    for number in range(KEYS):
        steps = client._core.execute(insert(number), key=Key(f"k{number}"), timeout_s=TIMEOUT_S)
        error = run(s, client, steps)[1]
        if error is not None:
            raise Broken("sessions go on", f"request {number} of a session got {error!r}")
    other = s.new_client()
    run(s, other, other._core.execute(insert(KEYS), key=Key("k0"), timeout_s=TIMEOUT_S))
    expect_rows(s, list(range(KEYS)), "exactly once")


def _sent(core: Core, sequence: int) -> Steps[list[Any]]:
    """A request of a client that has no reply yet; what it is answered."""
    session = core.session
    assert session is not None

    def make(peer: Any, timeout_ms: int) -> Sequence[Request]:
        statements = (Statement(RETURNING, ((sequence,),)),)
        execute = Execute(peer.request_id(), sequence, 0, timeout_ms, statements, True, None, "")
        return core.attached(peer, session, execute)

    answered = yield from core.courier.ask_leader(make, core.courier.call(TIMEOUT_S, writes=True))
    if answered.error is not None:
        raise answered.error
    return [row[0] for row in results_of(decode_answer(answered.encoded)).statements[0].rows]


def again_in_one_entry(s: Script) -> None:
    """A session's first request comes again behind its second one, into the same entry."""
    table(s)
    leader, filler = s.leader(), s.new_client()
    first = s.write(client=filler)
    s.until(lambda: bool(first))
    clients = [s.new_client() for _ in range(3)]
    session = opened(s, clients[0])
    for one in clients:
        rows_now(s, one)
        one._core.session = Session(session.session_id)
    # While the disk takes this one, the others gather for the next entry.
    s.slow_disk(0.1, leader)
    waiting = s.write(client=filler)
    s.run_for(0.02)
    done = []
    for one, sequence in zip(clients, (1, 2, 1), strict=True):
        done.append(begun(one, _sent(one._core, sequence)))
        s.run_for(0.003)
    s.until(lambda: bool(waiting) and all(done))
    s.slow_disk(0.0, leader)
    for one in clients:
        one._core.session = None
    told = [found[0] for found in done]
    if [value for value, _error in told] != [[1], [2], [1]]:
        raise Broken("everybody's own reply", f"requests 1, 2 and again 1 were answered {told}")
    expect_rows(s, [1, 2], "exactly once")


def keys_off_and_on(s: Script) -> None:
    """A client has foreign keys switched off, and the next one has not."""
    one, other = s.new_client(), s.new_client()
    for sql in (
        "CREATE TABLE parent(id INTEGER PRIMARY KEY)",
        "CREATE TABLE child(p REFERENCES parent)",
    ):
        sound(s, one, one._core.execute((Statement(sql),), timeout_s=TIMEOUT_S))
    orphan = (Statement("INSERT INTO child VALUES (1)"),)
    sound(s, one, one._core.execute(orphan, foreign_keys=False, timeout_s=TIMEOUT_S))
    error = run(s, other, other._core.execute(orphan, timeout_s=TIMEOUT_S))[1]
    if not isinstance(error, IntegrityError):
        raise Broken("settings of a request are its own", f"an orphan was answered {error!r}")


def begins_before_the_no_op(s: Script) -> None:
    """A transaction begins at a new leader, which has not applied what its predecessor has
    acknowledged."""
    table(s)
    writer, client = s.new_client(), s.new_client()
    for one in (writer, client):
        opened(s, one)
    for name in s.cluster.hosts:
        # The first one at a node takes its snapshot later, since there is nothing to take it with.
        s.make_leader(name)
        _commits(s, client, _does(s, client, (COUNT,))[0])
    leader = s.leader()
    sound(s, writer, writer._core.execute(insert(1), timeout_s=TIMEOUT_S))
    # The others have the entry, and not the word that it is committed.
    s.down(leader)
    s.until(lambda: any(node.role == "leader" for node in s.cluster.live()))
    s.slow_disk(1.0, *s.others(leader))
    count = _does(s, client, (COUNT,))[1]
    s.slow_disk(0.0, *s.others(leader))
    s.up(leader)
    if count != 1:
        raise Broken("serializable", "a transaction does not see what was acknowledged before it")


def gone_in_its_transaction(s: Script) -> None:
    """A client goes in the midst of a transaction: nothing of it is held for long."""
    client = table(s)
    _does(s, client, insert(1))
    open_now = s.node(s.leader()).assembly.replica.transactions
    assert len(open_now) == 1
    client.restart()
    s.within(1.0, lambda: not open_now, "transactions end", "its client is gone, and it is open")


# -- bugs ------------------------------------------------------------------------------------------


def _last_one_tells() -> list[Patch]:
    """Whether there is something to commit is seen by the last statement."""
    record = Transaction._record

    def only(self: Transaction, *rest: Any) -> None:
        self._wrote = False
        record(self, *rest)

    return [(Transaction, "_record", only)]


def _time_of_the_commit() -> list[Patch]:
    """A COMMIT's statements have its own time, on every node alike."""
    run_it = Replay.run

    def at_once(self: Replay, request: Any) -> bytes:
        now_ms = request.stamp.time_ms
        statements = tuple(replace(one, time_ms=now_ms) for one in request.statements)
        return run_it(self, replace(request, statements=statements))

    return [(Replay, "run", at_once)]


class _Keeping:
    """A content hash that takes what was done for good."""

    def __init__(self, hasher: Any) -> None:
        self._hasher = hasher

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hasher, "keep_request" if name == "drop_request" else name)


def _conflict_keeps() -> list[Patch]:
    """A COMMIT that conflicts is told so; what it did before stays."""
    run_it = Replay.run

    def keeping(self: Replay, request: Any) -> bytes:
        control, hasher = self._control, self._hasher

        def unless_back(sql: str) -> Any:
            return () if sql == replay._ROLLBACK_TO else control(sql)

        kept: Any = _Keeping(hasher)
        self._control, self._hasher = unless_back, kept
        try:
            return run_it(self, request)
        finally:
            self._control, self._hasher = control, hasher

    return [(Replay, "run", keeping)]


def _key_takes_no_number() -> list[Patch]:
    """A request with a key is remembered by its key alone."""
    keyed, record = Applier._execute_keyed, Sessions.record

    def by_key(self: Applier, *rest: Any) -> bytes:
        self.sessions.__dict__["by_key"] = True
        return keyed(self, *rest)

    def unless_keyed(self: Sessions, *rest: Any) -> None:
        if not self.__dict__.pop("by_key", False):
            record(self, *rest)

    return [(Applier, "_execute_keyed", by_key), (Sessions, "record", unless_keyed)]


def _keys_stay_off() -> list[Patch]:
    """Whoever wants foreign keys switches them on."""
    transaction = Applier._transaction

    def leaving(self: Applier, *rest: Any) -> int:
        control = self._control

        def unless_on(sql: str, *values: Any) -> Any:
            return () if sql.startswith("PRAGMA foreign_keys = ON") else control(sql, *values)

        self._control = unless_on
        try:
            return transaction(self, *rest)
        finally:
            self._control = control

    return [(Applier, "_transaction", leaving)]


def _any_snapshot() -> list[Patch]:
    """The snapshot that was taken when the others were asked is good when they have answered."""
    confirm = Replica.confirm

    def whatever(self: Replica, done: Any) -> None:
        confirm(self, lambda _index, error: done(0, error))

    return [(Replica, "confirm", whatever)]


def _outlives() -> list[Patch]:
    """A connection that is closed may come back."""
    close = Dispatcher.close

    def keeping(self: Dispatcher) -> None:
        self._transaction = None
        close(self)

    return [(Dispatcher, "close", keeping)]


def _reply_of_the_last() -> list[Patch]:
    """Of the replies of this transaction the last one is given."""
    kept = Sessions._kept

    def last(self: Sessions, session: Any, sequence: int) -> bytes:
        return session.pending[-1] if session.pending else kept(self, session, sequence)

    return [(Sessions, "_kept", last)]


BUGS: tuple[Bug, ...] = (
    Bug("read-makes-it-a-read", "M9", "a COMMIT after a read logs nothing", make=_last_one_tells),
    Bug("time-of-the-commit", "M9", "statements see another time", make=_time_of_the_commit),
    Bug("conflict-keeps-rows", "M9", "refused, and half of it applied", make=_conflict_keeps),
    Bug("key-takes-no-number", "S1", "its session misses a number", make=_key_takes_no_number),
    Bug(
        "keys-forgotten-early",
        "S3",
        "some other keys later a key is new again",
        make=lambda: [(format, "KEYS_MAX", 2)],
    ),
    Bug(
        "foreign-keys-stay-off",
        "M4",
        "one request's setting is the next one's",
        make=_keys_stay_off,
    ),
    Bug("snapshot-from-before", "M9", "a snapshot that lacks a write", make=_any_snapshot),
    Bug("outlives-its-client", "M9", "an abandoned transaction keeps a snapshot", make=_outlives),
    Bug("reply-of-the-last", "S1", "a duplicate gets another's reply", make=_reply_of_the_last),
)

SCRIPTED = {
    "read-makes-it-a-read": "writes-before-it-reads",
    "conflict-keeps-rows": "writes-before-it-reads",
    "time-of-the-commit": "sees-its-own-time",
    "key-takes-no-number": "keys-in-one-session",
    "keys-forgotten-early": "keys-in-one-session",
    "reply-of-the-last": "again-in-one-entry",
    "foreign-keys-stay-off": "keys-off-and-on",
    "snapshot-from-before": "begins-before-the-no-op",
    "outlives-its-client": "gone-in-its-transaction",
}
PLAYS: dict[str, tuple[Callable[[Script], None], dict[str, Any]]] = {
    "writes-before-it-reads": (writes_before_it_reads, {}),
    "sees-its-own-time": (sees_its_own_time, {}),
    "keys-in-one-session": (keys_in_one_session, {}),
    "again-in-one-entry": (again_in_one_entry, {}),
    "keys-off-and-on": (keys_off_and_on, {}),
    "begins-before-the-no-op": (begins_before_the_no_op, {}),
    "gone-in-its-transaction": (gone_in_its_transaction, {}),
}
