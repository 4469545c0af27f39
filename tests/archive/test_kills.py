"""The uploader is killed under load, then everything is lost but the archive."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from raftdb.base.errors import Error
from raftdb.runtime import RealClock
from tests.cli.conftest import Command
from tests.cli.conftest import raftdb as command  # noqa: F401
from tests.e2e.cluster import Cluster

RPO_S = 5.0
"""A bound that a loaded machine keeps; the goal, 1 s, is for a quiet one."""
KILLS = 1


def _works(one: dict[str, Any]) -> bool:
    return bool(one["state"] == "active" and one["archived_index"] > 3 and one["lag_s"] < 2.0)


def _active(cluster: Cluster) -> str:
    """A node that uploads."""

    def look() -> str:
        for name in cluster.node_ids:
            if not cluster.node(name).running:
                continue
            found = cluster.status(name)["archive"]
            if found and all(_works(one) for one in found):
                return name
        return ""

    return str(cluster.wait_for("an uploader", look))


@pytest.mark.slow
def test_uploaders_are_killed_and_then_everybody(
    tmp_path: Path,
    command: Command,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = f"file://{tmp_path}/archive"
    monkeypatch.setenv("RAFTDB_ARCHIVE__DESTINATIONS", url)
    monkeypatch.setenv("RAFTDB_ARCHIVE__INTERVAL_MS", "200")
    cluster = Cluster(tmp_path / "cluster", insecure=True)
    clock, stop = RealClock(), threading.Event()
    acknowledged: list[float] = []
    """When each row, from 0, was acknowledged."""

    def load() -> None:
        with cluster.connect() as connection:
            connection.execute("CREATE TABLE t(n INTEGER PRIMARY KEY)")
            while not stop.wait(0.01):
                try:
                    connection.execute("INSERT INTO t VALUES (?)", (len(acknowledged),))
                except Error:
                    return
                acknowledged.append(clock.monotonic_s())

    writer = threading.Thread(target=load)
    try:
        cluster.start_and_wait()
        writer.start()
        for _ in range(KILLS):
            victim = _active(cluster)
            cluster.kill(victim)
            cluster.wait_for("another uploader", lambda v=victim: _active(cluster) != v)
            cluster.start(victim)
        killed_s = clock.monotonic_s()
    finally:
        cluster.kill()
        stop.set()
        writer.join(60.0)
    target = tmp_path / "restored.db"
    verified = command("archive", "verify", "--from", url)
    assert verified.code == 0, verified
    done = command("restore", "--from", url, "--to", target, "--json")
    assert done.code == 0, done
    assert done.json()["proven"]
    with closing(sqlite3.connect(target)) as connection:
        rows = [n for (n,) in connection.execute("SELECT n FROM t ORDER BY n")]
    assert rows == list(range(len(rows)))
    lost = [at_s for at_s in acknowledged[len(rows) :] if at_s < killed_s]
    assert not lost or killed_s - lost[0] < RPO_S
