"""Planted bugs: proof that the simulation can see. Each is named, and switched on for one run by a
patch or a subclass; production code has no such switch.

    bug.py          what a bug is
    wall.py, journal.py, machine.py, recovery.py, archive.py, disasters.py, …    the bugs
    script.py, scenarios*.py    runs for those that ordinary seeds reach too seldom
    hunt.py         finds every one, and prints the table
"""

from tests.sim.planted.bug import Bug
from tests.sim.planted.catalogue import BUGS

__all__ = ["BUGS", "Bug"]
