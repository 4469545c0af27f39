"""The persist gate: what promises something leaves only when that something is on disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from raftdb.consensus.log import DurableLog
from raftdb.consensus.messages import Ack, Message


class Held(NamedTuple):
    """A message and the journal sequence it relies on."""

    sequence: int
    peer: str
    epoch: int
    message: Message


class PersistGate:
    """Holds messages in the order of their making until the journal has synced what was queued
    before them (row 1, rules C1 and J1). A crash before that loses the message together with what
    it promised, as if neither had been."""

    def __init__(self, log: DurableLog, send: Callable[[str, int, Message], None]) -> None:
        self._log = log
        self._send = send
        self._held: deque[Held] = deque()

    def __len__(self) -> int:
        return len(self._held)

    def pass_or_hold(self, peer: str, epoch: int, message: Message) -> None:
        """Send now when everything queued so far is on disk, else when it will be."""
        sequence = self._log.sequence()
        if not self._held and self._log.durable_sequence >= sequence:
            self._send(peer, epoch, message)
        else:
            self._held.append(Held(sequence, peer, epoch, message))

    def release(self) -> None:
        """The journal's durable_sequence grew."""
        held, durable = self._held, self._log.durable_sequence
        ready: list[Held] = []
        while held and held[0].sequence <= durable:
            ready.append(held.popleft())
        for position, item in enumerate(ready):
            following = ready[position + 1] if position + 1 < len(ready) else None
            if following is None or not _covers(following, item):
                self._send(item.peer, item.epoch, item.message)

    def clear(self) -> None:
        """The engine stops: nothing more is promised."""
        self._held.clear()


def _covers(later: Held, earlier: Held) -> bool:
    """Acknowledgements are cumulative: the later one says all that the earlier one would."""
    if later.peer != earlier.peer or later.epoch != earlier.epoch:
        return False
    new, old = later.message, earlier.message
    return (
        isinstance(new, Ack)
        and isinstance(old, Ack)
        and new.success
        and old.success
        and new.term == old.term
        and new.log_index >= old.log_index
    )
