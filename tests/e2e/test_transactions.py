"""Transactions cut at every step by the leader's end: never half, never twice, outcome known."""

from __future__ import annotations

import asyncio
import queue
import threading
from concurrent.futures import Future
from contextlib import closing
from typing import Any

import pytest

import raftdb
import raftdb.aio
from raftdb.client import Connection
from tests.e2e.cluster import Cluster

STEPS = ("begun", "one statement", "two statements", "commit at once", "commit soon", "committed")
SCHEMA = ("CREATE TABLE a (n, who)", "CREATE TABLE b (n, who)")


class Awaited:
    """The asyncio client's connection, whose calls all run in one task: a transaction belongs to
    the task that began it."""

    def __init__(self, url: str) -> None:
        self._calls: queue.SimpleQueue[tuple[str, tuple[Any, ...], Future[Any]] | None] = (
            queue.SimpleQueue()
        )
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(url),))
        self._thread.start()

    async def _serve(self, url: str) -> None:
        loop = asyncio.get_running_loop()
        async with raftdb.aio.connect(url, timeout=20.0) as db:
            while (call := await loop.run_in_executor(None, self._calls.get)) is not None:
                name, arguments, done = call
                try:
                    done.set_result(await getattr(db, name)(*arguments))
                except raftdb.Error as error:
                    done.set_exception(error)

    def _call(self, name: str, *arguments: Any) -> Any:
        done: Future[Any] = Future()
        self._calls.put((name, arguments, done))
        return done.result()

    def begin(self, mode: str) -> None:
        self._call("begin", mode)

    def execute(self, sql: str, parameters: Any = ()) -> None:
        self._call("execute", sql, parameters)

    def commit(self) -> None:
        self._call("commit")

    def rollback(self) -> None:
        self._call("rollback")

    def close(self) -> None:
        self._calls.put(None)
        self._thread.join()


def cut(cluster: Cluster, db: Connection | Awaited, number: int, step: str, orderly: bool) -> str:
    """One transaction whose leader ends at that step; what its client was told."""
    leader = cluster.wait_for_leader()

    def end_leader() -> None:
        if orderly:
            assert cluster.stop(leader) == {leader: 0}
        else:
            cluster.kill(leader)

    killer = threading.Timer(0.004 if step == "commit soon" else 0.0, end_leader)
    try:
        db.begin("immediate")
        for name, sql in (
            ("begun", "INSERT INTO a VALUES (?, 'x')"),
            ("one statement", "INSERT INTO b VALUES (?, 'x')"),
            ("two statements", "UPDATE a SET who = 'y' WHERE n = ?"),
        ):
            if step == name:
                end_leader()
            db.execute(sql, (number,))
        if step.startswith("commit "):
            killer.start()
        db.commit()
        if step == "committed":
            end_leader()
        return "applied"
    except raftdb.Error as error:
        db.rollback()
        return error.outcome if error.retryable else repr(error)
    finally:
        if killer.ident is not None:
            killer.join()
        cluster.start(leader)


def found(db: Connection, number: int) -> list[tuple[Any, ...]]:
    """What is there of one transaction."""
    return db.execute(
        "SELECT (SELECT count(*) FROM a WHERE n = ?1), (SELECT count(*) FROM b WHERE n = ?1)",
        (number,),
    ).fetchall()


@pytest.mark.parametrize("orderly", [False, True], ids=["killed", "stopped"])
def test_cut_at_every_step(cluster: Cluster, orderly: bool) -> None:
    told: dict[str, str] = {}
    with cluster.connect() as db, closing(Awaited(cluster.url)) as awaited:
        for table in ("a", "b"):
            db.execute(f"DROP TABLE IF EXISTS {table}")
        for sql in SCHEMA:
            db.execute(sql)
        for number, step in enumerate(STEPS):
            # Each step with both clients, each client with both ends of a leader.
            client = awaited if (number + orderly) % 2 else db
            told[step] = cut(cluster, client, number, step, orderly)
            # Every outcome is known, and true.
            assert told[step] in ("applied", "not_applied")
            there = int(told[step] == "applied")
            assert found(db, number) == [(there, there)], step

        def again(connection: Connection) -> None:
            connection.execute("INSERT INTO a VALUES (99, 'x')")
            connection.execute("INSERT INTO b VALUES (99, 'x')")

        db.run_transaction(again)
        assert found(db, 99) == [(1, 1)]
        index = db.last_index
    for step in STEPS[:3]:
        assert told[step] == "not_applied"
    assert told["committed"] == "applied"
    cluster.wait_for_index(index)
    hashes = set()
    for node_id in cluster.node_ids:
        with cluster.connect_to(node_id) as one:
            hashes.add(one.content_hash(index)["total"])
    assert len(hashes) == 1
