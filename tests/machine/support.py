"""A replica's database without a cluster: entries go in, replies come out."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from raftdb.base.errors import Error
from raftdb.base.ids import HistoryId, Index, Term
from raftdb.base.limits import Limits
from raftdb.command import (
    Execute,
    Failed,
    Opened,
    OpenSession,
    Reply,
    Request,
    Results,
    Statement,
    StatementResult,
    Tick,
    decode_reply,
    encode_request,
)
from raftdb.command.requests import Parameters, Stamp
from raftdb.machine import Machine
from raftdb.machine.pages import open_vfs
from raftdb.runtime.clock import RealClock
from raftdb.runtime.files import RealFiles

HISTORY = HistoryId("0123456789abcdef" * 2)
START_MS = 1_700_000_000_000
"""2023-11-14 22:13:20 UTC."""
FILES = RealFiles()


class CpuClock(RealClock):
    """Counts what this thread works, not what others do meanwhile on a busy machine."""

    def __init__(self) -> None:
        self.monotonic_s = time.thread_time


@dataclass(frozen=True, slots=True)
class Entry:
    """A committed entry, as the engine hands it over."""

    index: Index
    term: Term
    payloads: tuple[bytes, ...]
    configuration: bytes = b""


@dataclass
class MemoryLog:
    """Keeps what is logged."""

    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def info(self, event: str, **fields: Any) -> None:
        self.events.append((event, fields))

    warning = info
    error = info


class ManualClock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return START_MS


def stamp(number: int, time_ms: int | None = None) -> Stamp:
    """A stamp: one second later per number, a seed of its own."""
    at_ms = START_MS + number * 1000 if time_ms is None else time_ms
    return Stamp(at_ms, number.to_bytes(8, "little"))


def statement(sql: str | tuple[str, Parameters] | Statement) -> Statement:
    """From SQL, SQL and one parameter set, or as it is."""
    if isinstance(sql, Statement):
        return sql
    if isinstance(sql, str):
        return Statement(sql)
    return Statement(sql[0], (sql[1],))


SQL = str | tuple[str, Parameters] | Statement


class Database:
    """One machine, one session that is used unless another is named."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.directory = str(directory)
        self.log = MemoryLog()
        self.options = {"files": FILES, "limits": Limits(), "log": self.log, **options}
        self.vfs = {"vfs_base": options["vfs_base"]} if "vfs_base" in options else {}
        self.entries: list[Entry] = []
        self.sequence = 0
        Machine.create(self.directory, HISTORY, files=FILES, **self.vfs)
        self.machine = self.open()
        opened = self.apply(OpenSession(stamp(1), b"t" * 16, "test"))
        assert isinstance(opened, Opened)
        self.session = opened.session.number

    def open(self) -> Machine:
        """Open the directory's machine."""
        return Machine.open(self.directory, history=HISTORY, **self.options)

    def restart(self) -> None:
        """Close and open."""
        self.machine.close()
        self.machine = self.open()

    @property
    def next_index(self) -> int:
        return int(self.machine.applied()[0]) + 1

    def entry(self, *requests: Request, term: int = 1, index: int | None = None) -> Entry:
        """The next entry, holding these requests."""
        payloads = tuple(encode_request(request) for request in requests)
        return Entry(Index(index or self.next_index), Term(term), payloads)

    def apply_entries(self, *entries: Entry) -> list[list[bytes]]:
        """One call of apply; the entries are kept for replays."""
        replies = self.machine.apply(entries)
        self.entries.extend(entries)
        return replies

    def apply(self, request: Request) -> Reply:
        """One entry with one request."""
        [[reply]] = self.apply_entries(self.entry(request))
        return decode_reply(reply)

    def request(self, *sql: SQL, **changes: Any) -> Execute:
        """The session's next request."""
        if "sequence" not in changes:
            self.sequence += 1
        values: dict[str, Any] = {
            "stamp": stamp(self.sequence + 1),
            "session": self.session,
            "sequence": self.sequence,
            "floor": self.sequence - 1,
            "statements": tuple(statement(one) for one in sql),
            **changes,
        }
        return Execute(**values)

    def batch(self, *requests: Request) -> list[Reply]:
        """Several requests in one entry."""
        [replies] = self.apply_entries(self.entry(*requests))
        return [decode_reply(reply) for reply in replies]

    def run(self, *sql: SQL, **changes: Any) -> tuple[StatementResult, ...]:
        """One request that must succeed."""
        reply = self.apply(self.request(*sql, **changes))
        assert isinstance(reply, Results), reply
        return reply.statements

    def fail(self, *sql: SQL, **changes: Any) -> Error:
        """One request that must fail; its error."""
        reply = self.apply(self.request(*sql, **changes))
        assert isinstance(reply, Failed), reply
        return reply.error

    def rows(self, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """What a query reads."""
        return list(self.machine.query(Statement(sql, (parameters,))).statements[0].rows)

    def check_hash(self) -> None:
        """The incremental hash equals the one recomputed from all rows, part by part."""
        kept, recomputed = self.machine.content_hash(), self.machine.recompute_content_hash()
        assert kept.tables == recomputed.tables
        assert kept.sequences == recomputed.sequences
        assert kept == recomputed

    def tick(self, time_ms: int) -> None:
        """Move logged time."""
        self.apply(Tick(stamp(0, time_ms)))

    def close(self) -> None:
        self.machine.close()


def replay(directory: Path, entries: Sequence[Entry], **options: Any) -> Machine:
    """Another replica: founded afresh, the same entries, one per call."""
    values: dict[str, Any] = {"files": FILES, "limits": Limits(), "log": MemoryLog(), **options}
    Machine.create(str(directory), HISTORY, files=FILES)
    machine = Machine.open(str(directory), history=HISTORY, **values)
    for entry in entries:
        machine.apply([entry])
    return machine


def raw_connection(path: str | Path) -> apsw.Connection:
    """A connection that writes the file behind the machine's back, with right checksums."""
    return apsw.Connection(str(path), vfs=open_vfs("").name)


def copy_as_after_a_kill(source: str, target: Path) -> None:
    """What a SIGKILL leaves: the files as they are, while the process has them open."""
    shutil.copytree(source, target)
