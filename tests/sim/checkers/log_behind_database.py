"""A journal lets go of an entry when the database has it on the device, and not before (rule M2):
what neither has is nowhere at this member. The database is opened as a power cut would leave it."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from raftdb.machine.format import PREFIX
from tests.sim.checkers.base import Broken, Checker

IMAGES_MAX = 6
"""So many databases of a run are looked at."""


class LogBehindDatabase(Checker):
    def __init__(self) -> None:
        self._images = 0

    def on_dropped(self, node: Any) -> None:
        if node.machine.absent:
            return
        dropped, durable = int(node.journal.first_index) - 1, int(node.machine.durable_index)
        if dropped > durable:
            self._broken(node, dropped, f"which says that it is on disk up to {durable}")
        if self._images < IMAGES_MAX:
            self._images += 1
            held = _on_the_device(node)
            if held is not None and dropped > held:
                self._broken(node, dropped, f"of which a power cut leaves {held}")

    @staticmethod
    def _broken(node: Any, dropped: int, what: str) -> None:
        raise Broken(
            "log behind database",
            f"{node.name} drops its log up to {dropped} for the sake of its database, {what}",
        )


def _on_the_device(node: Any) -> int | None:
    """The applied index without all that was not synced; None: it can't be read."""
    files, path = node.journal._files, str(node.machine.path)
    with tempfile.TemporaryDirectory(prefix="raftdb-sim-", dir=_memory()) as directory:
        copy = Path(directory) / "database.sqlite"
        for end in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{copy}{end}").write_bytes(files.durable_content(path + end))
        connection = sqlite3.connect(copy)
        try:
            [(index,)] = connection.execute(f"SELECT idx FROM {PREFIX}applied")
        except sqlite3.Error:
            # Damaged, by a fault or by a bug: others look at that.
            return None
        finally:
            connection.close()
    return int(index)


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
