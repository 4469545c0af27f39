"""SQLite's errors, sorted: a committed result that is the same everywhere, or the end of this node.

The one place where result codes become raftdb's errors (https://www.sqlite.org/rescode.html).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import apsw

from raftdb.base.errors import (
    DatabaseError,
    DataError,
    Error,
    FatalError,
    IntegrityError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
)
from raftdb.machine.format import COLUMNS_MAX, MESSAGE_CHARACTERS_MAX, ROWID_MAX

if TYPE_CHECKING:
    from raftdb.command import Execute
    from raftdb.machine.content import ContentHasher

_FATAL = (
    apsw.FullError,
    apsw.IOError,
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.NoMemError,
    apsw.BusyError,
    apsw.CantOpenError,
    apsw.ProtocolError,
    apsw.ReadOnlyError,
    apsw.PermissionsError,
    apsw.InterruptError,
    apsw.NoLFSError,
)
"""The disk, the memory or another process stood in the way: nothing about the statement."""

_PASSING = (
    apsw.BusyError,
    apsw.CantOpenError,
    apsw.FullError,
    apsw.InterruptError,
    apsw.NoMemError,
    apsw.ProtocolError,
)
"""Of a query: memory, descriptors or room for temporary files were short."""

_DAMAGED = "the file is damaged: the node fetches a copy from another member when it runs"
_UNREADABLE = (apsw.SQLITE_IOERR_READ, apsw.SQLITE_IOERR_SHORT_READ, apsw.SQLITE_IOERR_CORRUPTFS)
"""The device gives back less than it was given: as good as damaged."""
_HINTS: dict[type[BaseException], str] = {
    apsw.FullError: "make room on the disk, then start the node again",
    apsw.IOError: "check the device and the kernel's log, then start the node again",
    apsw.BusyError: "another process has the database open: stop it",
    apsw.CorruptError: _DAMAGED,
    apsw.NotADBError: _DAMAGED,
}

_NAMES: dict[int, str] = {
    int(code): str(name)
    for mapping in (apsw.mapping_result_codes, apsw.mapping_extended_result_codes)
    for name, code in mapping.items()
    if isinstance(name, str)
}
"""SQLite's names of its (extended) result codes."""

_CONSTRAINTS = {
    apsw.SQLITE_CONSTRAINT_CHECK: "constraint_check",
    apsw.SQLITE_CONSTRAINT_DATATYPE: "constraint_datatype",
    apsw.SQLITE_CONSTRAINT_FOREIGNKEY: "constraint_foreign_key",
    apsw.SQLITE_CONSTRAINT_NOTNULL: "constraint_not_null",
    apsw.SQLITE_CONSTRAINT_PRIMARYKEY: "constraint_primary_key",
    apsw.SQLITE_CONSTRAINT_ROWID: "constraint_rowid",
    apsw.SQLITE_CONSTRAINT_TRIGGER: "constraint_trigger",
    apsw.SQLITE_CONSTRAINT_UNIQUE: "constraint_unique",
    apsw.SQLITE_CONSTRAINT_VTAB: "constraint_virtual_table",
}


class StatementFailed(Exception):
    """A user's statement failed; `cause` is what SQLite, or its binding, said."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(cause)
        self.cause = cause


STATEMENT_ERRORS = (apsw.Error, UnicodeError, OverflowError, TypeError, ValueError, KeyError)
"""What executing a user's statement may raise. Anything else is a defect of raftdb."""


def is_fatal(error: Exception) -> bool:
    """Whether the node, and not the statement, is to blame.

    A virtual table that finds its own content inconsistent (an FTS5 index over an external table
    that was changed behind its back) also says CORRUPT, but the statement brought that about: it
    happens on every replica alike and must not stop them all.
    """
    extended = getattr(error, "extendedresult", 0)
    return isinstance(error, _FATAL) and extended != apsw.SQLITE_CORRUPT_VTAB


def fatal(error: BaseException, doing: str) -> FatalError:
    """The error that stops the node."""
    name = type(error).__name__
    if getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_DATA:
        return FatalError(
            f"a page of the database does not fit its checksum (found while {doing})",
            code="page_damaged",
            hint=_DAMAGED,
        )
    if getattr(error, "extendedresult", 0) in _UNREADABLE:
        code = "page_unreadable"
    else:
        corrupt = isinstance(error, apsw.CorruptError | apsw.NotADBError)
        code = "database_corrupt" if corrupt else "database_failed"
    return FatalError(
        f"the database failed while {doing}: {name}: {error}",
        code=code,
        hint=_HINTS.get(type(error), "see the message; the node stops to keep its promises"),
    )


_OF_THE_FILE = ("database_failed", "page_damaged", "page_unreadable", "database_corrupt")


def at(error: FatalError, path: str) -> FatalError:
    """The same, naming the file: SQLite's own message does not."""
    if "file" in error.detail or error.code not in _OF_THE_FILE:
        return error
    named = f"; the database is {path}" if error.code == "database_failed" else ""
    return FatalError(
        error.message + named,
        code=error.code,
        hint=error.hint,
        detail={**error.detail, "file": path},
    )


def translate(error: Exception) -> Error:
    """What a statement's own failure becomes. Deterministic: depends on the error alone.

    Raises FatalError when the node is to blame, and the error itself when it is none of
    STATEMENT_ERRORS.
    """
    if isinstance(error, StatementFailed):
        error = error.cause
    if isinstance(error, Error):
        return error
    if isinstance(error, apsw.Error):
        return _sqlite_error(error)
    if isinstance(error, UnicodeError):
        return DataError(
            "a text value is not valid UTF-8",
            code="utf8",
            hint="keep such bytes as a BLOB",
        )
    if isinstance(error, OverflowError):
        return DataError(_cut(str(error)), hint="integers have 64 bits")
    if isinstance(error, TypeError | ValueError | KeyError):
        return ProgrammingError(_cut(str(error)), code="parameters")
    raise error


def of_query(error: Exception) -> Error:
    """What the failure of a read-only query becomes. Nothing depends on it being the same
    elsewhere: what is short here and now is no reason to stop the node, damage is."""
    if isinstance(error, _PASSING):
        return OperationalError(_cut(str(error)), code="query_failed", retryable=True)
    if isinstance(error, apsw.Error) and is_fatal(error):
        return fatal(error, "answering a query")
    return translate(error)


def _sqlite_error(error: apsw.Error) -> Error:
    if is_fatal(error):
        raise fatal(error, "executing a statement") from error
    made = _by_code(error)
    extended = int(getattr(error, "extendedresult", apsw.SQLITE_ERROR))
    name = _NAMES.get(extended) or _NAMES.get(extended & 0xFF, "SQLITE_ERROR")
    made.detail |= {"sqlite_code": extended, "sqlite_name": name}
    return made


def foreign_key() -> IntegrityError:
    """A deferred key is not satisfied where SQLite would say so at COMMIT."""
    return IntegrityError(
        "FOREIGN KEY constraint failed",
        code="constraint_foreign_key",
        detail={
            "sqlite_code": int(apsw.SQLITE_CONSTRAINT_FOREIGNKEY),
            "sqlite_name": "SQLITE_CONSTRAINT_FOREIGNKEY",
        },
    )


def _by_code(error: apsw.Error) -> Error:
    message = _cut(str(error))
    code = int(getattr(error, "result", apsw.SQLITE_ERROR)) & 0xFF
    extended = int(getattr(error, "extendedresult", code))
    if code == apsw.SQLITE_CONSTRAINT:
        return IntegrityError(message, code=_CONSTRAINTS.get(extended, "constraint"))
    if code == apsw.SQLITE_MISMATCH:
        return IntegrityError(message, code="mismatch")
    if code == apsw.SQLITE_TOOBIG:
        return DataError(message, code="too_big", hint="a value, row or statement is too large")
    if code == apsw.SQLITE_AUTH:
        return NotSupportedError(message)
    if code == apsw.SQLITE_CORRUPT:
        return DatabaseError(message, code="virtual_table_corrupt", hint="rebuild it")
    if code == apsw.SQLITE_LOCKED:
        return OperationalError(message, code="locked")
    if isinstance(error, apsw.BindingsError) or code == apsw.SQLITE_RANGE:
        return ProgrammingError(message, code="parameters")
    return ProgrammingError(message)


def _cut(message: str) -> str:
    if len(message) <= MESSAGE_CHARACTERS_MAX:
        return message
    return message[:MESSAGE_CHARACTERS_MAX] + " …"


def keeps_rows(
    request: Execute, cause: Exception, content: ContentHasher, connection: apsw.Connection
) -> bool:
    """Whether OR FAIL or RAISE(FAIL) left rows that stay, as they do in SQLite outside of a
    transaction: only when the request is one statement, executed once."""
    if (
        not isinstance(cause, apsw.ConstraintError)
        or len(request.statements) != 1
        or len(request.statements[0].parameter_sets) != 1
        or not content.changed_rows()
        or connection.status(apsw.SQLITE_DBSTATUS_DEFERRED_FKS)[0]
    ):
        return False
    if not content.mentions_fail and "FAIL" not in request.statements[0].sql.upper():
        return False
    try:
        content.check_touched()
    except DataError:
        return False
    # SQLite counts no change when it took the statement back. It also counts none when only
    # triggers changed rows before one of them failed.
    return connection.changes() > 0 or content.rows_remain()


def last_rowid(table: str) -> NotSupportedError:
    """Of a row that may not be stored."""
    return NotSupportedError(
        f"rowid {ROWID_MAX} of table {table} is refused",
        code="rowid_max",
        hint="SQLite would pick the rowid after it at random; start from smaller ones",
    )


def no_utf8(table: str) -> DataError:
    """Of text that may not be stored."""
    return DataError(
        f"a text value for table {table} is not valid UTF-8",
        code="utf8",
        hint="keep such bytes as a BLOB",
    )


def too_many_columns(table: str) -> DataError:
    """Of a table whose rows could not be read as a whole."""
    return DataError(
        f"table {table} would have more than {COLUMNS_MAX} columns",
        code="too_many_columns",
        hint="keep the rest of them in a table beside it",
    )


def wrong_sums(what: str) -> FatalError:
    """Of stored sums that are not those of this database."""
    return FatalError(
        f"the content hash does not fit the database: {what}",
        code="database_corrupt",
        hint="the file was changed from outside or is damaged: replace this node by a new member",
    )
