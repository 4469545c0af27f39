"""A slow scrub: the content hash is computed from the rows again, in the background.

The comparison of replicas sees what was written differently. This sees what changed afterwards in
the file of one node, below SQLite and its page checksums: rows that do not add up to the sum that
was kept while they were written, an index that does not say what its table says. That node leaves
service and fetches a copy, as one that differs from the majority does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from raftdb.base.errors import FatalError
from raftdb.base.ports import Ports
from raftdb.machine import Part

FIRST_S = 600.0
"""The first pass begins so long after the start."""
CHUNK_ROWS = 500
"""Some 2 ms of work, between which other threads come to their turn."""
WAL_GROWN_BYTES = 64 << 20
"""A table's snapshot may make the write-ahead log grow by this. From a quarter of it on the scan
goes three times as fast, from half of it on as fast as it can; beyond, the table is left for the
next pass."""
SKIPPED_MAX = 16
"""Names of tables and indexes that were left out, or cannot be compared, for the status."""


class Scan(Protocol):
    """What is needed of the machine's scan."""

    rows: int
    not_comparable: bool

    def parts(self) -> list[Part]: ...

    def begin(self, part: Part) -> bool: ...

    def step(self, rows: int) -> bool | None: ...

    def end(self) -> None: ...


class Scanned(Protocol):
    """What is needed of the machine."""

    def open_scan(self) -> Scan: ...

    def wal_bytes(self) -> int: ...


class ContentScrub:
    """One pass over all tables every so many hours. Belongs to the loop; reads on a lane."""

    def __init__(
        self,
        machine: Scanned,
        differs: Callable[[str], None],
        ports: Ports,
        every_s: float,
        share: float,
    ) -> None:
        """`share`: of one core's time that it takes at most, 0 to 1. `every_s` 0: no pass at all.
        `differs` is told why this node's content is not what it was."""
        self._scan = machine.open_scan()
        self._wal_bytes = machine.wal_bytes
        self._differs = differs
        self._ports = ports
        self._every_s = every_s
        self._share = share
        self._timer: Any = None
        self._stopped = False
        self._parts: list[Part] = []
        self._part: Part | None = None
        self._wal_before = 0
        self._began_s = 0.0
        self._took_s = 0.0
        self._done = self._rows = 0
        self._skipped: list[str] = []
        self._not_compared: list[str] = []
        """Indexes that nothing can be looked up in: left out of every pass, and said so."""
        self._last: dict[str, Any] | None = None

    def start(self) -> None:
        """Begin in a while."""
        if self._every_s:
            self._arm(min(FIRST_S, self._every_s), self.begin)

    def stop(self) -> None:
        """End, in the midst of a table if need be. Nothing is lost."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self._part is not None:
            self._ports.executor.submit("scrub", self._scan.end, _ignore)

    def _arm(self, after_s: float, what: Callable[[], None]) -> None:
        self._timer = self._ports.executor.call_later(after_s, what)

    def _submit(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        clock = self._ports.clock
        start_s = clock.monotonic_s()

        def finished(result: Any, error: BaseException | None) -> None:
            self._took_s = clock.monotonic_s() - start_s
            if isinstance(error, FatalError):
                raise error
            if self._stopped:
                return
            if error is not None:
                # Such as no free descriptor: not the table's fault.
                self._ports.log.warning(
                    "scrub_interrupted", part=str(self._part or ""), error=str(error)
                )
                self._skip()
            else:
                done(result)

        self._ports.executor.submit("scrub", work, finished)

    # ---- a pass

    def begin(self) -> None:
        """A pass begins."""
        self._began_s = self._ports.clock.monotonic_s()
        self._done = self._rows = 0
        self._parts, self._part, self._skipped = [], None, []
        self._not_compared = []
        self._submit(self._scan.parts, self._found)

    def _found(self, parts: list[Part]) -> None:
        self._parts = parts
        self._next()

    def _next(self) -> None:
        if self._done >= len(self._parts):
            self._ended()
            return
        part = self._part = self._parts[self._done]
        self._wal_before = self._wal_bytes()
        self._submit(lambda: self._scan.begin(part), self._opened)

    def _opened(self, exists: bool) -> None:
        if exists:
            self._step()
            return
        if self._scan.not_comparable and len(self._not_compared) < SKIPPED_MAX:
            self._not_compared.append(str(self._part or ""))
        self._after()

    def _step(self) -> None:
        self._submit(lambda: self._scan.step(CHUNK_ROWS), self._stepped)

    def _stepped(self, equal: bool | None) -> None:
        if equal is None:
            grown = self._wal_bytes() - self._wal_before
            if grown > WAL_GROWN_BYTES:
                self._skip()
                return
            share = self._share * (3 if grown > WAL_GROWN_BYTES // 4 else 1)
            share = 1.0 if grown > WAL_GROWN_BYTES // 2 else min(share, 1.0)
            self._arm(self._took_s * (1 / share - 1), self._step)
        elif equal:
            self._rows += self._rows_here()
            self._after()
        else:
            self._wrong()

    def _skip(self) -> None:
        """Writers need the write-ahead log: this table or index, another time."""
        if len(self._skipped) < SKIPPED_MAX:
            self._skipped.append(str(self._part or ""))
        self._after()

    def _after(self) -> None:
        self._done += 1
        pause_s = self._took_s * (1 / self._share - 1)
        self._submit(self._scan.end, lambda _none: self._arm(pause_s, self._next))

    def _rows_here(self) -> int:
        """Of the table that is read; those that are looked up in an index are counted already."""
        return 0 if self._part is None or self._part.index else self._scan.rows

    def _ended(self, wrong: Part | None = None) -> None:
        clock, log = self._ports.clock, self._ports.log
        seconds = round(clock.monotonic_s() - self._began_s, 3)
        indexes = sum(1 for part in self._parts[: self._done] if part.index)
        not_compared = list(self._not_compared)
        self._part = None
        self._last = {
            "result": "differs" if wrong else "incomplete" if self._skipped else "equal",
            "table": wrong.table if wrong else "",
            "index": wrong.index if wrong else "",
            "ended_ms": clock.wall_ms(),
            "seconds": seconds,
            "rows": self._rows,
            "tables": self._done - indexes,
            "indexes": indexes,
            "skipped": list(self._skipped),
            "not_compared": not_compared,
        }
        if not_compared:
            log.info("scrub_not_compared", indexes=", ".join(not_compared))
        if self._skipped:
            log.warning("scrub_incomplete", skipped=", ".join(self._skipped), rows=self._rows)
        elif not wrong:
            tables = self._done - indexes
            log.info(
                "scrub_equal", tables=tables, indexes=indexes, rows=self._rows, seconds=seconds
            )
        self._arm(self._every_s, self.begin)

    def _wrong(self) -> None:
        part = self._part
        assert part is not None
        self._ports.log.error(
            "scrub_differs", table=part.table, index=part.index, rows=self._scan.rows
        )
        self._ended(part)
        self._ports.executor.submit("scrub", self._scan.end, _ignore)
        self._differs(
            f"index {part.index} of table {part.table} in this node's file does not agree with the"
            " rows"
            if part.index
            else f"the rows of table {part.table} in this node's file are not what was written"
        )

    def facts(self) -> dict[str, Any]:
        """For the status."""
        part = self._part
        return {
            "table": part.table if part is not None else "",
            "index": part.index if part is not None else "",
            "parts_done": self._done,
            "parts": len(self._parts),
            "rows": self._rows + self._rows_here(),
            "last": self._last,
        }


def _ignore(_result: Any, _error: BaseException | None) -> None:
    pass


__all__ = ["ContentScrub"]
