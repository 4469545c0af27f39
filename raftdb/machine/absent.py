"""In the place of a database that is damaged: the node takes part in the log, and applies nothing
until a copy of the database is there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from raftdb.base.errors import FatalError, OperationalError
from raftdb.base.ids import HistoryId, Index, Term
from raftdb.base.ports import Clock, Files
from raftdb.command.requests import Parameters, Statement
from raftdb.command.results import Results
from raftdb.machine.applier import Recorder
from raftdb.machine.captures import CaptureJob
from raftdb.machine.format import HASH_BYTES
from raftdb.machine.machine import Machine
from raftdb.machine.reader import UNTIMED_S, QueryStop
from raftdb.machine.rowhash import ContentHash
from raftdb.machine.samples import Sample
from raftdb.machine.scan import ContentScan
from raftdb.machine.settings import Settings
from raftdb.machine.streams import RowStream
from raftdb.machine.units import Entry
from raftdb.machine.vacuum import Vacuumed
from raftdb.machine.workspace import Workspace


class AbsentMachine(Machine):
    """A Machine without a database: it knows no row, answers nothing, and has applied what lies
    below the log and nothing more."""

    absent = True

    def __init__(
        self,
        base: tuple[Index, Term],
        clock: Clock | None,
        configuration: tuple[int, bytes] | None = None,
    ) -> None:
        """`base`: the entry before the first of the log. `configuration`: the last one that is
        known, with its index."""
        self._configuration = configuration
        self._base = base
        self._clock = clock
        self._writer_lock = threading.Lock()
        self.path = ""
        self._copied = None
        self.wal_pages = self.wal_pages_left = 0
        self.settings_cell = Settings(self._no_rows)

    def _refuse(self) -> NoReturn:
        raise OperationalError(
            "the database of this node is damaged",
            code="quarantined",
            retryable=True,
            hint="use another node; this one fetches a copy by itself",
        )

    def _no_rows(self, sql: str, parameters: tuple[Any, ...] = ()) -> NoReturn:
        self._refuse()

    def close(self) -> None:
        """Nothing is open."""

    def applied(self) -> tuple[Index, Term]:
        """What was dropped from the log is applied on a majority, and was applied here."""
        return self._base

    def configuration(self) -> tuple[int, bytes] | None:
        """What the last one was stood in the database."""
        return self._configuration

    def seed_configuration(self, body: bytes) -> None:
        """There is nothing to write it into."""

    def apply(self, entries: Sequence[Entry]) -> list[list[bytes]]:
        """Never called: whoever drives it is told that nothing can be applied."""
        raise FatalError("entries cannot be applied without a database", code="database_absent")

    def apply_briefly(self, entries: Sequence[Entry]) -> list[list[bytes]] | None:
        return None

    def held(self) -> tuple[int, int] | None:
        return None

    def look_ahead(self, entries: Sequence[Entry]) -> bool:
        return False

    def try_held(self, limit_s: float) -> bool | None:
        return None

    def cancel_trial(self, cancelled: bool = True) -> None:
        """There is none."""

    def record_hashes(
        self, recorder: Recorder | None, before_checkpoint: Callable[[], None] | None = None
    ) -> None:
        """Nothing will be told."""

    def query(
        self,
        *statements: Statement,
        rows_bytes_max: int | None = None,
        rows_max: int | None = None,
        stop: QueryStop | None = None,
        timeout_s: float = UNTIMED_S,
    ) -> Results:
        self._refuse()

    def query_reply(
        self, statements: tuple[Statement, ...], rows_max: int | None, stop: QueryStop
    ) -> tuple[bytes, int]:
        self._refuse()

    def query_at(
        self, statements: tuple[Statement, ...], timeout_s: float = UNTIMED_S
    ) -> tuple[Results, int]:
        self._refuse()

    def query_briefly(
        self, statements: tuple[Statement, ...], rows_max: int | None, index: int
    ) -> bytes | None:
        self._refuse()

    def query_rows(
        self, sql: str, parameters: Parameters = (), timeout_s: float = UNTIMED_S
    ) -> tuple[tuple[str, ...], list[tuple[Any, ...]], int]:
        self._refuse()

    def open_scan(self) -> ContentScan:
        """There is nothing to scan: it fails when it begins."""
        return ContentScan(self._refuse, bytes(HASH_BYTES))

    def vacuum(self, pages_max: int) -> Vacuumed:
        """Nothing is there."""
        self._refuse()

    def open_stream(self) -> RowStream:
        self._refuse()

    def session_token(self, number: int) -> bytes | None:
        return None

    @property
    def lineage(self) -> tuple[tuple[HistoryId, int], ...]:
        return ()

    def was_applied(self, session: int, sequence: int) -> bool:
        return False

    def sessions_open(self) -> int:
        return 0

    def time_ms(self) -> int:
        return 0

    def samples_since(self, index: int, recent: int = 1) -> list[Sample]:
        return []

    def sample_at(self, index: int) -> Sample | None:
        return None

    def last_sample(self) -> Sample | None:
        return None

    def keep_table_sums(self, keep: bool) -> None:
        """There are none."""

    def want_sample(self, index: int) -> int:
        return index

    def horizon(self) -> int:
        return 1

    def content_hash(self) -> ContentHash:
        self._refuse()

    def recompute_content_hash(self) -> ContentHash:
        self._refuse()

    def begin_transaction(self, seed: bytes, foreign_keys: bool) -> Workspace:
        self._refuse()

    def begin_transaction_briefly(self, seed: bytes, foreign_keys: bool) -> Workspace | None:
        return None

    def end_transaction(self, workspace: Workspace) -> None:
        """None was begun."""

    def end_transaction_briefly(self, workspace: Workspace) -> bool:
        return True

    @property
    def durable_index(self) -> Index:
        return Index(0)

    def check_pages(self, offset: int, count: int) -> int:
        return 0

    def look_at_log(self) -> None:
        """There is none."""

    def checkpoint(self) -> Index:
        return Index(0)

    def begin_capture(
        self, target_directory: str, *, files: Files, spare_bytes: int = 0
    ) -> CaptureJob:
        self._refuse()
