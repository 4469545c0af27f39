"""The schema's part of the content hash."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from raftdb.base.errors import NotSupportedError
from raftdb.machine.format import MARK, OWN_TABLES, PREFIX
from raftdb.machine.layout import Run
from raftdb.machine.policy import OWN_NAMES
from raftdb.machine.rowhash import RowHasher
from raftdb.machine.switches import stored_switch


def users_objects(rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Rows of sqlite_schema (its third column is tbl_name) without what belongs to raftdb.

    Raises NotSupportedError when a user's object took a name that belongs to raftdb: ALTER TABLE
    does not tell the authorizer the new name.
    """
    objects = []
    for row in rows:
        if row[2] in OWN_TABLES:
            continue
        if row[2][: len(PREFIX)].lower() == PREFIX:
            raise NotSupportedError(f"refused: {OWN_NAMES}")
        objects.append(row)
    return objects


def schema_sum(hasher: RowHasher, run: Run, rows: list[tuple[Any, ...]]) -> int:
    """Over (type, name, tbl_name, sql) of the users' objects, user_version, application_id, and
    recursive_triggers where it is on."""
    parts: list[tuple[Any, ...]] = [(kind, name, on, sql) for kind, name, on, _root, sql in rows]
    for pragma in ("user_version", "application_id"):
        [(value,)] = run(f"PRAGMA {pragma} {MARK}")
        parts.append(("pragma", pragma, None, value))
    if stored_switch(run):
        parts.append(("pragma", "recursive_triggers", None, 1))
    return hasher.sum(parts)
