"""Recovery, rehearsed: a throw-away cluster is broken for real, mended by the book, and measured.

Owns: the scenarios, the release before this one where they need it, their load and its record of
every acknowledgement, the measuring of RPO and RTO, objectives and whether they were met, the
report and the history of drills.
Promises: what is reported was measured on real processes; recovery uses only what the documents
tell an operator to do; a promise that is broken or an objective that is missed is named and makes
the exit code non-zero; nothing is left running, and no cluster but the drill's own is touched.
May import: demo (processes), client, ops, runtime, base; rich.
Never: the inside of a node: it sees what any client and any operator sees.
"""

from raftdb.drill.history import History, last_drills
from raftdb.drill.objectives import Objective, load_objectives
from raftdb.drill.result import Result
from raftdb.drill.run import Options, run
from raftdb.drill.scenarios import SCENARIOS

__all__ = [
    "SCENARIOS",
    "History",
    "Objective",
    "Options",
    "Result",
    "last_drills",
    "load_objectives",
    "run",
]
