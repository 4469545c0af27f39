"""Bugs between a lane and whoever runs beside it: only work that stops in its midst shows them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from raftdb.machine.logguard import LogGuard, Note
from tests.sim.planted.bug import Bug, Patch
from tests.sim.planted.script import Script


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
    ),
]

KILLS = 30


def killed_beside_checkpoints(s: Script) -> None:
    """Processes are killed under load, one after the other, whatever their checkpoints are at."""
    draw = random.Random(s.world.seed)
    clients = [s.new_client() for _ in range(3)]
    running = True

    def write(client: Any) -> None:
        if running and not client.busy:
            s.write(client.number, client)
        if running:
            s.world.at(0.02, write, client)

    for client in clients:
        write(client)
    for _ in range(KILLS):
        s.run_for(draw.uniform(0.2, 0.8))
        name = draw.choice(s.cluster.members).node_id
        s.cluster.kill(str(name), power=False)
        s.run_for(0.05)
        s.cluster.start(str(name))
    running = False


PLAYS: dict[str, tuple[Callable[[Script], None], dict[str, Any]]] = {
    "killed-beside-checkpoints": (
        killed_beside_checkpoints,
        {"job_chance": 1.0, "stop_chance": 0.2, "wal_bytes": 40_000, "tries": 12},
    ),
}
SCRIPTED = {"note-of-another-log": "killed-beside-checkpoints"}
