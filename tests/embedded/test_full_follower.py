"""A follower whose disk fills up: it lags and lives; the quorum is one of the others."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from raftdb.node.diskspace import FULL, DiskSpace
from raftdb.ops.found import found_local
from tests.embedded.test_disk_full import RESERVE, fill, leads_now, small, start
from tests.embedded.test_divergence import wait_for

__all__ = ["small"]


def test_a_full_follower_takes_nothing_and_then_catches_up(
    small: Path,
    tmp_path: Path,
) -> None:
    names = [str(one.node_id) for one in found_local(tmp_path / "c").members]
    tight, second, third = names
    (tmp_path / "c" / tight / "data").rename(tmp_path / "moved")
    subprocess.run(["cp", "-r", str(tmp_path / "moved"), str(small / "data")], check=True)
    nodes = {}
    try:
        for name in names:
            data = small / "data" if name == tight else tmp_path / "c" / name / "data"
            nodes[name] = start(tmp_path / "c" / name / "raftdb.toml", data)
        with nodes[second].connect(timeout=15.0) as connection:
            connection.execute("CREATE TABLE t(a)")
            leads_now(nodes, second)
            node = nodes[tight]
            ballast = fill(small, RESERVE // 2)
            wait_for(lambda: bool(node.status()["disk_full"]))
            stands_at = node.status()["last_index"]
            for _time in range(20):
                connection.execute("INSERT INTO t VALUES (zeroblob(600000))")
            # More than it had room for, the reserve included.
            assert nodes[second].status()["commit_index"] >= stands_at + 20
            assert node.status()["last_index"] <= stands_at + 2, "what was on its way"
            assert node.failure is None
            # It hears whoever leads, and does not lead itself.
            wait_for(lambda: node.status()["leader"] in (second, third))
            ballast.unlink()
            wait_for(lambda: not node.status()["disk_full"])
            connection.execute("INSERT INTO t VALUES (2)")
            last = nodes[second].status()["commit_index"]
            wait_for(lambda: node.status()["applied_index"] >= last, 30.0)
    finally:
        for node in nodes.values():
            node.stop()


def test_a_write_that_no_majority_has_room_for_is_refused() -> None:
    engine: Any = SimpleNamespace(status=lambda: None)
    voters = [("n1", "not heard of"), ("n2", FULL), ("n3", "")]
    space = DiskSpace(cast(Any, None), engine, cast(Any, None), lambda: False, lambda: voters)
    space._look_at_others()
    assert space.refusal() is None
    voters[2] = ("n3", FULL)
    space._look_at_others()
    refused = space.refusal()
    assert refused is not None
    assert (refused.code, refused.retryable) == ("disk_full", True)
    assert "n2, n3" in refused.message
