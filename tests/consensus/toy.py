"""A state machine to replicate: sessions, sequence numbers, and a list of what was applied.

It stands for the database: what it has applied survives a kill; a power loss may take back its
newest transactions, never some in the middle.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgpack

from raftdb.base.ids import Index, Term
from raftdb.consensus import CommittedEntry


@dataclass
class ToyStore:
    """What the toy database keeps on its disk."""

    entries: list[CommittedEntry] = field(default_factory=list)
    durable: int = 0
    copied: tuple[Index, Term] | None = None
    installed: list[CommittedEntry] | None = None
    """A copy that the next start begins with."""

    def begin(self) -> None:
        """A process starts."""
        if self.installed:
            self.entries, self.installed = self.installed, None
            self.durable = len(self.entries)
            self.copied = (self.entries[-1].index, self.entries[-1].term)

    def lose_power(self, draw: random.Random) -> None:
        """Transactions after the last checkpoint may be gone."""
        keep = draw.randint(self.durable, len(self.entries))
        del self.entries[keep:]
        self.durable = len(self.entries)


def pack_operation(client: int, sequence: int, padding: int) -> bytes:
    """One request of one client."""
    packed: bytes = msgpack.packb((client, sequence, b"x" * padding))
    return packed


class ToyMachine:
    """Satisfies consensus.StateMachine."""

    def __init__(
        self, store: ToyStore, draw: random.Random, watch: Callable[[CommittedEntry], None]
    ) -> None:
        store.begin()
        self._store = store
        self._draw = draw
        self._watch = watch
        self.last_sequence: dict[int, int] = {}
        self.history: list[tuple[int, int]] = []
        """(client, sequence) in the order of their taking effect."""
        self._replies: dict[int, bytes] = {}
        for entry in store.entries:
            self._take(entry)

    def applied(self) -> tuple[Index, Term]:
        if not self._store.entries:
            return Index(0), Term(0)
        last = self._store.entries[-1]
        return last.index, last.term

    absent = False

    def copied(self) -> tuple[Index, Term] | None:
        return self._store.copied

    def configuration(self) -> tuple[int, bytes] | None:
        for entry in reversed(self._store.entries):
            if entry.configuration:
                return entry.index, entry.configuration
        return None

    def apply(self, entries: Sequence[CommittedEntry]) -> Sequence[Sequence[bytes]]:
        replies = []
        for entry in entries:
            expected = self._store.entries[-1].index + 1 if self._store.entries else 1
            assert entry.index == expected, f"entry {entry.index} applied, {expected} expected"
            self._store.entries.append(entry)
            replies.append(self._take(entry))
            self._watch(entry)
        if self._draw.random() < 0.3:
            self._store.durable = len(self._store.entries)
        return replies

    def apply_briefly(self, entries: Sequence[CommittedEntry]) -> Sequence[Sequence[bytes]] | None:
        return self.apply(entries) if self._draw.random() < 0.5 else None

    def _take(self, entry: CommittedEntry) -> list[bytes]:
        answers = []
        for payload in entry.payloads:
            client, sequence, _padding = msgpack.unpackb(payload)
            if sequence > self.last_sequence.get(client, 0):
                assert sequence == self.last_sequence.get(client, 0) + 1
                self.last_sequence[client] = sequence
                self.history.append((client, sequence))
                self._replies[client] = msgpack.packb((client, sequence, len(self.history)))
            answers.append(self._replies[client])
        return answers
