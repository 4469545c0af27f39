"""Every workload on a real machine, alone: its judgement finds nothing. Then by a driver that lies
in one way or another: its judgement says so."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from raftdb.base.errors import Error
from raftdb.command import Execute, Failed, Results, Statement
from tests.machine.support import Database, stamp
from tests.workloads import (
    FAILED,
    OK,
    UNKNOWN,
    WORKLOADS,
    Dialogue,
    History,
    Mix,
    Operation,
    Outcome,
    Violation,
    Workload,
    draw_mix,
    outcome_of_error,
)

CLIENTS = 4
OPERATIONS = 260


class Driver:
    """Executes operations one after the other; the clients' times overlap."""

    def __init__(self, database: Database, workload: Workload, seed: int) -> None:
        self.database = database
        self.workload = workload
        self.draw = random.Random(seed)
        self.history = History()
        self.now_s = 1.0

    def run(self, operations: int = OPERATIONS) -> None:
        for statement in self.workload.setup():
            assert isinstance(self.database.apply(self.database.request(statement)), Results)
        for number in range(operations):
            client = number % CLIENTS
            operation = self.workload.next(client, self.draw)
            self.one(client, operation)
        for operation in self.workload.final():
            self.one(CLIENTS, operation)
        self.workload.check(self.history.records)

    def one(self, client: int, operation: Operation) -> None:
        self.now_s += 0.01
        record = self.history.invoke(client, operation, self.now_s)
        outcome = self.perform(operation)
        self.history.end(record, outcome, self.now_s + 0.005)
        self.workload.took(client, operation, outcome)

    def perform(self, operation: Operation) -> Outcome:
        if operation.dialogue is not None:
            return self.converse(operation.dialogue())
        if operation.pipeline:
            return self.fly(operation)
        if operation.is_read:
            results, index = self.database.machine.query_at(operation.statements)
            return Outcome(OK, self.workload.value(operation, results), index=index)
        return self.execute(operation)

    def fly(self, operation: Operation) -> Outcome:
        """A pipeline: what is on its way is executed in order."""
        told: list[list[Any]] = []
        for statements in self.ordered(operation.pipeline):
            one = dataclasses.replace(operation, statements=statements, pipeline=())
            outcome = self.execute(one)
            status = FAILED if outcome.error else outcome.status
            told.append([status, outcome.error or outcome.value])
        if self.draw.random() < 0.05:
            return Outcome(UNKNOWN)
        return Outcome(OK, told, index=int(self.database.machine.applied()[0]))

    def ordered(self, pipeline: Sequence[tuple[Statement, ...]]) -> Sequence[tuple[Statement, ...]]:
        """In the order of the calls."""
        return pipeline

    def converse(self, dialogue: Dialogue) -> Outcome:
        """A transaction; nobody else is here, so its statements may commit one by one."""
        database = self.database
        unknown = self.draw.random() < 0.05
        try:
            statement = next(dialogue)
            while True:
                if statement.sql.startswith("SELECT"):
                    results = database.machine.query(statement)
                else:
                    results = Results(database.run(statement))
                statement = dialogue.send(results.statements[0])
        except StopIteration as said:
            if unknown:
                return Outcome(UNKNOWN)
            return Outcome(OK, said.value, index=int(database.machine.applied()[0]))

    def execute(self, operation: Operation) -> Outcome:
        database = self.database
        database.sequence += 1
        sequence = database.sequence
        request = Execute(
            stamp(sequence), database.session, sequence, sequence - 1, operation.statements
        )
        reply = database.apply(request)
        if isinstance(reply, Failed):
            error: Error = reply.error
            error.detail.setdefault("statement", reply.statement)
            return outcome_of_error(error, is_read=False)
        assert isinstance(reply, Results)
        if self.draw.random() < 0.05:
            return Outcome(UNKNOWN)
        index = int(database.machine.applied()[0])
        return Outcome(OK, self.workload.value(operation, reply), index=index)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "machine")
    yield made
    made.machine.close()


@pytest.mark.parametrize("kind", WORKLOADS, ids=lambda kind: kind.name)
def test_an_honest_database_passes(database: Database, kind: type[Workload]) -> None:
    driver = Driver(database, kind(), 1)
    driver.run()
    records = driver.history.records
    assert sum(record.succeeded for record in records) > OPERATIONS / 2
    assert any(record.is_unknown for record in records)


def test_workloads_share_a_database(database: Database) -> None:
    Driver(database, Mix([(kind(), 1.0) for kind in WORKLOADS]), 2).run(600)


def test_each_seed_draws_its_own_mix() -> None:
    drawn = {tuple(draw_mix(random.Random(seed)).parts) for seed in range(50)}
    assert len(drawn) > 20
    assert {name for parts in drawn for name in parts} == {kind.name for kind in WORKLOADS}


# -- drivers that lie -----------------------------------------------------------------------------


class Loses(Driver):
    """Acknowledges a write that it does not make, with the reply of one that it made."""

    def execute(self, operation: Operation) -> Outcome:
        single = operation.name in ("transfer", "insert", "fill", "create")
        if single and self.draw.random() < 0.1:
            return Outcome(OK, True)
        return super().execute(operation)


class Doubles(Driver):
    """Executes twice, answers the second time's result."""

    def execute(self, operation: Operation) -> Outcome:
        first = super().execute(operation)
        if first.status == OK and not first.error and self.draw.random() < 0.1:
            return super().execute(operation)
        return first


class DoublesUnknown(Driver):
    """Executes twice what nobody got an answer for."""

    def execute(self, operation: Operation) -> Outcome:
        outcome = super().execute(operation)
        if outcome.status == UNKNOWN:
            super().execute(operation)
        return outcome


class Halves(Driver):
    """Executes some of the statements of a request that fails."""

    def execute(self, operation: Operation) -> Outcome:
        outcome = super().execute(operation)
        if outcome.error:
            for statement in operation.statements:
                for values in statement.parameter_sets:
                    part = type(statement)(statement.sql, (values,))
                    self.database.apply(self.database.request(part))
        return outcome


class LosesHalf(Driver):
    """Forgets what a transaction wrote last."""

    def converse(self, dialogue: Dialogue) -> Outcome:
        if self.draw.random() < 0.9:
            return super().converse(dialogue)
        kept: list[Statement] = []

        def cut() -> Dialogue:
            result = None
            while True:
                try:
                    statement = dialogue.send(result) if result is not None else next(dialogue)
                except StopIteration as said:
                    return said.value
                if statement.sql.startswith("UPDATE"):
                    kept.append(statement)
                    if len(kept) == 2:
                        statement = Statement("SELECT 1")
                result = yield statement

        return super().converse(cut())


class Shuffles(Driver):
    """Executes what is on its way as it likes."""

    def ordered(self, pipeline: Sequence[tuple[Statement, ...]]) -> Sequence[tuple[Statement, ...]]:
        return list(reversed(pipeline))


class SkipsOne(Driver):
    """Goes on behind a request that was never applied."""

    def execute(self, operation: Operation) -> Outcome:
        if operation.workload == "pipeline" and self.draw.random() < 0.1:
            return Outcome(UNKNOWN, error="deadline")
        return super().execute(operation)


class LosesOfMany(Driver):
    """Acknowledges a request of a pipeline that it does not make."""

    def execute(self, operation: Operation) -> Outcome:
        if operation.workload == "pipeline" and self.draw.random() < 0.1:
            return Outcome(OK, operation.statements[0].parameter_sets[0][0])
        return super().execute(operation)


class Mixes(Driver):
    """Answers a request of a pipeline with another one's reply."""

    def fly(self, operation: Operation) -> Outcome:
        outcome = super().fly(operation)
        if outcome.status == OK:
            outcome.value[-2:] = outcome.value[:-3:-1]
        return outcome


class Stale(Driver):
    """Answers a read from the past."""

    def __init__(self, database: Database, workload: Workload, seed: int) -> None:
        super().__init__(database, workload, seed)
        self.past: dict[str, Outcome] = {}

    def perform(self, operation: Operation) -> Outcome:
        outcome = super().perform(operation)
        is_read = operation.is_read or operation.name == "audit"
        if is_read and not operation.arguments.get("final"):
            key = f"{operation.name} {operation.arguments}"
            before = self.past.get(key)
            self.past[key] = outcome
            if before is not None and self.draw.random() < 0.5:
                return before
        return outcome


LIES: list[tuple[str, type[Driver], str]] = [
    ("bank", Loses, "acknowledged kept"),
    ("insert", Loses, "acknowledged kept"),
    ("batch", Loses, "acknowledged kept"),
    ("ddl", Loses, "acknowledged kept"),
    ("list", Doubles, "exactly once"),
    ("counter", Doubles, "exactly once"),
    ("counter", DoublesUnknown, "exactly once"),
    ("list", DoublesUnknown, "exactly once"),
    ("bank", Halves, "all or nothing"),
    ("batch", Halves, "failed means nothing"),
    ("register", Stale, "linearizable"),
    ("list", Stale, "linearizable"),
    ("bank", Stale, "linearizable"),
    ("counter", Stale, "linearizable"),
    ("level", Stale, "stale read"),
    ("level", Loses, "acknowledged kept"),
    ("pipeline", Shuffles, "in the order of the calls"),
    ("pipeline", Mixes, "everybody's own reply"),
    ("pipeline", SkipsOne, "no hole in a pipeline"),
    ("pipeline", LosesOfMany, "acknowledged kept"),
    ("vault", Stale, "linearizable"),
    ("vault", LosesHalf, "all or nothing"),
]


@pytest.mark.parametrize(
    ("name", "kind", "invariant"), LIES, ids=lambda value: getattr(value, "__name__", str(value))
)
def test_a_lie_is_noticed(
    database: Database, name: str, kind: type[Driver], invariant: str
) -> None:
    [workload] = [made for made in WORKLOADS if made.name == name]
    with pytest.raises(Violation) as caught:
        kind(database, workload(), 3).run()
    assert caught.value.invariant == invariant


def test_a_duplicate_that_succeeds_is_noticed(database: Database) -> None:
    [workload] = [made for made in WORKLOADS if made.name == "insert"]

    class Forgives(Driver):
        def execute(self, operation: Operation) -> Outcome:
            outcome = super().execute(operation)
            return Outcome(OK, None) if operation.name == "duplicate" else outcome

    with pytest.raises(Violation, match="should be there was not"):
        Forgives(database, workload(), 3).run()
