"""Bugs in what becomes of an archive: replayed by another release, pruned, or left behind by a
journal that has to let go (rules A4, A6, A7)."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

from raftdb.archive import (
    Archive,
    ArchiveDamagedError,
    NotRestorableError,
    Point,
    layout,
    retention,
)
from raftdb.archive import restore as restore_now
from raftdb.archive.chain import Timeline
from raftdb.archive.restore import _Comparison
from raftdb.archive.retention import Retention, carry_out, plan_pruning
from raftdb.archive.writer import ChainWriter, Tail
from raftdb.base.config import JournalConfig
from raftdb.base.errors import ConfigError, Error
from raftdb.command import Statement
from raftdb.consensus.entry import decode_payloads
from raftdb.journal.retention import Retention as LogRetention
from raftdb.machine.determinism import RequestFunctions
from tests.machine.support import FILES, MemoryLog
from tests.sim.checkers import Broken
from tests.sim.planted.archive import (
    archived,
    archived_to,
    begin,
    restored,
    sources_of,
)
from tests.sim.planted.bug import Bug, Patch
from tests.sim.planted.locations import ask
from tests.sim.planted.script import Script

SEGMENT_BYTES, KEEP_BYTES, PINNED_BYTES = 2048, 4096, 8192
DRAWN = (Statement("INSERT INTO w_probe VALUES (random())"),)
RESTORING: Any = sys.modules["raftdb.archive.restore"]
"""The module; its package has a function of the same name."""


# -- scripts ---------------------------------------------------------------------------------------


def restored_by_another_release(s: Script) -> None:
    """The archive is restored by a release that computes otherwise: it must say so, and which one
    to install."""
    store = begin(s)
    client = s.new_client()
    for _ in range(3):
        ask(s, client, client._core.execute(DRAWN, timeout_s=5.0))
    s.run_for(6.0)
    found = sources_of(store)
    plan = found.plan(found.last())
    with _another_release(), tempfile.TemporaryDirectory(prefix="raftdb-sim-") as work:
        try:
            restore_now(
                found, plan, f"{work}/r", files=FILES, log=MemoryLog(), decode=decode_payloads
            )
        except ArchiveDamagedError as error:
            if "install the raftdb release" not in (error.hint or ""):
                raise Broken("a replay is proven", f"nobody is told what to do: {error}") from error
        else:
            raise Broken("a replay is proven", "other rows are restored, and nobody says so")
    restored(s, store)


@contextlib.contextmanager
def _another_release() -> Any:
    """Its SQLite has another random(), and another number."""
    draw = RequestFunctions.begin_request
    mine = dataclasses.replace(RESTORING.fingerprint(), sqlite_version="4.0.0")

    def begin_request(self: RequestFunctions, seed: bytes) -> None:
        draw(self, bytes(one ^ 1 for one in seed))

    with (
        mock.patch.object(RequestFunctions, "begin_request", begin_request),
        mock.patch.object(RESTORING, "fingerprint", return_value=mine),
    ):
        yield


def pruned(s: Script) -> None:
    """An archive of several bases loses what is too old; who uploads must not do that."""
    store = begin(s, base_requests=12, interval_ms=50)
    # Lanes are slow, so that the log goes on while a base is uploaded.
    for _ in range(60):
        s.written(2)
        s.run_for(0.1)
    s.run_for(8.0)
    if store.deleted:
        raise Broken("an uploader deletes nothing", f"{store.deleted[0]} was deleted by a node")
    store.objects[layout.HOLDS + "court"] = b"now"
    timeline = sources_of(store).timelines[0]
    plan = plan_pruning(timeline, Retention(0, 0, 0, 0), _passed_by_its_log(timeline))
    with contextlib.suppress(ConfigError):
        carry_out(timeline, plan, store)
        raise Broken("a hold holds", f"{len(store.deleted)} objects went under a legal hold")
    del store.objects[layout.HOLDS + "court"]
    carry_out(timeline, plan, store)
    found = sources_of(store)
    for index in range(plan.oldest_index, found.last().index + 1):
        try:
            found.plan(Point(index))
        except Error as error:
            what = f"all since {plan.oldest_index} was to stay: {error}"
            raise Broken("what stays is whole", what) from error
    restored(s, store)


def _passed_by_its_log(timeline: Timeline) -> int:
    """When the last base was made behind segments that go on from it."""
    found, segment = 0, 0
    for link in timeline.links("segment", "base"):
        one = link.manifest
        if one.kind == "base" and one.last < segment:
            found = one.created_ms
        segment = max(segment, one.last)
    assert found, "no base was passed"
    return found


def archive_away(s: Script) -> None:
    """The store is away for longer than the journal may wait for it."""
    store = begin(s, JournalConfig(keep_bytes=KEEP_BYTES, pinned_bytes_max=PINNED_BYTES))
    s.run_for(3.0)
    before = archived_to(s)
    store.refuses = "0"
    s.written(110)
    s.run_for(3.0)
    for node in s.cluster.live():
        size = node.journal.bytes
        if size > KEEP_BYTES + PINNED_BYTES + 3 * SEGMENT_BYTES:
            raise Broken("a lag is bounded", f"{node.name} keeps {size} bytes of log")
    store.refuses = ""
    s.run_for(20.0)
    restored(s, store)
    found = sources_of(store)
    try:
        found.plan(Point(before + 2))
    except NotRestorableError as error:
        if "never archived" not in error.message:
            raise Broken("a gap is named", f"of {before + 2} it is said: {error}") from error
    else:
        raise AssertionError("there is no gap")


# -- bugs ------------------------------------------------------------------------------------------


def _not_compared() -> list[Patch]:
    """Hashes are counted, and not looked at."""

    def count(self: Any, _time_ms: int, items: Sequence[tuple[int, int, bytes]]) -> None:
        self.compared += len(items)

    return [(_Comparison, "__call__", count)]


def _uploader_deletes() -> list[Patch]:
    """A new base makes the log before it superfluous, so the uploader tidies up."""
    base = ChainWriter.base

    def tidy(self: ChainWriter, tail: Tail, *rest: Any) -> Tail:
        store: Any = self.archive.store
        for one in store.listing(layout.folder(tail.epoch, "segments")):
            store.delete(one.name)
        return base(self, tail, *rest)

    return [(ChainWriter, "base", tidy)]


def _hold_not_looked_at() -> list[Patch]:
    """Holds are looked for when pruning is planned, not when it is done."""
    listing = Archive.listing

    def without(self: Archive, prefix: str, *rest: Any) -> Any:
        return [] if prefix == layout.HOLDS else listing(self, prefix, *rest)

    return [(Archive, "listing", without)]


def _from_the_base_on() -> list[Patch]:
    """Segments that were added while the base was uploaded stand before it, and go."""
    return [(retention, "_needed_from", lambda chain, base: base.manifest.sequence)]


def _pins_for_ever() -> list[Patch]:
    """What is not archived yet stays in the journal, whatever that takes."""
    cut = LogRetention.cut

    def patient(self: LogRetention, sealed: Any, active: int, sizes: Any, safe: int) -> int:
        held = min((pin.index for pin in self._pins), default=1 << 60)
        return cut(self, sealed, active, sizes, min(safe, held - 1))

    return [(LogRetention, "cut", patient)]


def _gap_unnamed() -> list[Patch]:
    """The uploader goes on with what the journal still has."""

    def gap(self: ChainWriter, tail: Tail, term: int, last: int, reason: str) -> Tail:
        assert tail.last is not None
        return replace(tail, last=replace(tail.last, archived=last))

    return [(ChainWriter, "gap", gap)]


BUGS = [
    Bug("replay-not-compared", "A4", "a replay is taken as it comes out", make=_not_compared),
    Bug("uploader-deletes", "A6", "who uploads tidies up", make=_uploader_deletes),
    Bug("pruned-despite-a-hold", "A6", "a legal hold is overlooked", make=_hold_not_looked_at),
    Bug("pruned-what-is-needed", "A6", "a base needs what is behind it", make=_from_the_base_on),
    Bug("archive-holds-the-log", "A7", "the journal waits for the archive", make=_pins_for_ever),
    Bug("gap-not-named", "A7", "the archive goes on behind a hole", make=_gap_unnamed),
]

PLAYS: dict[str, tuple[Callable[[Script], None], dict[str, Any]]] = {
    "another-release": (restored_by_another_release, {"environment": archived}),
    "pruned": (pruned, {"environment": archived, "slow_apply_chance": 1.0}),
    "archive-away": (
        archive_away,
        {
            "environment": archived,
            "limits": {"journal_segment_bytes": SEGMENT_BYTES},
            "wal_bytes": 1,
        },
    ),
}

SCRIPTED = {
    "replay-not-compared": "another-release",
    "uploader-deletes": "pruned",
    "pruned-despite-a-hold": "pruned",
    "pruned-what-is-needed": "pruned",
    "archive-holds-the-log": "archive-away",
    "gap-not-named": "archive-away",
}
