"""Proposals from their coming in to their outcome: each gets exactly one (row 17)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from raftdb.base.ids import Index
from raftdb.base.limits import Limits
from raftdb.consensus.port import Applied, NotApplied, OutcomeUnknown, ProposalOutcome

ProposalDone = Callable[[ProposalOutcome], None]


class _Logged(NamedTuple):
    """An entry of this node's own making that is not applied yet."""

    term: int
    payloads: tuple[bytes, ...]
    dones: tuple[ProposalDone, ...]
    size: int


class Proposals:
    """A queue of what waits for the next entry, and a table of what is in the log."""

    def __init__(
        self, limits: Limits, resolve: Callable[[ProposalDone, ProposalOutcome], None]
    ) -> None:
        self._limits = limits
        self._resolve = resolve
        self._waiting: deque[tuple[bytes, ProposalDone]] = deque()
        self._logged: dict[int, _Logged] = {}
        self.count = 0
        """Proposals without an outcome, waiting or logged."""
        self._bytes = 0

    @property
    def waiting(self) -> bool:
        """Something waits for an entry."""
        return bool(self._waiting)

    @property
    def logged(self) -> bool:
        """Something is in the log and not applied."""
        return bool(self._logged)

    def has_room(self, size: int) -> bool:
        """Back-pressure (row 18): bounded in number and bytes, from coming in to outcome."""
        limits = self._limits
        if self.count >= limits.proposals_waiting_max:
            return False
        return self.count == 0 or self._bytes + size <= limits.proposals_waiting_bytes_max

    def add(self, payload: bytes, done: ProposalDone) -> None:
        """A proposal came in."""
        self._waiting.append((payload, done))
        self.count += 1
        self._bytes += len(payload)

    def take_entry(self, index: int, term: int) -> tuple[bytes, ...]:
        """What waits, as far as one entry may hold it; from now on it is logged at `index`."""
        waiting, limits = self._waiting, self._limits
        payloads: list[bytes] = []
        dones: list[ProposalDone] = []
        size = 0
        while waiting and len(payloads) < limits.entry_requests_max:
            payload, done = waiting[0]
            if payloads and size + len(payload) > limits.entry_bytes_max:
                break
            waiting.popleft()
            payloads.append(payload)
            dones.append(done)
            size += len(payload)
        taken = tuple(payloads)
        self._logged[index] = _Logged(term, taken, tuple(dones), size)
        return taken

    def payloads_at(self, index: int, term: int) -> tuple[bytes, ...] | None:
        """The payloads of an own entry, which need no decoding then."""
        logged = self._logged.get(index)
        return logged.payloads if logged is not None and logged.term == term else None

    def on_applied(self, index: int, term: int, replies: Sequence[bytes]) -> None:
        """The machine applied the entry at `index`."""
        logged = self._logged.pop(index, None)
        if logged is None:
            return
        self.count -= len(logged.dones)
        self._bytes -= logged.size
        if logged.term != term:
            # Leadership was lost in between, so these were resolved then; never twice.
            raise AssertionError(f"entry {index} was replaced while its proposals waited")
        for position, done in enumerate(logged.dones):
            self._resolve(done, Applied(Index(index), position, replies[position]))

    def fail(self, waiting_reason: str, logged_reason: str) -> None:
        """Leadership is gone or the engine stops: what never entered the log is not applied, what
        did may still be committed by others."""
        waiting, logged = self._waiting, self._logged
        self._waiting, self._logged = deque(), {}
        self.count = 0
        self._bytes = 0
        for entry in logged.values():
            for done in entry.dones:
                self._resolve(done, OutcomeUnknown(logged_reason))
        for _payload, done in waiting:
            self._resolve(done, NotApplied(waiting_reason))
