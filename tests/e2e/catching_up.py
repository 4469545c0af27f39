"""A node that was away for longer than the log reaches back: it gets a copy while writes go on."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from raftdb.base.errors import Error
from tests.e2e.cluster import Cluster

SETTINGS = {
    "RAFTDB_LIMITS__JOURNAL_SEGMENT_BYTES": str(64 << 10),
    "RAFTDB_JOURNAL__KEEP_BYTES": str(128 << 10),
    "RAFTDB_CHECKPOINT__WAL_BYTES": str(256 << 10),
    "RAFTDB_COPY__RATE_BYTES_PER_S": str(6 << 20),
}
"""A short log, and a slow copy: what takes gigabytes and minutes otherwise fits into a test."""
BLOBS, BLOB_BYTES = 40, 200_000


def small_journals(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the processes that a test starts."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)


class Writer(threading.Thread):
    """Inserts one row after the other, and remembers which were acknowledged."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(daemon=True)
        self._cluster = cluster
        self._stop_asked = threading.Event()
        self.acknowledged: list[int] = []
        self.failed: list[str] = []

    def run(self) -> None:
        number = 0
        with self._cluster.connect(timeout=20.0) as connection:
            while not self._stop_asked.wait(0.005):
                number += 1
                try:
                    connection.execute("INSERT INTO rows VALUES (?, ?)", (number, bytes(300)))
                    self.acknowledged.append(number)
                except Error as error:
                    self.failed.append(f"{error.code}: {error}")

    def end(self) -> None:
        self._stop_asked.set()
        self.join(30.0)


def fill(cluster: Cluster) -> None:
    """A database of some megabytes."""
    with cluster.connect() as connection:
        connection.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, data BLOB)")
        connection.execute("CREATE TABLE blobs (number INTEGER PRIMARY KEY, data BLOB)")
        for number in range(BLOBS):
            connection.execute("INSERT INTO blobs VALUES (?, randomblob(?))", (number, BLOB_BYTES))


def outrun(cluster: Cluster, away: str) -> None:
    """Kill a follower, and write until the others' logs begin behind its end."""
    last = int(cluster.status(away)["last_index"])
    cluster.kill(away)

    def beyond() -> bool:
        with cluster.connect() as connection:
            for _ in range(20):
                connection.execute(
                    "UPDATE blobs SET data = randomblob(?) WHERE number = 1", (BLOB_BYTES,)
                )
                connection.execute("INSERT INTO blobs(data) VALUES (?)", (bytes(30_000),))
        others = [name for name in cluster.node_ids if name != away]
        return all(cluster.status(name)["first_index"] > last + 1 for name in others)

    cluster.wait_for("a log that begins behind the node's end", beyond)


def fetched(cluster: Cluster, name: str) -> dict[str, Any] | None:
    """How far the node's fetch is, once pieces have come in."""
    copy = cluster.status(name)["copy"]
    return copy if copy["fetching"] == "fetching" and copy["received_bytes"] else None


def caught_up(cluster: Cluster, name: str) -> bool:
    """Whether the node has applied what the leader had committed just now."""
    leader = cluster.status(cluster.wait_for_leader())
    return bool(cluster.status(name)["applied_index"] >= leader["commit_index"])


def check_equal(cluster: Cluster, writer: Writer) -> None:
    """Every acknowledged row once, and the same content everywhere."""
    index = int(cluster.status(cluster.wait_for_leader())["commit_index"])
    cluster.wait_for_index(index)
    hashes = set()
    for name in cluster.node_ids:
        with cluster.connect_to(name) as connection:
            rows = {row[0] for row in connection.execute("SELECT number FROM rows")}
            hashes.add(connection.content_hash(index=index, timeout=10.0)["total"])
        assert set(writer.acknowledged) <= rows, f"{name} lacks acknowledged rows"
    assert len(hashes) == 1
    assert writer.failed == []
