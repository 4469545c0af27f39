"""The hash of the whole content after each request, for whoever records it (rule A5).

It is what ContentHash.total would be, were the transaction to end there: the sum, modulo 2^128, of
a hash of each part (a table, the schema, the sequences) with its name and its rows' sum. A request
moves a part or two, so only these are hashed again. While a transaction runs, the sums are noted;
they are hashed in one go before it commits, which costs half as much as request by request. What
most transactions are, requests that change rows of one table, has a shorter way of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Protocol

from raftdb.machine.format import HASH_BYTES, HASH_MASK
from raftdb.machine.rowhash import RowHasher

__all__ = ["RequestTotals"]

_PLACES_MAX = 8
"""Of a request that touches more parts the hash is made at once: what is noted stays small."""
_SCHEMA, _SEQUENCES = -1, -2
_KINDS = {_SCHEMA: "schema", _SEQUENCES: "sequences"}
_NONE: tuple[int | None, int, str] = (None, 0, "")

_Place = tuple[int, str, int]
"""A part's id, name and sum."""


class Summed(Protocol):
    """A table's running sum."""

    @property
    def id(self) -> int: ...

    @property
    def name(self) -> str: ...

    @property
    def total(self) -> int: ...


class RequestTotals:
    """Of one connection. All methods on the apply lane."""

    def __init__(self, hasher: RowHasher) -> None:
        self._part = hasher.part
        self._part_begun = hasher.part_begun
        self._known: dict[int, tuple[int | None, int, str]] = {}
        """By id: the sum of a part, its hash, and the name that it was hashed with."""
        self._total = 0
        self._begun = False
        self._rest: tuple[int, int] | None = None
        """Schema and sequences as last noted."""
        self._notes: list[tuple[int, int, list[_Place], tuple[int, ...]]] = []
        self._run_of: tuple[int, str] = (0, "")
        self._run: list[tuple[int, int, int]] = []
        """Requests that followed each other and changed one table, by its id and name: (index,
        position, its sum). Either these or `_notes` are empty."""
        self._done: list[tuple[int, int, bytes]] = []

    def note(
        self,
        index: int,
        position: int,
        changed: Iterable[Summed],
        every: Iterable[Summed],
        rest: tuple[int, int],
        dropped: Collection[int],
    ) -> None:
        """After the request at (index, position). `changed`: tables that may have moved in this
        transaction, of `every` there is; `rest`: sums of schema and sequences; `dropped`: ids."""
        if self._run:
            self._work()
        places = [(one.id, one.name, one.total) for one in (changed if self._begun else every)]
        self._begun = True
        if rest != self._rest:
            self._rest = rest
            places += [(_SCHEMA, "", rest[0]), (_SEQUENCES, "", rest[1])]
        self._notes.append((index, position, places, tuple(dropped) if dropped else ()))
        if len(places) > _PLACES_MAX:
            self._work()

    def note_one(self, index: int, position: int, table: Summed, rest: tuple[int, int]) -> bool:
        """`note`, when of this transaction's tables only `table` may have moved; False when
        something else has, and `note` is to be called."""
        if rest != self._rest:
            return False
        if not self._run:
            self._work()
            self._run_of = (table.id, table.name)
        elif table.id != self._run_of[0]:
            return False
        self._run.append((index, position, table.total))
        return True

    def take(self) -> list[tuple[int, int, bytes]]:
        """(index, position, hash) of all that was noted since the last call."""
        self._work()
        done, self._done = self._done, []
        return done

    def forget(self) -> None:
        """The transaction is lost: what is known may be of none that was ever committed."""
        self._known.clear()
        self._notes.clear()
        self._run.clear()
        self._done.clear()
        self._total, self._begun, self._rest = 0, False, None

    def _work(self) -> None:
        if self._run:
            self._work_run()
            return
        known, total = self._known, self._total
        for index, position, places, dropped in self._notes:
            for id, name, value in places:
                before = known.get(id, _NONE)
                if before[0] == value and before[2] == name:
                    continue
                now = self._part(_KINDS.get(id, "table"), name, value)
                known[id] = (value, now, name)
                total += now - before[1]
            for id in dropped:
                total -= known.pop(id, _NONE)[1]
            total &= HASH_MASK
            self._done.append((index, position, total.to_bytes(HASH_BYTES, "little")))
        self._notes.clear()
        self._total = total

    def _work_run(self) -> None:
        id, name = self._run_of
        value, part, before = self._known.get(id, _NONE)
        if before != name:
            value = None
        begun = self._part_begun("table", name)
        total, done, from_bytes = self._total, self._done, int.from_bytes
        for index, position, sum in self._run:
            if sum != value:
                state = begun()
                state.update(sum.to_bytes(HASH_BYTES, "little"))
                now = from_bytes(state.digest(), "little")
                total = (total + now - part) & HASH_MASK
                value, part = sum, now
            done.append((index, position, total.to_bytes(HASH_BYTES, "little")))
        self._known[id] = (value, part, name)
        self._run.clear()
        self._total = total
