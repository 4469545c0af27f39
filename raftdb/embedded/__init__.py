"""A whole node in one process: the composition of all rooms, in the foreground or embedded.

Owns: the assembly of a node from its configuration and ports, its life from start to stop, signals,
and `raftdb.Node`, a full member inside the user's own process.
Promises: a node that cannot keep a promise stops, says why, and gives a meaningful exit code;
SIGTERM hands leadership over first and finishes what is under way.
May import: everything below; asyncio for the loop that a node runs on.
Never: decisions that belong to a room below.
"""

if not __debug__:
    raise ImportError(
        "raftdb checks its invariants by assertions: run Python without -O and PYTHONOPTIMIZE"
    )

from raftdb.embedded.assembly import Assembly
from raftdb.embedded.compatibility import compatibility, computes
from raftdb.embedded.foreground import run_node
from raftdb.embedded.node import Node

__all__ = ["Assembly", "Node", "compatibility", "computes", "run_node"]
