"""Applies the COMMIT of an interactive transaction: executes what it executed, once more.

Every statement must bring what it brought on the leader before the COMMIT: the same result or the
same failure, by its digest. Then the transaction is as if it had run here and now, alone; so the
order of the log is the order in which transactions took effect (they are serializable). Otherwise
something that it saw has changed since: all is undone, on every replica alike, and the client gets
an error that says to try again.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Protocol

import apsw

from raftdb.base.errors import DataError, Error, FatalError, OperationalError
from raftdb.command import Commit, Execute, Failed, Results, encode_reply
from raftdb.command.requests import DIGEST_BYTES
from raftdb.machine import failures
from raftdb.machine.content import ContentHasher
from raftdb.machine.determinism import RequestClock
from raftdb.machine.failures import StatementFailed
from raftdb.machine.format import MARK
from raftdb.machine.layout import Run
from raftdb.machine.statements import StatementRunner
from raftdb.machine.switches import RecursiveTriggers
from raftdb.machine.transaction import TransactionRunner

_SAVEPOINT = f"SAVEPOINT r {MARK}"
_RELEASE = f"RELEASE r {MARK}"
_ROLLBACK_TO = f"ROLLBACK TO r {MARK}"
_DONE = encode_reply(Results(()))

CONFLICT = "transaction_conflict"


class TransactionLostError(Exception):
    """A statement rolled back the whole of SQLite's transaction. `reply` is what its request
    gets."""

    def __init__(self, reply: bytes) -> None:
        super().__init__()
        self.reply = reply
        self.place = 0
        """Of the request in its group."""


class Checks(Protocol):
    """What the applier does at and after a statement."""

    recursive_triggers: RecursiveTriggers

    def schema_touched(self) -> None: ...
    def check_foreign_keys(self) -> None: ...


class _Content:
    """The content hash, as the runner sees it."""

    def __init__(self, content: ContentHasher, checks: Checks) -> None:
        self._content = content
        self._checks = checks
        self.refused: Error | None = None
        """Why a row may not be stored: known here only, not in the workspace."""

    @property
    def error(self) -> Error | None:
        if self._content.error is not None:
            self.refused = self._content.error
        return self._content.error

    @error.setter
    def error(self, value: Error | None) -> None:
        self._content.error = value

    def mark(self) -> Any:
        return self._content.mark()

    def reset(self, mark: Any) -> None:
        self._content.reset(mark)
        self._checks.recursive_triggers.take()

    def settle_schema(self, is_dml: bool) -> None:
        self._content.read_blobs()
        if self._content.unknown_table or not is_dml:
            self._checks.schema_touched()


class Replay:
    """Commits on the writer connection, inside the transaction that the applier opened."""

    def __init__(
        self,
        connection: apsw.Connection,
        control: Run,
        clock: RequestClock,
        statements: StatementRunner,
        content: ContentHasher,
        checks: Checks,
    ) -> None:
        self._connection = connection
        self._control = control
        self._clock = clock
        self._hasher = content
        self._checks = checks
        self._content = _Content(content, checks)
        self._runner = TransactionRunner(connection, control, statements, self._content)

    def run(self, request: Commit) -> bytes:
        """The reply. Raises TransactionLostError. The caller sets the time back."""
        self._control(_SAVEPOINT)
        self._hasher.begin_request()
        self._content.refused = None
        self._runner.begin(request.stamp.seed)
        failure: Error | None = None
        number = -1
        for number, recorded in enumerate(request.statements):
            self._clock.set_time(recorded.time_ms)
            step = self._runner.run(recorded.statement, number)
            if step.digest != recorded.digest or step.ended:
                failure = self._content.refused or _conflict(number)
                break
        else:
            failure = self._due_at_commit()
        if failure is None:
            self._control(_RELEASE)
            self._hasher.keep_request()
            return _DONE
        reply = encode_reply(Failed(failure, number))
        if not self._connection.in_transaction:
            raise TransactionLostError(reply)
        self._control(_ROLLBACK_TO)
        self._control(_RELEASE)
        self._hasher.drop_request()
        return reply

    def _due_at_commit(self) -> Error | None:
        """Deferred keys, and what virtual tables have against their content. The leader looked
        before it proposed the COMMIT: what is found now came from another transaction."""
        try:
            self._checks.check_foreign_keys()
        except FatalError:
            raise
        except (StatementFailed, Error) as error:
            if isinstance(error, DataError) and self._hasher.error is None:
                # Text that cannot be stored: known here only, as above.
                return error
            failures.translate(error)
            return self._content.refused or _conflict(-1)
        return None


def _conflict(number: int) -> Error:
    what = f"statement {number}" if number >= 0 else "its end"
    return OperationalError(
        f"the transaction conflicts with another one that was committed meanwhile: {what} would"
        " bring something else now",
        code=CONFLICT,
        retryable=True,
        hint="nothing was applied: retry the whole transaction",
    )


def sql_digest(request: Execute | Commit) -> bytes:
    """Of the SQL that is asked for, without parameters."""
    if isinstance(request, Execute):
        texts = [statement.sql for statement in request.statements]
    else:
        texts = [recorded.statement.sql for recorded in request.statements]
    return blake2b("\0".join(texts).encode(), digest_size=DIGEST_BYTES).digest()
