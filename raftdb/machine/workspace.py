"""Where an interactive transaction runs before its COMMIT: a private view of the database.

One workspace is two connections: a reader that holds the snapshot, and one on an overlay of it,
which is configured as the writer is, so that a statement brings here what it will bring there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import apsw

from raftdb.base.errors import (
    DataError,
    Error,
    FatalError,
    InternalError,
    OperationalError,
    OverloadedError,
)
from raftdb.command import Recorded, Statement
from raftdb.machine import failures
from raftdb.machine.connections import open_overlay, open_reader
from raftdb.machine.determinism import RequestFunctions, keep_utc
from raftdb.machine.format import MARK, PAGE_BYTES, TIME_MS_MAX
from raftdb.machine.overlay import LogIndex, OverlayVfs, PageBudget
from raftdb.machine.policy import WriteAuthorizer
from raftdb.machine.statements import StatementRunner
from raftdb.machine.stored import Progress, shown_index
from raftdb.machine.switches import RecursiveTriggers
from raftdb.machine.transaction import NoContent, Step, TransactionRunner

_STEPS = 50_000
"""Steps of SQLite's virtual machine between two looks whether to stop: a few milliseconds."""
BRIEF_S = 0.001
"""How long a statement may take that is tried in passing (`Workspace.execute_briefly`)."""
_BRIEF = "raftdb-brief"
_BRIEF_STEPS = 2_000
"""Steps between two looks at the time then: some tens of microseconds."""
_BRIEF_PAGES = 64
"""What wrote no more pages is ended in passing."""
_SHORT_BYTES = 16_384
_LONG_S = 10.0
"""For so long a statement that took longer is not tried in passing again."""
_LONG_MAX = 256
_LEAN_BYTES = 160 * 1024
"""Of two connections without pages and statements: SQLite's small memory, and Python's objects."""
_MEMORY = (
    apsw.SQLITE_DBSTATUS_CACHE_USED,
    apsw.SQLITE_DBSTATUS_SCHEMA_USED,
    apsw.SQLITE_DBSTATUS_STMT_USED,
)


@dataclass(frozen=True, slots=True)
class Executed:
    """One statement, and what it brought."""

    step: Step
    time_ms: int
    """Its time, to be recorded."""


@dataclass(frozen=True, slots=True)
class SnapshotState:
    """What belongs to a snapshot: the log's first `frames` frames, which have that salt, and the
    file."""

    salt: bytes
    frames: int
    progress: Progress
    recursive_triggers: bool
    epoch: int = 0
    """Counts commits that changed the schema or the planner's statistics."""
    has_virtual: bool = False
    """There are virtual tables."""


class _Content(NoContent):
    """Notices changes of the schema."""

    def __init__(self, triggers: RecursiveTriggers) -> None:
        self.schema_changed = False
        self.forget: Callable[[], None] = lambda: None
        self._triggers = triggers

    def mark(self) -> bool:
        return self._triggers.on

    def reset(self, mark: bool) -> None:
        self._triggers.set(mark)

    def settle_schema(self, is_dml: bool) -> None:
        if not is_dml:
            self.schema_changed = True
            self.forget()
            self._triggers.look()


class LongOnes:
    """Statements that are not tried in passing, for a while. On the loop."""

    def __init__(self) -> None:
        self._until_s: dict[str, float] = {}

    def has(self, sql: str, now_s: float) -> bool:
        return self._until_s.get(sql, 0.0) > now_s

    def add(self, sql: str, now_s: float) -> None:
        if len(self._until_s) >= _LONG_MAX:
            self._until_s.clear()
        self._until_s[sql] = now_s + _LONG_S


class Workspace:
    """One transaction at a time; one thread at a time, but for `stop`."""

    def __init__(
        self,
        path: str,
        vfs: str,
        log_index: LogIndex,
        budget: PageBudget,
        pages_max: int,
        long_ones: LongOnes,
    ) -> None:
        self._pages_max = pages_max
        self._long_ones = long_ones
        self._reader = open_reader(path, vfs)
        self._vfs = OverlayVfs(self._reader, log_index, budget)
        self._connection: apsw.Connection | None = None
        self._held = False
        self._stopping = False
        self._foreign_keys = True
        self._schema_version = -1
        self._seed = b""
        self._recursive_triggers = False
        self._epoch = -1
        self._has_virtual = False
        self._wrote = False
        """Something that may have to be forgotten."""
        self._begun_ms = self._time_ms = 0
        self.index = 0
        """The log index that the snapshot shows."""
        self.applied = 0
        """The last entry of which it shows all."""
        self._count = 0
        self._spoilt = False
        """A statement was given up in its midst: the transaction has to begin again."""
        self.broken = False
        """It is not to be used again."""

    # The snapshot

    def hold(self) -> None:
        """Begin the snapshot: the last commit. With the writer held back."""
        self._reader.execute(f"BEGIN {MARK}")
        self._held = True
        self._reader.execute(f"SELECT 1 FROM sqlite_schema LIMIT 1 {MARK}").fetchall()

    def begin(self, state: SnapshotState, seed: bytes, foreign_keys: bool) -> None:
        """Begin a transaction on the snapshot that is held."""
        [(pages,)] = self._reader.execute(f"PRAGMA page_count {MARK}")
        self._vfs.begin(state.salt, state.frames, pages, self._pages_max)
        if self._connection is None:
            self._connect()
        if foreign_keys != self._foreign_keys:
            self._foreign_keys = foreign_keys
            self._control(f"PRAGMA foreign_keys = {int(foreign_keys)} {MARK}")
        self._seed, self._recursive_triggers = seed, state.recursive_triggers
        self._has_virtual = state.has_virtual
        self._wrote, wrote = False, self._wrote
        if state.epoch != self._epoch or (wrote and state.has_virtual):
            self._epoch = state.epoch
            self._forget_memory()
        progress = state.progress
        self._begun_ms = progress.time_ms
        self.index, self.applied = shown_index(progress), int(progress.index)
        self._stopping = False
        self._start()

    def _forget_memory(self) -> None:
        """ANALYZE tells only the connection that runs it of its statistics, and what FTS remembers
        of a transaction outlives its rollback: read all that again, outside of transactions."""
        self._control(f"PRAGMA writable_schema = RESET {MARK}")

    def _start(self) -> None:
        self._triggers.set(self._recursive_triggers)
        self._control(f"BEGIN IMMEDIATE {MARK}")
        self._renew_schema()
        self._time_ms = self._begun_ms
        self._count = 0
        self._spoilt = False
        self._runner.begin(self._seed)

    def _restart(self, recorded: Sequence[Recorded]) -> None:
        """Begin again on the same snapshot, and bring what was brought."""
        assert self._connection is not None
        if self._connection.in_transaction:
            self._control(f"ROLLBACK {MARK}")
        self._vfs.restart()
        if self._has_virtual:
            self._forget_memory()
        self._start()
        for one in recorded:
            if self._run(one.statement, one.time_ms).step.digest != one.digest:
                raise InternalError("what ran again brought something else; please report it")

    def _connect(self) -> apsw.Connection:
        connection = self._connection = open_overlay(self._vfs.name)
        connection.set_progress_handler(lambda: self._stopping, _STEPS)
        self._control = connection.cursor().execute
        self._authorizer = WriteAuthorizer()
        connection.authorizer = self._authorizer
        self._triggers = RecursiveTriggers(self._control)
        self._content = _Content(self._triggers)
        self._statements = StatementRunner(
            connection, self._authorizer, RequestFunctions(connection)
        )
        self._content.forget = self._statements.forget_infos
        self._runner = TransactionRunner(connection, self._control, self._statements, self._content)
        return connection

    def _renew_schema(self) -> None:
        """What compiling statements told holds as long as the schema is the same."""
        [(version,)] = self._control(f"PRAGMA schema_version {MARK}")
        if version != self._schema_version or self._content.schema_changed:
            self._statements.forget_infos()
            # SQLite would go by the schema that it remembers, where it finds a statement wrong.
            self._control(f"SELECT 1 FROM sqlite_schema LIMIT 1 {MARK}").fetchall()
        self._schema_version = version
        self._content.schema_changed = False

    # Statements

    def execute(
        self, statement: Statement, time_ms: int, recorded: Sequence[Recorded] = ()
    ) -> Executed:
        """Execute one statement at that time, or at a later one: time never runs backwards within
        a transaction, nor from the commits before it. Raises an Error when the transaction is over
        (nothing of it is or will be applied). `recorded`: all that was executed before, in case
        that has to be done again (`execute_briefly`)."""
        try:
            if self._spoilt:
                self._restart(recorded)
            return self._run(statement, time_ms)
        except Exception as error:
            self.broken = True
            raise self._over(error) from error

    def execute_briefly(
        self, statement: Statement, time_ms: int, now_s: Callable[[], float]
    ) -> Executed | None:
        """`execute` on the calling thread, when that takes no longer than about BRIEF_S. None: it
        does, or may, and has to be executed elsewhere. Saves two hand-overs between threads."""
        sql, start_s = statement.sql, now_s()
        if self._spoilt or self._long_ones.has(sql, start_s) or not _is_short(statement):
            return None
        connection = self._connection
        assert connection is not None
        end_s = start_s + BRIEF_S
        connection.set_progress_handler(lambda: now_s() > end_s, _BRIEF_STEPS, id=_BRIEF)
        self._statements.brief = True
        try:
            return self._run(statement, time_ms)
        except Exception as error:
            if isinstance(error.__cause__ or error, apsw.InterruptError):
                # SQLite may have rolled back all there was (https://www.sqlite.org/c3ref/interrupt.html).
                self._spoilt = True
                self._long_ones.add(sql, start_s)
                return None
            self.broken = True
            raise self._over(error) from error
        finally:
            self._statements.brief = False
            connection.set_progress_handler(None, id=_BRIEF)

    def _run(self, statement: Statement, time_ms: int) -> Executed:
        self._time_ms = min(max(time_ms, self._time_ms), TIME_MS_MAX)
        self._vfs.set_time(self._time_ms)
        keep_utc()
        number, self._count = self._count, self._count + 1
        step = self._runner.run(statement, number)
        self._wrote = self._wrote or not step.is_read
        return Executed(step, self._time_ms)

    def _over(self, error: Exception) -> Error:
        """Why the transaction cannot go on. FatalError: a page below it is damaged, and this node's
        database is no good, though no query and no commit has met that page yet (rule M8)."""
        if self._vfs.failed is not None:
            found = failures.of_query(self._vfs.failed)
            if isinstance(found, FatalError):
                return found
        if self._vfs.full:
            return DataError(
                f"the transaction wrote more than {self._pages_max * PAGE_BYTES} bytes of pages",
                code="transaction_too_large",
                hint="split it into smaller transactions",
            )
        if self._vfs.starved:
            return OverloadedError(
                "the open transactions of this node have written too many pages together",
                code="transactions_full",
                hint="nothing was applied: retry the transaction; limits.transactions_bytes_max",
                detail={"retry_after_ms": 100},
            )
        if self._stopping:
            return OperationalError(
                "the statement ran too long, and its transaction is over",
                code="transaction_timeout",
                hint="nothing was applied; ask for less, or give it a longer timeout",
            )
        if isinstance(error, FatalError):
            error = error.__cause__ if isinstance(error.__cause__, Exception) else error
        return OperationalError(
            f"the transaction failed: {type(error).__name__}: {error}",
            code="transaction_failed",
            retryable=True,
            hint="nothing was applied: retry the transaction",
        )

    def keys_are_due(self) -> bool:
        """Whether deferred foreign keys stand in the way of a COMMIT."""
        assert self._connection is not None
        return bool(self._connection.status(apsw.SQLITE_DBSTATUS_DEFERRED_FKS)[0])

    def stop(self) -> None:
        """End the statement that runs, and with it the transaction. From any thread."""
        self._stopping = True

    # The end

    def ends_briefly(self) -> bool:
        """Whether `end` has little to do."""
        return not self.broken and self._vfs.pages_written() <= _BRIEF_PAGES

    def end(self) -> None:
        """Forget the transaction and let the snapshot go."""
        connection = self._connection
        if connection is not None and connection.in_transaction:
            self._stopping = False
            self._control(f"ROLLBACK {MARK}")
        self._vfs.end()
        if self._held:
            self._held = False
            self._reader.execute(f"ROLLBACK {MARK}")

    def shrink(self) -> int:
        """Let go of cached pages, with no transaction open; the bytes that it still takes."""
        size = _LEAN_BYTES
        for connection in (self._reader, self._connection):
            if connection is not None:
                connection.execute(f"PRAGMA shrink_memory {MARK}")
                size += sum([connection.status(what)[0] for what in _MEMORY])
        return size

    def close(self) -> None:
        """Close the connections."""
        if self._connection is not None:
            self._connection.close(True)
        self._vfs.end()
        self._reader.close(True)
        self._vfs.unregister()


def _is_short(statement: Statement) -> bool:
    """Whether it has one set of parameters, no long literals and no long values."""
    if len(statement.parameter_sets) > 1:
        return False
    size = len(statement.sql)
    for parameters in statement.parameter_sets:
        values = parameters.values() if isinstance(parameters, dict) else parameters
        size += sum(len(value) for value in values if isinstance(value, str | bytes))
    return size <= _SHORT_BYTES
