"""Copies between real processes: while writes go on, and with kills on both sides."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.catching_up import (
    Writer,
    caught_up,
    check_equal,
    fetched,
    fill,
    outrun,
    small_journals,
)
from tests.e2e.cluster import running_cluster


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["nobody", "follower", "source"])
def test_a_node_that_was_away_too_long_gets_a_copy_while_writes_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: str
) -> None:
    small_journals(monkeypatch)
    with running_cluster(tmp_path / "cluster") as cluster:
        fill(cluster)
        leader = cluster.wait_for_leader()
        away = next(name for name in cluster.node_ids if name != leader)
        outrun(cluster, away)
        writer = Writer(cluster)
        writer.start()
        cluster.start(away)
        found = cluster.wait_for("pieces of a copy", lambda: fetched(cluster, away))
        if killed != "nobody":
            victim = away if killed == "follower" else str(found["source"])
            cluster.kill(victim)
            cluster.start(victim)
        cluster.wait_for(f"{away} to catch up", lambda: caught_up(cluster, away))
        writer.end()
        check_equal(cluster, writer)
        log = cluster.node(away).log_tail(2000)
        assert "copy_installed" in log
        assert len(writer.acknowledged) > 100
        assert cluster.status(away)["first_index"] > 1
