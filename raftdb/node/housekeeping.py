"""What a replica does besides answering: checkpoints beside the writer, compaction of the journal
behind them, and logged ticks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raftdb.base.errors import FatalError
from raftdb.base.ports import Ports
from raftdb.journal import Journal
from raftdb.machine import PAGE_BYTES, Machine
from raftdb.node.replica import Replica

CHECK_EVERY_S = 0.25
TICK_EVERY_S = 60.0
LOOK_EVERY_S = 2.0
"""So often what is in the write-ahead log alone is looked at, while no checkpoint does it."""
REST_PAGES = 2_048
REST_MAX_S = 8.0
"""A checkpoint that readers kept from its work is tried again later, the more it left: before each,
all that it could move is looked at (some 10 ms for so many pages), CHECK_EVERY_S for each of them.
"""
WAL_PINNED_BYTES = 256 << 20
"""From this length of the write-ahead log on, open transactions may not hold it for long: their
snapshots keep it from beginning again."""
PINNED_S = 5.0


class Housekeeping:
    """Watches the WAL's size and the time; one timer, one checkpoint at a time, on its own lane."""

    def __init__(
        self, replica: Replica, machine: Machine, journal: Journal, ports: Ports, wal_bytes: int
    ) -> None:
        self._replica = replica
        self._machine = machine
        self._journal = journal
        self._ports = ports
        self._wal_bytes = wal_bytes
        self._checkpointing = False
        self._stopped = False
        self._next_tick_s = self._next_look_s = self._rest_until_s = 0.0
        self._timer: Any = None

    def start(self) -> None:
        """Begin watching."""
        now_s = self._ports.clock.monotonic_s()
        self._next_tick_s, self._next_look_s = now_s + TICK_EVERY_S, now_s + LOOK_EVERY_S
        self._arm()

    def stop(self) -> None:
        """Watch no more; a checkpoint that runs is left to end."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        self._timer = self._ports.executor.call_later(CHECK_EVERY_S, self._check)

    def _check(self) -> None:
        if self._stopped:
            return
        if self._machine.wal_pages * PAGE_BYTES > WAL_PINNED_BYTES:
            self._replica.transactions.end_older_than(
                PINNED_S, "it kept the write-ahead log, which had grown too long"
            )
        now_s = self._ports.clock.monotonic_s()
        if not self._checkpointing:
            self._begin(now_s)
        if now_s >= self._next_tick_s:
            self._next_tick_s = now_s + TICK_EVERY_S
            if self._replica.status().role == "leader":
                self._replica.tick()
        self._arm()

    def _begin(self, now_s: float) -> None:
        if now_s >= self._rest_until_s and self._checkpoint_due():
            self._submit(self._machine.checkpoint, self._checkpointed)
        elif now_s >= self._next_look_s:
            self._submit(self._machine.look_at_log, self._looked)
        else:
            return
        self._next_look_s = now_s + LOOK_EVERY_S

    def _submit(self, work: Callable[[], Any], done: Callable[..., None]) -> None:
        self._checkpointing = True
        self._ports.executor.submit("checkpoint", work, done)

    def _checkpoint_due(self) -> bool:
        """The write-ahead log has grown, or the journal has while the database did not: requests
        that fail leave little in the one and all of themselves in the other."""
        machine = self._machine
        return machine.wal_pages * PAGE_BYTES >= self._wal_bytes or self._journal.wants_checkpoint(
            machine.durable_index
        )

    def _looked(self, _result: Any, error: BaseException | None) -> None:
        self._checkpointing = False
        if isinstance(error, FatalError):
            raise error
        if error is not None:
            self._ports.log.warning("checkpoint_failed", error=str(error))

    def _checkpointed(self, _result: Any, error: BaseException | None) -> None:
        self._looked(None, error)
        rest_s = CHECK_EVERY_S * (self._machine.wal_pages_left // REST_PAGES)
        self._rest_until_s = self._ports.clock.monotonic_s() + min(rest_s, REST_MAX_S)
        if error is None and not self._stopped:
            # What the database holds on disk the journal need not (rule M2).
            self._journal.compact(self._machine.durable_index)
