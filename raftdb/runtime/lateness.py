"""How late timers fire: what the event loop was kept from, by whom and whatever.

All that a node does between two waits runs on its loop; whoever runs there for long keeps
heartbeats and everybody's answers waiting. A timer that fires late tells so, at no cost beside a
look at the clock. A busy machine shows as well, so the figures are about the node, not only its
code.
"""

from __future__ import annotations

from typing import Any

STEPS_MS = (10, 25, 50, 100, 200, 400, 800, 1_600)
"""Counted is how many timers were later than each."""
WINDOW_S = 60.0


class Lateness:
    """Of the timers of one loop."""

    def __init__(self, now_s: float) -> None:
        self._counts = [0] * len(STEPS_MS)
        self._max_s = 0.0
        self._recent_s = [0.0, 0.0]
        """The greatest of this minute and of the one before."""
        self._window_s = now_s

    def note(self, due_s: float, now_s: float) -> None:
        """A timer fires now that was due then."""
        late_s = now_s - due_s
        if late_s < STEPS_MS[0] / 1000:
            return
        self._turn(now_s)
        self._recent_s[0] = max(self._recent_s[0], late_s)
        self._max_s = max(self._max_s, late_s)
        for step, limit_ms in enumerate(STEPS_MS):
            if late_s * 1000 < limit_ms:
                break
            self._counts[step] += 1

    def _turn(self, now_s: float) -> None:
        if now_s - self._window_s >= WINDOW_S:
            old_s = self._recent_s[0] if now_s - self._window_s < 2 * WINDOW_S else 0.0
            self._recent_s = [0.0, old_s]
            self._window_s = now_s

    def facts(self, now_s: float) -> dict[str, Any]:
        """For the status: the greatest lateness of the last minute or two and since the start, and
        how many timers were later than so many milliseconds."""
        self._turn(now_s)
        return {
            "late_ms": round(max(self._recent_s) * 1000, 1),
            "late_ms_max": round(self._max_s * 1000, 1),
            "later_than_ms": dict(zip(map(str, STEPS_MS), self._counts, strict=True)),
        }
