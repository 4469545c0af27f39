"""An endless statement ends, with the same error everywhere; a long one comes to its end."""

from __future__ import annotations

from pathlib import Path

import pytest

import raftdb
from raftdb.base.errors import OperationalError
from raftdb.machine import patience
from raftdb.ops.found import found_local

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "


def test_the_leader_gives_an_endless_statement_up_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "HOLD_STEPS", 20_000)
    monkeypatch.setattr(patience, "ABORT_STEPS", 10_000_000)
    found = found_local(tmp_path / "cluster")
    paths = [tmp_path / "cluster" / one.node_id / "raftdb.toml" for one in found.members]
    for path in paths:
        text = path.read_text()
        path.write_text(text.replace("\n[limits]\n", "\n[limits]\nwrite_ms_max = 1000\n"))
    nodes = [raftdb.Node(path).start() for path in paths]
    try:
        with nodes[0].connect(timeout=60.0) as connection:
            connection.execute("CREATE TABLE t(a)")
            with pytest.raises(OperationalError) as raised:
                connection.execute(f"{ENDLESS} INSERT INTO t SELECT i FROM n")
            assert raised.value.code == "statement_too_long"
            assert raised.value.outcome == "not_applied"
            # A long one ends by itself, in its own time.
            connection.execute(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)"
                " INSERT INTO t SELECT i FROM n"
            )
            assert connection.execute("SELECT count(*) FROM t").fetchone()[0] == 5_000
            index = connection.content_hash()["index"]
        totals = set()
        for node in nodes:
            with node.connect(read="local") as connection:
                totals.add(connection.content_hash(index=index, timeout=30.0)["total"])
        assert len(totals) == 1
    finally:
        for node in nodes:
            node.stop()
