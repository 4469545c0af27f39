"""Several workloads beside each other, as one: each seed its own mix."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

from raftdb.command import Results, Statement
from tests.workloads.bank import Bank
from tests.workloads.base import Operation, Outcome, Workload
from tests.workloads.batches import Batches
from tests.workloads.counters import Counters
from tests.workloads.history import Record
from tests.workloads.inserts import Inserts
from tests.workloads.levels import Levels
from tests.workloads.lists import Lists
from tests.workloads.pipelines import Pipelines
from tests.workloads.registers import Registers
from tests.workloads.schemas import Schemas
from tests.workloads.vaults import Vaults

WORKLOADS: tuple[type[Workload], ...] = (
    Registers,
    Lists,
    Bank,
    Inserts,
    Batches,
    Counters,
    Schemas,
    Vaults,
    Levels,
    Pipelines,
)
PIPELINES_CHANCE = 0.2


class Mix(Workload):
    """Draws the next operation from one of its parts."""

    name = "mix"

    def __init__(self, parts: Iterable[tuple[Workload, float]]) -> None:
        """Parts with their weights; their names differ."""
        chosen = list(parts)
        self.parts = {part.name: part for part, _weight in chosen}
        assert len(self.parts) == len(chosen), "a mix has each workload once"
        self._list = [part for part, _weight in chosen]
        self._weights = [weight for _part, weight in chosen]

    def setup(self) -> Sequence[Statement]:
        return [statement for part in self._list for statement in part.setup()]

    def next(self, client: int, draw: random.Random) -> Operation:
        [part] = draw.choices(self._list, self._weights)
        return part.next(client, draw)

    def value(self, operation: Operation, results: Results) -> Any:
        return self.parts[operation.workload].value(operation, results)

    def took(self, client: int, operation: Operation, outcome: Outcome) -> None:
        self.parts[operation.workload].took(client, operation, outcome)

    def final(self) -> Sequence[Operation]:
        return [operation for part in self._list for operation in part.final()]

    def check(self, records: Sequence[Record]) -> None:
        for part in self._list:
            part.check([record for record in records if record.workload == part.name])
        self.undecided = tuple(name for part in self._list for name in part.undecided)


def draw_mix(draw: random.Random) -> Mix:
    """One to four workloads with weights of their own, and sometimes pipelines."""
    count = draw.choice((1, 2, 3, 4))
    kinds = draw.sample(WORKLOADS[:-1], count)
    weights = [draw.choice((1.0, 2.0, 4.0)) for _kind in kinds]
    if draw.random() < PIPELINES_CHANCE:
        # Each of its operations is as much work as many others.
        kinds, weights = [*kinds, Pipelines], [*weights, 0.5]
    return Mix([(kind(), weight) for kind, weight in zip(kinds, weights, strict=True)])
