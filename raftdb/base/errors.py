"""Every error that raftdb raises, shaped after DB-API 2.0 (PEP 249).

    Exception
    └── Error                      code, retryable, outcome, hint
        ├── InterfaceError         the caller used the library wrongly
        ├── ConfigError            a configuration, certificate or directory is not usable
        ├── FatalError             this node can keep its promises no longer: it stops
        └── DatabaseError
            ├── DataError          a value or a size is out of bounds
            ├── IntegrityError     a constraint refused the statement
            ├── ProgrammingError   the statement is wrong
            ├── NotSupportedError  cannot be the same on every node, so it is refused
            ├── InternalError      raftdb found itself in the wrong: report it
            └── OperationalError   the cluster's or a connection's state; often retryable

`outcome` answers "did it take effect?": `not_applied`, `applied` or `unknown`. `code` is a fixed
word for programs; the message is for people and may change; `hint` says what to do.
"""

from __future__ import annotations

from typing import Any, ClassVar

NOT_APPLIED = "not_applied"
APPLIED = "applied"
UNKNOWN = "unknown"
OUTCOMES = (NOT_APPLIED, APPLIED, UNKNOWN)


class Error(Exception):
    """Base of all raftdb errors."""

    default_code: ClassVar[str] = "error"
    default_retryable: ClassVar[bool] = False
    default_outcome: ClassVar[str] = NOT_APPLIED

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        retryable: bool | None = None,
        outcome: str | None = None,
        hint: str = "",
        detail: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.retryable = self.default_retryable if retryable is None else retryable
        self.outcome = outcome or self.default_outcome
        self.hint = hint
        self.detail = detail or {}

    @property
    def sqlite_errorcode(self) -> int | None:
        """SQLite's extended result code (as in the sqlite3 module); None when SQLite had no part
        in it."""
        code = self.detail.get("sqlite_code")
        return code if isinstance(code, int) else None

    @property
    def sqlite_errorname(self) -> str | None:
        """Its name, such as SQLITE_CONSTRAINT_UNIQUE."""
        name = self.detail.get("sqlite_name")
        return name if isinstance(name, str) else None

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InterfaceError(Error):
    """The library was used in a way that it does not allow."""

    default_code = "interface"


class ConfigError(Error):
    """A configuration, a certificate or a directory cannot be used as it is."""

    default_code = "config"


class FatalError(Error):
    """This node can no longer keep a promise, so it stops (a failed fsync, a corrupt record)."""

    default_code = "fatal"
    default_outcome = UNKNOWN


class JournalCorruptError(FatalError):
    """A record of the journal that was durable does not verify any more.

    `detail` has `file` and `offset` (bytes).
    """

    default_code = "journal_corrupt"


class DatabaseError(Error):
    """Anything that has to do with the database."""

    default_code = "database"


class DataError(DatabaseError):
    """A value or a size is out of bounds."""

    default_code = "data"


class IntegrityError(DatabaseError):
    """A constraint refused the statement."""

    default_code = "constraint"


class ProgrammingError(DatabaseError):
    """The statement is wrong: syntax, a missing table, the number of parameters."""

    default_code = "sql"


class NotSupportedError(DatabaseError):
    """Cannot be the same on every node, or is not offered: refused."""

    default_code = "not_supported"


class InternalError(DatabaseError):
    """raftdb found itself in the wrong. Please report it."""

    default_code = "internal"
    default_outcome = UNKNOWN


class OperationalError(DatabaseError):
    """The state of the cluster or of a connection was in the way."""

    default_code = "operational"


class NotLeaderError(OperationalError):
    """This node does not lead. `detail` may have `leader` (node id) and `address` (its client
    address)."""

    default_code = "not_leader"
    default_retryable = True


class UnavailableError(OperationalError):
    """No leader, no quorum, or no node could be reached before the deadline."""

    default_code = "unavailable"
    default_retryable = True


class OverloadedError(OperationalError):
    """Refused early because a queue is full. `detail` has `retry_after_ms`."""

    default_code = "overloaded"
    default_retryable = True


class DeadlineError(OperationalError):
    """The request's deadline passed. For a write the outcome is unknown unless it says more."""

    default_code = "deadline"
    default_outcome = UNKNOWN


class SessionError(OperationalError):
    """The session is unknown or expired, or a sequence is too old for its reply to be kept."""

    default_code = "session"


class ProtocolError(OperationalError):
    """The other side broke the protocol; the connection is closed."""

    default_code = "protocol"


class AuthError(OperationalError):
    """A certificate does not allow this."""

    default_code = "auth"


_CLASSES: dict[str, type[Error]] = {
    cls.default_code: cls
    for cls in (
        InterfaceError,
        ConfigError,
        FatalError,
        DataError,
        IntegrityError,
        ProgrammingError,
        NotSupportedError,
        InternalError,
        OperationalError,
        NotLeaderError,
        UnavailableError,
        OverloadedError,
        DeadlineError,
        SessionError,
        ProtocolError,
        AuthError,
        DatabaseError,
    )
}


def to_wire(error: Error) -> dict[str, Any]:
    """The error as plain values; `from_wire` makes it again on the other side."""
    return {
        "class": type(error).default_code,
        "code": error.code,
        "message": error.message,
        "retryable": error.retryable,
        "outcome": error.outcome,
        "hint": error.hint,
        "detail": error.detail,
    }


def from_wire(value: dict[str, Any]) -> Error:
    """Make the error again. An unknown class becomes DatabaseError (a newer node sent it)."""
    cls = _CLASSES.get(str(value.get("class")), DatabaseError)
    outcome = value.get("outcome")
    return cls(
        str(value.get("message", "")),
        code=str(value.get("code", cls.default_code)),
        retryable=bool(value.get("retryable", False)),
        outcome=outcome if outcome in OUTCOMES else UNKNOWN,
        hint=str(value.get("hint", "")),
        detail=value.get("detail") if isinstance(value.get("detail"), dict) else None,
    )
