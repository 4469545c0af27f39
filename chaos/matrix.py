"""The matrix: every workload under every fault, on three nodes and on five.

A slice of it that rotates: cells are dealt like cards into slices, each of which has every workload
and every fault about equally often. Which slice is run is a number that somebody counts up (CI: the
commit's position in history).
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from chaos.faults import FAULTS
from chaos.run import Plan
from tests.workloads import WORKLOADS

NODES = (3, 5)
CELL_S = 8.0

Cell = tuple[int, str, str]
"""Nodes, workload, fault."""


def cells() -> list[Cell]:
    """All of it."""
    return [
        (nodes, workload.name, fault)
        for nodes in NODES
        for workload in WORKLOADS
        for fault in FAULTS
    ]


def slice_of(number: int, size: int) -> list[Cell]:
    """One slice: `size` neighbouring cells of a shuffled matrix, from `number * size` on, around
    and around. Every `len(cells()) / size` numbers have seen all of it."""
    everything = cells()
    random.Random("chaos matrix").shuffle(everything)
    first = number * size % len(everything)
    return (everything + everything)[first : first + min(size, len(everything))]


def plans_of(chosen: Sequence[Cell], seed: str, seconds: float) -> dict[int, list[Plan]]:
    """Rounds by the number of nodes, on one cluster each."""
    plans: dict[int, list[Plan]] = {}
    for nodes, workload, fault in chosen:
        name = f"{seed}/{nodes}/{workload}/{fault}"
        plans.setdefault(nodes, []).append(Plan(name, workload, (fault,), seconds))
    return plans
