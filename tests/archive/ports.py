"""Ports of which time passes by hand, for the rules that wait."""

from __future__ import annotations

from typing import Any

from raftdb.base.ports import Ports
from raftdb.runtime.files import RealFiles
from raftdb.runtime.random import RealRandom
from tests.machine.support import MemoryLog
from tests.node.fakes import HandLoop


def hand_ports() -> tuple[Ports, HandLoop, MemoryLog]:
    """Ports, the loop that moves them, and what was logged."""
    loop, log = HandLoop(), MemoryLog()
    network: Any = None
    return Ports(loop, RealRandom(), loop, RealFiles(), network, log), loop, log
