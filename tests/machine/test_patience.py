"""A request that takes long is held everywhere, and becomes what the log says (rule M4)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raftdb.command import Failed, Results, Verdict, decode_reply, encode_request
from raftdb.machine import patience
from tests.machine.support import SQL, Database, Entry, ManualClock, replay, stamp

ENDLESS = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) INSERT INTO t SELECT i FROM n"
)
LONG = ENDLESS.replace("FROM n)", "FROM n WHERE i < 5000)")


@pytest.fixture
def hasty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """A machine for which little is long already."""
    monkeypatch.setattr(patience, "HOLD_STEPS", 20_000)
    monkeypatch.setattr(patience, "ABORT_STEPS", 1_000_000)
    made = Database(tmp_path / "hasty")
    made.run("CREATE TABLE t(a)", "CREATE TABLE other(a)")
    yield made
    made.close()


def long_entry(database: Database, sql: SQL = LONG) -> Entry:
    """Three requests; the second takes long."""
    return database.entry(
        database.request("INSERT INTO other VALUES (1)"),
        database.request(sql),
        database.request("INSERT INTO other VALUES (3)"),
    )


def verdict(database: Database, index: int, keep: bool, *, after: int = 1) -> Entry:
    request = Verdict(stamp(90), index, 1, keep)
    return Entry(index + after, 1, (encode_request(request),))  # type: ignore[arg-type]


def kinds(replies: list[list[bytes]]) -> list[list[type]]:
    return [[type(decode_reply(reply)) for reply in of_entry] for of_entry in replies]


def test_it_is_held_and_kept(hasty: Database, tmp_path: Path) -> None:
    entry = long_entry(hasty)
    before = hasty.machine.applied()[0]
    assert hasty.machine.apply([entry]) == []
    assert hasty.machine.held() == (entry.index, 1)
    assert hasty.machine.applied()[0] == before
    assert hasty.rows("SELECT count(*) FROM t") == [(0,)]
    assert hasty.rows("SELECT a FROM other") == [(1,)], "what came before it is done"
    assert hasty.machine.apply([entry]) == [], "it does not go on by itself"
    said = verdict(hasty, entry.index, True)
    assert hasty.machine.look_ahead([said])
    replies = hasty.machine.apply([entry, said])
    assert kinds(replies) == [[Results] * 3, [Results]]
    assert hasty.machine.held() is None
    assert hasty.rows("SELECT count(*) FROM t") == [(5000,)]
    hasty.check_hash()
    patience_of_others(hasty, [entry, said], replies, tmp_path)


def patience_of_others(
    hasty: Database, entries: list[Entry], replies: list[list[bytes]], tmp_path: Path
) -> None:
    """One for which it is not long at all has the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patience, "HOLD_STEPS", 10_000_000)
        other = replay(tmp_path / "patient", hasty.entries)
        assert other.apply(entries) == replies
        assert other.content_hash() == hasty.machine.content_hash()
        other.close()


def test_an_endless_one_is_given_up_by_all(hasty: Database) -> None:
    entry = long_entry(hasty, ENDLESS)
    assert hasty.machine.apply([entry]) == []
    said = verdict(hasty, entry.index, False, after=2)
    between = Entry(entry.index + 1, 1, ())  # type: ignore[arg-type]
    assert not hasty.machine.look_ahead([between])
    assert hasty.machine.look_ahead([said])
    replies = hasty.machine.apply([entry, between, said])
    assert kinds(replies) == [[Results, Failed, Results], [], [Results]]
    failed: Any = decode_reply(replies[0][1])
    assert (failed.error.code, failed.error.outcome) == ("statement_too_long", "not_applied")
    assert hasty.rows("SELECT a FROM other") == [(1,), (3,)]
    assert hasty.rows("SELECT count(*) FROM t") == [(0,)]
    hasty.check_hash()


def test_a_retry_of_one_that_was_given_up_gets_its_first_outcome(hasty: Database) -> None:
    entry = hasty.entry(hasty.request(ENDLESS))
    assert hasty.machine.apply([entry]) == []
    request = Verdict(stamp(90), entry.index, 0, False)
    said = Entry(entry.index + 1, 1, (encode_request(request),))  # type: ignore[arg-type]
    assert hasty.machine.look_ahead([said])
    [[first], _done] = hasty.machine.apply([entry, said])
    [[again]] = hasty.machine.apply([hasty.entry(hasty.request(ENDLESS, sequence=hasty.sequence))])
    assert again == first


def test_the_first_verdict_in_the_log_counts(hasty: Database) -> None:
    entry = long_entry(hasty)
    assert hasty.machine.apply([entry]) == []
    first, second = verdict(hasty, entry.index, False), verdict(hasty, entry.index, True, after=2)
    assert hasty.machine.look_ahead([first, second])
    replies = hasty.machine.apply([entry, first, second])
    assert kinds(replies)[0] == [Results, Failed, Results]


@pytest.mark.parametrize("keep", [True, False])
def test_a_restart_while_it_is_held(hasty: Database, keep: bool) -> None:
    entry = long_entry(hasty)
    assert hasty.machine.apply([entry]) == []
    hasty.restart()
    assert hasty.machine.held() is None
    said = verdict(hasty, entry.index, keep)
    replies = hasty.machine.apply([entry, said])
    assert len(replies[0]) == 3
    assert isinstance(decode_reply(replies[0][1]), Results if keep else Failed)
    assert hasty.rows("SELECT count(*) FROM t") == [(5000 if keep else 0,)]
    hasty.check_hash()


@pytest.mark.parametrize(
    "sql",
    [
        LONG,
        "CREATE TABLE made AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
        " WHERE i < 5000) SELECT i FROM n",
        LONG.replace("INTO t SELECT i", "OR ROLLBACK INTO t SELECT min(i, 4999)"),
        LONG.replace("INTO t SELECT i", "INTO words SELECT i"),
        "SELECT count(*) FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
        " WHERE i < 9000) SELECT i FROM n)",
    ],
)
def test_a_trial_leaves_no_trace(hasty: Database, tmp_path: Path, sql: str) -> None:
    hasty.run("CREATE VIRTUAL TABLE words USING fts5(x)", "CREATE UNIQUE INDEX t_a ON t(a)")
    before = hasty.machine.content_hash()
    entry = hasty.entry(hasty.request(sql))
    assert hasty.machine.apply([entry]) == []
    assert hasty.machine.try_held(5.0) is True
    assert hasty.machine.try_held(5.0) is True
    assert hasty.machine.content_hash() == before
    hasty.check_hash()
    request = Verdict(stamp(90), entry.index, 0, True)
    said = Entry(entry.index + 1, 1, (encode_request(request),))  # type: ignore[arg-type]
    assert hasty.machine.look_ahead([said])
    replies = hasty.machine.apply([entry, said])
    hasty.check_hash()
    patience_of_others(hasty, [entry, said], replies, tmp_path)


def test_the_trial_of_an_endless_one_ends(tmp_path: Path, hasty: Database) -> None:
    clock = ManualClock()
    hasty.options["clock"] = clock
    hasty.restart()
    assert hasty.machine.apply([long_entry(hasty, ENDLESS)]) == []
    assert hasty.machine.try_held(0.0) is False
    assert hasty.machine.held() is not None
    hasty.machine.cancel_trial()
    assert hasty.machine.try_held(0.0) is None
    hasty.check_hash()


def test_few_steps_are_never_given_up(hasty: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long they took: a slow machine must not give up what a quick one has committed."""
    hasty.options["clock"] = ManualClock()
    hasty.restart()
    assert hasty.machine.apply([long_entry(hasty)]) == []
    assert hasty.machine.try_held(0.0) is True


def test_many_small_statements_count_as_well(hasty: Database) -> None:
    """Steps that no look has seen are counted from above."""
    statements = [f"SELECT {number}" for number in range(50)]
    assert hasty.machine.apply([hasty.entry(hasty.request(*statements))]) == []
    assert hasty.machine.held() is not None


def test_a_verdict_outlives_a_transaction_that_is_given_up(hasty: Database, tmp_path: Path) -> None:
    """A request that was aborted, its verdict, and another one that must be held, all in one
    transaction: that is undone, and what comes before the other one is applied once more."""
    first, second = long_entry(hasty), hasty.next_index + 2
    said = verdict(hasty, first.index, False)
    other = hasty.entry(hasty.request(LONG), index=second)
    replies = hasty.machine.apply([first, said, other])
    assert kinds(replies) == [[Results, Failed, Results], [Results]]
    assert hasty.machine.held() == (second, 0)
    assert hasty.rows("SELECT count(*) FROM t") == [(0,)]
    hasty.check_hash()
