"""The cluster's settings: one row of the meta table, changed by requests and by nothing else.

Nothing here knows what a setting means: names and plain values, as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from raftdb.command import Configure, Results, StatementResult, encode_reply
from raftdb.machine.format import MARK, PREFIX
from raftdb.machine.layout import Run

_LOAD = f"SELECT value FROM {PREFIX}meta WHERE key = 'settings' {MARK}"
_SAVE = f"INSERT OR REPLACE INTO {PREFIX}meta(key, value) VALUES ('settings', ?) {MARK}"


class Settings:
    """On the apply lane, but for `current`."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._next: dict[str, Any] = {}
        self.dirty = False
        """Changed since the last commit."""
        self.current: Mapping[str, Any] = MappingProxyType({})
        """As of the last commit. Replaced as a whole: any thread may look."""

    def load(self) -> None:
        """As of the last commit."""
        rows = list(self._run(_LOAD))
        self._next = json.loads(rows[0][0]) if rows else {}
        self.committed()

    def change(self, request: Configure) -> bytes:
        """Take a change; the reply holds all settings then, as JSON."""
        for name, value in request.changes.items():
            if value is None:
                self._next.pop(name, None)
            else:
                self._next[name] = value
        text = json.dumps(self._next, sort_keys=True, separators=(",", ":"))
        self._run(_SAVE, (text,))
        self.dirty = True
        return encode_reply(Results((StatementResult(("settings",), ((text,),), 1, 0),)))

    def committed(self) -> None:
        """What was changed is to be seen now."""
        self.current = MappingProxyType(dict(self._next))
        self.dirty = False
