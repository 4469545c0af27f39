"""Verdicts and tables from recorded results."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from bench import report


def one(round_: int, target: str, connections: int, p50: float, rate: float) -> dict[str, Any]:
    return {
        "round": round_,
        "target": target,
        "connections": connections,
        "measurement": {
            "latency": {
                "count": int(rate * 2),
                "mean_ms": p50,
                "p50_ms": p50,
                "p90_ms": p50,
                "p99_ms": p50 * 3,
                "max_ms": p50 * 9,
            },
            "commits_per_s": rate,
            "acknowledged": int(rate * 3),
            "retries": 0,
            "load_cpu_s": 0.5,
            "node_cpu_s": [1.0, 0.5, 0.5],
            "node_rss_mb": [50.0, 61.0, 40.0],
            "node_peak_rss_mb": [70.0, 71.0, 72.0],
            "disk_flushes": 100,
        },
    }


def results(ours_p50: float, ours_rate: float) -> dict[str, Any]:
    probe = {"p50_ms": 0.2, "p99_ms": 1.0, "max_ms": 5.0}
    runs = []
    for number in range(3):
        slow = 1 + number  # the machine gets slower, for all alike
        for connections in (1, 64):
            runs += [
                one(number, "etcd", connections, 2.0 * slow, 3000 / slow),
                one(number, "dqlite", connections, 4.0 * slow, 300 / slow),
                one(number, "raftdb", connections, ours_p50 * slow, ours_rate / slow),
            ]
    return {
        "settings": {"seconds": 2.0, "rounds": 3, "connections": [1, 64]},
        "runs": runs,
        "fdatasync": {"before": probe, "after": probe},
        "versions": {"etcd": "3", "raftdb": "0"},
        "machine": {"cores": 2, "cpu": "some", "load_average": [0.5, 0, 0]},
        "disk": {"file_system": "ext4", "device": "/dev/vda"},
    }


@pytest.mark.parametrize(
    ("p50", "rate", "words"),
    [
        (1.0, 9000, ["goal", "goal"]),
        (1.4, 9000, ["goal", "goal"]),
        (1.5, 8900, ["needed", "needed"]),
        (2.0, 4500, ["needed", "needed"]),
        (2.1, 4400, ["missed", "missed"]),
    ],
)
def test_verdicts_compare_with_the_best_peer(p50: float, rate: float, words: list[str]) -> None:
    found = report.verdicts(results(p50, rate))
    assert [item.peer for item in found] == ["etcd", "etcd"]
    assert [item.word for item in found] == words
    assert found[0].ratio.median == pytest.approx(p50 / 2.0)
    assert found[0].ratio.low == pytest.approx(found[0].ratio.high)


def test_the_best_peer_is_told_by_the_right_end_of_the_scale() -> None:
    found = results(1.0, 9000)
    assert report.best_peer(found, 1, "p50_ms", more_is_better=False) == "etcd"
    assert report.best_peer(found, 1, "p50_ms", more_is_better=True) == "dqlite"


def test_no_verdict_without_peers_or_without_raftdb() -> None:
    found = results(1.0, 9000)
    for left_out in (["etcd", "dqlite"], ["raftdb"]):
        some = {**found, "runs": [r for r in found["runs"] if r["target"] not in left_out]}
        assert report.verdicts(some) == []


def test_cpu_is_per_commit() -> None:
    found = results(1.0, 1000)
    assert report.values(found, "raftdb", 1, "nodes_us")[0] == pytest.approx(1000)
    assert report.values(found, "raftdb", 1, "busiest_us")[0] == pytest.approx(500)
    assert report.values(found, "raftdb", 1, "load_us")[0] == pytest.approx(250)


def test_the_table_shows_medians_with_ranges() -> None:
    file = io.StringIO()
    report.show(results(1.0, 9000), Console(file=file, width=140))
    text = file.getvalue()
    for part in ("2.00", "1.00-3.00", "4,500", "3,000-9,000"):
        assert part in text
    assert "commits/s, 64 connections: 3.00 x etcd" in text
    assert text.index("raftdb") < text.index("etcd")


def test_the_table_for_a_document() -> None:
    lines = report.markdown(results(1.0, 9000)).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| 1 | raftdb | 2.00 (1.00-3.00) |")
