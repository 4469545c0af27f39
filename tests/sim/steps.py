"""How often a write looks at the time and at its steps: more often than a real one does, in steps
of SQLite's virtual machine, so that it does so everywhere, at the end of a COMMIT too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from raftdb.machine import applier, machine, patience, workspace

REST_MAX_S = 0.1
"""And a node that took long with one applies the next ones in passing again after this."""


@contextmanager
def looking(steps: int) -> Iterator[None]:
    """While this lasts, machines that are opened look after so many steps; 0: as they do."""
    if not steps:
        yield
        return
    # The binding asks all that want to be asked as often as the most eager one.
    with (
        mock.patch.object(patience, "GRAIN", steps),
        mock.patch.object(applier, "_BRIEF_STEPS", steps),
        mock.patch.object(workspace, "_BRIEF_STEPS", steps),
        mock.patch.object(machine, "BRIEF_REST_MAX_S", REST_MAX_S),
    ):
        yield
