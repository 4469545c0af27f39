"""Bugs between a lane and whoever runs beside it: only work that stops in its midst shows them."""

from __future__ import annotations

from typing import Any

from raftdb.machine.logguard import LogGuard, Note
from tests.sim.planted.bug import Bug, Patch


def _note_of_another_log() -> list[Patch]:
    """The salt is read when the checkpoint has ended, the frames are those that it had."""

    def after(self: Any, frames: int, *, complete: bool) -> None:
        salt = self._salt()
        if salt is None or (not complete and self._known(salt, frames)):
            return
        note = Note(salt, frames, complete)
        if note != self._written:
            self._write(note)

    return [(LogGuard, "after", after)]


BUGS = [
    Bug(
        "note-of-another-log",
        "M2",
        "a checkpoint's note takes the write-ahead log that a commit began meanwhile for its own",
        make=_note_of_another_log,
        threads=True,
    ),
]
