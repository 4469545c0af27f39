"""Exactly once: what becomes of a request by its session and sequence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raftdb.base.errors import Error
from raftdb.command import (
    CloseSession,
    Failed,
    Opened,
    OpenSession,
    Reply,
    Request,
    ResultDropped,
    Results,
    decode_reply,
)
from raftdb.command.requests import session_number
from raftdb.machine import format
from tests.machine.support import START_MS, Database, replay, stamp

HOUR_MS = 3_600_000


def encoded(database: Database, *requests: Request) -> list[bytes]:
    """One entry; its replies as bytes."""
    [replies] = database.apply_entries(database.entry(*requests))
    return replies


def error_of(reply: Reply | bytes) -> Error:
    decoded = decode_reply(reply) if isinstance(reply, bytes) else reply
    assert isinstance(decoded, Failed), decoded
    return decoded.error


def open_session(database: Database, time_ms: int | None = None) -> int:
    opened = database.apply(OpenSession(stamp(1, time_ms), b"u" * 16, "another"))
    assert isinstance(opened, Opened), opened
    return opened.session.number


def count(database: Database) -> int:
    [(rows,)] = database.rows("SELECT count(*) FROM t")
    assert isinstance(rows, int)
    return rows


@pytest.fixture
def counted(database: Database) -> Database:
    """With a table whose rows count how often a request took effect."""
    database.run("CREATE TABLE t(a DEFAULT (random()))")
    return database


INSERT = "INSERT INTO t DEFAULT VALUES RETURNING a"


def test_opening_names_the_session(database: Database) -> None:
    index = database.next_index
    first, second = database.batch(
        OpenSession(stamp(1), b"x" * 16, "one"), OpenSession(stamp(1), b"y" * 16, "two")
    )
    assert isinstance(first, Opened)
    assert isinstance(second, Opened)
    assert first.session.number == session_number(index, 0)
    assert second.session.number == session_number(index, 1)
    assert first.session.history == bytes.fromhex("0123456789abcdef" * 2)
    assert database.machine.session_token(first.session.number) == b"x" * 16
    assert database.machine.session_token(12345) is None
    assert database.machine.sessions_open() == 3
    database.restart()
    assert database.machine.session_token(second.session.number) == b"y" * 16
    error = error_of(database.apply(OpenSession(stamp(1), b"short", "")))
    assert error.code == "protocol"


@pytest.mark.parametrize("life", ["same batch", "next batch", "restart", "after a failure"])
def test_a_retry_gets_the_first_reply_and_has_no_effect(counted: Database, life: str) -> None:
    request = counted.request(INSERT, floor=0)
    if life == "same batch":
        first, second = encoded(counted, request, request)
    else:
        [first] = encoded(counted, request)
        if life == "restart":
            counted.restart()
        if life == "after a failure":
            prepare = counted.request("INSERT OR ROLLBACK INTO nowhere VALUES (1)", floor=0)
            counted.apply(prepare)
        [second] = encoded(counted, request)
    assert first == second
    assert isinstance(decode_reply(first), Results)
    assert count(counted) == 1
    counted.check_hash()


def test_a_failure_is_a_reply_too(counted: Database) -> None:
    request = counted.request("INSERT INTO u VALUES (1)", floor=0)
    [first] = encoded(counted, request)
    counted.run("CREATE TABLE u(a)", floor=0)
    [second] = encoded(counted, request)
    assert first == second
    assert error_of(first).outcome == "not_applied"
    assert counted.rows("SELECT * FROM u") == []


def test_a_gap_is_not_recorded(counted: Database) -> None:
    five, six = counted.request(INSERT), counted.request(INSERT)
    for _attempt in range(2):
        error = error_of(counted.apply(six))
        assert (error.code, error.outcome, error.retryable) == ("sequence_gap", "not_applied", True)
    assert count(counted) == 0
    replies = counted.batch(six, five, six)
    assert [type(reply) for reply in replies] == [Failed, Results, Results]
    assert count(counted) == 2


def test_replies_are_kept_until_the_floor_passes(counted: Database) -> None:
    requests = [counted.request(INSERT, floor=0) for _ in range(5)]
    replies = encoded(counted, *requests[:3]) + encoded(counted, *requests[3:])
    counted.restart()
    assert encoded(counted, *requests) == replies
    counted.run(INSERT, floor=requests[3].sequence)
    forgotten = encoded(counted, *requests)
    for reply in forgotten[:4]:
        error = error_of(reply)
        assert (error.code, error.outcome, error.retryable) == ("reply_forgotten", "applied", False)
    assert forgotten[4] == replies[4]
    counted.restart()
    assert encoded(counted, *requests) == forgotten
    assert count(counted) == 6


def test_a_floor_at_or_past_the_request_itself(counted: Database) -> None:
    request = counted.request(INSERT, floor=10**9)
    [first] = encoded(counted, request)
    assert encoded(counted, request) == [first]
    nxt = counted.request(INSERT, floor=-5)
    [reply] = encoded(counted, nxt)
    assert encoded(counted, nxt) == [reply]
    assert encoded(counted, request) == [first]


def test_the_number_of_replies_is_bounded(
    counted: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(format, "SESSION_REPLIES_MAX", 3)
    requests = [counted.request(INSERT, floor=0) for _ in range(5)]
    replies = encoded(counted, *requests)
    for _life in range(2):
        again = encoded(counted, *requests)
        assert [error_of(reply).code for reply in again[:2]] == ["reply_forgotten"] * 2
        assert again[2:] == replies[2:]
        counted.restart()
    [(rows,)] = counted.machine._writer.execute("SELECT count(*) FROM _raftdb_reply")
    assert rows == 2


def test_the_bytes_of_replies_are_bounded(
    counted: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(format, "SESSION_REPLY_BYTES_MAX", 5000)
    requests = [counted.request("SELECT hex(randomblob(1000))", floor=0) for _ in range(4)]
    replies = encoded(counted, *requests)
    again = encoded(counted, *requests)
    assert [error_of(reply).code for reply in again[:2]] == ["reply_forgotten"] * 2
    assert again[2:] == replies[2:]


def test_a_long_reply_is_kept_as_a_marker(counted: Database) -> None:
    size = format.REPLY_KEPT_BYTES_MAX
    request = counted.request("INSERT INTO t VALUES (1)", f"SELECT zeroblob({size})", floor=0)
    [first] = encoded(counted, request)
    assert isinstance(decode_reply(first), Results)
    [second] = encoded(counted, request)
    assert decode_reply(second) == ResultDropped(len(first))
    assert count(counted) == 1


@pytest.mark.parametrize(("sequence", "outcome"), [(1, "not_applied"), (2, "unknown")])
def test_an_unknown_session(counted: Database, sequence: int, outcome: str) -> None:
    error = error_of(counted.apply(counted.request(INSERT, session=99, sequence=sequence)))
    assert (error.code, error.outcome, error.retryable) == ("session_unknown", outcome, False)
    assert count(counted) == 0


@pytest.mark.parametrize("sequence", [0, -1, 1 << 63, (1 << 64) - 1])
def test_a_sequence_that_is_none(counted: Database, sequence: int) -> None:
    error = error_of(counted.apply(counted.request(INSERT, sequence=sequence)))
    assert error.code in ("protocol", "sequence_gap")
    assert error.outcome == "not_applied"
    assert count(counted) == 0


def test_closing(counted: Database) -> None:
    number = open_session(counted)
    request = counted.request(INSERT, session=number, sequence=1, floor=0)
    first, closed, again = counted.batch(request, CloseSession(stamp(2), number), request)
    assert (type(first), closed, error_of(again).code) == (Results, Results(()), "session_unknown")
    assert counted.apply(CloseSession(stamp(2), number)) == Results(())
    counted.restart()
    assert counted.machine.session_token(number) is None
    assert count(counted) == 1


def idle(database: Database, hours: float) -> None:
    """Move session time: a tick each minute, as the leader sends them."""
    start = database.machine.time_ms()
    ticks = [
        database.entry(
            *[_tick(start + minute * 60_000) for minute in range(first, first + 60)],
            index=database.next_index + first // 60,
        )
        for first in range(1, int(hours * 60), 60)
    ]
    database.apply_entries(*ticks)


def _tick(time_ms: int) -> Any:
    from raftdb.command import Tick

    return Tick(stamp(0, time_ms))


def test_idle_sessions_end_by_logged_time(counted: Database, tmp_path: Path) -> None:
    number = open_session(counted)
    counted.apply(counted.request(INSERT, session=number, sequence=1, floor=0))
    idle(counted, 20)
    counted.run("SELECT 1")  # the other session stays in use
    counted.restart()
    idle(counted, 3)
    assert counted.machine.session_token(number) is not None
    idle(counted, 2)
    assert counted.machine.session_token(number) is None
    assert counted.machine.session_token(counted.session) is not None
    retry = counted.request(INSERT, session=number, sequence=2, floor=0)
    assert error_of(counted.apply(retry)).code == "session_unknown"
    other = replay(tmp_path / "other", counted.entries)
    assert other.content_hash() == counted.machine.content_hash()
    other.close()


def test_a_jump_of_the_clock_and_a_long_outage_end_no_session(counted: Database) -> None:
    number = open_session(counted)
    for days in (1, 30, 3000):
        counted.tick(START_MS + days * 24 * HOUR_MS)
    assert counted.machine.session_token(number) is not None
    assert counted.machine.time_ms() == START_MS + 3000 * 24 * HOUR_MS


def test_when_all_sessions_are_taken(
    counted: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(format, "SESSIONS_MAX", 3)
    first, second = open_session(counted), open_session(counted)
    error = error_of(counted.apply(OpenSession(stamp(1), b"z" * 16, "")))
    assert (error.code, error.retryable) == ("sessions_full", True)
    idle(counted, 0.25)
    counted.run("SELECT 1")
    third = open_session(counted)
    assert counted.machine.session_token(first) is None
    assert counted.machine.session_token(second) is not None
    assert counted.machine.session_token(third) is not None
    other = replay(tmp_path / "other", counted.entries)
    assert other.content_hash() == counted.machine.content_hash()
    other.close()


def test_many_sessions_that_come_and_go_take_no_memory(counted: Database) -> None:
    for _round in range(20):
        index = counted.next_index
        opened = [OpenSession(stamp(1), b"u" * 16, "") for _ in range(50)]
        closed = [CloseSession(stamp(1), session_number(index, place)) for place in range(50)]
        counted.batch(*opened, *closed)
    sessions = counted.machine._applier.sessions
    assert len(sessions) == 1
    assert len(sessions._heap) < 200


def test_sessions_survive_a_lost_transaction(counted: Database) -> None:
    """What a batch did to sessions is undone with it, and done again."""
    counted.run("CREATE TABLE u(a UNIQUE)", "INSERT INTO u VALUES (1)")
    number = open_session(counted)
    index = counted.next_index
    a = counted.request(INSERT, floor=0)
    b = counted.request(INSERT, session=number, sequence=1, floor=0)
    lost = counted.request("INSERT OR ROLLBACK INTO u VALUES (1)", floor=0)
    c = counted.request(INSERT, session=number, sequence=2, floor=0)
    replies = encoded(
        counted,
        a,
        OpenSession(stamp(3), b"v" * 16, "late"),
        b,
        lost,
        CloseSession(stamp(3), number),
        c,
    )
    kinds = [type(decode_reply(reply)) for reply in replies]
    assert kinds == [Results, Opened, Results, Failed, Results, Failed]
    assert counted.machine.session_token(session_number(index, 1)) == b"v" * 16
    assert counted.machine.session_token(number) is None
    assert encoded(counted, a, lost) == [replies[0], replies[3]]
    counted.restart()
    assert encoded(counted, a, lost) == [replies[0], replies[3]]
    assert count(counted) == 2
    counted.check_hash()


def test_the_chain_of_results_tells_replies_apart(counted: Database) -> None:
    before = counted.machine.content_hash().results
    counted.run("SELECT 1")
    after = counted.machine.content_hash()
    assert after.results != before
    assert after.total == counted.machine.recompute_content_hash().total
