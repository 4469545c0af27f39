"""A plain list beside the journal: every state that was ever asked for, by its sequence."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from raftdb.base.errors import FatalError
from raftdb.journal import HardState, Journal, LogEntry
from tests.journal.support import Bench, contents, entry, vote


@dataclass(frozen=True)
class State:
    """All that the journal is asked to keep."""

    first: int
    entries: tuple[LogEntry, ...]
    hard_state: HardState

    @property
    def last(self) -> int:
        return self.first + len(self.entries) - 1


def state_of(journal: Journal) -> State:
    return State(journal.first_index, tuple(contents(journal)), journal.hard_state)


@dataclass
class Model:
    """Drives a journal and knows what must be left of it.

    `states[s]` is the state after everything up to sequence s; a restart must find one of those
    from `durable_sequence` on, since nothing that was reported durable may be missing, and nothing
    may be there that was never asked for.
    """

    journal: Journal
    states: list[State] = field(default_factory=list)
    durable_sequence: int = 0

    def __post_init__(self) -> None:
        self.states = [state_of(self.journal)]

    @property
    def now(self) -> State:
        return self.states[-1]

    def append(self, entries: list[LogEntry]) -> None:
        self.journal.append(entries)
        for one in entries:
            now = self.now
            self.states.append(State(now.first, (*now.entries, one), now.hard_state))

    def truncate_from(self, index: int) -> None:
        self.journal.truncate_from(index)
        now = self.now
        if index <= now.last:
            kept = now.entries[: index - now.first]
            self.states.append(State(now.first, kept, now.hard_state))

    def set_hard_state(self, hard_state: HardState) -> None:
        self.journal.set_hard_state(hard_state)
        self.states.append(State(self.now.first, self.now.entries, hard_state))

    def reset(self, index: int, term: int) -> None:
        self.journal.reset(index, term)
        self.states.append(State(index + 1, (), self.now.hard_state))

    def drop_prefix(self, index: int) -> None:
        before = self.journal.sequence()
        self.journal.drop_prefix(index)
        if self.journal.sequence() > before:
            now, first = self.now, self.journal.first_index
            assert now.first <= first <= index
            kept = now.entries[first - now.first :]
            self.states.append(State(first, kept, now.hard_state))

    def check_memory(self) -> None:
        """What the journal says of itself agrees with the list."""
        journal, now = self.journal, self.now
        assert journal.sequence() == len(self.states) - 1
        assert (journal.first_index, journal.last_index) == (now.first, now.last)
        assert journal.hard_state == now.hard_state
        if now.entries:
            assert journal.last_term == now.entries[-1].term
        assert journal.durable_sequence >= self.durable_sequence
        self.durable_sequence = journal.durable_sequence
        assert journal.durable_index <= now.last
        # Conservative: whatever survives from here on agrees with memory up to it.
        for state in self.states[journal.durable_sequence :]:
            for index in range(max(state.first, now.first), journal.durable_index + 1):
                assert state.entries[index - state.first] == now.entries[index - now.first]

    def check_recovered(self, recovered: State) -> int:
        """The recovered state is one that was asked for, and not too old; returns which."""
        for sequence in range(len(self.states) - 1, self.durable_sequence - 1, -1):
            if self.states[sequence] == recovered:
                return sequence
        raise AssertionError(
            f"recovered {recovered}, which is no state from {self.durable_sequence} on"
        )


def random_step(model: Model, draw: random.Random, largest: int = 200) -> None:
    """One change of a random kind."""
    now = model.now
    kind = draw.choices(("append", "hard_state", "truncate", "drop", "reset"), (10, 3, 2, 1, 0.3))[
        0
    ]
    if kind == "append":
        term = max(model.journal.last_term, now.hard_state.term, 1)
        count = draw.randint(1, 4)
        model.append(
            [
                entry(now.last + 1 + position, term, draw.randbytes(draw.randint(0, largest)))
                for position in range(count)
            ]
        )
    elif kind == "hard_state":
        term = max(model.journal.last_term, now.hard_state.term) + draw.randint(0, 2)
        model.set_hard_state(vote(term, draw.choice((None, "n1", "n2"))))
    elif kind == "truncate" and now.last > now.first:
        model.truncate_from(draw.randint(max(now.first + 1, now.last - 8), now.last))
    elif kind == "drop":
        model.drop_prefix(draw.randint(now.first, now.last + 1))
    elif kind == "reset":
        model.reset(now.last + draw.randint(1, 20), max(model.journal.last_term, 1))


def run_script(bench: Bench, seed: int, steps: int) -> Model:
    """A scripted run: the same seed does the same, until a call fails."""
    draw = random.Random(seed)
    model = Model(bench.open())
    try:
        for _ in range(steps):
            random_step(model, draw)
            if draw.random() < 0.5:
                bench.executor.turn()
            if bench.executor.lane and draw.random() < 0.6:
                bench.executor.work()
            if draw.random() < 0.1:
                bench.executor.settle()
                bench.executor.advance(1.0)
            model.check_memory()
        bench.executor.settle()
        bench.executor.advance(1.0)
        bench.executor.settle()
    except FatalError:
        bench.executor.settle()
    model.durable_sequence = max(model.durable_sequence, model.journal.durable_sequence)
    return model
