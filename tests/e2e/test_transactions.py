"""Transactions cut at every step by the leader's end: never half, never twice, outcome known."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import raftdb
from raftdb.client import Connection
from tests.e2e.cluster import Cluster

STEPS = ("begun", "one statement", "two statements", "commit at once", "commit soon", "committed")
SCHEMA = ("CREATE TABLE a (n, who)", "CREATE TABLE b (n, who)")


def cut(cluster: Cluster, db: Connection, number: int, step: str, orderly: bool) -> str:
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
    with cluster.connect() as db:
        for table in ("a", "b"):
            db.execute(f"DROP TABLE IF EXISTS {table}")
        for sql in SCHEMA:
            db.execute(sql)
        for number, step in enumerate(STEPS):
            told[step] = cut(cluster, db, number, step, orderly)
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
