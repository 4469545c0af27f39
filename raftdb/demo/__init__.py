"""The main job in one command: a cluster loses its leader, twice, and its clients notice nothing.

Owns: the throw-away cluster of processes, its load, its story, the check and the verdict.
Promises: what it prints was measured on real processes; any broken promise is named and makes the
exit code non-zero; nothing is left running unless that was asked for.
May import: client, ops, runtime, base; rich; airportsdata.
Never: the inside of a node: it sees what any client sees.
"""

from raftdb.demo.run import run

__all__ = ["run"]
