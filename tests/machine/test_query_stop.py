"""A query that nobody waits for any more is stopped, and only that one."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from raftdb.base.errors import DataError, DeadlineError, OperationalError, ProgrammingError
from raftdb.command import Results, Statement, decode_reply
from raftdb.machine import QueryStop
from raftdb.runtime import RealClock
from tests.machine.support import CpuClock, Database

ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"


def test_a_running_query_is_stopped_and_the_reader_serves_the_next(database: Database) -> None:
    machine, stop = database.machine, QueryStop()
    running = threading.Event()
    threading.Thread(target=lambda: (running.wait(10), stop.stop())).start()
    timer = threading.Timer(0.2, running.set)
    timer.start()
    with pytest.raises(OperationalError) as caught:
        machine.query(Statement(ENDLESS), stop=stop)
    assert caught.value.code == "query_too_long"
    assert machine.query(Statement("SELECT 1"), stop=QueryStop()).statements[0].rows == ((1,),)


def test_a_query_ends_at_its_deadline_and_the_reader_serves_the_next(tmp_path: Path) -> None:
    database = Database(tmp_path, clock=RealClock())
    machine = database.machine
    for attempt in (
        lambda: machine.query(Statement(ENDLESS), timeout_s=0.1),
        lambda: machine.query(Statement("SELECT 1"), Statement(ENDLESS), timeout_s=0.1),
        lambda: machine.query_rows(ENDLESS, timeout_s=0.1),
    ):
        with pytest.raises(DeadlineError, match=r"longer than 0\.1 s") as caught:
            attempt()
        assert (caught.value.outcome, caught.value.retryable) == ("not_applied", True)
        assert machine.query_rows("SELECT 1")[1] == [(1,)]
    assert len(machine._readers._all) == 1
    database.close()


def test_a_query_that_was_stopped_before_it_began_does_not_begin(database: Database) -> None:
    stop = QueryStop()
    stop.stop()
    with pytest.raises(OperationalError):
        database.machine.query(Statement(ENDLESS), stop=stop)


def test_stopping_what_is_over_disturbs_nobody(database: Database) -> None:
    stop = QueryStop()
    database.machine.query(Statement("SELECT 1"), stop=stop)
    stop.stop()
    assert database.machine.query(Statement("SELECT 2")).statements[0].rows == ((2,),)


def test_a_query_in_passing_is_short_or_has_not_happened(tmp_path: Path) -> None:
    database = Database(tmp_path, clock=CpuClock())
    machine = database.machine
    index = int(machine.applied()[0])
    short = (Statement("SELECT ?, 'x'", ((7,),)),)
    reply = decode_reply(machine.query_briefly(short, None, index) or b"")
    assert isinstance(reply, Results)
    assert reply.statements[0].rows == ((7, "x"),)
    with pytest.raises(ProgrammingError):
        machine.query_briefly((Statement("SELECT nonsense"),), None, index)
    started_s = time.thread_time()
    assert machine.query_briefly((Statement(ENDLESS),), None, index) is None
    assert time.thread_time() - started_s < 1.0
    many = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < ?)"
    for sql, limit in ((f"{many} SELECT x FROM c", 2_000), ("SELECT zeroblob(?)", 100_000)):
        statements = (Statement(sql, ((limit,),)),)
        assert machine.query_briefly(statements, None, index) is None
        assert machine.query_briefly((Statement(sql, ((1,),)),), None, index) is None, "for a while"
        assert len(machine.query(*statements).statements[0].rows) > 0
    with pytest.raises(DataError):
        machine.query_briefly((Statement("VALUES (1), (2)"),), 1, index)
    assert machine.query_briefly((*short, *short), None, index) is None
    taken = [machine._readers._idle.pop()]
    assert machine.query_briefly(short, None, index) is None, "no waiting for a reader either"
    machine._readers._give_back(taken.pop())
    assert machine.query_briefly(short, None, index) is not None
    database.close()


def test_what_nothing_can_stop_is_not_tried_in_passing_until_it_was_seen_to_be_quick(
    tmp_path: Path,
) -> None:
    """LIKE takes the product of its operands' lengths, in one step."""
    database = Database(tmp_path, clock=CpuClock())
    machine = database.machine
    database.run("CREATE TABLE t (a)", "CREATE VIEW v AS SELECT a LIKE '%b' AS b FROM t")

    def briefly(sql: str, *parameters: Any) -> bool:
        index = int(machine.applied()[0])
        return machine.query_briefly((Statement(sql, (parameters,)),), None, index) is not None

    text = "a" * 100_000
    started_s = time.thread_time()
    assert not briefly("SELECT ? LIKE ?", text, "%" + "a" * 40_000 + "b")
    assert time.thread_time() - started_s < 0.3
    for sql in ("SELECT count(*) FROM t", "SELECT * FROM v", "SELECT ? ->> '$.a'", "SELECT hex(?)"):
        parameters = ("{}",) * sql.count("?")
        assert not briefly(sql, *parameters)
        machine.query(Statement(sql, (parameters,)))
        assert briefly(sql, *parameters), "it was quick"
        if parameters:
            assert not briefly(sql, text)
    machine.query(Statement("SELECT length(hex(zeroblob(?)))", ((20_000_000,),)))
    assert not briefly("SELECT length(hex(zeroblob(?)))", 1), "it was not"
    assert briefly("SELECT abs(a), max(a) FROM t")
    database.close()
