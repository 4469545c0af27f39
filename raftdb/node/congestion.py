"""How long things wait in one queue, and from when on it takes no more.

A bound on the number of waiting requests says little: eight thousand are a second's work for one
cluster and a minute's for another. What is bounded here is the *age* that a request would reach.
So the rule watches one request at a time, the probe, from its coming to its leaving. Meanwhile the
queue was never empty, so what left in that time per second is what the cluster can do now; and by
Little's law a queue of `count` is `count / rate` seconds deep. Nothing is refused before the probe
has really waited (a burst on an idle cluster is no overload), and nothing while fewer than FLOOR
wait, because group commit lives on them.

Related: CoDel (RFC 8289) drops by the time spent in the queue, not by its length; Google's SRE
book, chapters 21 and 22, on refusing early and cheaply, and on clients that come again later. As
in CoDel the sign is the waiting itself; unlike there a request is refused at the door, since one
that has been kept for half a second has cost its client that time for nothing.
"""

from __future__ import annotations

from collections.abc import Callable

FLOOR = 64
"""So many may wait whatever the clock says."""
BURST = 1_024
"""So many may wait as long as nothing has been seen to wait for long."""
RETRY_MIN_MS = 50
RETRY_MAX_MS = 1_000
_WINDOW_S = 0.1
"""How often the pause is fitted to what comes and goes."""


class Congestion:
    """One queue. On the loop."""

    __slots__ = (
        "_began_s",
        "_floor",
        "_left",
        "_left_all",
        "_left_before",
        "_now_s",
        "_probe",
        "_rate",
        "_refused_before",
        "_retry_ms",
        "_target_s",
        "_waited_s",
        "_window_s",
        "count",
        "refused",
    )

    def __init__(self, now_s: Callable[[], float], age_ms_max: int, floor: int = FLOOR) -> None:
        """`age_ms_max`: about how long a request may have to wait."""
        self._now_s = now_s
        self._target_s = age_ms_max / 1000
        self._floor = floor
        self._probe: object = None
        self._began_s = 0.0
        self._left = 0
        """What has left since the probe came, or since the one before went."""
        self._waited_s = 0.0
        """How long the last probe waited; 0 when the queue was empty since."""
        self._rate = 0.0
        """What left in a second, while it did."""
        self._retry_ms = float(RETRY_MIN_MS)
        self._window_s = 0.0
        self._refused_before = 0
        self._left_before = 0
        self._left_all = 0
        self.count = 0
        """How many wait."""
        self.refused = 0
        """How many were refused so far."""

    def entered(self, ticket: object) -> None:
        """Something begins to wait; `ticket` is its own."""
        self.count += 1
        if self._probe is None:
            self._probe = ticket
            self._begin(self._now_s())
            if self.count == 1:
                self._waited_s = 0.0

    def left(self, ticket: object) -> None:
        """It waits no more."""
        self.count -= 1
        self._left += 1
        if ticket is self._probe:
            now_s = self._now_s()
            self._probe = None
            self._waited_s = max(now_s - self._began_s, 1e-6)
            self._rate = self._left / self._waited_s
            self._begin(now_s)

    def _begin(self, now_s: float) -> None:
        """Count from now on."""
        self._began_s = now_s
        self._left_all += self._left
        self._left = 0

    def refusal_ms(self) -> int:
        """0: one more may wait. Else it may not, and should come again after so many ms."""
        count = self.count
        if count < self._floor:
            return 0
        now_s = self._now_s()
        if count < self._room(now_s):
            return 0
        self.refused += 1
        if now_s - self._window_s > _WINDOW_S:
            self._fit_pause(now_s)
        return int(self._retry_ms)

    def _fit_pause(self, now_s: float) -> None:
        """Those who were refused come again: the pause has to be so long that no more of them
        come in a second than the cluster can do."""
        refused = self.refused - self._refused_before
        left = self._left_all + self._left
        factor = refused / max(left - self._left_before, 1)
        if now_s - self._window_s < 2 * RETRY_MAX_MS / 1000:
            factor = min(max(factor, 0.5), 2.0)
            self._retry_ms = min(max(self._retry_ms * factor, RETRY_MIN_MS), RETRY_MAX_MS)
        else:
            self._retry_ms = RETRY_MIN_MS
        self._window_s, self._refused_before, self._left_before = now_s, self.refused, left

    def _room(self, now_s: float) -> float:
        """How many may wait now."""
        evident_s = self._target_s / 2
        age_s = now_s - self._began_s
        if age_s >= evident_s:
            # The probe that waits now says more than the one before.
            return self._left / age_s * self._target_s
        room = self._rate * self._target_s
        return room if self._waited_s >= evident_s else max(room, BURST)
