"""The journal on the loop: what is queued, what is in memory, what is on the disk.

Group commit: whatever was queued while a batch was on its way to the disk is the next batch.
There is never a second write before the first one's sync returned. A failed write or sync ends
the journal: nothing is written after it, and nothing is ever reported durable again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from raftdb.base.errors import FatalError, InternalError
from raftdb.base.ids import Index, Term
from raftdb.base.limits import Limits
from raftdb.base.ports import Executor, Files, Log, Random, Timer
from raftdb.journal.cache import EntryCache
from raftdb.journal.format import (
    BATCH_HEADER_BYTES,
    BATCH_OVERHEAD_BYTES,
    DROP,
    ENTRY,
    FOOTER_TAIL_BYTES,
    HARD_STATE,
    RECORD_HEADER_BYTES,
    RESET,
    SEGMENT_HEADER_BYTES,
    TRUNCATE,
    HardState,
    LogEntry,
    Mark,
    Operation,
    SegmentHeader,
    decode_footer_tail,
    decode_hard_state,
    encode_hard_state,
    seed_of,
)
from raftdb.journal.index import SegmentIndex
from raftdb.journal.problems import io_problem
from raftdb.journal.queue import OperationQueue, last_after
from raftdb.journal.recovery import Recovered, Salvage, create_journal, recover_journal
from raftdb.journal.retention import Pin, Retention, RetentionBounds
from raftdb.journal.segments import SegmentReader
from raftdb.journal.writer import (
    BatchPlan,
    BatchWritten,
    RollPlan,
    remove_segments,
    write_batch,
    write_mark,
)

__all__ = ["IDLE_S", "LANE", "Journal"]

LANE = "journal"
IDLE_S = 1.0
"""After this long without a batch the mark is written, once."""
ENTRY_BYTES_MAX = 1 << 30


def _nothing() -> None:
    """Before `wake`."""


class Journal:
    """The durable Raft log and hard state of one node. Belongs to the loop.

    Invariants: an entry above `durable_index` is in the cache; an entry at or below it is on the
    disk as it is in memory; `_segments` describes the disk after the last batch that was synced.
    """

    def __init__(
        self,
        files: Files,
        directory: str,
        executor: Executor,
        limits: Limits,
        log: Log,
        recovered: Recovered,
        retention: RetentionBounds,
    ) -> None:
        self._files = files
        self._directory = directory
        self._executor = executor
        self._limits = limits
        self._log = log
        self._release = recovered.release
        self._journal_id = recovered.journal_id
        # The disk, as of the last batch.
        self._segments = recovered.segments
        self._disk_hard_state = recovered.hard_state
        self._size = recovered.size
        self._batches = recovered.batches
        self._next_batch = recovered.next_batch
        self._chain = recovered.chain
        self._marked_batch = recovered.next_batch - 1
        # The log, as of the last call.
        active = recovered.segments.active.index
        self._hard_state = recovered.hard_state
        self._first_index = recovered.segments.first_index
        self._base_term = recovered.segments.term_at(self._first_index - 1)
        self._last_index = active.last
        self._last_term = active.last_term
        self._cache = EntryCache(self._last_index + 1)
        # Between the two.
        self._queue = OperationQueue()
        self._durable_sequence = 0
        self._durable_index = self._last_index
        self._busy = False
        self._pump_scheduled = False
        self._plan: BatchPlan | None = None
        self._plan_sequence = 0
        self._plan_last = 0
        self._drops_pending = 0
        self._dropped: list[str] = []
        self._retention = Retention(retention)
        # The way out.
        self._fatal: FatalError | None = None
        self._on_durable: Callable[[], None] = _nothing
        self._on_fatal: Callable[[BaseException], None] | None = None
        self._waiting: list[tuple[int, Callable[[], None]]] = []
        self._mark_timer: Timer | None = None
        self._timer_batch = 0
        self._closing: list[Callable[[BaseException | None], None]] = []
        self._closed = False

    @classmethod
    def create(
        cls, files: Files, directory: str, random: Random, base: tuple[int, int] = (1, 0)
    ) -> None:
        """Found an empty journal; `base` is (index, term), see `create_journal`."""
        create_journal(files, directory, random, base)

    @classmethod
    def open(
        cls,
        files: Files,
        directory: str,
        executor: Executor,
        limits: Limits,
        log: Log,
        retention: RetentionBounds | None = None,
        salvage: Salvage | None = None,
    ) -> Journal:
        """Lock, recover, make durable what was found. Synchronous. `salvage`: see recover_journal.

        Raises JournalCorruptError (damage), ConfigError (no journal here, locked, written by a
        later release), FatalError (the system refuses).
        """
        recovered = recover_journal(files, directory, log, salvage)
        bounds = retention or RetentionBounds()
        return cls(files, directory, executor, limits, log, recovered, bounds)

    # -- what the log holds -------------------------------------------------------------------

    @property
    def first_index(self) -> Index:
        """The oldest entry that can be read; `last_index + 1` when there is none."""
        return Index(self._first_index)

    @property
    def last_index(self) -> Index:
        """The newest entry, durable or not; `first_index - 1` when there is none."""
        return Index(self._last_index)

    @property
    def last_term(self) -> Term:
        """Term of the newest entry."""
        return Term(self._last_term)

    @property
    def durable_index(self) -> Index:
        """The highest index such that it and all before it are on disk as they are in memory."""
        return Index(self._durable_index)

    @property
    def durable_sequence(self) -> int:
        """Everything that was queued up to this number is on disk."""
        return self._durable_sequence

    @property
    def batch_under_way(self) -> int:
        """Number of the batch that the disk has not returned yet; 0 when there is none."""
        return self._next_batch if self._plan is not None else 0

    def sequence(self) -> int:
        """Number of everything queued so far."""
        return self._queue.sequence

    @property
    def hard_state(self) -> HardState:
        """As set last, durable or not."""
        return self._hard_state

    def term_at(self, index: int) -> Term:
        """Term of an entry, from `first_index - 1` on. Raises InternalError out of bounds."""
        if index == self._first_index - 1:
            return Term(self._base_term)
        self._check_bounds(index)
        if index >= self._cache.first:
            return self._cache.entries[index].term
        return Term(self._segments.term_at(index))

    def entry(self, index: int) -> LogEntry:
        """One entry. Raises InternalError out of bounds, JournalCorruptError when damaged."""
        self._check_bounds(index)
        if index >= self._cache.first:
            return self._cache.entries[index]
        return self._segments.read(index, index, 0)[0]

    def entries(self, first: int, last: int, max_bytes: int) -> list[LogEntry]:
        """Entries first to last, as many as fit into `max_bytes`, but at least one if there is
        one. An entry counts its data and 32 bytes. `last` may lie beyond the end."""
        last = min(last, self._last_index)
        if first > last:
            return []
        self._check_bounds(first)
        result: list[LogEntry] = []
        total = 0
        while first <= last:
            if first >= self._cache.first:
                run = [self._cache.entries[first]]
            else:
                end = min(last, self._cache.first - 1)
                run = self._segments.read(first, end, max_bytes - total)
            for entry in run:
                total += len(entry.data) + RECORD_HEADER_BYTES
                if result and total > max_bytes:
                    return result
                result.append(entry)
            first += len(run)
        return result

    def _check_bounds(self, index: int) -> None:
        if not self._first_index <= index <= self._last_index:
            raise InternalError(
                f"the journal has entries {self._first_index} to {self._last_index}, not {index}"
            )

    # -- changes: in memory now, on disk with the next batch ------------------------------------

    def append(self, entries: Sequence[LogEntry]) -> None:
        """Add entries at the end. Raises InternalError when they do not follow."""
        self._check_open()
        last, term = self._last_index, self._last_term
        for entry in entries:
            if entry.index != last + 1 or entry.term < term or len(entry.data) > ENTRY_BYTES_MAX:
                raise InternalError(
                    f"entry {entry.index} of term {entry.term} with {len(entry.data)} bytes "
                    f"cannot follow entry {last} of term {term}"
                )
            last, term = entry.index, entry.term
        for entry in entries:
            self._cache.add(entry)
            self._enqueue(Operation(ENTRY, entry.index, entry.term, entry.data))
        self._last_index, self._last_term = last, term

    def truncate_from(self, index: int) -> None:
        """Drop `index` and all after it; nothing happens when there is no such entry."""
        self._check_open()
        if index > self._last_index:
            return
        self._check_bounds(index)
        previous_term = self.term_at(index - 1)
        self._cache.truncate(index, self._last_index)
        self._last_index, self._last_term = index - 1, previous_term
        self._lower_durable(index - 1)
        self._enqueue(Operation(TRUNCATE, index, previous_term, b""))

    def set_hard_state(self, hard_state: HardState) -> None:
        """Remember term and vote; durable with the batch (see `durable_sequence`)."""
        self._check_open()
        self._enqueue(encode_hard_state(hard_state))
        self._hard_state = hard_state

    def reset(self, index: int, term: int) -> None:
        """Forget the log: what follows (index, term) comes next, as after a copy of the database
        was installed. Of that entry only index and term are known."""
        self._check_open()
        self._cache.reset(index + 1)
        self._first_index, self._last_index = index + 1, index
        self._last_term = self._base_term = term
        self._lower_durable(index - 1)
        self._drops_pending += 1
        self._enqueue(Operation(RESET, index, term, b""))

    def drop_prefix(self, index: int) -> None:
        """Let go of whole sealed segments below `index`, as far as they are durable. At most one
        such request is under way at a time; a second one is ignored."""
        self._check_open()
        if self._drops_pending:
            return
        count = self._segments.droppable(min(index, self._durable_index + 1))
        if count == 0:
            return
        sealed, active = self._segments.sealed, self._segments.active.index
        if count < len(sealed):
            kept = sealed[count]
            oldest, first, base_term = kept.number, kept.first, kept.tail.previous_term
        else:
            oldest, first, base_term = active.number, active.first, active.previous_term
        self._first_index, self._base_term = first, base_term
        self._cache.drop_below(first)
        self._drops_pending += 1
        self._enqueue(Operation(DROP, first, base_term, oldest.to_bytes(8, "little")))

    # -- compaction ----------------------------------------------------------------------------

    @property
    def bytes(self) -> int:
        """Of all segment files."""
        return self._size + sum([segment.size for segment in self._segments.sealed])

    def pin(self, index: int) -> Pin:
        """Keep what is from `index` on, within bounds, until the pin is released: for whoever
        sends or stores the log from there."""
        return self._retention.pin(index)

    def compact(self, safe: int) -> None:
        """Drop the oldest sealed segments beyond the tail that is kept, as far as the database
        holds their entries on disk: up to `safe`, never more (rule M2). No copy, no pause; one
        request at a time. Segments whose entries are not applied on disk stay, whatever their
        size."""
        sealed = self._segments.sealed
        below = self._retention.cut(sealed, self._size, [one.size for one in sealed], safe)
        if below:
            self.drop_prefix(below)

    def wants_checkpoint(self, safe: int) -> bool:
        """Whether `compact` could drop more if the database were on disk further than `safe`."""
        sealed, keep_bytes = self._segments.sealed, self._retention.bounds.keep_bytes
        return bool(sealed) and sealed[0].last > safe and self.bytes > keep_bytes

    def _check_open(self) -> None:
        if self._fatal is not None:
            raise self._fatal
        if self._closing or self._closed:
            raise InternalError("the journal is closed")

    def _lower_durable(self, index: int) -> None:
        """What is above `index` in memory is not what the disk holds there."""
        self._durable_index = min(self._durable_index, index)
        self._plan_last = min(self._plan_last, index)

    def _enqueue(self, operation: Operation) -> None:
        self._queue.put(operation)
        if not self._busy and not self._pump_scheduled:
            # On the next turn, so that all that this turn queues goes into one batch.
            self._pump_scheduled = True
            self._executor.call_soon(self._pump)

    # -- one batch at a time -------------------------------------------------------------------

    def _pump(self) -> None:
        self._pump_scheduled = False
        queue = self._queue
        if self._busy or self._fatal is not None or not queue.operations:
            return
        operations, taken_bytes = queue.take(self._limits.journal_segment_bytes)
        waiting = queue.operations
        self._plan_sequence = queue.sequence - len(waiting)
        self._plan_last = self._last_index
        if waiting:
            self._plan_last = last_after(self._segments.active.index.last, operations, waiting)
        plan = self._make_plan(operations, BATCH_OVERHEAD_BYTES + taken_bytes)
        self._plan = plan
        self._busy = True
        self._executor.submit(LANE, lambda: write_batch(plan), self._on_written)

    def _make_plan(self, operations: list[Operation], batch_bytes: int) -> BatchPlan:
        active = self._segments.active
        number, offset, roll = active.index.number, self._size, None
        if self._batches and offset + batch_bytes > self._limits.journal_segment_bytes:
            number, offset = number + 1, SEGMENT_HEADER_BYTES
            header = SegmentHeader(
                journal_id=self._journal_id,
                number=number,
                oldest=self._segments.oldest,
                first_batch=self._next_batch,
                next_index=active.index.last + 1,
                previous_term=active.index.last_term,
                durable_index=self._durable_index,
                hard_state=self._disk_hard_state,
                chain=self._chain,
            )
            roll = RollPlan(header, active.index, self._size, active.seed)
        return BatchPlan(
            files=self._files,
            directory=self._directory,
            file=active.file,
            offset=offset,
            operations=operations,
            number=self._next_batch,
            durable_index=self._durable_index,
            chain=self._chain,
            seed=active.seed if roll is None else seed_of(self._journal_id, number),
            roll=roll,
        )

    def _on_written(self, written: BatchWritten | None, error: BaseException | None) -> None:
        plan, self._plan = self._plan, None
        self._busy = False
        if error is not None or written is None or plan is None:
            self._fail(error or InternalError("a batch was lost"))
            return
        self._chain = written.chain
        self._next_batch += 1
        if plan.roll is not None:
            self._on_rolled(plan, plan.roll, written)
        self._batches += 1
        self._record(plan)
        self._durable_index = self._plan_last
        self._durable_sequence = self._plan_sequence
        self._cache.evict(self._limits.journal_cache_bytes_max, self._durable_index)
        self._go_on()
        self._on_durable()
        self._tell_waiting()

    def _go_on(self) -> None:
        """The lane is free: give it what waits."""
        if self._dropped:
            self._remove_dropped()
        elif self._queue.operations:
            self._pump()
        else:
            self._on_idle()

    def _on_rolled(self, plan: BatchPlan, roll: RollPlan, written: BatchWritten) -> None:
        tail = decode_footer_tail(written.footer[-FOOTER_TAIL_BYTES:], roll.old_seed)
        assert tail is not None
        number = roll.header.number
        index = SegmentIndex(number, roll.header.next_index, roll.header.previous_term)
        path = self._segments.path_of(number)
        self._segments.seal_active(tail, SegmentReader(path, written.file, index, plan.seed))
        self._batches = 0

    def _record(self, plan: BatchPlan) -> None:
        """Bring the picture of the disk up to the batch that was synced."""
        segments = self._segments
        active = segments.active.index
        offset = plan.offset + BATCH_HEADER_BYTES
        for kind, index, term, data in plan.operations:
            if kind == ENTRY:
                active.add(index, term, offset, len(data))
            elif kind == TRUNCATE:
                active.truncate(index, term)
                segments.truncate(index)
            elif kind == HARD_STATE:
                self._disk_hard_state = decode_hard_state(term, data)
            elif kind == DROP:
                self._on_dropped(int.from_bytes(data, "little"))
            else:
                active.reset(index, term)
                self._on_dropped(active.number)
            offset += RECORD_HEADER_BYTES + len(data)
        self._size = offset + BATCH_OVERHEAD_BYTES - BATCH_HEADER_BYTES

    def _on_dropped(self, oldest: int) -> None:
        """The journal's new beginning is durable: the files before it may go."""
        self._drops_pending -= 1
        self._dropped += self._segments.drop_below(oldest)

    def _remove_dropped(self) -> None:
        paths, self._dropped = self._dropped, []
        files, directory = self._files, self._directory
        self._busy = True
        self._executor.submit(
            LANE, lambda: remove_segments(files, directory, paths), self._on_removed
        )

    def _on_removed(self, left: list[str] | None, error: BaseException | None) -> None:
        self._busy = False
        if error is not None:
            self._fail(error)
            return
        if left:
            # They cost space and nothing else; the next start tries again.
            self._log.warning("journal_segments_not_removed", files=left)
        self._go_on()

    def _on_idle(self) -> None:
        """Nothing is queued. One timer at most; it looks again when there was work meanwhile, so
        that a commit costs no timer of its own."""
        if self._closing:
            self._finish_closing()
        elif self._mark_timer is None and self._marked_batch != self._next_batch - 1:
            self._timer_batch = self._next_batch
            self._mark_timer = self._executor.call_later(IDLE_S, self._on_mark_timer)

    def _on_mark_timer(self) -> None:
        self._mark_timer = None
        if self._fatal is not None or self._closed or self._busy or self._queue.operations:
            return
        if self._timer_batch != self._next_batch:
            self._on_idle()
            return
        self._submit_mark()

    def _submit_mark(self) -> None:
        batch = self._next_batch - 1
        mark = Mark(
            self._journal_id,
            self._segments.active.index.number,
            batch,
            self._durable_index,
            self._chain,
        )
        files, directory = self._files, self._directory

        def on_marked(_: None, error: BaseException | None) -> None:
            self._busy = False
            if error is not None:
                self._fail(error)
                return
            self._marked_batch = batch
            self._go_on()

        self._busy = True
        self._executor.submit(LANE, lambda: write_mark(files, directory, mark), on_marked)

    # -- the way out ---------------------------------------------------------------------------

    def wake(
        self, on_durable: Callable[[], None], on_fatal: Callable[[BaseException], None]
    ) -> None:
        """Set what is called on the loop: `on_durable` after each batch, `on_fatal` once."""
        self._on_durable = on_durable
        self._on_fatal = on_fatal
        if self._fatal is not None:
            self._executor.call_soon(on_fatal, self._fatal)

    def flush(self, done: Callable[[], None]) -> None:
        """Call `done` once everything queued so far is durable; never, if that fails."""
        if self._durable_sequence >= self._queue.sequence:
            self._executor.call_soon(done)
        else:
            self._waiting.append((self._queue.sequence, done))

    def _tell_waiting(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._durable_sequence:
            self._waiting.pop(0)[1]()

    def _fail(self, error: BaseException) -> None:
        """A write or a sync failed: what the disk holds is not known any more. The end."""
        if self._fatal is not None:
            return
        if isinstance(error, OSError):
            fatal = io_problem(f"writing the journal in {self._directory}", error)
        else:
            fatal = FatalError(f"writing the journal in {self._directory} failed: {error!r}")
        fatal.__cause__ = error
        self._fatal = fatal
        self._waiting.clear()
        if self._mark_timer is not None:
            self._mark_timer.cancel()
            self._mark_timer = None
        self._log.error("journal_failed", directory=self._directory, reason=str(fatal))
        if self._on_fatal is not None:
            self._on_fatal(fatal)
        if self._closing:
            self._finish_closing()

    def close(self, done: Callable[[BaseException | None], None]) -> None:
        """Write what is queued and the mark, close, unlock; then `done(None)`, or `done(error)`
        when the journal failed. No change is taken from now on."""
        self._closing.append(done)
        if self._mark_timer is not None:
            self._mark_timer.cancel()
            self._mark_timer = None
        if not self._busy:
            self._executor.call_soon(self._finish_closing)

    def _finish_closing(self) -> None:
        if self._busy:
            return
        if not self._closed and self._fatal is None:
            if self._queue.operations:
                self._pump()
                return
            if self._marked_batch != self._next_batch - 1:
                self._submit_mark()
                return
        if not self._closed:
            self._closed = True
            # Behind whatever removal is still on the lane.
            self._executor.submit(LANE, self._segments.close, self._on_closed)
        else:
            self._tell_closed()

    def _on_closed(self, _: None, error: BaseException | None) -> None:
        if error is not None:
            self._log.warning("journal_not_closed", reason=str(error))
        self._release()
        self._tell_closed()

    def _tell_closed(self) -> None:
        closing, self._closing = self._closing, []
        for done in closing:
            done(self._fatal)
