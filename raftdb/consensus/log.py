"""The log as consensus needs it, and the same log as pysyncobj wants to see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, overload

from raftdb.base.errors import InternalError
from raftdb.base.ids import Index, NodeId, Term
from raftdb.journal import HardState, LogEntry

__all__ = ["DurableLog", "HardState", "LibraryLog", "LogEntry", "LogWatch"]


class DurableLog(Protocol):
    """What consensus asks of the journal. Called on the loop; nothing here waits for the disk.

    Whatever is queued (entries, truncations, hard state) becomes durable in the order of queueing:
    when `durable_sequence` reaches what `sequence()` was, all that was queued before is on disk.
    """

    @property
    def first_index(self) -> int:
        """The oldest entry that can be read. Of the one before it, the base, only the term is
        known; a log that was never cut begins at 1 and its base is index 0 of term 0."""

    @property
    def last_index(self) -> int:
        """Of what is queued, durable or not."""

    @property
    def last_term(self) -> int: ...

    @property
    def durable_index(self) -> int:
        """All entries up to here, as they are now, are on disk."""

    @property
    def durable_sequence(self) -> int: ...

    @property
    def hard_state(self) -> HardState: ...

    def sequence(self) -> int: ...

    def term_at(self, index: int) -> int:
        """From first_index - 1 to last_index."""

    def entries(self, first: int, last: int, max_bytes: int) -> Sequence[LogEntry]:
        """From `first` to `last`, cut short after at least one entry when `max_bytes` is full."""

    def append(self, entries: list[LogEntry]) -> object: ...

    def truncate_from(self, index: int) -> object: ...

    def reset(self, index: int, term: int) -> object:
        """The log is empty and goes on behind that entry, of which no more is known."""

    def set_hard_state(self, state: HardState) -> object: ...

    def wake(
        self, on_durable: Callable[[], None], on_fatal: Callable[[BaseException], None]
    ) -> object:
        """Both are called on the loop: whenever durable_sequence grew; once when writing failed."""


class LogWatch(Protocol):
    """Who has to know what the library does to the log."""

    def library_appends(self, first: int, entries: Sequence[tuple[int, bytes]]) -> None:
        """(term, data) each, from index `first` on, are in the log."""

    def library_truncates(self, index: int) -> None:
        """The log is cut from `index` on."""


class LibraryLog:
    """The list-like journal that pysyncobj works on, over a DurableLog (row 18).

    The library asks only for indexes and terms here: entries of its messages pass through as one
    block, and their bytes go from message to journal untouched. Nothing is ever copied by slice.
    """

    def __init__(self, log: DurableLog, watch: LogWatch) -> None:
        self._log = log
        self._watch = watch

    def add(self, command: Any, index: int, term: int) -> None:
        """One entry of the library's own making (the no-op), or a block of a message's entries,
        of which `index` is the last."""
        if isinstance(command, Block):
            if command.first + len(command.entries) - 1 != index:
                raise InternalError("a block of entries does not end where it says")
            self._log.append(
                [
                    LogEntry(Index(command.first + position), Term(entry_term), data)
                    for position, (entry_term, data) in enumerate(command.entries)
                ]
            )
            self._watch.library_appends(command.first, command.entries)
            return
        self._log.append([LogEntry(Index(index), Term(term), bytes(command))])

    def deleteEntriesFrom(self, position: int) -> None:
        """`position` counts from the base."""
        index = self._log.first_index - 1 + position
        self._watch.library_truncates(index)
        self._log.truncate_from(index)

    def setCurrentTerm(self, term: int, vote: str | None) -> None:
        """Queued; the persist gate holds every message that relies on it (rule C1)."""
        state = HardState(Term(term), None if vote is None else NodeId(vote))
        if state != self._log.hard_state:
            self._log.set_hard_state(state)

    def getCurrentTerm(self) -> int:
        return self._log.hard_state.term

    def getVotedForNodeId(self) -> str | None:
        return self._log.hard_state.vote

    def setRaftCommitIndex(self, index: int) -> None:
        """Not kept: a start takes the commit index from the machine (rule C2)."""

    def getRaftCommitIndex(self) -> int:
        return self._log.first_index - 1

    def onOneSecondTimer(self) -> None:
        """Nothing to flush by time."""

    def __len__(self) -> int:
        return self._log.last_index - self._log.first_index + 2

    @overload
    def __getitem__(self, position: int) -> tuple[bytes, int, int]: ...
    @overload
    def __getitem__(self, position: slice) -> list[tuple[bytes, int, int]]: ...

    def __getitem__(self, position: int | slice) -> Any:
        if isinstance(position, slice):
            raise InternalError("pysyncobj asked for a slice of the log")
        size = len(self)
        if not -size <= position < size:
            raise IndexError(position)
        index = self._log.first_index - 1 + position % size
        return (b"", index, self._log.term_at(index))

    def _destroy(self) -> None:
        """The node closes the journal, not the library."""


class Block:
    """The new entries of one message, which pysyncobj takes for a single command."""

    __slots__ = ("entries", "first")

    def __init__(self, first: int, entries: tuple[tuple[int, bytes], ...]) -> None:
        self.first = first
        self.entries = entries


class Tail:
    """What lies from an index to the end of the log, as far as pysyncobj looks at it: the first
    entry's term, and whether there is more than one entry."""

    __slots__ = ("_first", "_length")

    def __init__(self, index: int, term: int, length: int) -> None:
        self._first = (b"", index, term)
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, position: int) -> tuple[bytes, int, int]:
        if position != 0:
            raise InternalError("pysyncobj looked past the first entry of a tail")
        return self._first
