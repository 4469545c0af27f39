"""Executes the statements of an interactive transaction, one by one.

The same code runs twice: first in a workspace, when the client sends a statement, then on every
replica's writer connection, when the transaction's COMMIT is applied. What it brings is compared by
digests, so it must depend on nothing but the statement, its time, the seed and the content.

A statement that fails leaves the transaction open and its own changes undone, as SQLite does
(https://www.sqlite.org/lang_conflict.html): OR FAIL and RAISE(FAIL) keep the rows before the
failing one, OR ROLLBACK and RAISE(ROLLBACK) end the transaction.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Any, Protocol

import apsw

from raftdb.base.errors import DataError, Error, FatalError, NotSupportedError, ProgrammingError
from raftdb.base.frozen import frozen
from raftdb.command import Failed, Results, Statement, encode_reply
from raftdb.command.requests import DIGEST_BYTES
from raftdb.machine import failures
from raftdb.machine.failures import StatementFailed
from raftdb.machine.format import MARK, RESULT_BYTES_MAX, SAVEPOINTS_MAX
from raftdb.machine.layout import Run
from raftdb.machine.sqltext import CONTROL, DML, leading_verb, words
from raftdb.machine.statements import StatementRunner

_OPEN = f"SAVEPOINT s {MARK}"
_KEEP = f"RELEASE s {MARK}"
_UNDO = f"ROLLBACK TO s {MARK}"
_TRANSACTION_VERBS = frozenset(("BEGIN", "COMMIT", "END"))
_NAME = re.compile(
    r"""(?P<q>['"`])(?P<quoted>.*)(?P=q)|\[(?P<bracketed>.*)\]|(?P<plain>.+)""", re.S
)


class Content(Protocol):
    """What follows the rows of the connection, where something does."""

    error: Error | None
    """Why the statement that just ran may not stand."""

    def mark(self) -> Any:
        """Where the content stands now; right after a savepoint was opened."""

    def reset(self, mark: Any) -> None:
        """The savepoint was rolled back to."""

    def settle_schema(self, is_dml: bool) -> None:
        """A statement stands: look at the schema if it may have changed."""


class NoContent:
    """Nothing follows the rows."""

    error: Error | None = None

    def mark(self) -> Any:
        """Nothing to remember."""

    def reset(self, mark: Any) -> None:
        """Nothing to do."""

    def settle_schema(self, is_dml: bool) -> None:
        """Nothing to do."""


@frozen
class Step:
    """What one statement brought."""

    reply: bytes
    """Encoded Results or Failed."""
    digest: bytes
    is_read: bool
    """It changed nothing, whatever became of it."""
    ended: bool = False
    """It ended the transaction, and with it all of its effects."""


class _Savepoint:
    """One that the user opened."""

    __slots__ = ("mark", "name")

    def __init__(self, name: str, mark: Any) -> None:
        self.name = name
        self.mark = mark


class TransactionRunner:
    """Runs statements inside the transaction, or savepoint, that the caller opened."""

    def __init__(
        self,
        connection: apsw.Connection,
        control: Run,
        statements: StatementRunner,
        content: Content,
    ) -> None:
        self._connection = connection
        self._control = control
        self._statements = statements
        self._content = content
        self._savepoints: list[_Savepoint] = []

    def begin(self, seed: bytes) -> None:
        """The transaction begins."""
        self._savepoints.clear()
        self._statements.begin_request(seed)

    def run(self, statement: Statement, number: int) -> Step:
        """Execute one. Raises FatalError, and InterruptError when it was given up from outside."""
        verb = leading_verb(statement.sql)
        try:
            if verb in CONTROL:
                self._move(verb, statement)
                return _step(encode_reply(_NOTHING), is_read=True)
            return self._statement(verb, statement, number)
        except (FatalError, apsw.InterruptError):
            raise
        except (StatementFailed, Error) as error:
            return self._failed(error)

    # One statement

    def _statement(self, verb: str, statement: Statement, number: int) -> Step:
        if verb in _TRANSACTION_VERBS:
            raise ProgrammingError("cannot start a transaction within a transaction")
        if verb == "ANALYZE":
            raise NotSupportedError(
                "refused: ANALYZE in a transaction", hint="run it as a request of its own"
            )
        content = self._content
        self._flush(_OPEN)
        mark = content.mark()
        self._statements.renew_room()
        try:
            result = self._statements.run(statement, number)
            if content.error is not None:
                raise content.error
            content.settle_schema(verb in DML)
            reply = encode_reply(Results((result,)))
            if len(reply) > RESULT_BYTES_MAX:
                raise DataError("the result is too large", code="result_too_large")
        except (FatalError, apsw.InterruptError):
            raise
        except (StatementFailed, Error) as error:
            if self._connection.in_transaction:
                self._undo(statement, mark, error)
            raise
        self._control(_KEEP)
        return _step(reply, is_read=self._statements.is_read(statement.sql))

    def _flush(self, control: str) -> None:
        """Open a savepoint; virtual tables write what they kept in memory, and may fail."""
        try:
            self._control(control)
        except apsw.InterruptError:
            raise
        except apsw.Error as error:
            raise StatementFailed(error) from error

    def _undo(self, statement: Statement, mark: Any, error: Exception) -> None:
        """The statement failed and the transaction goes on."""
        if isinstance(error, StatementFailed) and self._keeps_rows(statement, error.cause):
            self._content.settle_schema(is_dml=True)
        else:
            self._control(_UNDO)
            self._content.reset(mark)
        self._control(_KEEP)

    def _keeps_rows(self, statement: Statement, cause: Exception) -> bool:
        """OR FAIL: SQLite counts no change when it took the statement back."""
        return (
            isinstance(cause, apsw.ConstraintError)
            and len(statement.parameter_sets) == 1
            and self._connection.changes() > 0
        )

    def _failed(self, error: Exception) -> Step:
        content = self._content
        if content.error is not None:
            error, content.error = content.error, None
        failure = failures.translate(error)
        ended = not self._connection.in_transaction
        if ended:
            failure.detail["transaction"] = "ended"
        return _step(encode_reply(Failed(failure, 0)), is_read=False, ended=ended)

    # Savepoints (https://www.sqlite.org/lang_savepoint.html)

    def _move(self, verb: str, statement: Statement) -> None:
        if statement.parameter_sets != ((),):
            raise ProgrammingError(f"{verb} takes no parameters", code="parameters")
        if verb == "SAVEPOINT":
            self._savepoint(_name(statement.sql, ("SAVEPOINT",)))
        elif verb == "RELEASE":
            place = self._place(_name(statement.sql, ("RELEASE", "?SAVEPOINT")))
            self._control(f"RELEASE u{place} {MARK}")
            del self._savepoints[place:]
        else:
            rest = ("ROLLBACK", "?TRANSACTION", "TO", "?SAVEPOINT")
            place = self._place(_name(statement.sql, rest))
            self._control(f"ROLLBACK TO u{place} {MARK}")
            self._content.reset(self._savepoints[place].mark)
            del self._savepoints[place + 1 :]
            self._statements.forget_infos()

    def _savepoint(self, name: str) -> None:
        if len(self._savepoints) >= SAVEPOINTS_MAX:
            raise DataError(
                f"more than {SAVEPOINTS_MAX} savepoints are open",
                code="too_many_savepoints",
                hint="RELEASE those that are not needed any more",
            )
        # Names of our own, by depth: the user's may be anything, ours included.
        self._flush(f"SAVEPOINT u{len(self._savepoints)} {MARK}")
        self._savepoints.append(_Savepoint(name, self._content.mark()))

    def _place(self, name: str) -> int:
        for place in range(len(self._savepoints) - 1, -1, -1):
            if self._savepoints[place].name == name:
                return place
        raise ProgrammingError(f"no such savepoint: {name}")


_NOTHING = Results(())


def _step(reply: bytes, *, is_read: bool, ended: bool = False) -> Step:
    return Step(reply, blake2b(reply, digest_size=DIGEST_BYTES).digest(), is_read, ended)


def _name(sql: str, syntax: tuple[str, ...]) -> str:
    """The savepoint's name behind these words (`?` marks those that may be left out), folded as
    SQLite compares names. Raises ProgrammingError."""
    rest = words(sql)
    for word in syntax:
        optional = word.startswith("?")
        word = word.removeprefix("?")
        # An optional word that is the last one is the name itself.
        if rest and rest[0] == word and not (optional and len(rest) == 1):
            rest = rest[1:]
        elif not optional:
            break
    else:
        match = _NAME.fullmatch(rest[0]) if len(rest) == 1 else None
        if match is not None:
            name = match["plain"] or match["bracketed"] or match["quoted"] or ""
            quote = match["q"]
            return (name.replace(2 * quote, quote) if quote else name).lower()
    raise ProgrammingError(f"syntax error in {' '.join(words(sql))}")
