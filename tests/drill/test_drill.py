"""One drill from end to end, as a user runs it; the others run in CI (`.ci/run`)."""

from __future__ import annotations

import os
from pathlib import Path

from tests.e2e.cluster import raftdb


def test_a_drill_is_run_judged_and_noted(tmp_path: Path) -> None:
    history, page, objectives = (tmp_path / name for name in ("h.jsonl", "p.html", "o.toml"))
    objectives.write_text("[node-loss]\nrpo_writes = 0\nrto_s = 0.0\nfull_s = 60\n")
    env = {
        "RAFTDB_DRILLS": str(history),
        # Of a real cluster, by chance in the environment: it must not reach the drill's nodes.
        "RAFTDB_ARCHIVE__DESTINATIONS": f"file://{tmp_path}/real",
    }
    done = raftdb(
        *("drill", "node-loss", "--seconds", "0.3", "--json", "--html", page),
        *("--objectives", objectives, "--dir", tmp_path / "work"),
        env=env,
    )
    assert done.code == 1, "the objective cannot be met"
    [drill] = done.json()["drills"]
    assert drill["verdict"] == "missed"
    assert drill["broken"] == []
    assert drill["rpo_writes"] == 0
    assert 0 < drill["rto_s"] < 30
    assert drill["acknowledged"] > 20
    assert any("kill -9" in phase["name"] for phase in drill["phases"])
    assert "<svg" in page.read_text()
    assert not os.path.exists(tmp_path / "real")
    assert (tmp_path / "work" / "node-loss-1" / "cluster" / "n1" / "node.log").exists()
    listed = raftdb("drill", "history", "--json", env=env).json()
    assert [one["scenario"] for one in listed] == ["node-loss"]
    assert "node-loss" in raftdb("drill", "history", env=env).out
    again = raftdb("drill", "node-loss", "--dir", tmp_path / "work", env=env)
    assert again.code == 2
    assert "is there already" in again.err


def test_what_cannot_begin_says_why(tmp_path: Path) -> None:
    refused = raftdb("drill", "archive-outage", "--archive", f"file://{tmp_path}")
    assert refused.code == 2
    assert "an archive of its own" in refused.err
    taken = tmp_path / "taken" / "total-loss-1"
    taken.mkdir(parents=True)
    (taken / "archive").write_text("somebody's")
    refused = raftdb("drill", "total-loss", "--archive", f"file://{tmp_path}/taken")
    assert refused.code == 2
    assert "is no empty place" in refused.err
    assert [path.name for path in taken.iterdir()] == ["archive"]
    history = tmp_path / "file" / "drills.jsonl"
    (tmp_path / "file").write_text("no directory")
    assert raftdb("drill", "history", "--file", history).code == 0
