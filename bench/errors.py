"""What can go wrong in a measurement, each with its exit code."""

from __future__ import annotations


class BenchError(Exception):
    """The measurement failed: a node died, a write was lost, a load process gave up."""

    exit_code = 4


class Unsuitable(BenchError):
    """This machine or directory can't give an honest figure."""

    exit_code = 2


class Missing(BenchError):
    """Something that the measurement needs is not installed."""

    exit_code = 3


class NotMeasured(BenchError):
    """A load came to no figure: its leader was replaced, or nothing ended in its time. Nothing was
    lost; it may be run again."""
