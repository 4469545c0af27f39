"""Statistics of latencies and rounds. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


def percentile(ordered: Sequence[float], per_cent: float) -> float:
    """Nearest rank: the smallest value that at least `per_cent` of all values don't exceed.

    `ordered` is sorted ascending and not empty. 0 < per_cent <= 100.
    """
    rank = math.ceil(len(ordered) * per_cent / 100)
    return ordered[max(rank, 1) - 1]


@dataclass(frozen=True)
class Latency:
    """Milliseconds."""

    count: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float


def latency(samples_us: Sequence[int]) -> Latency:
    """Summarise microseconds. Raises ValueError when there are none."""
    if not samples_us:
        raise ValueError("no operation ended within the measured time: measure longer")
    ordered = sorted(samples_us)
    return Latency(
        count=len(ordered),
        mean_ms=sum(ordered) / len(ordered) / 1000,
        p50_ms=percentile(ordered, 50) / 1000,
        p90_ms=percentile(ordered, 90) / 1000,
        p99_ms=percentile(ordered, 99) / 1000,
        max_ms=ordered[-1] / 1000,
    )


@dataclass(frozen=True)
class Spread:
    """One figure over all rounds."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Median and range. `values` is not empty."""
    return Spread(statistics.median(values), min(values), max(values))


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """The spread of ours/theirs, round by round: interleaved rounds share the machine's mood."""
    return spread([a / b for a, b in zip(ours, theirs, strict=True)])
