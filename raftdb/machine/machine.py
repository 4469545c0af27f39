"""The state machine: SQLite, driven by committed entries.

Three kinds of connections on one file: the writer (lane `apply`), readers (any thread), and one
for checkpoints (lane of its own). Nothing here starts a thread.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import apsw

from raftdb.base.errors import ConfigError, FatalError
from raftdb.base.ids import HistoryId, Index, Term
from raftdb.base.limits import Limits
from raftdb.base.ports import Clock, Files, Log
from raftdb.command.codec import encode_reply
from raftdb.command.requests import Parameters, Statement
from raftdb.command.results import Results
from raftdb.machine import captures, failures, generations, stored
from raftdb.machine.applier import Applier, Recorder
from raftdb.machine.captures import Capture, CaptureJob
from raftdb.machine.checkpoints import Checkpointer, rewrite_log
from raftdb.machine.connections import open_checkpointer, open_reader, open_writer
from raftdb.machine.determinism import RequestClock, use_utc
from raftdb.machine.format import DATABASE_FILE, PAGE_BYTES
from raftdb.machine.founding import found
from raftdb.machine.layout import Run
from raftdb.machine.logguard import LogGuard, check_header
from raftdb.machine.pages import MachineVfs, open_vfs
from raftdb.machine.policy import READ_PRAGMAS
from raftdb.machine.reader import UNTIMED_S, QueryStop
from raftdb.machine.readers import ReaderPool
from raftdb.machine.rowhash import ContentHash
from raftdb.machine.samples import Sample
from raftdb.machine.scan import ContentScan
from raftdb.machine.sqltext import is_read
from raftdb.machine.stored import run_on
from raftdb.machine.streams import RowStream
from raftdb.machine.units import Entry, are_brief
from raftdb.machine.vacuum import Vacuumed, vacuum
from raftdb.machine.workspace import SnapshotState, Workspace
from raftdb.machine.workspaces import Source, Workspaces, state_of

_MANY = 1 << 62

BRIEF_S = 0.02
"""The longest that `apply_briefly` may keep its thread (the node's loop), by intention."""
BRIEF_REST = 100
"""After one that took too long there is none for this many times as long."""
BRIEF_REST_MAX_S = 10.0

_Replies = TypeVar("_Replies")


class Machine:
    """One replica's database. Satisfies the engine's StateMachine."""

    def __init__(
        self,
        path: str,
        writer: apsw.Connection,
        vfs: MachineVfs,
        meta: stored.Meta,
        limits: Limits,
        log: Log,
        clock: Clock | None,
        guard: LogGuard,
    ) -> None:
        self.path = path
        self._meta = meta
        self._limits = limits
        self._log = log
        self._writer = writer
        self._writer_lock = threading.Lock()
        self._fatal: FatalError | None = None
        self._clock = clock
        self._brief_from_s = float("-inf")
        """When `apply_briefly` may be tried again."""
        self._closed = False
        self._before_checkpoint: Callable[[], None] | None = None
        self._copied: tuple[Index, Term] | None = None
        self._trial_cancelled = False
        self.wal_pages = self.wal_pages_left = 0
        """Pages in the write-ahead log after the last commit, 0 once all of them are in the file:
        when to call `checkpoint`; and how many of them the last one left."""
        history = bytes.fromhex(meta.history)
        self._request_clock = RequestClock()
        self._applier = Applier(writer, run_on(writer), self._request_clock, history, meta.hash_key)
        self.settings_cell = self._applier.settings
        """Where `settings` stand, for who looks often."""
        writer.set_wal_hook(self._wal_hook)
        self._readers = ReaderPool(
            lambda: open_reader(path, vfs.name), limits.readers_max, clock, self._applier.epoch
        )
        source = Source(self._writer_lock, self._snapshot_state)
        self._workspaces = Workspaces(path, vfs.name, limits, source)
        self._streams: set[RowStream] = set()
        self._checkpointer = Checkpointer(
            open_checkpointer(path, vfs.name),
            self._writer_lock,
            lambda: self._applier.progress.index,
            log,
            guard,
        )

    absent = False

    # Life

    @classmethod
    def create(
        cls, directory: str, history: HistoryId, *, files: Files, vfs_base: str = ""
    ) -> None:
        """Found an empty database of a new history, durably. Raises ConfigError when the directory
        has one already."""
        if generations.current(files, directory) is not None:
            raise ConfigError(
                f"{directory} has a database already",
                code="database_exists",
                hint="start the node, or choose another directory",
            )
        generation = generations.make_next(files, directory, founding=True)
        path = os.path.join(generation, DATABASE_FILE)
        try:
            found(path, history, vfs_base)
        except apsw.Error as error:
            raise failures.fatal(error, f"creating {path}") from error
        generations.make_current(files, directory, generation)

    @classmethod
    def open(
        cls,
        directory: str,
        *,
        history: HistoryId,
        limits: Limits,
        files: Files,
        log: Log,
        clock: Clock | None = None,
        vfs_base: str = "",
    ) -> Machine:
        """Open the current generation. `clock` gives readers their greatest age (without it they
        have none); `vfs_base` names the VFS below, `` for the system's.
        Raises ConfigError (no database, another history, another format) and FatalError."""
        generation = generations.current(files, directory)
        if generation is None:
            raise ConfigError(
                f"{directory} has no database",
                code="database_missing",
                hint="an empty directory is no member: run `raftdb init`, or add a new one",
            )
        generations.remove_others(files, directory)
        use_utc(log)
        path = os.path.join(generation, DATABASE_FILE)
        check_header(path, files)
        rewrite_log(path, files)
        guard = LogGuard(path, files)
        vfs = open_vfs(vfs_base)
        try:
            writer = open_writer(path, vfs.name)
            try:
                meta = stored.read_meta(run_on(writer), path)
                if meta.history != history:
                    raise stored.other_history(path, meta.history, history)
                guard.check(writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)[0])
                machine = cls(path, writer, vfs, meta, limits, log, clock, guard)
                machine._copied = captures.copied_from(generation, files)
                return machine
            except BaseException:
                writer.close(True)
                raise
        except apsw.Error as error:
            raise failures.at(failures.fatal(error, f"opening {path}"), path) from error

    def close(self) -> None:
        """Stop queries and close all connections. Nothing is lost without it."""
        self._trial_cancelled = True
        for stream in list(self._streams):
            stream.close()
        self._readers.close()
        self._workspaces.close()
        with self._checkpointer.lock, self._writer_lock:
            if self._closed:
                return
            self._closed = True
            self._checkpointer.close()
            self._writer.close(True)
            if self._fatal is None:
                self._fatal = FatalError("the database is closed", code="closed")

    def _wal_hook(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self.wal_pages = pages
        return int(apsw.SQLITE_OK)

    # The engine's StateMachine

    def applied(self) -> tuple[Index, Term]:
        """The last entry whose whole effect is committed in SQLite. From any thread."""
        progress = self._applier.progress
        return progress.index, progress.term

    def configuration(self) -> tuple[int, bytes] | None:
        """The cluster's members as of the last entry applied that said so, and its index."""
        return stored.read_configuration(run_on(self._writer))

    def seed_configuration(self, body: bytes) -> None:
        """The founding list, durably, unless there is a configuration. Before anything else."""
        stored.seed_configuration(self._writer, body)

    def copied(self) -> tuple[Index, Term] | None:
        """The entry that this database was copied at from another node, if it was: a journal that
        does not reach that far goes on from there (rule C2)."""
        return self._copied

    def apply(self, entries: Sequence[Entry]) -> list[list[bytes]]:
        """Apply entries in order; encoded replies per entry and payload. On the apply lane.
        A SQL error is a reply. FatalError: this node cannot go on (nothing of what was not
        committed shows), and every later call raises it again."""
        with self._writer_lock:
            return self._guarded(self._applier.apply, entries)

    def apply_briefly(self, entries: Sequence[Entry]) -> list[list[bytes]] | None:
        """`apply` on the calling thread, when that takes no longer than BRIEF_S; else None: then
        nothing has happened, and `apply` has to be called. Saves two hand-overs between threads.

        It is given up by the clock in the midst; what could be busy for long in one step is not
        begun, nor anything while somebody else has the writer or when the last one was slow."""
        clock = self._clock
        if clock is None or not are_brief(entries):
            return None
        start_s = clock.monotonic_s()
        if start_s < self._brief_from_s or not self._writer_lock.acquire(blocking=False):
            return None
        try:
            end_s = start_s + BRIEF_S

            def work(entries: Sequence[Entry]) -> list[list[bytes]] | None:
                return self._applier.apply_briefly(entries, lambda: clock.monotonic_s() > end_s)

            replies = self._guarded(work, entries)
        finally:
            self._writer_lock.release()
        took_s = clock.monotonic_s() - start_s
        if replies is None or took_s > BRIEF_S:
            self._brief_from_s = start_s + min(BRIEF_REST_MAX_S, BRIEF_REST * took_s)
        return replies

    # Requests that run long

    def held(self) -> tuple[int, int] | None:
        """(index, position) of a request that takes long: `apply` came back before it, and goes on
        when the log has a verdict on it (rule M4). From any thread."""
        return self._applier.held

    def look_ahead(self, entries: Sequence[Entry]) -> bool:
        """Committed entries beyond the one that is held, in order: whether `apply` can go on. On
        the loop; a trial that runs is over then."""
        for entry in entries:
            for payload in entry.payloads:
                self._applier.note_verdict(payload)
        if self._applier.has_verdict:
            self._trial_cancelled = True
            return True
        return False

    def try_held(self, limit_s: float) -> bool | None:
        """Execute the request that is held, and undo it: whether it came to its end (True), took
        longer than the limit (False), or was not tried to an end (None). On the apply lane."""
        with self._writer_lock:
            clock = self._clock
            if self._trial_cancelled or self._applier.has_verdict:
                return None
            end_s = clock.monotonic_s() + limit_s if clock is not None else 0.0

            def work(_entries: Sequence[Entry]) -> bool | None:
                return self._applier.try_held(
                    lambda: clock is None or clock.monotonic_s() >= end_s,
                    lambda: self._trial_cancelled,
                )

            return self._guarded(work, ())

    def cancel_trial(self, cancelled: bool = True) -> None:
        """End a trial that runs, and begin none; or allow them again. From any thread."""
        self._trial_cancelled = cancelled

    def _guarded(
        self, work: Callable[[Sequence[Entry]], _Replies], entries: Sequence[Entry]
    ) -> _Replies:
        """The first failure that is not the statement's own is the last: every call raises it."""
        if self._fatal is not None:
            raise self._fatal
        self._request_clock.begin()
        try:
            return work(entries)
        except FatalError as error:
            self._fatal = failures.at(error, self.path)
            raise self._fatal from error
        except Exception as error:
            self._fatal = failures.at(failures.fatal(error, "applying entries"), self.path)
            raise self._fatal from error
        finally:
            self._request_clock.end()

    def record_hashes(
        self, recorder: Recorder | None, before_checkpoint: Callable[[], None] | None = None
    ) -> None:
        """Tell the content hash after each request from now on, before its transaction commits, on
        whatever thread applies: for the archive, and for a replay that compares; None: no longer.
        `before_checkpoint` is called, on its lane, before what was told can become durable."""
        with self._writer_lock:
            self._applier.recorder = recorder
            self._before_checkpoint = before_checkpoint

    # Reading

    def query(
        self,
        *statements: Statement,
        rows_bytes_max: int | None = None,
        rows_max: int | None = None,
        stop: QueryStop | None = None,
        timeout_s: float = UNTIMED_S,
    ) -> Results:
        """Execute read-only statements, all on one snapshot: the last commit, or a later one. From
        any thread. Raises ProgrammingError (`not_a_read`), DataError (`result_too_large`: more
        than `rows_max` rows, None for no bound, or `rows_bytes_max` bytes, None for
        limits.result_bytes_max) and DeadlineError. `stop` ends it early."""
        bytes_max = self._limits.result_bytes_max if rows_bytes_max is None else rows_bytes_max
        rows = _MANY if rows_max is None else rows_max
        return self._readers.query(statements, bytes_max, rows, stop, timeout_s)[0]

    def query_at(
        self, statements: tuple[Statement, ...], timeout_s: float = UNTIMED_S
    ) -> tuple[Results, int]:
        """As `query`, and the log index that the snapshot shows: everything up to it. Of an entry
        with many requests some may be missing, if it was being applied just then."""
        room = self._limits.result_bytes_max
        return self._readers.query(statements, room, _MANY, None, timeout_s)

    def query_reply(
        self, statements: tuple[Statement, ...], rows_max: int | None, stop: QueryStop
    ) -> tuple[bytes, int]:
        """As `query_at`, encoded, with few rows at a time in memory beside it."""
        room = self._limits.result_bytes_max
        return self._readers.reply(statements, room, rows_max or _MANY, stop)

    def query_briefly(
        self, statements: tuple[Statement, ...], rows_max: int | None, index: int
    ) -> bytes | None:
        """The encoded reply of one statement, if it is done within about a millisecond and shows
        `index` and nothing newer; or None."""
        if self._applier.shown_index != index:
            return None
        results = self._readers.briefly(statements, self._limits.result_bytes_max, rows_max)
        if results is None or self._applier.shown_index != index:
            return None
        return encode_reply(results)

    def query_rows(
        self, sql: str, parameters: Parameters = (), timeout_s: float = UNTIMED_S
    ) -> tuple[tuple[str, ...], list[tuple[Any, ...]], int]:
        """As `query_at`, for one statement and one set of parameters: (columns, rows, index). For
        local reads inside a program. From any thread."""
        applier = self._applier
        index = applier.shown_index
        columns, rows, _room = self._readers.rows(
            sql, parameters, self._limits.result_bytes_max, _MANY, timeout_s
        )
        if applier.progress.index == index == applier.shown_index:
            return columns, rows, index
        # Something was committed meanwhile: before or after the snapshot, who knows.
        results, index = self.query_at((Statement(sql, (parameters,)),), timeout_s)
        [found] = results.statements
        return found.columns, list(found.rows), index

    def open_scan(self) -> ContentScan:
        """Computes the content hash from the rows again, bit by bit. From any thread."""
        return ContentScan(lambda: self._readers.dedicated().connection, self._meta.hash_key)

    def open_stream(self) -> RowStream:
        """A query whose rows are taken a page at a time; `begin` it next, `close` it in the end.
        From any thread. Their number and age are the caller's to bound."""
        stream = RowStream(self._readers.dedicated(), self._streams.discard)
        self._streams.add(stream)
        return stream

    def is_read_only(self, sql: str) -> bool:
        """Whether this SQL may go to `query`, by its text alone. From any thread."""
        return is_read(sql, READ_PRAGMAS)

    def session_token(self, number: int) -> bytes | None:
        """The 16 bytes that attach to an open session; None without one. From any thread."""
        return self._applier.sessions.token(number)

    def was_applied(self, session: int, sequence: int) -> bool:
        """Whether a session's request seems to be applied here already: a hint, from any thread."""
        return 0 < sequence <= self._applier.sessions.last_sequence(session)

    @property
    def settings(self) -> Mapping[str, Any]:
        """The cluster's, as of the last commit: another object after each change. Any thread."""
        return self.settings_cell.current

    @property
    def lineage(self) -> tuple[tuple[HistoryId, int], ...]:
        """Histories that this one continues, each with the highest number of its sessions that
        belong to this one's past: those are still good (rule S4)."""
        return self._meta.lineage

    def sessions_open(self) -> int:
        """How many sessions are open. From any thread."""
        return len(self._applier.sessions)

    def wal_bytes(self) -> int:
        """Size of the write-ahead log that is not checkpointed, at least. From any thread."""
        return self.wal_pages * (PAGE_BYTES + 24)

    def time_ms(self) -> int:
        """Logged time as of the last commit, in Unix milliseconds. From any thread."""
        return self._applier.progress.time_ms

    def samples_since(self, index: int, recent: int = 1) -> list[Sample]:
        """As Samples.since. From any thread."""
        return self._applier.samples.since(index, recent)

    def sample_at(self, index: int) -> Sample | None:
        """The digest of the commit at that index, while it is kept. From any thread."""
        return self._applier.samples.at(index)

    def want_sample(self, index: int) -> int:
        """As Samples.want. From any thread."""
        return self._applier.samples.want(index)

    def last_sample(self) -> Sample | None:
        """The digest of the last commit. From any thread."""
        return self._applier.samples.last()

    def keep_table_sums(self, keep: bool) -> None:
        """Whether samples have the sums of all tables: O(tables) per commit. On the apply lane."""
        with self._writer_lock:
            self._applier.samples.detailed = keep
            if keep:
                self._applier.samples.detail_last()

    def horizon(self) -> int:
        """To be carried by idempotency keys that are used from now on. From any thread."""
        return max(1, self._applier.progress.session_ms)

    def content_hash(self) -> ContentHash:
        """The incremental content hash at the last commit. From any thread."""
        return self._hashed(stored.stored_hash)

    def recompute_content_hash(self) -> ContentHash:
        """The content hash computed from all rows: slow. From any thread. Equal to what
        `content_hash` gives at the same index, or the file is damaged."""
        return self._hashed(stored.recomputed_hash)

    def _hashed(self, read: Callable[[Run, bytes], ContentHash]) -> ContentHash:
        with self._readers.snapshot() as connection:
            return read(run_on(connection), self._meta.hash_key)

    # Interactive transactions

    def begin_transaction(self, seed: bytes, foreign_keys: bool) -> Workspace:
        """A private, writable view of the database as of the last commit. On a lane, as everything
        that is done with it. Raises OverloadedError, and FatalError when the node is at its end.
        """
        return self._workspaces.begin(seed, foreign_keys)

    def begin_transaction_briefly(self, seed: bytes, foreign_keys: bool) -> Workspace | None:
        """The same on the calling thread, if that takes next to nothing; or None."""
        return self._workspaces.begin_briefly(seed, foreign_keys)

    def _snapshot_state(self) -> SnapshotState:
        if self._fatal is not None:
            raise self._fatal
        return state_of(self._writer, self._applier)

    def end_transaction(self, workspace: Workspace) -> None:
        """The transaction is over: whatever it did in its workspace is forgotten."""
        self._workspaces.give_back(workspace)

    def end_transaction_briefly(self, workspace: Workspace) -> bool:
        """The same on the calling thread, if that takes next to nothing; whether it does."""
        return self._workspaces.give_back_briefly(workspace)

    def vacuum(self, pages_max: int) -> Vacuumed:
        """Give up to so many free pages of the file back. On the apply lane."""
        with self._writer_lock:
            return self._guarded(lambda _entries: vacuum(self._writer, pages_max), ())

    # Durability

    @property
    def durable_index(self) -> Index:
        """Entries up to here survive a power cut in the database: the journal may drop them. 0
        until the first complete checkpoint of this process."""
        return self._checkpointer.durable_index

    def look_at_log(self) -> None:
        """See Checkpointer. On the lane of checkpoints."""
        try:
            self._checkpointer.look_at_log()
        except FatalError as error:
            raise failures.at(error, self.path) from error

    def checkpoint(self) -> Index:
        """Move the write-ahead log into the file; the durable index. On a lane of its own, beside
        the writer. Stops readers that are over their age first."""
        self._readers.interrupt_older_than(self._limits.reader_age_ms_max / 1000)
        if self._before_checkpoint is not None:
            self._before_checkpoint()
        try:
            durable = self._checkpointer.run()
        except FatalError as error:
            raise failures.at(error, self.path) from error
        self.wal_pages_left = self._checkpointer.left_pages
        if durable == self._applier.progress.index:
            # All of it is in the file. The hook tells only of commits, and an idle database has
            # none; one that comes at this very moment is counted with the next.
            self.wal_pages = 0
        return durable

    def check_pages(self, offset: int, count: int) -> int:
        """See Checkpointer.check_pages. On a lane of its own."""
        return self._checkpointer.check_pages(offset, count, self.path)

    # Copies

    def capture(
        self,
        target_directory: str,
        pace: Callable[[int], None],
        *,
        files: Files,
        spare_bytes: int = 0,
    ) -> Capture:
        """Copy the database, as of one known index, into a new directory. On the checkpoint lane.

        Writers go on; checkpoints wait until the copy is done, so the write-ahead log grows
        meanwhile. `pace` is called with the bytes copied so far after each MiB: it may wait, and it
        may raise to give up. Raises OperationalError with code `capture_busy` when an old reader
        keeps a checkpoint from completing.
        """
        job = self.begin_capture(target_directory, files=files, spare_bytes=spare_bytes)
        return captures.run(job, pace)

    def begin_capture(
        self, target_directory: str, *, files: Files, spare_bytes: int = 0
    ) -> CaptureJob:
        """The same, step by step, for whoever paces by timers. None is made that would leave less
        than `spare_bytes` of room beside it (OperationalError, code `capture_no_room`)."""
        return CaptureJob(target_directory, files, self._freeze, self._checkpointer, spare_bytes)

    def _freeze(self) -> captures.Frozen | None:
        """Make the file the whole database, with the writer held back; None when a reader of an
        older state is in the way."""
        with self._writer_lock:
            if not self._checkpointer.complete():
                return None
            progress = self._applier.progress
            with self._readers.snapshot() as connection:
                run = run_on(connection)
                content = stored.stored_hash(run, self._meta.hash_key)
                size = stored.size_bytes(run)
            return captures.Frozen(self._meta.history, progress, content, size)

    @staticmethod
    def install(
        directory: str,
        capture_directory: str,
        *,
        history: HistoryId,
        files: Files,
        verify_content: bool = True,
        vfs_base: str = "",
    ) -> Capture:
        """Make a verified copy the current generation, by one rename (rule M3). The machine of this
        directory must be closed. The capture's file is moved away. Raises ConfigError when the copy
        is not what its description says; the old state stays then.
        """
        return captures.install(
            directory,
            capture_directory,
            history=history,
            files=files,
            verify_content=verify_content,
            vfs_base=vfs_base,
        )
