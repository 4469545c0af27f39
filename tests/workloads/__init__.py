"""Workloads: what clients do to a cluster, and how to judge it afterwards.

A workload yields operations and takes their outcomes; it opens no connection and reads no clock, so
whoever drives it (the simulator's clients, or clients of real processes) decides how, when and
under which faults. Every workload owns its tables: several run beside each other on one cluster.

    workload.setup()                  statements to execute once, one after the other
    workload.next(client, draw)       the operation that this client does now
    history.invoke(...), .end(...)    the driver records it (history.py: the file format)
    workload.took(client, operation, outcome)
    workload.final()                  reads to do at the end, all healed, each until it answers
    workload.check(records)           raises Violation in plain words

`linearizability.py` judges a history against a sequential model (models.py).
"""

from tests.workloads.base import (
    FAILED,
    OK,
    REFUSED,
    UNKNOWN,
    Dialogue,
    Operation,
    Outcome,
    Violation,
    Workload,
    outcome_of_error,
)
from tests.workloads.history import History, Record, read_history, write_history
from tests.workloads.linearizability import Verdict, check_linearizable
from tests.workloads.mix import WORKLOADS, Mix, draw_mix

__all__ = [
    "FAILED",
    "OK",
    "REFUSED",
    "UNKNOWN",
    "WORKLOADS",
    "Dialogue",
    "History",
    "Mix",
    "Operation",
    "Outcome",
    "Record",
    "Verdict",
    "Violation",
    "Workload",
    "check_linearizable",
    "draw_mix",
    "outcome_of_error",
    "read_history",
    "write_history",
]
