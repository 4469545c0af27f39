"""Applying in place: the same as on the lane, or nothing at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raftdb.base.errors import FatalError
from raftdb.command import Failed, Key, Statement, decode_reply
from raftdb.machine import applier, patience
from raftdb.machine.units import BRIEF_BYTES_MAX, BRIEF_REQUESTS_MAX
from tests.machine.support import Database, ManualClock

MANY = (
    "INSERT INTO t WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT {})"
    " SELECT x FROM c"
)


class RacingClock(ManualClock):
    """Each look takes `step_s`."""

    step_s = 0.0

    def monotonic_s(self) -> float:
        self.now_s += self.step_s
        return self.now_s


@pytest.fixture
def clock() -> RacingClock:
    return RacingClock()


@pytest.fixture
def timed(tmp_path: Path, clock: RacingClock) -> Database:
    database = Database(tmp_path, clock=clock)
    database.run("CREATE TABLE t (a INTEGER)")
    return database


def test_a_short_one_is_applied_with_its_reply_and_hash(timed: Database) -> None:
    entry = timed.entry(timed.request("INSERT INTO t VALUES (1) RETURNING a"))
    replies = timed.machine.apply_briefly([entry])
    assert replies is not None
    assert decode_reply(replies[0][0]).statements[0].rows == ((1,),)  # type: ignore[union-attr]
    assert timed.machine.applied()[0] == entry.index
    timed.check_hash()


def test_one_that_takes_too_long_leaves_no_trace_and_ends_on_the_lane(
    timed: Database, clock: RacingClock
) -> None:
    before, content = timed.machine.applied(), timed.machine.content_hash()
    good = timed.request("INSERT INTO t VALUES (7)")
    long = timed.request(MANY.format(5_000))
    entry = timed.entry(good, long)
    clock.step_s = 0.0015
    assert timed.machine.apply_briefly([entry]) is None
    assert timed.machine.applied() == before
    assert timed.machine.content_hash() == content
    assert timed.rows("SELECT count(*) FROM t") == [(0,)]
    timed.machine.apply([entry])
    assert timed.rows("SELECT count(*) FROM t") == [(5_001,)]
    timed.check_hash()


def test_giving_up_takes_its_time_where_there_are_many_keys(
    timed: Database, clock: RacingClock
) -> None:
    keyed = [timed.request("SELECT 1", key=Key(f"k{number}")) for number in range(600)]
    timed.machine.apply([timed.entry(*keyed)])
    entry = timed.entry(
        timed.request("INSERT INTO t VALUES (1)", key=Key("new")),
        timed.request(MANY.format(5_000)),
    )
    clock.step_s = 0.0015
    assert timed.machine.apply_briefly([entry]) is None
    timed.machine.apply([entry])
    assert timed.rows("SELECT count(*) FROM t") == [(5_001,)]
    timed.check_hash()


def test_after_a_slow_one_the_next_goes_to_the_lane_for_a_while(
    timed: Database, clock: RacingClock
) -> None:
    clock.step_s = 0.0015
    assert timed.machine.apply_briefly([timed.entry(timed.request(MANY.format(5_000)))]) is None
    clock.step_s = 0.0
    entry = timed.entry(timed.request("INSERT INTO t VALUES (1)"))
    assert timed.machine.apply_briefly([entry]) is None
    clock.now_s += 60
    assert timed.machine.apply_briefly([entry]) is not None


@pytest.mark.parametrize("sql", ["CREATE TABLE u (a)", "ANALYZE", "DROP TABLE t"])
def test_what_goes_alone_goes_to_the_lane(timed: Database, sql: str) -> None:
    assert timed.machine.apply_briefly([timed.entry(timed.request(sql))]) is None


def test_virtual_tables_go_to_the_lane(timed: Database) -> None:
    timed.run("CREATE VIRTUAL TABLE f USING fts5 (a)")
    assert timed.machine.apply_briefly([timed.entry(timed.request("DELETE FROM t"))]) is None


def test_many_requests_go_to_the_lane(timed: Database) -> None:
    requests = [timed.request("DELETE FROM t") for _ in range(BRIEF_REQUESTS_MAX + 1)]
    assert timed.machine.apply_briefly([timed.entry(*requests)]) is None


def test_a_large_request_goes_to_the_lane_undecoded(timed: Database) -> None:
    """To decode it on the loop took the leader 0.2 s for 20 MB."""
    half = (("x" * (BRIEF_BYTES_MAX // 2),),)
    insert = Statement("INSERT INTO t VALUES (?)", half)
    assert timed.machine.apply_briefly([timed.entry(timed.request(insert, insert))]) is None
    assert timed.machine.apply_briefly(
        [timed.entry(timed.request(insert, sequence=timed.sequence))]
    )


def test_a_lost_transaction_is_no_reason_to_give_up(timed: Database, clock: RacingClock) -> None:
    timed.run("CREATE UNIQUE INDEX one ON t (a)")
    timed.run("INSERT INTO t VALUES (1)")
    entry = timed.entry(
        timed.request("INSERT INTO t VALUES (2)"),
        timed.request("INSERT OR ROLLBACK INTO t VALUES (1)"),
        timed.request(MANY.replace("SELECT x FROM c", "SELECT x + 10 FROM c").format(3_000)),
        # Some of it is committed by then: what is left to the lane otherwise is done here.
        timed.request("INSERT INTO t VALUES (-length(printf('%*d', 1000, 1)))"),
    )
    clock.step_s = 0.00001
    replies = timed.machine.apply_briefly([entry])
    assert replies is not None
    assert isinstance(decode_reply(replies[0][1]), Failed)
    assert timed.rows("SELECT count(*) FROM t") == [(3_003,)]
    timed.check_hash()


def test_what_ends_the_lane_ends_this_too(timed: Database) -> None:
    entry = timed.entry(timed.request("DELETE FROM t"), index=99)
    with pytest.raises(FatalError):
        timed.machine.apply_briefly([entry])
    with pytest.raises(FatalError):
        timed.machine.apply([timed.entry(timed.request("DELETE FROM t"))])


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES (length(printf('%*d', 1000, 1)))",
        "INSERT INTO t SELECT a LIKE 'x' FROM t",
        "INSERT INTO v VALUES (1)",
        "INSERT INTO t SELECT count(*) FROM t",
        "UPDATE t SET a = '{}' ->> '$.a'",
    ],
)
def test_what_could_be_busy_for_long_in_one_step_is_left_to_the_lane(
    timed: Database, sql: str
) -> None:
    timed.run(
        "CREATE VIEW v AS SELECT a FROM t",
        "CREATE TRIGGER w INSTEAD OF INSERT ON v BEGIN INSERT INTO t VALUES (hex(new.a)); END",
    )
    before = timed.machine.applied()
    good = timed.request("INSERT INTO t VALUES (7)")
    entry = timed.entry(good, timed.request(sql))
    assert timed.machine.apply_briefly([entry]) is None
    assert timed.machine.applied() == before
    first, second = timed.machine.apply([entry])[0]
    assert not isinstance(decode_reply(first), Failed)
    assert not isinstance(decode_reply(second), Failed)
    timed.check_hash()


@pytest.mark.parametrize("handler", ["brief", "steps"])
def test_a_commit_is_never_stopped(
    timed: Database, clock: RacingClock, monkeypatch: pytest.MonkeyPatch, handler: str
) -> None:
    """SQLite looks at a statement's progress once more when it ends, by a count that goes on from
    the statement's last run: now and then it says that a COMMIT was interrupted that it has done.
    Taken back in memory alone, its rows were missing from the hash that is kept."""
    monkeypatch.setattr(applier, "_BRIEF_STEPS", 10)
    inner = timed.machine._applier
    control, steps = inner._control, inner._steps
    committing = 0

    def watched(sql: str, *rest: Any) -> Any:
        nonlocal committing
        if not sql.startswith("COMMIT"):
            return control(sql, *rest)
        committing += 1
        clock.step_s = 10.0 if handler == "brief" else 0.0
        if handler == "steps":
            steps._looks = patience.HOLD_STEPS
        try:
            return control(sql, *rest)
        finally:
            clock.step_s = 0.0

    monkeypatch.setattr(inner, "_control", watched)
    for number in range(patience.GRAIN):
        entry = timed.entry(timed.request(f"INSERT INTO t VALUES ({number})"))
        monkeypatch.setattr(timed.machine, "_brief_from_s", 0.0)
        assert timed.machine.apply_briefly([entry]) is not None
    assert committing == patience.GRAIN
    assert timed.rows("SELECT count(*), max(a) FROM t") == [(patience.GRAIN, patience.GRAIN - 1)]
    timed.check_hash()
