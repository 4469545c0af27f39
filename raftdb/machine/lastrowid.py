"""The last rowid (2^63 - 1), and sequences that are used up: after them SQLite picks rowids at
random, or says that the disk is full. https://www.sqlite.org/autoinc.html
"""

from __future__ import annotations

from typing import Any

import apsw

from raftdb.base.errors import DataError, Error
from raftdb.machine import failures
from raftdb.machine.determinism import as_integer
from raftdb.machine.format import ROWID_MAX
from raftdb.machine.settings import Settings

_DELETE = int(apsw.SQLITE_DELETE)


def check_last(settings: Settings, table: str, is_readable: bool) -> None:
    """A row gets the last rowid. Raises NotSupportedError. Where no name reads rowids release 0.1.0
    let it pass, so up to its feature level so does this one."""
    if is_readable or settings.refuses_hidden():
        raise failures.last_rowid(table)


def check_sequence(settings: Settings, update: apsw.PreUpdate) -> Error | None:
    """A user writes sqlite_sequence: why not, if so. One that is used up makes SQLite say
    SQLITE_FULL, which must go on meaning that the disk is full."""
    if update.opcode == _DELETE:
        return None
    if update.rowid_new == ROWID_MAX and settings.refuses_hidden():
        # The next table's row there would get a rowid at random.
        return failures.last_rowid("sqlite_sequence")
    try:
        new: Any = update.new
        used_up = as_integer(new[1]) >= ROWID_MAX
    except UnicodeError:
        used_up = True
    if used_up:
        return DataError(f"a sequence in sqlite_sequence must stay below {ROWID_MAX}")
    return None
