"""The operator's order to give pages back, on fakes: how far it goes in one go."""

from __future__ import annotations

from typing import Any

from raftdb.machine.vacuum import Vacuumed
from raftdb.node.vacuum import STEP_PAGES, WAL_PAGES_MAX, Vacuum
from tests.node.fakes import Bench


class Machine:
    """Free pages without end; what is moved goes through the write-ahead log."""

    def __init__(self, *, pinned: bool) -> None:
        self.wal_pages = 0
        self.pinned = pinned
        self.checkpoints = 0

    def vacuum(self, pages: int) -> Vacuumed:
        self.wal_pages += 2 * pages
        return Vacuumed(pages, 1_000_000, 2_000_000)

    def checkpoint(self) -> int:
        self.checkpoints += 1
        if not self.pinned:
            self.wal_pages = 0
        return 0


def asked(machine: Machine) -> int:
    """How many pages one call gives back."""
    bench = Bench()
    answers: list[Any] = []
    made: Any = machine
    vacuum = Vacuum(made, bench.ports, lambda **_options: None)
    vacuum.ask({}, 5.0, lambda answer, error: answers.append(error or answer))
    bench.loop.run()
    [answer] = answers
    return int(answer.body["given_back"])


def test_the_write_ahead_log_stays_short_though_a_reader_keeps_it() -> None:
    """What is wanted is room on the disk."""
    free, pinned = Machine(pinned=False), Machine(pinned=True)
    assert asked(free) == asked(free) == WAL_PAGES_MAX // 2
    assert asked(pinned) == WAL_PAGES_MAX // 2
    # It comes to its end all the same.
    assert asked(pinned) == STEP_PAGES
    assert pinned.checkpoints == free.checkpoints == 2
