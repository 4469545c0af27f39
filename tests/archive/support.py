"""An archive without a cluster: one machine, a chain writer, and any store."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raftdb.archive import (
    Archive,
    ArchiveEntry,
    ChainWriter,
    Keyring,
    Plan,
    Point,
    Restored,
    Sealer,
    Sources,
    Store,
    Tail,
    load_timeline,
    open_store,
    restore,
)
from raftdb.archive.basecopy import BaseUpload
from raftdb.archive.records import BaseRecord
from raftdb.command import encode_request
from raftdb.consensus.entry import decode_payloads, encode_batch
from raftdb.machine import DATABASE_FILE, Machine, fingerprint
from tests.machine.support import FILES, HISTORY, START_MS, Database, Entry, MemoryLog

CLUSTER = "c" * 32
KEYS = Keyring({"k1": bytes(range(32))})


def sealer(keyring: Keyring = KEYS, cipher: str = "aes-256-gcm") -> Sealer:
    return Sealer(keyring, os.urandom, cipher)


@dataclass
class Live:
    """A replica whose log is archived by hand."""

    directory: Path
    store: Store
    keyring: Keyring = KEYS
    node: str = "n1"
    hashes: dict[tuple[int, int], bytes] = field(default_factory=dict)
    """As recorded live."""
    times: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.database = Database(self.directory / "live")
        self.machine.record_hashes(self._record)
        self.archive = Archive.open_or_create(self.store, sealer(self.keyring), CLUSTER, START_MS)
        self.writer = self.new_writer(self.node)
        self.tail: Tail = self.writer.begin()
        self.term = 1
        self.bases = 0
        self.previous: BaseRecord | None = None

    @property
    def machine(self) -> Machine:
        return self.database.machine

    def new_writer(self, node: str, history: str = HISTORY) -> ChainWriter:
        return ChainWriter(
            self.archive,
            history=history,
            node=node,
            wall_ms=lambda: START_MS,
            randbytes=os.urandom,
            build=fingerprint().to_bytes(),
        )

    def _record(self, time_ms: int, items: Sequence[tuple[int, int, bytes]]) -> None:
        for index, position, total in items:
            self.hashes[index, position] = total
            self.times[index] = time_ms

    @property
    def index(self) -> int:
        return int(self.machine.applied()[0])

    def run(self, *requests: tuple[str, ...]) -> int:
        """One entry with one request per argument; its index."""
        payloads = [encode_request(self.database.request(*sql)) for sql in requests]
        entry = Entry(self.database.next_index, self.term, tuple(payloads))  # type: ignore[arg-type]
        self.database.apply_entries(entry)
        return int(entry.index)

    def base(self, meanwhile: Callable[[], object] = lambda: None) -> Tail:
        """Archive a base of now; `meanwhile` is done between its capture and its manifest."""
        self.bases += 1
        folder = self.directory / f"capture-{self.bases}"
        capture = self.machine.capture(str(folder), lambda _done: None, files=FILES)
        file = FILES.open(str(folder / DATABASE_FILE))
        upload = BaseUpload(
            self.archive, self.tail.epoch, file, capture.size_bytes, os.urandom, self.previous
        )
        while upload.step():
            pass
        file.close()
        record = upload.record(capture, capture.time_ms, fingerprint().to_wire())
        begun = self.tail.sequence
        meanwhile()
        name, data = self.writer.put_base(record, begun)
        self.tail = self.writer.base(self.tail, self.term, name, data, record)
        self.previous = record
        self.sent_bytes = upload.sent_bytes
        return self.tail

    def entries(self, first: int, last: int) -> list[ArchiveEntry]:
        """As the journal and the hash log would give them."""
        found = []
        for entry in self.database.entries:
            if first <= entry.index <= last:
                count = len(entry.payloads)
                hashes = [self.hashes.get((entry.index, place), b"") for place in range(count)]
                data = encode_batch(entry.payloads)
                found.append(ArchiveEntry(entry.index, entry.term, data, b"".join(hashes)))
        return found

    def segment(self) -> Tail:
        """Archive what is not."""
        entries = self.entries(self.tail.archived + 1, self.index)
        time_ms = self.times[entries[-1].index]
        self.tail = self.writer.segment(self.tail, self.term, entries, time_ms)
        return self.tail

    def close(self) -> None:
        self.database.close()


def filled(directory: Path, store: Store | None = None, *, seed: int = 1, **options: Any) -> Live:
    """A base, 20 entries in segments of five with one to three requests each, a base in between."""
    drawn = random.Random(seed)
    live = Live(directory, store or open_store(f"file://{directory}/archive"), **options)
    live.run(("CREATE TABLE t(id INTEGER PRIMARY KEY, x)",))
    live.base()
    for number in range(20):
        rows = [
            (f"INSERT INTO t(x) VALUES ('{drawn.randbytes(20).hex()}')",)
            for _ in range(drawn.randint(1, 3))
        ]
        live.run(*rows)
        if number % 5 == 4:
            live.segment()
        if number == 9:
            live.base()
    return live


def sources(*stores: Store, keyring: Keyring = KEYS, newest: bool = False) -> Sources:
    """What a restore reads; `newest`: of the newest moment."""
    archives = [Archive.open(one, sealer(keyring)) for one in stores]
    return Sources([load_timeline(one, newest=newest) for one in archives])


def restored(
    found: Sources, work: Path, point: Point | None = None, **options: Any
) -> tuple[Plan, Restored]:
    """Restore to a point, or to the end."""
    plan = found.plan(point or found.last())
    done = restore(
        found, plan, str(work), files=FILES, log=MemoryLog(), decode=decode_payloads, **options
    )
    return plan, done
