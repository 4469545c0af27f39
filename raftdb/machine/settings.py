"""The cluster's settings: one row of the meta table, changed by requests and by nothing else.

Nothing here knows what a setting means: names and plain values, as JSON. But for one: the feature
level (raftdb.base.release) only ever rises, and writes what it means into the database.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from raftdb.base.errors import FatalError
from raftdb.base.release import (
    DATABASE_FENCE,
    HIDDEN_LAST_ROWID,
    LEVEL_MAX,
    LOCAL_ANSWERS,
    SETTING,
    USERS_CHANGES,
    allows,
    level_of,
    version_for,
)
from raftdb.command import Configure, Results, StatementResult, encode_reply
from raftdb.machine.format import FORMAT_FENCED, MARK, PREFIX
from raftdb.machine.layout import Run

_LOAD = f"SELECT value FROM {PREFIX}meta WHERE key = 'settings' {MARK}"
_SAVE = f"INSERT OR REPLACE INTO {PREFIX}meta(key, value) VALUES ('settings', ?) {MARK}"
_FENCE = f"UPDATE {PREFIX}meta SET value = ? WHERE key = 'format_version' {MARK}"


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
            if name == SETTING:
                self._raise_level(value)
            elif value is None:
                self._next.pop(name, None)
            else:
                self._next[name] = value
        text = json.dumps(self._next, sort_keys=True, separators=(",", ":"))
        self._run(_SAVE, (text,))
        self.dirty = True
        return encode_reply(Results((StatementResult(("settings",), ((text,),), 1, 0),)))

    def _raise_level(self, value: Any) -> None:
        """A lower one, proposed before a higher one was known, changes nothing. (At level 1, with
        0.1.0 beside, which takes any value, nothing but level 2 is ever proposed.)"""
        level = value if type(value) is int else 0
        if level <= level_of(self._next):
            return
        if level > LEVEL_MAX:
            raise FatalError(
                f"the cluster's feature level was raised to {level}, and this release runs up to "
                f"{LEVEL_MAX}",
                code=SETTING,
                hint=f"install {version_for(level)} or what runs on the other nodes (raftdb status)"
                " and start it: nothing is lost",
            )
        self._next[SETTING] = level
        if allows(DATABASE_FENCE, level):
            self._run(_FENCE, (str(FORMAT_FENCED),))

    def refuses_hidden(self) -> bool:
        """Whether the last rowid is refused where no name reads it, too; as of this request."""
        return allows(HIDDEN_LAST_ROWID, level_of(self._next))

    def refuses_local(self) -> bool:
        """Whether EXPLAIN is refused in a logged request; as of this request."""
        return allows(LOCAL_ANSWERS, level_of(self._next))

    def counts_users_changes(self) -> bool:
        """Whether changes() tells of users' rows alone after a change of the schema."""
        return allows(USERS_CHANGES, level_of(self._next))

    def committed(self) -> None:
        """What was changed is to be seen now."""
        self.current = MappingProxyType(dict(self._next))
        self.dirty = False
