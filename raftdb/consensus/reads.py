"""Linearizable reads without a log entry: ReadIndex (row 10, thesis 6.4)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from raftdb.base.ids import Index
from raftdb.consensus.port import NotApplied, ReadOutcome, ReadReady
from raftdb.consensus.wall import Wall

ReadDone = Callable[[ReadOutcome], None]


class _Round(NamedTuple):
    number: int
    """Of the heartbeat sent after these reads came in."""
    read_index: int
    begun_s: float
    dones: list[ReadDone]


class Reads:
    """Reads wait here: first for a shared round, then for its majority, then for the machine."""

    def __init__(self, wall: Wall, resolve: Callable[[ReadDone, ReadOutcome], None]) -> None:
        self._wall = wall
        self._resolve = resolve
        self._waiting: list[ReadDone] = []
        self._round: _Round | None = None
        self._confirmed: deque[_Round] = deque()
        self.count = 0

    def add(self, done: ReadDone) -> None:
        """A read came in."""
        self._waiting.append(done)
        self.count += 1

    def wants_round(self) -> bool:
        """Reads wait, and no round is under way: one round serves all that wait."""
        return bool(self._waiting) and self._round is None

    def begin_round(self, number: int, commit: int, begun_s: float) -> None:
        """The heartbeat of this number was sent just now, and not before `begun_s`."""
        self._round = _Round(number, commit, begun_s, self._waiting)
        self._waiting = []

    def on_rounds(self, rounds_acked: Iterable[int], applied: int) -> None:
        """Answers came in: the round under way may be confirmed."""
        current = self._round
        if current is not None and self._wall.read_confirmed(current.number, rounds_acked):
            self._round = None
            self._confirmed.append(current)
            self.on_applied(applied)

    def on_applied(self, applied: int) -> None:
        """The machine moved on."""
        confirmed = self._confirmed
        while confirmed and self._wall.read_index_reached(confirmed[0].read_index, applied):
            current = confirmed.popleft()
            self.count -= len(current.dones)
            ready = ReadReady(Index(current.read_index), current.begun_s)
            for done in current.dones:
                self._resolve(done, ready)

    def fail(self, reason: str) -> None:
        """Leadership is gone, or the engine stops."""
        dones = [done for group in self._confirmed for done in group.dones]
        if self._round is not None:
            dones += self._round.dones
        dones += self._waiting
        self._waiting, self._round = [], None
        self._confirmed.clear()
        self.count = 0
        for done in dones:
            self._resolve(done, NotApplied(reason))
