"""The apply lane: committed entries to the machine, in order, never in a callback (row 17)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from raftdb.base.errors import FatalError, InternalError
from raftdb.base.ids import Index, Term
from raftdb.base.ports import Executor
from raftdb.consensus.entry import CONFIGURATION, decode_payloads
from raftdb.consensus.log import DurableLog, LogEntry
from raftdb.consensus.port import CommittedEntry, StateMachine
from raftdb.consensus.wall import Wall

APPLY_LANE = "apply"
APPLY_BYTES_MAX = 8 << 20
"""Of entries handed to the machine at a time (one larger entry goes alone)."""
APPLY_ENTRIES_MAX = 256
BRIEF_ENTRIES_MAX = 4
"""A batch of so few is offered to the machine in place: most often it is done before another thread
would have begun. What takes longer goes to the lane, so a long statement holds up no heartbeat."""

OnApplied = Callable[[CommittedEntry, Sequence[bytes]], None]


class Applier:
    """Hands over what is committed and durable here, one batch at a time (rule C2).

    `applied` moves only when the machine has returned, that is: when its transaction is committed.
    """

    def __init__(
        self,
        *,
        machine: StateMachine,
        log: DurableLog,
        executor: Executor,
        wall: Wall,
        own_payloads: Callable[[int, int], tuple[bytes, ...] | None],
        on_applied: OnApplied,
        on_batch: Callable[[], None],
        on_failed: Callable[[BaseException], None],
        on_waiting: Callable[[], None],
    ) -> None:
        self._machine = machine
        self._log = log
        self._wall = wall
        self._executor = executor
        self._own_payloads = own_payloads
        self._on_applied = on_applied
        self._on_batch = on_batch
        self._on_failed = on_failed
        self._on_waiting = on_waiting
        self.waiting = False
        """The machine applied less than it was given: it needs to see what comes later."""
        self._looked = 0
        """How far it has looked ahead."""
        self.applied = 0
        self.busy = False
        self._stopped = False

    def start(self) -> None:
        """Take the machine's applied index; refuse when the journal does not lead to it.

        Raises FatalError. The engine applies only what its own journal holds durably, so the
        journal of a healthy node never ends below the machine.
        """
        index, term = self._machine.applied()
        log = self._log
        fits = self._wall.keeps_log(log, index, term) or index < log.first_index - 1
        if self._machine.copied() == (index, term) and not fits:
            # The copy was installed, and nothing applied since: the log goes on behind it.
            log.reset(index, term)
        if index > log.last_index:
            raise FatalError(
                f"the database has applied entry {index}, but the journal ends at {log.last_index}",
                code="journal_behind_database",
                hint="the journal was damaged or replaced: restore both from the same copy, or "
                "remove this member and add it again under a new name",
            )
        if index < log.first_index - 1:
            raise FatalError(
                f"the database has applied entry {index}, but the journal begins at "
                f"{log.first_index}",
                code="journal_ahead_of_database",
                hint="the database file was replaced by an older one: put the right one back",
            )
        if log.term_at(index) != term:
            raise FatalError(
                f"the database has applied entry {index} of term {term}; in the journal it is of "
                f"term {log.term_at(index)}",
                code="journal_of_another",
                hint="journal and database do not belong together: put the right ones back",
            )
        self.applied = index
        # A member without a database takes part in the log all the same.
        self._stopped = self._machine.absent

    def advance(self, upto: int) -> None:
        """Everything up to `upto` may be applied."""
        if self.busy or self._stopped or upto <= self.applied:
            return
        if self.waiting and not self._look_ahead(upto):
            return
        last = min(upto, self.applied + APPLY_ENTRIES_MAX)
        found = self._log.entries(self.applied + 1, last, APPLY_BYTES_MAX)
        batch = self._decoded(found)
        if not batch or batch[0].index != self.applied + 1:
            raise InternalError("the journal returned other entries than asked for")
        self.busy = True
        machine = self._machine
        if len(batch) <= BRIEF_ENTRIES_MAX:
            try:
                replies = machine.apply_briefly(batch)
            except Exception as error:
                self._executor.call_soon(self._done, batch, None, error)
                return
            if replies is not None:
                self._done(batch, replies, None)
                return

        def work() -> Sequence[Sequence[bytes]]:
            return machine.apply(batch)

        def done(replies: Sequence[Sequence[bytes]] | None, error: BaseException | None) -> None:
            self._done(batch, replies, error)

        self._executor.submit(APPLY_LANE, work, done)

    def _decoded(self, found: Sequence[LogEntry]) -> list[CommittedEntry]:
        batch: list[CommittedEntry] = []
        for entry in found:
            payloads = self._own_payloads(entry.index, entry.term)
            configuration = b""
            if payloads is None:
                payloads = decode_payloads(entry.data)
                if entry.data[:1] == CONFIGURATION:
                    configuration = entry.data[1:]
            batch.append(
                CommittedEntry(Index(entry.index), Term(entry.term), payloads, configuration)
            )
        return batch

    def _look_ahead(self, upto: int) -> bool:
        """Show the machine what has been committed since; whether it can go on."""
        while self._looked < upto:
            last = min(upto, self._looked + APPLY_ENTRIES_MAX)
            batch = self._decoded(self._log.entries(self._looked + 1, last, APPLY_BYTES_MAX))
            self._looked = batch[-1].index
            if self._machine.look_ahead(batch):
                self.waiting = False
                return True
        return False

    def stop(self) -> None:
        """Nothing more is handed over; what is under way finishes unheard."""
        self._stopped = True

    def _done(
        self,
        batch: list[CommittedEntry],
        replies: Sequence[Sequence[bytes]] | None,
        error: BaseException | None,
    ) -> None:
        self.busy = False
        if self._stopped:
            self._on_batch()
            return
        if error is not None:
            self._on_failed(error)
            return
        if replies is None or len(replies) > len(batch):
            self._on_failed(
                InternalError("the machine did not answer for the entries it was given")
            )
            return
        if len(replies) < len(batch):
            self.waiting = True
            batch = batch[: len(replies)]
            self._looked = self.applied + len(batch) + 1
            self._executor.call_soon(self._on_waiting)
        for entry, answers in zip(batch, replies, strict=True):
            if len(answers) != len(entry.payloads):
                self._on_failed(
                    InternalError(f"the machine did not answer every request of {entry.index}")
                )
                return
        self.applied += len(batch)
        for entry, answers in zip(batch, replies, strict=True):
            self._on_applied(entry, answers)
        self._on_batch()
