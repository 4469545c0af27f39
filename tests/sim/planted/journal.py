"""Bugs in what reaches the disk, and in what is read back from it."""

from __future__ import annotations

import dataclasses
import posixpath
from typing import Any

from raftdb.base.atomic import NEW_SUFFIX
from raftdb.base.errors import ConfigError
from raftdb.base.ids import Term
from raftdb.base.ports import File, Files
from raftdb.journal import format as fmt
from raftdb.journal import journal as journal_module
from raftdb.journal import recovery, scan, segments, writer
from raftdb.journal.format import HardState, LogEntry, encode_batch
from raftdb.journal.journal import Journal
from raftdb.journal.writer import BatchPlan, BatchWritten
from tests.sim.planted.bug import Bug, Patch


def _write_unsynced(plan: BatchPlan) -> BatchWritten:
    data, chain = encode_batch(
        plan.operations, plan.number, plan.durable_index, plan.chain, plan.seed
    )
    file, footer = (plan.file, b"") if plan.roll is None else writer._roll(plan, plan.roll)
    file.write_at(plan.offset, data)
    return BatchWritten(chain, file, footer)


def _write_and_sync_again(plan: BatchPlan) -> BatchWritten:
    data, chain = encode_batch(
        plan.operations, plan.number, plan.durable_index, plan.chain, plan.seed
    )
    file, footer = (plan.file, b"") if plan.roll is None else writer._roll(plan, plan.roll)
    file.write_at(plan.offset, data)
    try:
        file.sync()
    except OSError:
        # The second one finds nothing dirty, and succeeds.
        file.sync()
    return BatchWritten(chain, file, footer)


def _replace_without_directory(files: Files, path: str, data: bytes) -> None:
    new = path + NEW_SUFFIX
    file = files.open(new, create=True)
    try:
        file.truncate(0)
        file.write_at(0, data)
        file.sync()
    finally:
        file.close()
    files.rename(new, path)


def _replace_without_sync(files: Files, path: str, data: bytes) -> None:
    new = path + NEW_SUFFIX
    file = files.open(new, create=True)
    try:
        file.truncate(0)
        file.write_at(0, data)
    finally:
        file.close()
    files.rename(new, path)
    files.sync_directory(posixpath.dirname(path))


def _trusts_the_cache() -> list[Patch]:
    """What is there already is not written again, and so not synced."""

    def replace(files: Files, path: str, data: bytes) -> None:
        if files.exists(path):
            file: File = files.open(path)
            try:
                if file.size() > len(data):
                    file.truncate(len(data))
                if file.read_at(0, len(data)) == data:
                    return
            finally:
                file.close()
        recovery_replace(files, path, data)

    recovery_replace = recovery.replace_file
    return [(recovery, "replace_file", replace)]


def _rot_is_torn() -> list[Patch]:
    """Whatever does not verify is cut off, though the mark says that it was durable."""

    def nothing(*_arguments: Any) -> None:
        pass

    return [(recovery, "check_torn", nothing), (recovery._Recovery, "_check_mark", nothing)]


def _unverified_entries() -> list[Patch]:
    """Records of sealed segments are handed out as they are read."""

    return [(segments, "decode_entry", _as_it_is)]


def _vote_forgotten() -> list[Patch]:
    """The vote of the last term is not read back."""
    decode = scan.decode_hard_state

    def without_vote(term: Term, data: bytes) -> HardState:
        return HardState(decode(term, data).term, None)

    header = recovery.decode_segment_header

    def header_without_vote(data: bytes) -> Any:
        found = header(data)
        return dataclasses.replace(found, hard_state=HardState(found.hard_state.term, None))

    return [
        (scan, "decode_hard_state", without_vote),
        (recovery, "decode_segment_header", header_without_vote),
    ]


def _term_forgotten() -> list[Patch]:
    """A start is in the term of its last entry."""
    run = recovery._Recovery.run

    def of_the_log(self: Any, release: Any) -> Any:
        found = run(self, release)
        index = found.segments.active.index
        if index.last_term < found.hard_state.term:
            found.hard_state = HardState(Term(index.last_term), None)
        return found

    return [(recovery._Recovery, "run", of_the_log)]


def _torn_is_data() -> list[Patch]:
    """A batch counts when its header verifies; nobody looks at what is behind it."""

    def header_only(data: bytes, offset: int, seed: int) -> fmt.Batch:
        head = fmt.decode_batch_header(data, offset, seed)
        end = offset + fmt.BATCH_HEADER_BYTES + (head.body_bytes if head else 0)
        try:
            return decode_batch(data, offset, seed)
        except fmt.FormatError:
            if head is None:
                raise
        assert head is not None
        records, at = [], offset + fmt.BATCH_HEADER_BYTES
        while at + fmt.RECORD_HEADER_BYTES <= min(end, len(data)):
            kind, length, index, term, _check = fmt._RECORD.unpack_from(data, at)
            records.append(fmt.Record(kind, index, term, at, length))
            at += fmt.RECORD_HEADER_BYTES + length
        return fmt.Batch(head, offset, min(end + fmt.TRAILER_BYTES, len(data)), 0, records)

    decode_batch = fmt.decode_batch
    return [(scan, "decode_batch", header_only), (segments, "decode_entry", _as_it_is)]


def _as_it_is(data: bytes, offset: int, index: int, seed: int) -> LogEntry:
    _kind, length, _index, term, _check = fmt._RECORD.unpack_from(data, offset)
    start = offset + fmt.RECORD_HEADER_BYTES
    return LogEntry(fmt.Index(index), Term(term), bytes(data[start : start + length]))


def _empty_is_a_member() -> list[Patch]:
    """A start on an empty directory founds what it misses."""
    from raftdb.embedded import assembly
    from raftdb.machine import Machine
    from tests.sim.ports import SimRandom

    opened, machine_opened = Journal.open.__func__, Machine.open.__func__  # type: ignore[attr-defined]

    def open_journal(cls: Any, files: Files, directory: str, *rest: Any, **more: Any) -> Any:
        try:
            return opened(cls, files, directory, *rest, **more)
        except ConfigError:
            files.make_directory(directory)
            Journal.create(files, directory, SimRandom("empty"))
            return opened(cls, files, directory, *rest, **more)

    def open_machine(cls: Any, directory: str, **options: Any) -> Any:
        try:
            return machine_opened(cls, directory, **options)
        except ConfigError:
            Machine.create(
                directory,
                options["history"],
                files=options["files"],
                vfs_base=options.get("vfs_base", ""),
            )
            return machine_opened(cls, directory, **options)

    return [
        (assembly, "check_identity", lambda *_arguments: None),
        (Journal, "open", classmethod(open_journal)),
        (Machine, "open", classmethod(open_machine)),
    ]


BUGS = [
    Bug(
        "journal-ack-before-fsync",
        "row 1, classic",
        "the journal reports a batch as durable when it is written, not when it is synced",
        make=lambda: [(journal_module, "write_batch", _write_unsynced)],
    ),
    Bug(
        "failed-fsync-retried",
        "classic",
        "a failed fdatasync is tried again; the second one succeeds and has written nothing",
        make=lambda: [(journal_module, "write_batch", _write_and_sync_again)],
    ),
    Bug(
        "no-directory-sync",
        "J1, classic",
        "a new segment's name is not synced: after a power cut the file is not there",
        make=lambda: [
            (writer, "replace_file", _replace_without_directory),
            (recovery, "replace_file", _replace_without_directory),
        ],
    ),
    Bug(
        "renamed-before-synced",
        "J1",
        "a file is renamed to its name before its content is synced",
        make=lambda: [
            (writer, "replace_file", _replace_without_sync),
            (recovery, "replace_file", _replace_without_sync),
        ],
    ),
    Bug(
        "recovery-trusts-the-page-cache",
        "J1",
        "a restart speaks of what it read, which only the page cache may have had",
        make=_trusts_the_cache,
    ),
    Bug(
        "corruption-taken-for-a-torn-tail",
        "J2, J3, classic",
        "whatever does not verify is cut off, durable or not",
        make=_rot_is_torn,
    ),
    Bug(
        "entries-not-verified",
        "J3",
        "records are not checked when they are read from the disk again",
        make=_unverified_entries,
    ),
    Bug(
        "torn-tail-taken-for-data",
        "J2, J3, classic",
        "a batch counts when its header verifies, whatever is behind it",
        make=_torn_is_data,
    ),
    Bug(
        "vote-forgotten-at-restart",
        "row 1, J1",
        "a start knows its term, and not whom it voted for",
        make=_vote_forgotten,
    ),
    Bug(
        "term-forgotten-at-restart",
        "row 1, J1",
        "a start is in the term of its last entry",
        make=_term_forgotten,
    ),
    Bug(
        "empty-directory-is-a-member",
        "J5",
        "a start on an empty directory founds what it misses",
        make=_empty_is_a_member,
    ),
]
