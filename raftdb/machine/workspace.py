"""Where an interactive transaction runs before its COMMIT: a private view of the database.

One workspace is two connections: a reader that holds the snapshot, and one on an overlay of it,
which is configured as the writer is, so that a statement brings here what it will bring there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import apsw

from raftdb.base.errors import DataError, Error, FatalError, OperationalError, OverloadedError
from raftdb.command import Statement
from raftdb.machine import failures
from raftdb.machine.connections import open_overlay, open_reader
from raftdb.machine.determinism import RequestFunctions
from raftdb.machine.format import MARK, PAGE_BYTES, TIME_MS_MAX
from raftdb.machine.overlay import LogIndex, OverlayVfs, PageBudget
from raftdb.machine.policy import WriteAuthorizer
from raftdb.machine.statements import StatementRunner
from raftdb.machine.stored import Progress, shown_index
from raftdb.machine.switches import RecursiveTriggers
from raftdb.machine.transaction import NoContent, Step, TransactionRunner

_STEPS = 50_000
"""Steps of SQLite's virtual machine between two looks whether to stop: a few milliseconds."""
_IDLE_MAX = 4
"""Workspaces that are kept for the next transactions."""


@dataclass(frozen=True, slots=True)
class Executed:
    """One statement, and what it brought."""

    step: Step
    time_ms: int
    """Its time, to be recorded."""


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


class Workspace:
    """One transaction at a time; one thread at a time, but for `stop`."""

    def __init__(
        self, path: str, vfs: str, log_index: LogIndex, budget: PageBudget, pages_max: int
    ) -> None:
        self._pages_max = pages_max
        self._reader = open_reader(path, vfs)
        self._vfs = OverlayVfs(self._reader, log_index, budget)
        self._connection: apsw.Connection | None = None
        self._held = False
        self._stopping = False
        self._foreign_keys = True
        self._schema_version = -1
        self._time_ms = 0
        self.index = 0
        """The log index that the snapshot shows."""
        self._count = 0
        self.broken = False
        """It is not to be used again."""

    # The snapshot

    def hold(self) -> None:
        """Begin the snapshot: the last commit. With the writer held back."""
        self._reader.execute(f"BEGIN {MARK}")
        self._held = True
        self._reader.execute(f"SELECT 1 FROM sqlite_schema LIMIT 1 {MARK}").fetchall()

    def begin(
        self,
        salt: bytes,
        frames: int,
        progress: Progress,
        seed: bytes,
        foreign_keys: bool,
        recursive_triggers: bool,
    ) -> None:
        """Begin a transaction on the snapshot that is held: the log's first `frames` frames, which
        have that salt, and the file. The snapshot has `recursive_triggers` so."""
        [(pages,)] = self._reader.execute(f"PRAGMA page_count {MARK}")
        self._vfs.begin(salt, frames, pages, self._pages_max)
        connection = self._connection
        if connection is None:
            connection = self._connect()
        if foreign_keys != self._foreign_keys:
            self._foreign_keys = foreign_keys
            self._control(f"PRAGMA foreign_keys = {int(foreign_keys)} {MARK}")
        self._triggers.set(recursive_triggers)
        self._control(f"BEGIN IMMEDIATE {MARK}")
        self._renew_schema()
        self._time_ms = progress.time_ms
        self.index = shown_index(progress)
        self._count = 0
        self._stopping = False
        self._runner.begin(seed)

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

    def execute(self, statement: Statement, time_ms: int) -> Executed:
        """Execute one statement at that time, or at a later one: time never runs backwards within
        a transaction, nor from the commits before it. Raises an Error when the transaction is over
        (nothing of it is or will be applied)."""
        assert self._connection is not None
        self._time_ms = min(max(time_ms, self._time_ms), TIME_MS_MAX)
        self._vfs.set_time(self._time_ms)
        number, self._count = self._count, self._count + 1
        try:
            step = self._runner.run(statement, number)
        except Exception as error:
            self.broken = True
            raise self._over(error) from error
        return Executed(step, self._time_ms)

    def _over(self, error: Exception) -> Error:
        """Why the transaction cannot go on. What is damaged is found, and stops the node, where
        reads and commits meet it."""
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

    def close(self) -> None:
        """Close the connections."""
        if self._connection is not None:
            self._connection.close(True)
        self._vfs.end()
        self._reader.close(True)
        self._vfs.unregister()


class Workspaces:
    """At most `open_max` workspaces in use. From any thread."""

    def __init__(
        self, path: str, vfs: str, open_max: int, pages_max: int, pages_all_max: int
    ) -> None:
        """`pages_max`: of one; `pages_all_max`: of all together."""
        self._budget = PageBudget(pages_all_max)
        self._path = path
        self._vfs = vfs
        self._open_max = open_max
        self._pages_max = pages_max
        self._log_index = LogIndex()
        self._lock = threading.Lock()
        self._idle: list[Workspace] = []
        self._used: list[Workspace] = []
        self._closed = False

    def take(self) -> Workspace:
        """One for a transaction. Raises OverloadedError when too many are open, FatalError when
        the file is damaged."""
        with self._lock:
            if self._closed:
                raise OperationalError("the database is closed", code="closed")
            if len(self._used) >= self._open_max:
                raise OverloadedError(
                    f"{self._open_max} transactions are open on the leader",
                    code="transactions_full",
                    hint="try again a little later",
                    detail={"retry_after_ms": 100},
                )
            if self._idle:
                workspace = self._idle.pop()
            else:
                workspace = self._make()
            self._used.append(workspace)
            return workspace

    def _make(self) -> Workspace:
        try:
            return Workspace(self._path, self._vfs, self._log_index, self._budget, self._pages_max)
        except apsw.Error as error:
            raise failures.of_query(error) from error

    def give_back(self, workspace: Workspace) -> None:
        """Its transaction is over."""
        try:
            if not workspace.broken:
                workspace.end()
        except apsw.Error:
            workspace.broken = True
        with self._lock:
            if workspace not in self._used:
                return
            self._used.remove(workspace)
            if not (workspace.broken or self._closed or len(self._idle) >= _IDLE_MAX):
                self._idle.append(workspace)
                return
        workspace.close()

    def close(self) -> None:
        """Stop what runs; close what is idle. What is in use is closed when it is given back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            for workspace in self._used:
                workspace.stop()
        for workspace in idle:
            workspace.close()
