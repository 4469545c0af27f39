"""How much of the journal stays: what the database still needs, a tail for followers, and pins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from raftdb.base.limits import MIB
from raftdb.journal.segments import SealedSegment

__all__ = ["Pin", "Retention", "RetentionBounds"]


@dataclass(frozen=True, slots=True)
class RetentionBounds:
    """Bytes of segment files that stay although the database does not need them any more."""

    keep_bytes: int = 256 * MIB
    """A tail for followers that were away."""
    pinned_bytes_max: int = 1024 * MIB
    """What pins may hold beyond the tail; a pin that needs more is overrun."""


class Pin:
    """Holds the entries from `index` on, within RetentionBounds.pinned_bytes_max."""

    def __init__(self, index: int, release: Callable[[Pin], None]) -> None:
        self.index = index
        self.overrun = False
        """The bound was reached and entries from `index` on are gone: start over."""
        self._release = release

    def move_to(self, index: int) -> None:
        """Hold from there on; forward only."""
        self.index = max(self.index, index)

    def release(self) -> None:
        """Hold nothing any more; harmless when called again."""
        self._release(self)


class Retention:
    """Decides which of the oldest sealed segments may go. Belongs to the loop."""

    def __init__(self, bounds: RetentionBounds) -> None:
        self.bounds = bounds
        self._pins: list[Pin] = []

    def pin(self, index: int) -> Pin:
        """Hold what is from `index` on until the pin is released."""
        pin = Pin(index, self._forget)
        self._pins.append(pin)
        return pin

    @property
    def pins(self) -> int:
        """How many hold something."""
        return len(self._pins)

    def _forget(self, pin: Pin) -> None:
        if pin in self._pins:
            self._pins.remove(pin)

    def cut(
        self, sealed: Sequence[SealedSegment], active_bytes: int, sizes: Sequence[int], safe: int
    ) -> int:
        """Entries below the returned index may go; 0: none. `safe` is the last entry that the
        database holds on disk (rule M2); `sizes` are the sealed segments' bytes."""
        bounds = self.bounds
        total = active_bytes + sum(sizes)
        below = 0
        for segment, size in zip(sealed, sizes, strict=True):
            if total <= bounds.keep_bytes or segment.last > safe:
                break
            holding = [pin for pin in self._pins if pin.index <= segment.last]
            if holding and total <= bounds.keep_bytes + bounds.pinned_bytes_max:
                break
            for pin in holding:
                pin.overrun = True
                self._forget(pin)
            total -= size
            below = segment.last + 1
        return below
