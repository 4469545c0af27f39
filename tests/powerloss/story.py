"""What a node was asked and what it promised, event by event: what a crash there must leave.

The journal's contents form a list of states, one for each change that was asked for. At any moment
a crash must leave one of the states from `low` (the newest that anything was promised from) to
`high` (the newest that was asked for).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from raftdb.base.ids import Index, NodeId, Term
from raftdb.journal import HardState, Journal, LogEntry
from tests.journal.model import State, state_of
from tests.powerloss.record import Event, Recorder


class NotedJournal(Journal):
    """The real journal; the record is told of every change that is asked of it."""

    recorder: Recorder

    def __init__(self, *what: Any) -> None:
        super().__init__(*what)
        state = state_of(self)
        self.recorder.note("told", state.first, _plain(state.entries), *_vote(state.hard_state))

    def append(self, entries: Sequence[LogEntry]) -> None:
        self.recorder.note("append", _plain(entries))
        super().append(entries)

    def truncate_from(self, index: int) -> None:
        if index <= self.last_index:
            self.recorder.note("truncate", int(index))
        super().truncate_from(index)

    def set_hard_state(self, hard_state: HardState) -> None:
        self.recorder.note("hard_state", *_vote(hard_state))
        super().set_hard_state(hard_state)

    def reset(self, index: int, term: int) -> None:
        self.recorder.note("reset", int(index), int(term))
        super().reset(index, term)

    def drop_prefix(self, index: int) -> None:
        before = self.sequence()
        super().drop_prefix(index)
        if self.sequence() > before:
            self.recorder.note("drop", int(self.first_index))


def _plain(entries: Iterable[LogEntry]) -> list[tuple[int, int, bytes]]:
    return [(int(one.index), int(one.term), bytes(one.data)) for one in entries]


def _vote(hard_state: HardState) -> tuple[int, str]:
    return int(hard_state.term), hard_state.vote or ""


def _hard_state(term: int, vote: str) -> HardState:
    return HardState(Term(term), NodeId(vote) if vote else None)


def _entries(plain: Iterable[Any]) -> tuple[LogEntry, ...]:
    return tuple(LogEntry(Index(index), Term(term), data) for index, term, data in plain)


@dataclass(frozen=True, slots=True)
class Required:
    """What a crash at one moment must leave."""

    founded: bool = False
    """Before that there may be no node yet."""
    ranges: tuple[tuple[int, int, int], ...] = ()
    """(life, low, high): the journal is one of these states, in each of them. A start finds a state
    that was asked for before, and begins to count anew."""
    applied: int = 0
    """Entries up to here were applied, so clients may know their effect."""
    acked: int = 0
    """How many of the story's `acks` clients have."""

    def and_also(self, other: Required) -> Required:
        """For one state that a crash may leave at either moment."""
        ranges = {life: (low, high) for life, low, high in self.ranges}
        for life, low, high in other.ranges:
            held = ranges.get(life, (low, high))
            ranges[life] = (max(low, held[0]), min(high, held[1]))
        return Required(
            self.founded or other.founded,
            tuple((life, *held) for life, held in sorted(ranges.items())),
            max(self.applied, other.applied),
            max(self.acked, other.acked),
        )


@dataclass
class Story:
    """A record's notes, understood."""

    states: list[State] = field(default_factory=list)
    committed: dict[int, LogEntry] = field(default_factory=dict)
    """Entries that were applied, by index."""
    acks: list[tuple[int, int, bytes]] = field(default_factory=list)
    """(index, position, reply) of what clients were told."""
    now: Required = field(default_factory=Required)
    _life: int = 0
    _base: int = 0
    _added: dict[int, int] = field(default_factory=dict)

    def from_here(self, required: Required) -> Story:
        """The story of a life that begins after a crash which left what `required` says."""
        return Story(list(self.states), dict(self.committed), list(self.acks), required, self._life)

    def feed(self, event: Event) -> Required:
        """One event of the record; what is required from there on."""
        if event[0] == "note":
            getattr(self, f"_on_{event[1]}")(*event[2:])
        return self.now

    def _push(self, state: State) -> None:
        self.states.append(state)
        self._set_range(self.low, len(self.states) - 1)

    def _require(self, low: int) -> None:
        self._set_range(max(self.low, low), len(self.states) - 1)

    def _set_range(self, low: int, high: int) -> None:
        self.now = replace(self.now, ranges=((self._life, low, high),))

    @property
    def low(self) -> int:
        """The newest state that anything was promised from."""
        return self.now.ranges[0][1] if self.now.ranges else 0

    def _on_founded(self) -> None:
        self.now = replace(self.now, founded=True)

    def _on_told(self, first: int, entries: Any, term: int, vote: str) -> None:
        """The journal was opened and says this: from now on it is promised."""
        state = State(first, _entries(entries), _hard_state(term, vote))
        why = self.why_not(state, self.now)
        assert not why, f"a start found what it must not: {why}"
        self._life += 1
        self._push(state)
        self._base = len(self.states) - 1
        self._added = dict.fromkeys((one.index for one in state.entries), self._base)
        self._require(self._base)

    def _on_append(self, entries: Any) -> None:
        for entry in _entries(entries):
            last = self.states[-1]
            self._push(State(last.first, (*last.entries, entry), last.hard_state))
            self._added[entry.index] = len(self.states) - 1

    def _on_truncate(self, index: int) -> None:
        last = self.states[-1]
        assert index > self.now.applied, "an applied entry was truncated"
        self._push(State(last.first, last.entries[: index - last.first], last.hard_state))

    def _on_hard_state(self, term: int, vote: str) -> None:
        last = self.states[-1]
        self._push(State(last.first, last.entries, _hard_state(term, vote)))

    def _on_reset(self, index: int, term: int) -> None:
        entry = LogEntry(Index(index), Term(term), b"")
        self._push(State(index, (entry,), self.states[-1].hard_state))
        self._added[index] = len(self.states) - 1

    def _on_drop(self, first: int) -> None:
        last = self.states[-1]
        self._push(State(first, last.entries[first - last.first :], last.hard_state))

    def _on_promise(self, sequence: int) -> None:
        """A vote or an acknowledgement left that rests on everything up to `sequence`."""
        self._require(self._base + sequence)

    def _on_applied(self, index: int) -> None:
        """Entries up to `index` are applied here, and so they are durable here."""
        state = self.states[-1]
        for one in range(self.now.applied + 1, index + 1):
            self.committed[one] = state.entries[one - state.first]
        self._require(self._added[index])
        self.now = replace(self.now, applied=max(self.now.applied, index))

    def _on_acked(self, index: int, position: int, reply: bytes) -> None:
        self.acks.append((index, position, reply))
        self.now = replace(self.now, acked=len(self.acks))

    def why_not(self, found: State, required: Required) -> str:
        """In words, what is missing of `found`; `` when nothing is."""
        for _life, low, high in required.ranges:
            if found not in self.states[low : high + 1]:
                return self._why_none(found, low, high)
        return ""

    def _why_none(self, found: State, low: int, high: int) -> str:
        wanted = self.states[low]
        if found.hard_state.term < wanted.hard_state.term or (
            found.hard_state.term == wanted.hard_state.term
            and wanted.hard_state.vote not in (None, found.hard_state.vote)
        ):
            return f"a vote is forgotten: {wanted.hard_state}, found {found.hard_state}"
        have = {one.index: one for one in found.entries}
        for entry in wanted.entries:
            if entry.index >= found.first and have.get(entry.index) != entry:
                there = have.get(entry.index)
                what = "missing" if there is None else f"another one, of term {there.term}"
                return f"entry {entry.index} of term {entry.term} was promised, and is {what}"
        return (
            f"the journal holds {found.first} to {found.last} and {found.hard_state}, which is"
            f" none of the states {low} to {high} that were asked for"
        )
