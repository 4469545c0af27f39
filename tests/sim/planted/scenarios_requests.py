"""Scripts about sessions, keys, outcomes, transactions and the levels of reads: a client that
speaks the protocol as it may, with late and repeated messages, over links that are slow."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from raftdb.base.ids import HistoryId
from raftdb.client.actions import Steps
from raftdb.client.core import Core, Outcome, Write, _SessionGone
from raftdb.client.transactions import OpenTransaction
from raftdb.command import Failed, Key, ReadToken, Statement, decode_reply
from raftdb.machine import format
from raftdb.wire import BOUNDED, SESSION
from tests.sim.checkers import Broken
from tests.sim.planted.script import Script
from tests.sim.ports import SimClock, SimRandom
from tests.workloads import Operation
from tests.workloads.registers import READ, WRITE

TIMEOUT_S = 5.0
COUNT = Statement("SELECT count(*) FROM asked")
ROWS = Statement("SELECT a FROM asked ORDER BY a, rowid")


def insert(number: int) -> tuple[Statement, ...]:
    return (Statement("INSERT INTO asked VALUES (?)", ((number,),)),)


def run(s: Script, client: Any, steps: Any) -> tuple[Any, BaseException | None]:
    """What the steps of a client come to: a value, or an error."""
    found: list[tuple[Any, BaseException | None]] = []
    client.life.run(client._driver.run, steps, lambda value, error: found.append((value, error)))
    s.until(lambda: bool(found))
    return found[0]


def sound(s: Script, client: Any, steps: Any) -> Any:
    value, error = run(s, client, steps)
    if error is not None:
        raise error
    return value


def table(s: Script) -> Any:
    """The table, and a client with a session."""
    client = s.new_client()
    made = s.create("asked", client)
    s.until(lambda: bool(made))
    assert made[0].status == "ok", made
    return client


def write(s: Script, client: Any, sequence: int) -> BaseException | None:
    """The client's request of that sequence, as the wire has it; it writes that number."""
    core = client._core
    if core.session is None:
        sound(s, client, core.open(core.courier.call(TIMEOUT_S)))
    one = Write(core.session, sequence, insert(sequence), True)
    call = core.courier.call(TIMEOUT_S, writes=True)
    session = core.session

    def steps() -> Steps[Any]:
        try:
            return (yield from core._write(one, call))
        except _SessionGone as gone:
            raise gone.error from None

    error = run(s, client, steps())[1]
    core.session = session
    core.leave_unsettled(())
    return error


def expect_rows(s: Script, expected: list[int], invariant: str) -> None:
    client = s.new_client()
    query = client._core.query((ROWS,), timeout_s=TIMEOUT_S)
    rows = [row[0] for row in sound(s, client, query).results.statements[0].rows]
    if rows != expected:
        raise Broken(invariant, f"the table has {rows}, what was answered makes {expected}")


def sequences_out_of_order(s: Script) -> None:
    """A session's requests overtake each other: 3 comes before 2, and is sent again after it."""
    table(s)
    client = s.new_client()
    for sequence in (1, 3, 2, 3):
        write(s, client, sequence)
    expect_rows(s, [1, 2, 3], "in order")


def late_retry(s: Script) -> None:
    """A request is sent again when its session is closed already."""
    table(s)
    client = s.new_client()
    write(s, client, 1)
    core = client._core
    session = core.session
    core.leave_unsettled((Write(session, 1, insert(1), True),))
    sound(s, client, core.settle(core.courier.call(TIMEOUT_S)))
    core.session = session
    write(s, client, 1)
    expect_rows(s, [1], "exactly once")


def asked_before_seen(s: Script) -> None:
    """An outcome is asked for before its request has arrived."""
    table(s)
    client, core = (one := s.new_client()), one._core
    sound(s, client, core.open(core.courier.call(TIMEOUT_S)))
    key = Key("a name")
    for sequence, asked in ((1, None), (0, key)):
        of = core.session.session_id if sequence else b""
        found = sound(s, client, core.outcome(of, sequence, asked, timeout_s=TIMEOUT_S))
        assert found.error is None, found.error
        reply = decode_reply(found.encoded)
        assert isinstance(reply, Failed), reply
        assert reply.error.code == "burned", reply
    write(s, client, 1)
    other = s.new_client()
    run(s, other, other._core.execute(insert(2), key=key, timeout_s=TIMEOUT_S))
    expect_rows(s, [], "an outcome is final")


def key_again(s: Script) -> None:
    """A key is used by one client after the other, and after all nodes started anew."""
    table(s)
    key = Key("a name")

    def use(number: int) -> BaseException | None:
        one = s.new_client()
        steps = one._core.execute(insert(number), key=key, timeout_s=TIMEOUT_S)
        return run(s, one, steps)[1]

    assert use(1) is None
    use(1)
    for name in s.cluster.hosts:
        s.down(name, power=False)
    s.up(*s.cluster.hosts)
    s.leader()
    use(1)
    expect_rows(s, [1], "exactly once")


def key_for_something_else(s: Script) -> None:
    """A key that was used names another request."""
    table(s)
    first, second = s.new_client(), s.new_client()
    key = Key("a name")
    sound(s, first, first._core.execute(insert(1), key=key, timeout_s=TIMEOUT_S))
    other = (Statement("INSERT INTO asked SELECT 2"),)
    _value, error = run(s, second, second._core.execute(other, key=key, timeout_s=TIMEOUT_S))
    expect_rows(s, [1] if error is not None else [1, 2], "acknowledged kept")


def two_transactions(s: Script) -> None:
    """Two transactions count the same rows, and each adds the next."""
    table(s)
    clients = [s.new_client(), s.new_client()]
    both = [(one, OpenTransaction(one._core, True)) for one in clients]
    for client, transaction in both:
        found = sound(s, client, transaction.execute(COUNT, timeout_s=TIMEOUT_S))
        [[count]] = found.results.statements[0].rows
        [add] = insert(count + 1)
        sound(s, client, transaction.execute(add, timeout_s=TIMEOUT_S))
    errors = [run(s, c, t.commit(None, timeout_s=TIMEOUT_S))[1] for c, t in both]
    expect_rows(s, list(range(1, errors.count(None) + 1)), "serializable")


def deposed_leaders_transaction(s: Script) -> None:
    """A transaction begins at a leader that does not know yet that it was replaced."""
    old = s.leader()
    table(s)
    near, far = s.new_client(), [s.new_client() for _ in range(8)]
    sound(s, near, near._core.query((COUNT,), timeout_s=TIMEOUT_S))
    sound(s, near, near._core.open(near._core.courier.call(TIMEOUT_S)))
    s.only([old, near.name], [*s.others(old), *(one.name for one in far)])
    s.until(lambda: any(n.role == "leader" and n.name != old for n in s.cluster.live()))
    done: list[Any] = []
    for one in far:
        steps = one._core.execute(insert(1), timeout_s=TIMEOUT_S)
        one.life.run(one._driver.run, steps, lambda value, error: done.append(error))
    s.until(lambda: None in done)
    s.run_for(0.001)
    transaction = OpenTransaction(near._core, True)
    found: list[Outcome] = []
    steps = transaction.execute(COUNT, timeout_s=TIMEOUT_S)
    ended: list[bool] = []

    def took(value: Any, error: BaseException | None) -> None:
        ended.append(True)
        if error is None:
            found.append(value)

    near.life.run(near._driver.run, steps, took)
    s.run_for(0.1)
    s.heal()
    s.until(lambda: bool(ended) and len(done) == len(far))
    if found and found[0].results.statements[0].rows == ((0,),):
        raise Broken("serializable", "a transaction does not see what was acknowledged before it")


def other_forks_token(s: Script) -> None:
    """A client shows a token that it got from a cluster which was restored since."""
    s.written()
    client = s.new_client()
    core = client._core
    sound(s, client, core.query((Statement(READ, ((0,),)),), timeout_s=TIMEOUT_S))
    for seen in (
        ReadToken(core.seen.history, core.seen.fork + 1, 1),
        ReadToken(bytes(16), 0, 1),
    ):
        core.seen = seen
        steps = core.query((Statement(READ, ((0,),)),), level=SESSION, timeout_s=TIMEOUT_S)
        if run(s, client, steps)[1] is None:
            raise Broken("tokens of other data", f"a read honours {seen}")


@contextlib.contextmanager
def few_keys() -> Iterator[None]:
    """Only the last keys are remembered."""
    with mock.patch.object(format, "KEYS_MAX", 3):
        yield


def old_key(s: Script) -> None:
    """A key is used again when it was forgotten; it carries the horizon that it was given."""
    table(s)
    first = Key("k0", s.node(s.leader()).machine.horizon())
    for number in range(6):
        one = s.new_client()
        key = first if number == 0 else Key(f"k{number}")
        sound(s, one, one._core.execute(insert(number), key=key, timeout_s=TIMEOUT_S))
    one = s.new_client()
    run(s, one, one._core.execute(insert(0), key=first, timeout_s=TIMEOUT_S))
    expect_rows(s, list(range(6)), "exactly once")


def member_restored_elsewhere(s: Script) -> None:
    """A member comes back with the data of another history under its old name."""
    leader = s.leader()
    name = s.others(leader)[0]
    s.written(3)
    s.down(name)
    host = s.host(name)
    host.config = dataclasses.replace(host.config, history=HistoryId("8" * 32))
    host.files = s.cluster.new_disk(host.config)
    host.damaged = True
    s.cluster.note("replaced", name)
    s.up(name)
    s.run_for(3.0)
    for peer in s.node(leader).engine.status().peers:
        if peer.node_id == name and peer.connected:
            raise Broken("histories stay apart", f"{leader} replicates to {name} of another")
    s.written()


def client_of(s: Script, name: str) -> Any:
    """A client that knows this node alone."""
    client = s.new_client()
    [address] = [one.client_address for one in s.cluster.members if one.node_id == name]
    options = dataclasses.replace(client._core.courier.options, addresses=(address,))
    limits = s.settings.sizes.limits
    client._core = Core(options, SimClock(s.world), SimRandom(client.name), limits)
    return client


def reader(client: Any, level: str, age_ms: int = 0) -> Callable[[], Any]:
    """Makes reads of the register."""
    statement = (Statement(READ, ((0,),)),)
    return lambda: client._core.query(
        statement, level=level, max_age_ms=age_ms, timeout_s=TIMEOUT_S
    )


def register_in(value: Outcome) -> int:
    """What a read of the register showed; 0 when it was not there."""
    rows = value.results.statements[0].rows
    return int(rows[0][0]) if rows else 0


def keep_writing(
    s: Script, acknowledged: list[tuple[float, int]], every_s: float = 0.02, key: int = 0
) -> Callable[[], None]:
    """Somebody writes, one value after the other, until what is returned is called."""
    writer = s.new_client()
    running = [True]

    def write_next() -> None:
        s._value += 1
        value = s._value

        def ended(outcome: Any) -> None:
            if outcome.status == "ok":
                acknowledged.append((s.world.now_s, value))
            if running:
                writer.life.later(every_s, write_next)

        statement = Statement(WRITE, ((key, value),))
        arguments = {"key": key, "value": value}
        writer.execute(Operation("register", "write", arguments, (statement,)), ended)

    writer.life.run(write_next)
    return running.clear


def _far_follower(s: Script) -> Any:
    """A client that has only a follower to which the leader's messages take long."""
    leader = s.leader()
    s.written()
    follower = s.others(leader)[0]
    s.cluster.fabric.slow[leader, follower] = 0.7
    return client_of(s, follower)


def bounded_reads(s: Script) -> None:
    """Bounded reads at a follower that gets everything late, while somebody writes."""
    client = _far_follower(s)
    acknowledged: list[tuple[float, int]] = []
    stop = keep_writing(s, acknowledged)
    s.run_for(1.0)
    begin, max_age_s, answers = reader(client, BOUNDED, 400), 0.4, 0
    for _ in range(20):
        s.run_for(0.02)
        begun_s = s.world.now_s
        value, error = run(s, client, begin())
        if error is not None:
            continue
        answers += 1
        least = max((one for at_s, one in acknowledged if at_s <= begun_s - max_age_s), default=0)
        if register_in(value) < least:
            raise Broken(
                "bounded staleness",
                f"{register_in(value)} is read, {least} was acknowledged {max_age_s} s before",
            )
    stop()
    s.cluster.fabric.slow.clear()
    if not answers:
        # A follower that is near enough must answer some.
        s.run_for(2.0)
        sound(s, client, begin())


def session_reads(s: Script) -> None:
    """A client reads its own write at a follower that gets everything late."""
    client = _far_follower(s)
    writer = s.new_client()
    found = s.write(0, writer)
    s.until(lambda: bool(found))
    client._core.seen = writer._core.seen
    value, error = run(s, client, reader(client, SESSION)())
    if error is None and register_in(value) < s._value:
        raise Broken("reads its own writes", f"{value.results} is older than what was seen")
    s.cluster.fabric.slow.clear()


PLAYS: dict[str, tuple[Callable[[Script], None], dict[str, Any]]] = {
    "sequences-out-of-order": (sequences_out_of_order, {}),
    "late-retry": (late_retry, {}),
    "asked-before-seen": (asked_before_seen, {}),
    "key-again": (key_again, {}),
    "key-for-something-else": (key_for_something_else, {}),
    "two-transactions": (two_transactions, {}),
    "deposed-leaders-transaction": (deposed_leaders_transaction, {}),
    "token-of-another-fork": (other_forks_token, {}),
    "old-key": (old_key, {"environment": few_keys}),
    "member-restored-elsewhere": (member_restored_elsewhere, {}),
    "bounded-reads": (bounded_reads, {}),
    "session-reads": (session_reads, {}),
}
"""By name: the script, and the options of its run."""

SCRIPTED = {
    "gap-accepted": "sequences-out-of-order",
    "session-made-anew": "late-retry",
    "outcome-not-recorded": "asked-before-seen",
    "outcome-of-a-key-not-recorded": "asked-before-seen",
    "keys-not-looked-at": "key-again",
    "keys-forgotten-at-restart": "key-again",
    "key-of-other-sql": "key-for-something-else",
    "commit-unchecked": "two-transactions",
    "transaction-begins-unconfirmed": "deposed-leaders-transaction",
    "token-of-another-fork": "token-of-another-fork",
    "fork-of-a-token-not-checked": "token-of-another-fork",
    "member-of-another-history": "member-restored-elsewhere",
    "key-from-before-the-horizon": "old-key",
    "fresh-as-of-the-answer": "bounded-reads",
    "fresh-without-asking": "bounded-reads",
    "token-ignored": "session-reads",
}
