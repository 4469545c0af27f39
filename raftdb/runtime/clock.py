"""The real Clock."""

from __future__ import annotations

import time
from collections.abc import Callable


def _boot_time() -> Callable[[], float]:
    clock_id = getattr(time, "CLOCK_BOOTTIME", None)
    if clock_id is None:
        return time.monotonic
    return lambda: time.clock_gettime(clock_id)


class RealClock:
    """Time of this machine."""

    __slots__ = ("monotonic_s",)

    monotonic_s: Callable[[], float]
    """Seconds since some start. CLOCK_BOOTTIME where there is one: it counts while the machine
    sleeps, so a lease cannot outlive a suspension."""

    def __init__(self) -> None:
        self.monotonic_s = _boot_time()

    def wall_ms(self) -> int:
        """Unix milliseconds; may jump."""
        return time.time_ns() // 1_000_000
