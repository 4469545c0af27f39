"""Uploaders are killed under load, then everything is lost but the archive.

Two clients write: one waits for the archive, and loses nothing it was told; the other waits for the
quorum, and loses the last moment at most.
"""

from __future__ import annotations

import shutil
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

RPO_S = 3.0
"""A bound that a loaded machine keeps; the goal, 1 s, is for a quiet one."""
KILLS = 1
DURABLE_MIN = 10
"""Writes that waited for the archive, at least: fewer would prove nothing."""


class Client(threading.Thread):
    """Writes rows 0, 1, … into a table of its own, and remembers when each was acknowledged."""

    def __init__(self, cluster: Cluster, table: str, durability: str) -> None:
        super().__init__(daemon=True)
        self._cluster = cluster
        self._table = table
        self._durability = durability
        self._clock = RealClock()
        self._stop_asked = threading.Event()
        self.acknowledged: list[float] = []
        self.tried = 0

    def run(self) -> None:
        with self._cluster.connect(durability=self._durability) as connection:
            while not self._stop_asked.wait(0.01):
                try:
                    self.tried += 1
                    connection.execute(
                        f"INSERT INTO {self._table} VALUES (?)", (len(self.acknowledged),)
                    )
                except Error:
                    return
                self.acknowledged.append(self._clock.monotonic_s())

    def stop(self) -> None:
        self._stop_asked.set()
        self.join(60.0)


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
    clients = [Client(cluster, "durable", "archive"), Client(cluster, "quick", "quorum")]
    clock = RealClock()
    try:
        cluster.start_and_wait()
        with cluster.connect() as connection:
            for table in ("durable", "quick"):
                connection.execute(f"CREATE TABLE {table}(n INTEGER PRIMARY KEY)")
        for client in clients:
            client.start()
        for _ in range(KILLS):
            victim = _active(cluster)
            cluster.kill(victim)
            cluster.wait_for("another uploader", lambda v=victim: _active(cluster) != v)
            cluster.start(victim)
        known = len(clients[0].acknowledged)
        cluster.wait_for(
            "writes that wait for the archive",
            lambda: len(clients[0].acknowledged) >= known + DURABLE_MIN,
        )
        killed_s = clock.monotonic_s()
    finally:
        # All at one moment: an uploader that outlives the leader would hide what is missing.
        for name in cluster.node_ids:
            process = cluster.node(name).process
            if process is not None:
                process.kill()
        cluster.kill()
        for client in clients:
            client.stop()
    shutil.rmtree(tmp_path / "cluster")
    target = tmp_path / "restored.db"
    verified = command("archive", "verify", "--from", url)
    assert verified.code == 0, verified
    done = command("restore", "--from", url, "--to", target, "--json")
    assert done.code == 0, done
    assert done.json()["proven"]
    with closing(sqlite3.connect(target)) as connection:
        durable, quick = (
            [n for (n,) in connection.execute(f"SELECT n FROM {table} ORDER BY n")]
            for table in ("durable", "quick")
        )
    # Each row once and in order; of what is not acknowledged one may be there, never two.
    assert durable == list(range(len(durable)))
    assert len(clients[0].acknowledged) <= len(durable) <= clients[0].tried
    assert quick == list(range(len(quick)))
    lost = [at_s for at_s in clients[1].acknowledged[len(quick) :] if at_s < killed_s]
    assert not lost or killed_s - lost[0] < RPO_S
