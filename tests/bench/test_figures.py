"""Statistics of latencies and rounds."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.figures import latency, paired_ratio, percentile, spread

SAMPLES = st.lists(st.integers(1, 10**7), min_size=1, max_size=300)


@given(SAMPLES, st.integers(1, 100))
def test_percentile_is_the_smallest_value_that_enough_do_not_exceed(
    samples: list[int], per_cent: int
) -> None:
    ordered = sorted(samples)
    found = percentile(ordered, per_cent)

    def enough(value: float) -> bool:
        return 100 * sum(sample <= value for sample in samples) >= per_cent * len(samples)

    assert found in samples
    assert enough(found)
    assert not any(enough(sample) for sample in samples if sample < found)


def test_latency_of_a_known_series() -> None:
    samples = list(range(1000, 101_000, 1000))  # 1 to 100 ms
    random.Random(1).shuffle(samples)
    found = latency(samples)
    assert (found.count, found.p50_ms, found.p90_ms, found.p99_ms, found.max_ms) == (
        100,
        50.0,
        90.0,
        99.0,
        100.0,
    )
    assert found.mean_ms == pytest.approx(50.5)


def test_latency_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="measure longer"):
        latency([])


def test_ratio_is_taken_round_by_round() -> None:
    # The machine was three times slower in the second round, for both: the ratio doesn't see it.
    found = paired_ratio([10.0, 30.0, 12.0], [20.0, 60.0, 20.0])
    assert (found.median, found.low, found.high) == (0.5, 0.5, 0.6)


def test_ratio_needs_the_same_rounds() -> None:
    with pytest.raises(ValueError, match="argument"):
        paired_ratio([1.0], [1.0, 2.0])


def test_spread() -> None:
    found = spread([3.0, 1.0, 2.0, 10.0])
    assert (found.median, found.low, found.high) == (2.5, 1.0, 10.0)
