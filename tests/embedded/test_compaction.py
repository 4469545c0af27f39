"""Compaction in a whole node: the journal stays small while the database grows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import raftdb
from raftdb.base.config import CheckpointConfig, JournalConfig, load_config
from raftdb.base.layout import journal_path
from raftdb.base.limits import Limits
from raftdb.ops.found import found_local

ROWS, BATCH = 1200, 40


def small(directory: Path) -> raftdb.Node:
    config = load_config(str(directory / "n1" / "raftdb.toml"))
    return raftdb.Node(
        replace(
            config,
            limits=Limits(journal_segment_bytes=64 << 10),
            checkpoint=CheckpointConfig(wal_bytes=128 << 10),
            journal=JournalConfig(keep_bytes=256 << 10),
        )
    )


def segment_bytes(data_dir: str) -> int:
    return sum(path.stat().st_size for path in Path(journal_path(data_dir)).glob("*.segment"))


def test_the_journal_is_bounded_and_a_restart_goes_on_from_what_is_left(tmp_path: Path) -> None:
    found_local(tmp_path / "c", locations=("local/rack1",), insecure=True)
    with small(tmp_path / "c") as node, node.connect(timeout=20.0) as connection:
        connection.execute("CREATE TABLE blobs (id INTEGER PRIMARY KEY, data BLOB)")
        for first in range(0, ROWS, BATCH):
            connection.executemany(
                "INSERT INTO blobs VALUES (?, ?)",
                [(first + position, bytes(1000)) for position in range(BATCH)],
            )
            while node.status()["first_index"] == 1 and first > ROWS // 2:
                connection.execute("UPDATE blobs SET data = data WHERE id < 40")
        status = node.status()
        assert status["first_index"] > 1
        assert status["durable_database_index"] >= status["first_index"] - 1
        data_dir = node.config.data_dir
    assert segment_bytes(data_dir) < ROWS * 1000
    with small(tmp_path / "c") as node, node.connect(timeout=20.0) as connection:
        assert node.status()["first_index"] > 1
        assert connection.execute("SELECT count(*) FROM blobs").fetchone()[0] == ROWS
        connection.execute("DELETE FROM blobs WHERE id = 0")
