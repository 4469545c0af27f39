"""Bugs in what a journal's start makes of the disk, and in what it may let go of; in logged time,
and in replies of an entry that was cut into transactions."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from raftdb.base.config import JournalConfig
from raftdb.base.ports import Files
from raftdb.client.transactions import OpenTransaction
from raftdb.command import Statement
from raftdb.journal import journal as journal_module
from raftdb.journal.format import RESET
from raftdb.journal.journal import Journal
from raftdb.journal.recovery import _Recovery
from raftdb.journal.scan import Replay, find_batch
from raftdb.journal.segments import Segments
from raftdb.machine import machine
from raftdb.machine.applier import Applier
from raftdb.node import transactions
from tests.sim.disk import Fault
from tests.sim.planted.bug import Bug, Patch
from tests.sim.planted.scenarios_copies import SIZES, outrun
from tests.sim.planted.scenarios_requests import TIMEOUT_S, sound
from tests.sim.planted.script import Script


def _time_goes_back() -> list[Patch]:
    """The leader's clock is right, whatever was logged before."""
    request = Applier._request

    def as_it_is(self: Applier, unit: Any, one: Any, *rest: Any, **more: Any) -> bytes:
        if one.stamp.time_ms < self._time_ms:
            self._time_ms = one.stamp.time_ms
            self._clock.set_time(self._time_ms)
        return request(self, unit, one, *rest, **more)

    return [(Applier, "_request", as_it_is)]


def _early_replies_go() -> list[Patch]:
    """What was applied before a request that is held is taken for applied in an earlier life."""
    units = Applier._units

    def forgetful(self: Applier, entries: Any) -> Any:
        self._early = {}
        return units(self, entries)

    return [(Applier, "_units", forgetful)]


def _sealed_cut_forgotten() -> list[Patch]:
    """A cut is recorded of the newest sealed segment alone."""

    def truncate(self: Segments, index: int) -> None:
        if self.sealed:
            self.sealed[-1].last = min(self.sealed[-1].last, index - 1)

    return [(Segments, "truncate", truncate)]


def _not_trimmed() -> list[Patch]:
    """A start takes sealed segments for whole, though later ones have cut them."""
    return [(_Recovery, "_trim_sealed", lambda self, sealed, floor: None)]


def _reset_keeps_oldest() -> list[Patch]:
    """A start forgets that a reset gave up all segments before it."""
    apply = Replay.apply

    def instead(self: Replay, operation: Any, place: Any) -> None:
        before = self.oldest
        apply(self, operation, place)
        if operation.kind == RESET:
            self.oldest = before

    return [(Replay, "apply", instead)]


def _removed_at_once() -> list[Patch]:
    """Segments go while it is being written that the log begins behind them."""
    drop = Journal.drop_prefix

    def drop_prefix(self: Journal, index: int) -> None:
        before = [one.number for one in self._segments.sealed if one.last < self._first_index]
        drop(self, index)
        paths = [
            self._segments.path_of(one.number)
            for one in self._segments.sealed
            if one.last < self._first_index and one.number not in before
        ]
        journal_module.remove_segments(self._files, self._directory, paths)

    return [(Journal, "drop_prefix", drop_prefix)]


def _reads_it_all() -> list[Patch]:
    """A start verifies every segment from its first to its last byte."""
    ends = _Recovery._read_ends

    def read(self: Any, number: int) -> Any:
        self._files.read_file(self._path(number))
        return ends(self, number)

    return [(_Recovery, "_read_ends", read)]


def _written_though_cut() -> list[Patch]:
    """What a batch brought is durable when it is written, whatever was cut meanwhile."""

    def lower(self: Journal, index: int) -> None:
        self._durable_index = min(self._durable_index, index)

    return [(Journal, "_lower_durable", lower)]


def _log_left_in_the_cache() -> list[Patch]:
    """A start reads the database's write-ahead log, and leaves it where it is."""
    return [(machine, "rewrite_log", lambda path, files: None)]


def _log_synced() -> list[Patch]:
    """A start syncs the database's write-ahead log, without writing it again."""

    def sync(path: str, files: Files) -> None:
        if files.exists(path + "-wal"):
            file = files.open(path + "-wal")
            file.sync()
            file.close()

    return [(machine, "rewrite_log", sync)]


def _commit_by_the_clock() -> list[Patch]:
    """A COMMIT's time is the clock's, whatever its statements have seen."""
    return [(transactions, "max", lambda clock_ms, _seen_ms: clock_ms)]


BUGS: tuple[Bug, ...] = (
    Bug("written-though-cut", "row 1", "a cut batch counts when written", make=_written_though_cut),
    Bug("log-left-in-the-cache", "J1", "a start trusts the cache", make=_log_left_in_the_cache),
    Bug("log-synced-as-it-is", "J1", "a second sync is believed", make=_log_synced),
    Bug("commit-by-the-clock", "M9", "a COMMIT takes time back", make=_commit_by_the_clock),
    Bug("time-runs-backwards", "M1", "a statement's now is the leader's", make=_time_goes_back),
    Bug("early-replies-go", "M1", "a reply is lost while it waits", make=_early_replies_go),
    Bug("sealed-cut-forgotten", "row 3", "a cut reaches one segment", make=_sealed_cut_forgotten),
    Bug("cut-segments-not-trimmed", "row 3", "a start knows no cuts", make=_not_trimmed),
    Bug("reset-keeps-segments", "row 12", "a start wants what was reset", make=_reset_keeps_oldest),
    Bug("removed-before-it-is-said", "J1", "segments go too early", make=_removed_at_once),
    Bug("start-reads-the-log", "J4", "every segment is read whole", make=_reads_it_all),
    Bug(
        "mark-not-written",
        "J2",
        "a start leaves the mark as it was",
        make=lambda: [(_Recovery, "_write_mark", lambda self, last: None)],
    ),
    Bug(
        "mark-not-looked-at",
        "J2",
        "a last batch of zeros was never written",
        make=lambda: [(_Recovery, "_check_mark", lambda self, path, scanned: None)],
    ),
)


def rot_of_the_last_batch(s: Script) -> None:
    """All of a node's last batch turns to zeros, long after it was synced and acknowledged. The log
    looks as if it had ended before; the mark alone says that it did not."""
    leader = s.leader()
    good, cut = s.others(leader)
    s.only([leader, good])
    s.written(6)
    # Long enough for the mark of an idle journal.
    s.run_for(0.1)
    s.down(leader)
    s.run_for(1.6)
    node, files = s.node(good), s.host(good).files
    journal = node.journal
    path = journal._segments.path_of(journal._segments.active.index.number)
    content, begin = files.durable_content(path), 0
    following = find_batch(content, 0, journal._segments.active.seed)
    while following is not None:
        begin = following
        following = find_batch(content, begin + 1, journal._segments.active.seed)
    s.down(good)
    s.host(good).damaged = True
    files.overwrite(path, begin, bytes(len(content) - begin))
    s.heal()
    s.only([good, cut])
    s.up(good)
    s.run_for(4.0)
    s.heal()
    s.up(leader)


def clock_set_back(s: Script) -> None:
    """The leader's clock is set back while a transaction is open."""
    client = s.new_client()
    one = OpenTransaction(client._core, True)
    sound(s, client, one.execute(Statement("INSERT INTO w_probe VALUES (1)"), timeout_s=TIMEOUT_S))
    s.host(s.leader()).clock.offset_ms -= 60_000
    sound(s, client, one.commit(None, timeout_s=TIMEOUT_S))


def tail_in_segments(s: Script) -> None:
    """A deposed leader's tail, which is cut, goes through several segments."""
    leader = s.leader()
    s.only([leader], s.others(leader))
    node = s.node(leader)
    for _ in range(80):
        s.cluster.call(leader, node.assembly.replica.tick)
        s.run_for(0.001)
    s.until(lambda: any(one.role == "leader" and one.name != leader for one in s.cluster.live()))
    s.heal()
    s.run_for(1.0)
    s.written(2)
    s.run_for(0.5)


def copy_for_a_long_log(s: Script) -> None:
    """A follower that keeps much of its log is outrun, and gets a copy, which its whole log gives
    way to; then it starts once more."""
    follower = s.others(s.leader())[0]
    host = s.host(follower)
    s.down(follower)
    host.config = replace(host.config, journal=JournalConfig(keep_bytes=1 << 20))
    s.up(follower)
    s.run_for(2.0)
    s.written(60)
    s.run_for(1.0)
    assert len(s.node(follower).journal._segments.sealed) > 1
    outrun(s)
    s.up(follower)
    s.until(lambda: s.cluster.copies_installed > 0)
    s.run_for(1.0)
    s.written(2)
    s.cluster.kill(follower, power=False)
    s.cluster.start(follower)
    s.run_for(1.0)


def cut_under_way(s: Script) -> None:
    """A deposed leader's disk is slow: what is being written is cut before it is there."""
    old = s.leader()
    s.only([old], s.others(old))
    s.until(lambda: any(one.role == "leader" and one.name != old for one in s.cluster.live()))
    s.slow_disk(1.0, old)
    node = s.node(old)
    for _ in range(5):
        s.cluster.call(old, node.assembly.replica.tick)
    s.heal()
    s.run_for(4.0)
    s.slow_disk(0.0, old)


def wal_that_was_lost(s: Script) -> None:
    """A sync of the database's write-ahead log fails. The page cache goes on to show what the disk
    never got, and calls it written."""
    follower = s.others(s.leader())[0]
    host = s.host(follower)
    for _ in range(6):
        # The device may have got some of it, or all.
        host.excused = True
        count = len(host.stops)
        host.files.inject(Fault("sync", 1, errno.EIO, "-wal", keep_cache=True))
        s.written(4)
        s.until(lambda count=count: len(host.stops) > count)
        s.run_for(3.0)


SCRIPTED = {
    "log-synced-as-it-is": "wal-that-was-lost",
    "written-though-cut": "cut-under-way",
    "reset-keeps-segments": "copy-for-a-long-log",
    "sealed-cut-forgotten": "tail-in-segments",
    "cut-segments-not-trimmed": "tail-in-segments",
    "commit-by-the-clock": "clock-set-back",
    "early-replies-go": "long-requests",
    "mark-not-looked-at": "rot-of-the-last-batch",
}
PLAYS: dict[str, tuple[Callable[[Script], None], dict[str, Any]]] = {
    "rot-of-the-last-batch": (rot_of_the_last_batch, {}),
    "clock-set-back": (clock_set_back, {}),
    "wal-that-was-lost": (wal_that_was_lost, {"wal_bytes": 1}),
    "cut-under-way": (cut_under_way, {}),
    "copy-for-a-long-log": (copy_for_a_long_log, SIZES),
    "tail-in-segments": (
        tail_in_segments,
        {"limits": {"journal_segment_bytes": 1024, "entry_requests_max": 1}},
    ),
}
