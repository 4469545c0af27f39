"""Idempotency keys, and what became of a request (rule S3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raftdb.base.errors import Error
from raftdb.command import Failed, Key, Outcome, Reply, ResultDropped, Results
from raftdb.machine import format
from tests.machine.support import START_MS, Database, replay, stamp
from tests.machine.transactions import Transaction, committed


@pytest.fixture(autouse=True)
def table(database: Database) -> None:
    database.run("CREATE TABLE t (a)")


INSERT = "INSERT INTO t VALUES (1) RETURNING rowid"


def ask(database: Database, *, key: Key | None = None, sequence: int = 0) -> Reply:
    session = database.session if key is None else 0
    return database.apply(Outcome(stamp(database.sequence + 1), session, sequence, key))


def error_of(reply: Reply) -> Error:
    assert isinstance(reply, Failed), reply
    return reply.error


def test_a_key_takes_effect_once_across_sessions_and_restarts(
    database: Database, tmp_path: Path
) -> None:
    key = Key("order-42")
    first = database.apply(database.request(INSERT, key=key))
    database.restart()
    assert database.apply(database.request(INSERT, key=key)) == first
    assert database.rows("SELECT count(*) FROM t") == [(1,)]
    assert ask(database, key=key) == first
    again = database.apply(database.request("DELETE FROM t", key=key))
    assert error_of(again).code == "key_reused"
    assert isinstance(database.apply(database.request(INSERT, key=Key("other"))), Results)
    other = replay(tmp_path / "other", database.entries)
    assert other.content_hash() == database.machine.content_hash()
    other.close()


def test_a_failure_leaves_the_key_free(database: Database) -> None:
    failed = database.apply(database.request("INSERT INTO nowhere VALUES (1)", key=Key("k")))
    assert error_of(failed).code == "sql"
    assert isinstance(database.apply(database.request(INSERT, key=Key("k"))), Results)


def test_a_key_that_was_asked_for_too_early_is_burned(database: Database) -> None:
    asked = error_of(ask(database, key=Key("late")))
    assert (asked.code, asked.outcome) == ("burned", "not_applied")
    late = error_of(database.apply(database.request(INSERT, key=Key("late"))))
    assert late.code == "burned"
    assert database.rows("SELECT count(*) FROM t") == [(0,)]
    one = Transaction(database)
    one.run(INSERT)
    assert error_of(one.commit(key=Key("late"))).code == "burned"
    two = Transaction(database)
    two.run(INSERT)
    assert committed(two.commit(key=Key("new")))
    assert ask(database, key=Key("new")) == Results(())


def test_an_unseen_sequence_is_burned_and_all_before_it(database: Database) -> None:
    database.run(INSERT)
    seen, unseen = database.sequence, database.sequence + 3
    assert isinstance(ask(database, sequence=seen), Results)
    assert error_of(ask(database, sequence=unseen)).code == "burned"
    for sequence in range(seen + 1, unseen + 1):
        late = database.apply(database.request(INSERT, sequence=sequence, floor=seen))
        assert error_of(late).code == "burned"
    database.sequence = unseen
    database.run(INSERT)
    assert database.rows("SELECT count(*) FROM t") == [(2,)]
    far = error_of(ask(database, sequence=unseen + format.SESSION_REPLIES_MAX + 2))
    assert far.code == "protocol"
    gone = database.apply(Outcome(stamp(9), database.session + 1, 1))
    assert (error_of(gone).code, error_of(gone).outcome) == ("session_unknown", "unknown")


def test_what_is_forgotten_is_never_called_not_applied(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(format, "KEYS_MAX", 3)
    early = database.machine.horizon()
    for number in range(5):
        reply = database.apply(database.request(INSERT, key=Key(f"k{number}")))
        assert isinstance(reply, Results)
    for reply in (
        ask(database, key=Key("k0", early)),
        ask(database, key=Key("k0")),
        database.apply(database.request(INSERT, key=Key("k0", early))),
    ):
        assert (error_of(reply).code, error_of(reply).outcome) == ("key_too_old", "unknown")
    assert isinstance(ask(database, key=Key("k4", early)), Results)
    now = database.machine.horizon()
    assert error_of(ask(database, key=Key("new", now))).code == "burned"
    database.restart()
    assert error_of(ask(database, key=Key("k1", early))).code == "key_too_old"
    assert database.rows("SELECT count(*) FROM t") == [(5,)]


def test_keys_are_forgotten_with_time(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format, "KEY_KEPT_MS", 60_000)
    horizon = database.machine.horizon()
    database.apply(database.request(INSERT, key=Key("old", horizon)))
    later: Any = {"stamp": stamp(0, START_MS + 3_600_000)}
    database.apply(database.request(INSERT, key=Key("new"), **later))
    again = database.apply(database.request(INSERT, key=Key("old", horizon), **later))
    assert error_of(again).code == "key_too_old"


def test_a_large_result_is_not_kept(database: Database) -> None:
    large = "SELECT zeroblob(100000)"
    assert isinstance(database.apply(database.request(large, key=Key("k"))), Results)
    assert isinstance(database.apply(database.request(large, key=Key("k"))), ResultDropped)


def test_keys_share_a_transaction_that_is_lost_with_others(database: Database) -> None:
    database.run("CREATE TABLE u (a UNIQUE)")
    replies = database.batch(
        database.request(INSERT, key=Key("a")),
        database.request("INSERT INTO u VALUES (1)"),
        database.request("INSERT OR ROLLBACK INTO u VALUES (1)", key=Key("b")),
        database.request(INSERT, key=Key("a")),
    )
    assert [type(reply) for reply in replies] == [Results, Results, Failed, Results]
    assert replies[0] == replies[3]
    assert database.rows("SELECT count(*) FROM t") == [(1,)]
