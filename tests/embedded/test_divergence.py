"""A member whose content differs is found, named, and kept from answering; the others go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import raftdb
from raftdb.base.errors import OperationalError
from raftdb.ops.found import found_local


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> float:
    """How long it took."""
    start_s, pause = time.monotonic(), threading.Event()
    while not condition():
        assert time.monotonic() - start_s < seconds
        pause.wait(0.01)
    return time.monotonic() - start_s


@pytest.mark.parametrize("who", ["leader", "follower"])
def test_a_member_that_differs_is_quarantined(tmp_path: Path, who: str) -> None:
    found = found_local(tmp_path / "cluster")
    names = [str(one.node_id) for one in found.members]
    nodes = [raftdb.Node(tmp_path / "cluster" / name / "raftdb.toml").start() for name in names]
    try:
        with nodes[0].connect(timeout=15.0) as connection:
            connection.execute("CREATE TABLE accounts(id INTEGER PRIMARY KEY, balance)")
            connection.execute("INSERT INTO accounts VALUES (1, 100)")
        role = {node.status()["node_id"]: node.status()["role"] for node in nodes}
        wrong = next(node for node in nodes if role[node.status()["node_id"]] == who)
        good = [node for node in nodes if node is not wrong]
        name = wrong.status()["node_id"]
        assert wrong._assembly is not None
        machine = wrong._assembly.machine
        with machine._writer_lock:
            machine._writer.execute("UPDATE accounts SET balance = 1 /*raftdb*/").fetchall()
        with good[0].connect(timeout=15.0) as connection:
            connection.execute("INSERT INTO accounts VALUES (2, 200)")
            took_s = wait_for(lambda: bool(wrong.status()["comparison"] == "quarantined"))
            wait_for(lambda: "accounts" in wrong.status()["comparison_reason"])
            assert took_s < 5, "a busy machine: the timers alone take 0.4 s"
            wait_for(lambda: wrong.status()["role"] == "follower")
            wait_for(lambda: good[0].status()["diverged"] == {name: ["accounts"]})
            connection.execute("INSERT INTO accounts VALUES (3, 300)")
            rows = connection.execute("SELECT sum(balance) FROM accounts").fetchall()
            assert [tuple(row) for row in rows] == [(600,)]
        with (
            wrong.connect(read="local", pin=True, timeout=1.0) as connection,
            pytest.raises(OperationalError) as raised,
        ):
            connection.execute("SELECT * FROM accounts").fetchall()
        assert "quarantined" in str(raised.value)
    finally:
        for node in nodes:
            node.stop()


def test_a_member_that_differs_heals_from_the_majority_by_itself(tmp_path: Path) -> None:
    found = found_local(tmp_path / "cluster")
    names = [str(one.node_id) for one in found.members]
    nodes = [raftdb.Node(tmp_path / "cluster" / name / "raftdb.toml").start() for name in names]
    try:
        with nodes[0].connect(timeout=15.0) as connection:
            connection.execute("CREATE TABLE accounts(id INTEGER PRIMARY KEY, balance)")
            connection.execute("INSERT INTO accounts VALUES (1, 100)")
        wrong = next(node for node in nodes if node.status()["role"] == "follower")
        good = next(node for node in nodes if node is not wrong)
        assert wrong._assembly is not None
        machine = wrong._assembly.machine
        last = good.status()["commit_index"]
        wait_for(lambda: machine.applied()[0] >= last)
        with machine._writer_lock:
            machine._writer.execute("UPDATE accounts SET balance = 1 /*raftdb*/").fetchall()
        with good.connect(timeout=15.0) as connection:
            connection.execute("INSERT INTO accounts VALUES (2, 200)")
            wait_for(lambda: bool(wrong.status()["comparison"] == "quarantined"))

            def healed() -> bool:
                connection.execute("UPDATE accounts SET balance = balance WHERE id = 2")
                assembly = wrong._assembly
                if assembly is None or assembly.machine is machine:
                    return False
                # A new one knows only when it has begun that it is to be compared first.
                return assembly.serves and assembly.comparison.state == "agrees"

            wait_for(healed, 30.0)
        with wrong.connect(read="local", pin=True, timeout=5.0) as connection:
            rows = connection.execute("SELECT id, balance FROM accounts ORDER BY id").fetchall()
            assert [tuple(row) for row in rows] == [(1, 100), (2, 200)]
        assert wrong.failure is None
    finally:
        for node in nodes:
            node.stop()
