"""A copy that was installed is on the device, with its name, before the node starts again with it:
what it replaces is gone by then (rule M3)."""

from __future__ import annotations

import posixpath
from typing import Any

from tests.sim.checkers.base import Broken, Checker


class CopiesOnTheDevice(Checker):
    def __init__(self) -> None:
        self._nodes: dict[str, Any] = {}

    def after_event(self, node: Any) -> None:
        self._nodes[node.name] = node

    def on_event(self, kind: str, name: str, facts: dict[str, Any]) -> None:
        node = self._nodes.get(name)
        if kind != "starts again" or node is None:
            return
        files = node.journal._files
        directory = posixpath.dirname(posixpath.dirname(str(node.machine.path)))
        pointer = posixpath.join(directory, "CURRENT")
        if not files.exists(pointer):
            # It begins anew, with nothing.
            return
        current = files.read_file(pointer).decode().strip()
        if current == posixpath.basename(posixpath.dirname(str(node.machine.path))):
            # No copy: it found damage, perhaps in the midst of a checkpoint.
            return
        found = files.unsynced(directory) + files.unsynced(posixpath.join(directory, current))
        dirty = [what for what in found if not what.endswith(("-wal", "-shm"))]
        if dirty:
            raise Broken(
                "copies on the device",
                f"{name} starts with a copy, a power cut could still take {dirty[0]}",
            )
