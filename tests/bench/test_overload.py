"""What the overload experiment makes of what it counted."""

from __future__ import annotations

from typing import Any

import pytest

from bench.overload import verdict
from bench.overload_load import Level


def test_a_levels_figures_are_rates_and_latencies() -> None:
    level = Level(5, offered=1_000, held_back=300, refused=500, good=[3_000] * 99 + [80_000] * 101)
    level.refused_after = [1_000]
    figures = level.figures(2.0)
    assert figures["offered_per_s"] == 500
    assert figures["held_back_per_s"] == 150
    assert figures["good_per_s"] == 100
    assert (figures["good_p50_ms"], figures["refused_p50_ms"]) == (80.0, 1.0)
    assert Level(1).figures(1.0)["good_p50_ms"] is None, "nothing was answered in time"


def level(times: float, good: float, cpu: float = 0.5, rss_mb: float = 60.0) -> dict[str, Any]:
    return {"times": times, "good_per_s": good, "leader_cpu": cpu, "rss_mb": rss_mb}


@pytest.mark.parametrize(
    ("worst", "elections", "met"), [(81.0, 1, True), (79.0, 1, False), (90.0, 2, False)]
)
def test_it_is_met_by_goodput_and_by_a_leader_that_stays(
    worst: float, elections: int, met: bool
) -> None:
    found = {
        "levels": [level(0, 100), level(1, 95), level(10, worst, 0.6, 75.0)],
        "logs": {"n1": elections, "n2": 0, "n3": 0},
        "acknowledged": 10,
        "found": 9,
    }
    said = verdict(found, "write")
    assert said["met"] is met
    assert said["goodput_of_peak"] == worst / 100
    assert said["per_leader_cpu_of_peak"] == pytest.approx(worst / 0.6 / 200)
    assert (said["leader_changes"], said["rss_growth_mb"]) == (elections - 1, 15.0)
    assert said["missing"] == 1, "an acknowledged write that is not there"
    assert verdict(found, "read")["missing"] == 0
