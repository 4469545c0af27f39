"""Ports of which time passes by hand, for the rules that wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raftdb.base.ports import Ports
from raftdb.runtime.files import RealFiles
from raftdb.runtime.random import RealRandom
from tests.machine.support import MemoryLog
from tests.node.fakes import HandLoop


class LanesLoop(HandLoop):
    """Work on lanes may take time."""

    def __init__(self) -> None:
        super().__init__()
        self.lane_s = 0.0

    def submit(self, lane: str, work: Callable[[], Any], done: Any) -> None:
        """Begins after `lane_s`."""
        if self.lane_s:
            self.call_later(self.lane_s, super().submit, lane, work, done)
        else:
            super().submit(lane, work, done)


def hand_ports() -> tuple[Ports, LanesLoop, MemoryLog]:
    """Ports, the loop that moves them, and what was logged."""
    loop, log = LanesLoop(), MemoryLog()
    network: Any = None
    return Ports(loop, RealRandom(), loop, RealFiles(), network, log), loop, log
