"""Hypothesis looks for a sequence of calls, crashes and starts that the list does not explain."""

from __future__ import annotations

import random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from raftdb.base.limits import Limits
from tests.journal.model import Model, state_of
from tests.journal.support import Bench, entry, vote
from tests.sim.disk import SimFiles


class JournalMachine(RuleBasedStateMachine):
    """One node's journal over many lives."""

    @initialize(
        seed=st.integers(0, 1 << 32),
        segment_bytes=st.sampled_from([600, 1500, 1 << 20]),
        cache_bytes=st.sampled_from([1, 2000, 1 << 20]),
    )
    def found(self, seed: int, segment_bytes: int, cache_bytes: int) -> None:
        limits = Limits(journal_segment_bytes=segment_bytes, journal_cache_bytes_max=cache_bytes)
        self.bench = Bench(SimFiles(random.Random(seed)), limits).create()
        self.model = Model(self.bench.open())

    @rule(sizes=st.lists(st.integers(0, 700), min_size=1, max_size=4), term=st.integers(0, 2))
    def append(self, sizes: list[int], term: int) -> None:
        last, term = self.model.now.last, self.model.journal.last_term + term
        self.model.append(
            [
                entry(last + position, term, bytes([position]) * size)
                for position, size in enumerate(sizes, 1)
            ]
        )

    @rule(term=st.integers(0, 3), node=st.sampled_from([None, "n1", "n2"]))
    def set_hard_state(self, term: int, node: str | None) -> None:
        self.model.set_hard_state(vote(self.model.now.hard_state.term + term, node))

    @precondition(lambda self: self.model.now.last > self.model.now.first)
    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        now = self.model.now
        self.model.truncate_from(data.draw(st.integers(now.first + 1, now.last + 1)))

    @rule(back=st.integers(0, 10))
    def drop_prefix(self, back: int) -> None:
        self.model.drop_prefix(self.model.now.last + 1 - back)

    @rule(ahead=st.integers(-3, 20))
    def reset(self, ahead: int) -> None:
        index = max(1, self.model.now.last + ahead)
        self.model.reset(index, max(1, self.model.journal.last_term))

    @rule()
    def turn(self) -> None:
        self.bench.executor.turn()

    @precondition(lambda self: self.bench.executor.lane)
    @rule()
    def work(self) -> None:
        self.bench.executor.work()

    @rule()
    def idle(self) -> None:
        self.bench.executor.settle()
        self.bench.executor.advance(1.0)
        self.bench.executor.settle()

    @rule(crash=st.booleans())
    def stop(self, crash: bool) -> None:
        self.model.durable_sequence = self.model.journal.durable_sequence
        if crash:
            self.bench.files.crash()
        else:
            self.bench.files.kill()
        journal = self.bench.open()
        self.model.check_recovered(state_of(journal))
        self.model = Model(journal)

    @rule()
    def close(self) -> None:
        assert self.bench.close(self.model.journal) is None
        self.bench.files.crash()
        journal = self.bench.open()
        assert state_of(journal) == self.model.now
        self.model = Model(journal)

    @invariant()
    def agrees(self) -> None:
        if hasattr(self, "model"):
            self.model.check_memory()
            assert state_of(self.model.journal) == self.model.now


JournalMachine.TestCase.settings = settings(
    max_examples=120,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestJournal = JournalMachine.TestCase
