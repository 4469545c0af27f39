"""The workspaces of a machine: one for each open transaction, and those kept for the next ones.

To open one costs more than a transaction does in it, so they are kept; but each may hold megabytes
of cached pages. So a few stay as they are, and the others give their pages up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import apsw

from raftdb.base.errors import OperationalError, OverloadedError
from raftdb.base.limits import Limits
from raftdb.machine import failures
from raftdb.machine.applier import Applier
from raftdb.machine.format import PAGE_BYTES
from raftdb.machine.overlay import LogIndex, PageBudget, log_salt
from raftdb.machine.workspace import LongOnes, SnapshotState, Workspace

WARM_MAX = 4
"""Workspaces that are kept as they are for the next transactions. More of them are kept without
their cached pages, as many as `limits.transactions_idle_bytes_max` has room for."""


@dataclass(frozen=True, slots=True)
class Source:
    """The machine, as far as snapshots need it."""

    lock: threading.Lock
    """Holds the writer back."""
    state: Callable[[], SnapshotState]
    """As of the last commit; with `lock` held. Raises FatalError when the node is at its end."""


def state_of(writer: apsw.Connection, applier: Applier) -> SnapshotState:
    """As of the last commit; with the writer held back."""
    frames, _moved = writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
    return SnapshotState(
        log_salt(writer) if frames > 0 else b"",
        frames,
        applier.progress,
        applier.recursive_triggers.on,
        applier.epoch.value,
        applier.virtual.exist,
    )


class Workspaces:
    """At most `open_max` workspaces in use. From any thread."""

    def __init__(self, path: str, vfs: str, limits: Limits, source: Source) -> None:
        self._budget = PageBudget(limits.transactions_bytes_max // PAGE_BYTES)
        self._path = path
        self._vfs = vfs
        self._source = source
        self._open_max = limits.transactions_open_max
        self._pages_max = limits.transaction_pages_bytes_max // PAGE_BYTES
        self._log_index = LogIndex()
        self._long_ones = LongOnes()
        self._lock = threading.Lock()
        self._warm: list[Workspace] = []
        self._lean: list[tuple[Workspace, int]] = []
        """Without cached pages; with the bytes that they take all the same."""
        self._lean_bytes = 0
        self._lean_bytes_max = limits.transactions_idle_bytes_max
        self._used: list[Workspace] = []
        self._closed = False

    def begin(self, seed: bytes, foreign_keys: bool) -> Workspace:
        """See Machine.begin_transaction."""
        workspace = self._take()
        try:
            with self._source.lock:
                state = self._source.state()
                workspace.hold()
            workspace.begin(state, seed, foreign_keys)
        except BaseException as error:
            self._failed(workspace, error)
        return workspace

    def begin_briefly(self, seed: bytes, foreign_keys: bool) -> Workspace | None:
        """See Machine.begin_transaction_briefly."""
        source = self._source
        if not source.lock.acquire(blocking=False):
            return None
        workspace = None
        try:
            state = source.state()
            if self._log_index.is_near(state.salt, state.frames):
                workspace = self._take_idle()
                if workspace is not None:
                    workspace.hold()
            if workspace is None:
                return None
        except BaseException as error:
            self._failed(workspace, error)
        finally:
            source.lock.release()
        try:
            workspace.begin(state, seed, foreign_keys)
        except BaseException as error:
            self._failed(workspace, error)
        return workspace

    def _failed(self, workspace: Workspace | None, error: BaseException) -> NoReturn:
        if workspace is not None:
            workspace.broken = True
            self.give_back(workspace)
        if isinstance(error, apsw.Error):
            raise failures.of_query(error) from error
        raise error

    def _take(self) -> Workspace:
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
            workspace = self._pop_idle() or self._make()
            self._used.append(workspace)
            return workspace

    def _take_idle(self) -> Workspace | None:
        """One that is there already, and without waiting; or None."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            if self._closed or len(self._used) >= self._open_max:
                return None
            workspace = self._pop_idle()
            if workspace is not None:
                self._used.append(workspace)
            return workspace
        finally:
            self._lock.release()

    def _pop_idle(self) -> Workspace | None:
        if self._warm:
            return self._warm.pop()
        if not self._lean:
            return None
        workspace, size = self._lean.pop()
        self._lean_bytes -= size
        return workspace

    def _make(self) -> Workspace:
        try:
            return Workspace(
                self._path,
                self._vfs,
                self._log_index,
                self._budget,
                self._pages_max,
                self._long_ones,
            )
        except apsw.Error as error:
            raise failures.of_query(error) from error

    def give_back_briefly(self, workspace: Workspace) -> bool:
        """`give_back`, if that takes next to nothing; whether it does."""
        brief = workspace.ends_briefly() and len(self._warm) < WARM_MAX and not self._closed
        if brief:
            self.give_back(workspace)
        return brief

    def give_back(self, workspace: Workspace) -> None:
        """Its transaction is over."""
        size = 0
        try:
            if not workspace.broken:
                workspace.end()
                if len(self._warm) >= WARM_MAX:
                    size = workspace.shrink()
        except apsw.Error:
            workspace.broken = True
        with self._lock:
            if workspace not in self._used:
                return
            self._used.remove(workspace)
            if not (workspace.broken or self._closed) and self._keep(workspace, size):
                return
        workspace.close()

    def _keep(self, workspace: Workspace, size: int) -> bool:
        if len(self._warm) < WARM_MAX:
            self._warm.append(workspace)
        elif size and self._lean_bytes + size <= self._lean_bytes_max:
            self._lean.append((workspace, size))
            self._lean_bytes += size
        else:
            return False
        return True

    def close(self) -> None:
        """Stop what runs; close what is idle. What is in use is closed when it is given back."""
        with self._lock:
            self._closed = True
            idle = [*self._warm, *(workspace for workspace, _size in self._lean)]
            self._warm, self._lean, self._lean_bytes = [], [], 0
            for workspace in self._used:
                workspace.stop()
        for workspace in idle:
            workspace.close()
