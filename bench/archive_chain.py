"""What the commands cost on an archive with a long chain: time, requests and memory of each.

The chain is synthetic: segments of one entry, a base after each two thousand, a mark now and then,
written as an uploader does but without its fsync. Each command then runs in a process of its own,
as its command line does, and counts what it asks of the store.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

import raftdb.ops.archive as ops
import raftdb.ops.prune as pruning
from bench import host
from bench.command import guarded
from raftdb.archive import Archive, ChainWriter, Keyring, Near, Sealer, open_store, retention
from raftdb.archive.records import ArchiveEntry, BaseRecord
from raftdb.archive.retention import Retention
from raftdb.consensus.entry import decode_payloads
from raftdb.ops.verify import verify_archive
from raftdb.runtime.clock import RealClock

BASE_EVERY = 2_000
MARK_EVERY = 3_000
STEP_MS = 1_000
HISTORY = "a" * 32
KEYS = Keyring({"k1": bytes(32)})
CHAIN_END_MS = 1_750_000_000_000


class Counted:
    """A store that counts what is asked of it."""

    def __init__(self, store: Any, counts: dict[str, int]) -> None:
        self._store = store
        self._counts = counts
        self.url = store.url

    def put(self, name: str, data: bytes) -> bool:
        self._counts["puts"] += 1
        found: bool = self._store.put(name, data)
        return found

    def get(self, name: str) -> Any:
        self._counts["gets"] += 1
        return self._store.get(name)

    def delete(self, name: str) -> None:
        self._store.delete(name)

    def listing(self, prefix: str, after: str = "") -> Any:
        found = self._store.listing(prefix, after)
        # As S3 counts them: a thousand names each.
        self._counts["lists"] += 1 + len(found) // 1000
        return found


def build(url: str, segments: int) -> None:
    """Write the chain. Nothing is synced: what is measured is the reading."""
    os.fsync = lambda _descriptor: None  # type: ignore[assignment]
    now_ms = CHAIN_END_MS - segments * STEP_MS
    archive = Archive.open_or_create(open_store(url), Sealer(KEYS, os.urandom), "c" * 32, 0)
    writer = ChainWriter(
        archive,
        history=HISTORY,
        node="n1",
        wall_ms=lambda: now_ms,
        randbytes=os.urandom,
        build=bytes(16),
    )
    tail = writer.begin()
    for index in range(1, segments + 1):
        now_ms += STEP_MS
        if index % BASE_EVERY == 1:
            name, data = writer.put_base(_base(index, now_ms), tail.sequence)
            tail = writer.base(tail, 1, name, data, _base(index, now_ms))
        if index % MARK_EVERY == 1:
            tail = writer.mark(tail, 1, tail.archived, 0, f"mark {index}")
        entry = ArchiveEntry(index + 1, 1, b"", bytes(16))
        tail = writer.segment(tail, 1, [entry], now_ms)


def _base(index: int, time_ms: int) -> BaseRecord:
    empty: dict[str, Any] = {"fingerprint": {}, "packs": (), "chunks": b""}
    sizes: dict[str, Any] = {"size_bytes": 0, "file_digest": bytes(32), "chunk_bytes": 65_536}
    return BaseRecord(1, HISTORY, index, 1, time_ms, bytes(16), **sizes, **empty)


def commands(url: str, segments: int) -> dict[str, Callable[[], object]]:
    """What is measured, by the command line that does it."""
    clock, middle = RealClock(), segments // 2

    def opened(**how: Any) -> ops.Destinations:
        return ops.open_destinations([url], KEYS, **how)

    def log(first: int, last: int) -> int:
        found = opened(near=Near(first=first, index=last))
        return sum(1 for _ in ops.archive_log(found, decode_payloads, first=first, last=last))

    def by_mark() -> object:
        number = middle // MARK_EVERY * MARK_EVERY + 1
        point = opened(summary=True).sources.find_mark(f"mark {number}")
        return opened(near=Near(index=point.index)).sources.plan(point)

    def at_index() -> object:
        found = opened(near=Near(index=middle))
        return found.sources.plan(ops.parse_point(str(middle)))

    def newest() -> object:
        found = opened(newest=True)
        return found.sources.plan(found.sources.last())

    return {
        "status": lambda: ops.status(opened(summary=True), clock),
        "list": lambda: ops.points(opened(summary=True)),
        "mark": lambda: ops.add_mark(ops.open_archives([url], KEYS)[0], "new", 5, clock, "mark"),
        "log --first --last": lambda: log(middle, middle + 100),
        "restore --plan": newest,
        "restore --index --plan": at_index,
        "restore --mark --plan": by_mark,
        "verify --quick": lambda: verify_archive(opened(newest=True), every_object=False),
        "verify": lambda: verify_archive(opened(newest=True)),
        "prune --dry-run": lambda: pruning.prune([url], KEYS, Retention(), clock, dry_run=True),
        "log --search": lambda: sum(
            1 for _ in ops.archive_log(opened(), decode_payloads, search="nothing")
        ),
    }


def _merge(url: str) -> None:
    """What `raftdb archive prune --merge-hours 0` does first."""
    [archive] = ops.open_archives([url], KEYS)
    pruning.merge(archive, 0, RealClock(), dry_run=False)


def _settle(url: str) -> None:
    """And what it does a day later: the small ones go."""
    retention.GRACE_MS = -60_000
    pruning.prune([url], KEYS, Retention(100_000), RealClock(), dry_run=False)


def _child(url: str, segments: int, name: str, sent: Any) -> None:
    counts = {"gets": 0, "lists": 0, "puts": 0}
    for module in (ops, pruning):
        vars(module)["open_store"] = lambda url: Counted(open_store(url), counts)
    merging = {"merge": lambda: _merge(url), "prune what was merged": lambda: _settle(url)}
    call = (commands(url, segments) | merging)[name]
    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start_s = time.monotonic()
    try:
        call()
        failure = ""
    except Exception as error:
        failure = repr(error)
    took_s = time.monotonic() - start_s
    usage = resource.getrusage(resource.RUSAGE_SELF)
    facts = {
        "seconds": round(took_s, 2),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "memory_mb": round(usage.ru_maxrss / 1024 - before_mb, 1),
        **counts,
    }
    sent.send(facts | {"failure": failure} if failure else facts)


def measure(place: Path, segments: int, names: list[str], say: Callable[[str], None]) -> Any:
    """Build, and run each command in a process of its own."""
    url = f"file://{place}/archive"
    context = multiprocessing.get_context("spawn")
    start_s = time.monotonic()
    builder = context.Process(target=build, args=(url, segments))
    builder.start()
    builder.join()
    say(f"{segments} segments written in {time.monotonic() - start_s:.0f} s")
    results = {}
    all_of_them = names or list(commands(url, segments))
    for name in [*all_of_them, "merge", "prune what was merged", *all_of_them]:
        received, sent = context.Pipe(duplex=False)
        child = context.Process(target=_child, args=(url, segments, name, sent))
        child.start()
        sent.close()
        told = f"{name}, merged" if "merge" in results and name in results else name
        results[told] = received.recv()
        child.join()
        say(f"{told}: {json.dumps(results[told])}")
    return results


@click.command("archive-chain")
@click.option("--segments", default=86_400, type=click.IntRange(100), show_default=True)
@click.option("--only", multiple=True, help="Measure this command alone.")
@click.option("--directory", default=None, help="Where the archive is made.  [default: /var/tmp]")
def command(segments: int, only: tuple[str, ...], directory: str | None) -> None:
    """Commands on an archive of many segments: seconds, requests, memory. Prints them, and records
    nothing.

    \b
      python -m bench archive-chain --segments 86400    a day of one segment per second
    """

    def run() -> None:
        place, _disk = host.work_directory(directory)
        try:
            measure(place, segments, list(only), click.echo)
        finally:
            shutil.rmtree(place, ignore_errors=True)

    guarded(run)
