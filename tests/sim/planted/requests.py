"""Bugs in sessions, keys, outcomes, transactions and the levels of reads."""

from __future__ import annotations

import dataclasses
from typing import Any

from raftdb.command import ReadToken
from raftdb.consensus.transport import Transport
from raftdb.machine.format import MARK, PREFIX
from raftdb.machine.keys import Keys
from raftdb.machine.replay import Replay
from raftdb.machine.sessions import BURNED, Sessions, _Session
from raftdb.node.reading import BOUNDED, Reading
from raftdb.node.transactions import Transaction
from raftdb.wire import SESSION
from tests.sim.planted.bug import Bug, Patch


def _go_on_before(session: _Session, sequence: int) -> None:
    """As if all before that sequence had been seen."""
    session.sequence = sequence - 1
    session.sizes.clear()
    session.kept_bytes = 0


def _gap_accepted() -> list[Patch]:
    """Whatever is beyond the last sequence is taken for the next one."""
    check = Sessions.check

    def later(self: Sessions, number: int, sequence: int) -> Any:
        session = self._sessions.get(number)
        if session is not None and sequence > session.sequence + 1:
            _go_on_before(session, sequence)
        return check(self, number, sequence)

    return [(Sessions, "check", later)]


def _session_made_anew() -> list[Patch]:
    """A request of an unknown session opens it."""
    check = Sessions.check

    def anew(self: Sessions, number: int, sequence: int) -> Any:
        if number not in self._sessions:
            self.open(number, bytes(16), "", 0, 0)
            _go_on_before(self._sessions[number], sequence)
        return check(self, number, sequence)

    return [(Sessions, "check", anew)]


def _outcome_not_recorded() -> list[Patch]:
    """`It never will` is said, and not remembered."""
    burn = Sessions.burn

    def forget(self: Sessions, number: int, sequence: int, now_ms: int) -> Any:
        session = self._sessions.get(number)
        if session is not None and sequence > session.sequence:
            return BURNED
        return burn(self, number, sequence, now_ms)

    return [(Sessions, "burn", forget)]


def _key_outcome_not_recorded() -> list[Patch]:
    """The same for a key."""
    record = Keys.record

    def unless_burned(self: Keys, key: Any, digest: bytes, reply: bytes, now_ms: int) -> None:
        if reply != BURNED:
            record(self, key, digest, reply, now_ms)

    return [(Keys, "record", unless_burned)]


def _keys_of_this_process() -> list[Patch]:
    """A key is looked for among those of this process."""
    find, record, load = Keys.find, Keys.record, Keys.load

    def load_none(self: Keys) -> None:
        load(self)
        self.__dict__["seen"] = set()

    def find_seen(self: Keys, key: Any, digest: bytes, now_ms: int) -> Any:
        if key.name in self.__dict__.get("seen", ()):
            return find(self, key, digest, now_ms)
        self._run(f"DELETE FROM {PREFIX}key WHERE name = ? {MARK}", (key.name,))
        return None

    def record_seen(self: Keys, key: Any, *rest: Any) -> None:
        self.__dict__.setdefault("seen", set()).add(key.name)
        record(self, key, *rest)

    return [(Keys, "load", load_none), (Keys, "find", find_seen), (Keys, "record", record_seen)]


def _keys_per_session() -> list[Patch]:
    """A key is not looked for at all: sessions are enough."""

    def find(self: Keys, key: Any, digest: bytes, now_ms: int) -> None:
        return None

    def record(self: Keys, key: Any, digest: bytes, reply: bytes, now_ms: int) -> None:
        pass

    return [(Keys, "find", find), (Keys, "record", record)]


def _key_of_other_sql() -> list[Patch]:
    """A key gets the reply of its first use, whatever is asked for now."""
    find = Keys.find

    def any_sql(self: Keys, key: Any, digest: bytes, now_ms: int) -> Any:
        return find(self, key, b"", now_ms)

    return [(Keys, "find", any_sql)]


class _Whatever(bytes):
    """Is equal to every digest."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = bytes.__hash__


def _commit_unchecked() -> list[Patch]:
    """A COMMIT executes its statements, and does not look at what they bring."""
    run = Replay.run

    def unchecked(self: Replay, request: Any) -> bytes:
        statements = tuple(
            dataclasses.replace(one, digest=_Whatever(one.digest)) for one in request.statements
        )
        return run(self, dataclasses.replace(request, statements=statements))

    return [(Replay, "run", unchecked)]


def _begin_unconfirmed() -> list[Patch]:
    """A transaction takes its snapshot without asking whether this node leads still."""
    begin = Transaction._begin

    def unconfirmed(self: Transaction, call: Any) -> None:
        host = self._owner.host
        host.confirm = lambda done: done(0, None)  # type: ignore[method-assign]
        begin(self, call)

    return [(Transaction, "_begin", unconfirmed)]


def _other_forks_token() -> list[Patch]:
    """A token is an index, whatever it is an index of."""

    def unchecked(self: Reading, level: str, token: str, waiting: int) -> ReadToken | None:
        return ReadToken.from_text(token) if token else None

    return [(Reading, "check", unchecked)]


def _fork_unchecked() -> list[Patch]:
    """A token's history is compared, and its fork is not."""
    check = Reading.check

    def any_fork(self: Reading, level: str, token: str, waiting: int) -> ReadToken | None:
        if token:
            seen = ReadToken.from_text(token)
            token = ReadToken(seen.history, self._identity.fork, seen.index).to_text()
        return check(self, level, token, waiting)

    return [(Reading, "check", any_fork)]


def _any_history() -> list[Patch]:
    """A member's hello is not asked for its history."""
    check = Transport.link_hello

    def same_cluster(self: Transport, link: Any, hello: Any, second: Any) -> bool:
        return check(self, link, hello._replace(history_id=self._hello.history_id), second)

    return [(Transport, "link_hello", same_cluster)]


def _horizon_ignored() -> list[Patch]:
    """A key that is not found is new, however old it is."""
    find = Keys.find

    def new(self: Keys, key: Any, digest: bytes, now_ms: int) -> Any:
        return find(self, dataclasses.replace(key, horizon=0), digest, now_ms)

    return [(Keys, "find", new)]


def _fresh_as_of_the_answer() -> list[Patch]:
    """Data counts as fresh as of the moment when a ReadIndex was answered."""
    confirmed = Reading._confirmed

    def of_the_answer(self: Reading, outcome: Any, level: str, read: Any) -> None:
        if hasattr(outcome, "begun_s"):
            outcome = dataclasses.replace(outcome, begun_s=self._clock.monotonic_s())
        confirmed(self, outcome, level, read)

    return [(Reading, "_confirmed", of_the_answer)]


def _fresh_as_applied() -> list[Patch]:
    """A node that applies what comes believes to be up to date."""
    begin = Reading.begin

    def believe(self: Reading, level: str, *rest: Any, **more: Any) -> None:
        if level == BOUNDED:
            self._fresh_s = self._clock.monotonic_s()
        begin(self, level, *rest, **more)

    return [(Reading, "begin", believe)]


def _token_ignored() -> list[Patch]:
    """A read of level `session` does not wait for what its client has seen."""
    begin = Reading.begin

    def at_once(self: Reading, level: str, *rest: Any, **more: Any) -> None:
        begin(self, "local" if level == SESSION else level, *rest, **more)

    return [(Reading, "begin", at_once)]


BUGS = [
    Bug(
        "gap-accepted",
        "S1",
        "a sequence beyond the next one is executed; those between come later, as duplicates",
        make=_gap_accepted,
    ),
    Bug(
        "session-made-anew",
        "S2",
        "a retry whose session is closed opens it again, and is executed again",
        make=_session_made_anew,
    ),
    Bug(
        "outcome-not-recorded",
        "S3",
        "`it never takes effect` is answered and not logged",
        make=_outcome_not_recorded,
    ),
    Bug(
        "outcome-of-a-key-not-recorded",
        "S3",
        "the same of an idempotency key",
        make=_key_outcome_not_recorded,
    ),
    Bug("keys-not-looked-at", "S3", "a key from another session is new", make=_keys_per_session),
    Bug(
        "keys-forgotten-at-restart",
        "S3",
        "a key is looked for among those that this process has seen",
        make=_keys_of_this_process,
    ),
    Bug(
        "key-of-other-sql",
        "S3",
        "another request under a key that was used gets the first one's reply",
        make=_key_of_other_sql,
    ),
    Bug(
        "commit-unchecked",
        "M9",
        "a COMMIT does not check that its statements bring what they brought",
        make=_commit_unchecked,
    ),
    Bug(
        "transaction-begins-unconfirmed",
        "M9",
        "a transaction's snapshot is taken without a ReadIndex",
        make=_begin_unconfirmed,
    ),
    Bug(
        "token-of-another-fork",
        "S4",
        "an index of another history or fork counts as one of this",
        make=_other_forks_token,
    ),
    Bug(
        "fork-of-a-token-not-checked",
        "S4",
        "a token of another fork of this history counts, beyond the fork too",
        make=_fork_unchecked,
    ),
    Bug(
        "member-of-another-history",
        "S4",
        "a member that was restored elsewhere takes part",
        make=_any_history,
    ),
    Bug(
        "key-from-before-the-horizon",
        "S3",
        "a key that is older than what is kept is taken for a new one",
        make=_horizon_ignored,
    ),
    Bug(
        "fresh-as-of-the-answer",
        "R1",
        "freshness counts from a ReadIndex's answer, not from its sending",
        make=_fresh_as_of_the_answer,
    ),
    Bug(
        "fresh-without-asking",
        "R1",
        "a node that is alive believes to be up to date",
        make=_fresh_as_applied,
    ),
    Bug(
        "token-ignored",
        "read level session",
        "a read does not wait for what its client has seen",
        make=_token_ignored,
    ),
]
