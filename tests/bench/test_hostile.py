"""What the experiment with hostile requests makes of what it saw."""

from __future__ import annotations

from typing import Any

import pytest

from bench.hostile import lateness, verdict
from bench.reads import GOALS, Reads, _judge


def case(**changed: Any) -> dict[str, Any]:
    calm = {
        "name": "x",
        "kind": "read",
        "calm_p99_ms": 20.0,
        "others_p99_ms": 35.0,
        "elections": 0,
        "rss_mb": 80.0,
    }
    return calm | changed


@pytest.mark.parametrize(
    ("changed", "equal", "failed", "met"),
    [
        ({}, True, [], True),
        ({"others_p99_ms": 41.0}, True, [], False),
        ({"calm_p99_ms": 5.0, "others_p99_ms": 24.0}, True, [], True),
        ({"elections": 1}, True, [], False),
        ({"rss_mb": 1_001.0}, True, [], False),
        ({}, False, [], False),
        ({}, True, ["no answer"], False),
    ],
)
def test_it_is_met_when_nobody_else_notices(
    changed: dict[str, Any], equal: bool, failed: list[str], met: bool
) -> None:
    found = {"cases": [case(), case(**changed)], "others_failed": failed, "nodes_equal": equal}
    assert verdict(found)["met"] is met


def test_the_greatest_lateness_of_any_node_counts() -> None:
    calm = {"10": 5, "100": 1, "400": 0}
    assert lateness([calm, calm], [calm, calm]) == 0
    assert lateness([calm, calm], [calm | {"10": 6}, calm | {"10": 9, "100": 2}]) == 100


def test_reads_are_judged_by_the_median_of_the_rounds() -> None:
    def reads(p50_ms: float, per_s: float) -> Reads:
        return Reads(0, "raftdb", "x", per_s, p50_ms, 9.0, 1.0, 1.0, 1.0)

    name = "linearizable, 1 client"
    assert GOALS[name] == ("p50_ms", 0.6, "<=")
    assert _judge(name, "raftdb", [reads(0.5, 1), reads(0.6, 1), reads(0.9, 1)]).endswith("met")
    assert _judge(name, "raftdb", [reads(0.5, 1), reads(0.7, 1), reads(0.9, 1)]).endswith("missed")
    assert _judge("linearizable, 64 clients", "raftdb", [reads(9, 10_000)]).endswith("met")
    assert _judge(name, "rqlite", [reads(0.5, 1)]) == ""
