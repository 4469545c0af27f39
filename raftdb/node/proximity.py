"""How far the other members are, and whether they are fit to lead: told and measured by notes.

Each node asks each other one that it is connected to, and is answered at once; the time between is
the round trip, both event loops included, which is what an election or a heartbeat meets as well.
With the question goes why its sender should not lead, if it should not: `` when it may.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Any

from raftdb.base.ids import NodeId
from raftdb.base.ports import Ports
from raftdb.consensus.port import EnginePort

MARK = b"P"
"""A note that begins so is one of these."""
EVERY_S = 2.0
FIRST_S = 0.25
FIRST = 4
"""So many questions are asked soon after the start."""
KEPT = 16
"""Round trips remembered of each member."""
HEARD_S = 3 * EVERY_S
"""What a member said of itself counts for so long."""
REASON_BYTES_MAX = 200
_ASK, _ECHO, _GREETING = 1, 2, 3
_HEAD = struct.Struct(">cBQ")


def greeting_note(data: bytes) -> bytes:
    """A greeting (raftdb.node.releases) as a note: one of a kind that 0.1.0 drops here, unread."""
    assert len(data) <= REASON_BYTES_MAX
    return _HEAD.pack(MARK, _GREETING, 0) + data


def read_greeting(data: bytes) -> bytes | None:
    """What it holds; None: it is another note."""
    if not _HEAD.size <= len(data) <= _HEAD.size + REASON_BYTES_MAX:
        return None
    mark, kind, _number = _HEAD.unpack_from(data)
    return data[_HEAD.size :] if mark == MARK and kind == _GREETING else None


class _Other:
    """One other member."""

    __slots__ = ("heard_s", "trips_s", "unfit")

    def __init__(self) -> None:
        self.trips_s: deque[float] = deque(maxlen=KEPT)
        self.heard_s = float("-inf")
        self.unfit = ""


class Proximity:
    """Belongs to the loop."""

    def __init__(self, engine: EnginePort, ports: Ports, unfit: Callable[[], str]) -> None:
        """`unfit`: why this node should not lead; `` when it may."""
        self._engine = engine
        self._ports = ports
        self._unfit = unfit
        self._others: dict[str, _Other] = {}
        self._number = 0
        self._sent_s: dict[int, float] = {}
        self._timer: Any = None
        self.measured: Callable[[], None] = _nothing
        """Called when there is news."""

    def start(self) -> None:
        """Begin to ask."""
        wait_s = FIRST_S if self._number < FIRST else EVERY_S
        self._timer = self._ports.executor.call_later(wait_s, self._ask)

    def stop(self) -> None:
        """Ask no more; others are answered still."""
        if self._timer is not None:
            self._timer.cancel()

    def _ask(self) -> None:
        self._number += 1
        self._sent_s[self._number] = self._ports.clock.monotonic_s()
        self._sent_s.pop(self._number - KEPT, None)
        self.say()
        self.start()

    def say(self) -> None:
        """Tell all others now whether this node may lead."""
        reason = self._unfit().encode()[:REASON_BYTES_MAX]
        self._engine.tell(_HEAD.pack(MARK, _ASK, self._number) + reason)

    def on_note(self, peer: NodeId, data: bytes) -> None:
        """Another member's question, or its answer. What does not read is dropped."""
        if not _HEAD.size <= len(data) <= _HEAD.size + REASON_BYTES_MAX:
            return
        _mark, kind, number = _HEAD.unpack_from(data)
        now_s = self._ports.clock.monotonic_s()
        other = self._others.setdefault(str(peer), _Other())
        if kind == _ASK:
            other.heard_s = now_s
            other.unfit = data[_HEAD.size :].decode("utf-8", "replace")
            self._engine.tell(_HEAD.pack(MARK, _ECHO, number), peer)
        elif kind == _ECHO and number in self._sent_s:
            other.trips_s.append(now_s - self._sent_s[number])
            self.measured()

    def round_trip_s(self, peer: str) -> float | None:
        """The median of what was measured lately; None when nothing was."""
        other = self._others.get(peer)
        return median(other.trips_s) if other is not None and other.trips_s else None

    def unfit(self, peer: str) -> str:
        """Why that member should not lead; `` when it said lately that it may."""
        other = self._others.get(peer)
        if other is None or self._ports.clock.monotonic_s() - other.heard_s > HEARD_S:
            return "not heard of"
        return other.unfit


def _nothing() -> None:
    pass
