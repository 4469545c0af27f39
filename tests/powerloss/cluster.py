"""One node of a real cluster of three, recorded over two lives."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from raftdb.base.config import load_config
from raftdb.base.errors import Error
from tests.e2e.cluster import Cluster
from tests.powerloss.disk import read_state
from tests.powerloss.explore import Recorded
from tests.powerloss.record import read_events
from tests.powerloss.story import Required, Story
from tests.powerloss.work import check_record

SETTINGS = (
    "limits.journal_segment_bytes=12288",
    "checkpoint.wal_bytes=65536",
    "journal.keep_bytes=24576",
)
LIFE_S = 60.0
NODE = "n1"


def record_cluster(home: Path, kill_after: int = 260) -> Recorded:
    """Load, the leader's death, the recorded node's death in the midst of something, its return.
    The record is of node n1; it must lead to exactly the files that it left."""
    cluster = Cluster(home / "cluster", insecure=True)
    directory = home / "cluster" / NODE
    root = os.path.realpath(directory / "data")
    initial, record = read_state(Path(root)), home / "record"
    try:
        cluster.start("n2", "n3")
        with _load(cluster):
            first = _start(directory, record, kill_after)
            first.wait(LIFE_S)
            second = cluster.node(NODE).process = _start(directory, record, 0)
            cluster.wait_for_node(NODE)
            leader = cluster.wait_for_leader()
            victim = leader if leader != NODE else "n2"
            cluster.kill(victim)
            cluster.wait_for_leader()
            cluster.start(victim)
            cluster.wait_for_node(victim)
        second.terminate()
        second.wait(LIFE_S)
    finally:
        cluster.kill()
    recorded = Recorded(
        "cluster",
        root,
        read_events(str(record)),
        load_config(str(directory / "raftdb.toml"), {}),
        1,
        initial,
        lambda: Story(now=Required(founded=True)),
    )
    check_record(recorded, read_state(Path(root)))
    return recorded


def _start(directory: Path, record: Path, kill_after: int) -> subprocess.Popen[bytes]:
    program = [sys.executable, "-m", "tests.powerloss.node", str(record), str(kill_after)]
    program += ["start", "--config", str(directory / "raftdb.toml")]
    program += [part for one in SETTINGS for part in ("--set", one)]
    with open(directory / "node.log", "ab") as log:
        return subprocess.Popen(program, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


@contextlib.contextmanager
def _load(cluster: Cluster) -> Iterator[None]:
    """One client that writes for as long as this lasts."""
    ended = threading.Event()

    def work() -> None:
        with cluster.connect() as connection:
            connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB)")
            while not ended.is_set():
                with contextlib.suppress(Error):
                    connection.execute("INSERT INTO t(body) VALUES (randomblob(300))")
                ended.wait(0.01)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(LIFE_S)
