"""Bugs between a committed entry and the database."""

from __future__ import annotations

import dataclasses
import itertools
from types import SimpleNamespace
from typing import Any

import apsw

from raftdb.base.ids import Index
from raftdb.machine import applier as applier_module
from raftdb.machine.applier import Applier
from raftdb.machine.checkpoints import Checkpointer
from raftdb.machine.content import ContentHasher
from raftdb.machine.determinism import JULIAN_EPOCH_MS, RequestFunctions, RequestTimeVfs
from raftdb.machine.logcheck import LogCheck
from raftdb.machine.logguard import LogGuard
from raftdb.machine.replay import TransactionLostError
from raftdb.machine.sessions import Sessions
from tests.sim.planted.bug import Bug, Patch


def _replies_outside() -> list[Patch]:
    """Effect and applied index in one transaction, sessions and replies in the next."""
    flush, commit = Sessions.flush, Applier._commit

    def commit_twice(self: Applier, last: Any) -> None:
        commit(self, last)
        self._control(applier_module._BEGIN)
        flush(self.sessions)
        self._control(applier_module._COMMIT)
        committed(self.sessions)

    committed = Sessions.committed
    return [
        (Sessions, "flush", lambda self: None),
        (Sessions, "committed", lambda self: None),
        (Applier, "_commit", commit_twice),
    ]


def _applied_outside() -> list[Patch]:
    """The applied index is written when the effect is committed."""
    commit = Applier._commit

    def commit_twice(self: Applier, last: Any) -> None:
        control = self._control
        noted: list[Any] = []

        def without_progress(sql: str, *rest: Any) -> Any:
            if sql is applier_module._PROGRESS:
                noted.append(rest)
                return None
            return control(sql, *rest)

        self._control = without_progress
        try:
            commit(self, last)
        finally:
            self._control = control
        control(applier_module._PROGRESS, *noted[0])

    return [(Applier, "_commit", commit_twice)]


def _starts_over() -> list[Patch]:
    """How far an entry of several transactions came is not remembered."""
    take = Applier._take_progress

    def from_the_beginning(self: Applier) -> None:
        if self.progress.position:
            self.progress = dataclasses.replace(self.progress, position=0)
        take(self)

    return [(Applier, "_take_progress", from_the_beginning)]


def _unchecked_after_restart() -> list[Patch]:
    """Sequences are compared with what this process has seen."""
    check, load = Sessions.check, Sessions.load
    record = Sessions.record

    def load_all(self: Sessions) -> None:
        load(self)
        for session in self._sessions.values():
            self.__dict__.setdefault("unseen", set()).add(session.number)

    def check_seen(self: Sessions, number: int, sequence: int) -> Any:
        session = self._sessions.get(number)
        unseen = number in self.__dict__.get("unseen", ())
        if session is not None and unseen and 1 <= sequence <= session.sequence:
            session.sequence = sequence - 1
            session.sizes.clear()
            session.kept_bytes = 0
            return None
        return check(self, number, sequence)

    def record_seen(self: Sessions, number: int, *rest: Any) -> None:
        self.__dict__.setdefault("unseen", set()).discard(number)
        record(self, number, *rest)

    return [
        (Sessions, "load", load_all),
        (Sessions, "check", check_seen),
        (Sessions, "record", record_seen),
    ]


def _duplicates_execute() -> list[Patch]:
    """A request that comes again is executed again."""
    check = Sessions.check

    def always(self: Sessions, number: int, sequence: int) -> Any:
        session = self._sessions.get(number)
        if session is not None and 1 <= sequence <= session.sequence:
            session.sequence = sequence - 1
            session.sizes.clear()
            session.kept_bytes = 0
        return check(self, number, sequence)

    return [(Sessions, "check", always)]


def _own_random() -> list[Patch]:
    numbers = itertools.count(1)

    def own_bytes(self: RequestFunctions, count: int) -> bytes:
        return next(numbers).to_bytes(8, "little").ljust(count, b"r")[:count]

    return [(RequestFunctions, "_bytes", own_bytes)]


def _own_time() -> list[Patch]:
    calls = itertools.count(1)

    def local_time(self: RequestTimeVfs) -> int:
        return JULIAN_EPOCH_MS + 1_700_000_000_000 + next(calls)

    return [(RequestTimeVfs, "xCurrentTimeInt64", local_time)]


def _no_savepoint() -> list[Patch]:
    """A request that fails leaves behind what it did before."""
    fail = Applier._fail

    def keep(self: Applier, request: Any, number: int, error: Exception) -> bytes:
        control = self._control

        def without_rollback(sql: str, *rest: Any) -> Any:
            if sql is applier_module._ROLLBACK_TO:
                return None
            return control(sql, *rest)

        self._control = without_rollback
        drop = self._content.drop_request
        self._content.drop_request = self._content.keep_request
        try:
            return fail(self, request, number, error)
        finally:
            self._control = control
            self._content.drop_request = drop

    return [(Applier, "_fail", keep)]


def _rollback_drops_neighbours() -> list[Patch]:
    """The transaction is gone, and with it what others had been told in it."""

    def apply_group(self: Applier, units: list[Any]) -> int:
        try:
            return self._transaction(units)
        except TransactionLostError as lost:
            self._connection.set_progress_handler(None, id=applier_module._BRIEF)
            self._revert()
            self._transaction(units[lost.place : lost.place + 1], lost.reply)
            return lost.place + 1

    return [(Applier, "_apply_group", apply_group)]


def _hash_keeps_what_was_undone() -> list[Patch]:
    """The content hash counts rows that a failed request wrote and took back."""

    def keep(self: ContentHasher) -> None:
        self.unknown_table = False
        self._fold()
        if self._saved is not None:
            self._restore()

    return [(ContentHasher, "drop_request", keep)]


def _incomplete_checkpoint_counts() -> list[Patch]:
    """What was applied before a checkpoint counts as durable, however far it came."""

    def passive(self: Checkpointer) -> tuple[bool, int, int]:
        noted = self._applied_index()
        try:
            in_log, moved = self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.BusyError:
            in_log = moved = 0
        self.durable_index = max(self.durable_index, noted)
        return in_log == moved, in_log, moved

    return [(Checkpointer, "_passive", passive), *_UNGUARDED]


_UNGUARDED: list[Patch] = [
    (LogGuard, "before", lambda self, frames: None),
    (LogGuard, "after", lambda self, frames, complete: None),
]
"""The guard syncs the log before each checkpoint, which masks these bugs: it goes with them."""


def _applied_is_durable() -> list[Patch]:
    """What is committed in SQLite is taken for safe, without any checkpoint."""

    def durable(self: Checkpointer) -> Index:
        return self._applied_index()

    def ignore(self: Checkpointer, _value: int) -> None:
        pass

    return [(Checkpointer, "durable_index", property(durable, ignore)), *_UNGUARDED]


def _commit_interrupted() -> list[Patch]:
    """Who applies in passing looks at the time until the very end, that of a COMMIT too."""
    commit = Applier._commit
    deaf = SimpleNamespace(begin=lambda *, free: None)

    def looking(self: Applier, last: Any) -> None:
        steps, brief = self._steps, self._statements.brief
        self._steps, self._statements.brief = deaf, False
        try:
            commit(self, last)
        finally:
            self._steps, self._statements.brief = steps, brief

    return [(Applier, "_commit", looking)]


def _nobody_looks() -> list[Patch]:
    """A log is believed as long as its process lives."""
    return [
        (LogCheck, "look", lambda self, frames: frames),
        (LogCheck, "sound_frames", lambda self, first, last: last),
    ]


BUGS = [
    Bug(
        "commit-interrupted",
        "M4",
        "a COMMIT that took long is called given up, though SQLite has done it",
        make=_commit_interrupted,
    ),
    Bug(
        "log-not-looked-at",
        "M8",
        "what something wrote into the write-ahead log is answered with, and moved into the file",
        make=_nobody_looks,
    ),
    Bug(
        "reply-outside-the-transaction",
        "row 16, classic",
        "effect and applied index are one transaction, sessions and replies the next",
        make=_replies_outside,
    ),
    Bug(
        "applied-outside-the-transaction",
        "C2, classic",
        "the applied index is written after the effect was committed",
        make=_applied_outside,
    ),
    Bug(
        "entry-started-over",
        "C2, M1",
        "a restart in the midst of an entry applies all of it again",
        make=_starts_over,
    ),
    Bug(
        "sequence-unchecked-after-restart",
        "row 16, S1, classic",
        "a restarted machine executes what its sessions had already",
        make=_unchecked_after_restart,
    ),
    Bug(
        "duplicates-execute",
        "row 16, S1",
        "a request that comes again is executed again",
        make=_duplicates_execute,
    ),
    Bug(
        "random-not-from-the-request", "M1, classic", "random() is the node's own", make=_own_random
    ),
    Bug("time-not-from-the-request", "M1, classic", "'now' is the node's own", make=_own_time),
    Bug(
        "no-savepoint",
        "M1, classic",
        "a request that fails within a batch leaves behind what it did before",
        make=_no_savepoint,
    ),
    Bug(
        "rollback-drops-neighbours",
        "M1, classic",
        "OR ROLLBACK takes those before it in the transaction with it",
        make=_rollback_drops_neighbours,
    ),
    Bug(
        "hash-counts-what-was-undone",
        "M7",
        "the content hash keeps rows that a failed request took back",
        make=_hash_keeps_what_was_undone,
    ),
    Bug(
        "incomplete-checkpoint-counts",
        "M2",
        "a checkpoint that a reader held up counts, and the journal is cut by it",
        make=_incomplete_checkpoint_counts,
    ),
    Bug(
        "applied-taken-for-durable",
        "M2, C2",
        "the journal is cut by what SQLite has committed, not by what it has synced",
        make=_applied_is_durable,
    ),
]
