"""Planted bugs: the classic ways of losing data at a power loss, each switched on here alone.

Production code has no such switch: a bug is a patch around the workload's wiring, in force while
the record is made and while the states are opened. `python -m tests.powerloss planted` shows that
the crash states find every one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from raftdb.base import atomic
from raftdb.base.ids import Index
from raftdb.base.ports import Files
from raftdb.journal import format as journal_format
from raftdb.journal import journal as journal_module
from raftdb.journal import recovery, writer
from raftdb.journal.format import HARD_STATE, FormatError, Mark
from raftdb.journal.writer import BatchPlan, BatchWritten
from raftdb.machine import generations, machine
from raftdb.machine.applier import _BEGIN, _COMMIT, Applier
from raftdb.machine.machine import Machine
from tests.powerloss.explore import Explorer, Failure, Prepare, Result
from tests.powerloss.record import RecordingFiles
from tests.powerloss.script import SHAPES, Script
from tests.powerloss.work import record_script

SEEDS = (1, 2, 3)
STATES = 400


@dataclass(frozen=True)
class Planted:
    """One bug."""

    name: str
    what: str
    shapes: tuple[str, ...]
    """Workloads that it is looked for in."""
    patches: Callable[[], Sequence[Any]]
    prepare: Prepare | None = None


@contextmanager
def in_force(bug: Planted) -> Iterator[None]:
    """The bug is there."""
    with ExitStack() as stack:
        for one in bug.patches():
            stack.enter_context(one)
        yield


def find(bug: Planted) -> tuple[Result | None, int]:
    """The first result that shows it (None: nothing did), and how many states were opened."""
    opened = 0
    for seed in SEEDS:
        for name in bug.shapes:
            with in_force(bug):
                try:
                    recorded = record_script(SHAPES[name], seed)
                except AssertionError as error:
                    result = Result(name)
                    result.failures.append(Failure(f"{name}:record", str(error), ""))
                    return result, opened
                result = Explorer(recorded, bug.prepare, failures_max=1).run(STATES)
            opened += result.opened + len(result.failures)
            if result.failures:
                return result, opened
    return None, opened


# -- the bugs ------------------------------------------------------------------------------------


def _write_batch(syncs: Callable[[BatchPlan], bool]) -> Callable[[BatchPlan], BatchWritten]:
    def write_batch(plan: BatchPlan) -> BatchWritten:
        data, chain = journal_format.encode_batch(
            plan.operations, plan.number, plan.durable_index, plan.chain, plan.seed
        )
        roll = plan.roll
        file, footer = (plan.file, b"") if roll is None else writer._roll(plan, roll)
        file.write_at(plan.offset, data)
        if syncs(plan):
            file.sync()
        return BatchWritten(chain, file, footer)

    return write_batch


def _only_hard_state(plan: BatchPlan) -> bool:
    return all(one.kind == HARD_STATE for one in plan.operations)


def _replace_without_sync(files: Files, path: str, data: bytes) -> None:
    new = path + atomic.NEW_SUFFIX
    file = files.open(new, create=True)
    file.truncate(0)
    file.write_at(0, data)
    file.close()
    files.rename(new, path)
    files.sync_directory(path.rpartition("/")[0])


def _no_rewrite(files: Files, path: str, data: bytes) -> None:
    """What is there is taken to be durable; only a torn tail is cut."""
    if not path.endswith(".segment") or not files.exists(path):
        atomic.replace_file(files, path, data)
        return
    file = files.open(path)
    size = file.size()
    if size > len(data):
        file.truncate(len(data))
    elif size < len(data):
        file.write_at(size, data[size:])
    file.close()


def _everywhere(replacement: Callable[..., None]) -> list[Any]:
    names = (
        "raftdb.journal.recovery.replace_file",
        "raftdb.journal.writer.replace_file",
        "raftdb.base.startup.replace_file",
    )
    return [patch(name, replacement) for name in names]


def _footer_first(plan: BatchPlan, roll: Any) -> Any:
    path = f"{plan.directory}/{journal_format.segment_name(roll.header.number)}"
    header = roll.header
    footer = roll.old_index.footer(roll.old_end, header.first_batch, header.chain, roll.old_seed)
    plan.file.write_at(roll.old_end, footer)
    plan.file.sync()
    atomic.replace_file(plan.files, path, journal_format.encode_segment_header(header))
    return plan.files.open(path), footer


def _footer_not_synced(plan: BatchPlan, roll: Any) -> Any:
    """And the batch behind it is, in another file."""
    path = f"{plan.directory}/{journal_format.segment_name(roll.header.number)}"
    header = roll.header
    atomic.replace_file(plan.files, path, journal_format.encode_segment_header(header))
    footer = roll.old_index.footer(roll.old_end, header.first_batch, header.chain, roll.old_seed)
    plan.file.write_at(roll.old_end, footer)
    return plan.files.open(path), footer


def _mark_first(plan: BatchPlan) -> BatchWritten:
    data, chain = journal_format.encode_batch(
        plan.operations, plan.number, plan.durable_index, plan.chain, plan.seed
    )
    header = journal_format.decode_segment_header(plan.file.read_at(0, 256))
    number = header.number if plan.roll is None else plan.roll.header.number
    mark = Mark(header.journal_id, number, plan.number, plan.durable_index, chain)
    file, footer = (plan.file, b"") if plan.roll is None else writer._roll(plan, plan.roll)
    writer.write_mark(plan.files, plan.directory, mark)
    file.write_at(plan.offset, data)
    file.sync()
    return BatchWritten(chain, file, footer)


def _drop_at_once(self: Any, index: int) -> None:
    """Files go before the record of it is durable."""
    count = self._segments.droppable(min(index, self._durable_index + 1))
    paths = [self._segments.path_of(one.number) for one in self._segments.sealed[:count]]
    _drop_prefix(self, index)
    for path in paths:
        if self._files.exists(path):
            self._files.remove(path)
    self._files.sync_directory(self._directory)


_drop_prefix = journal_module.Journal.drop_prefix
_decode_record = journal_format._decode_record


def _unchecked_record(data: bytes, offset: int, seed: int) -> tuple[int, int, int, int]:
    head = data[offset : offset + journal_format.RECORD_HEADER_BYTES]
    if len(head) < journal_format.RECORD_HEADER_BYTES:
        raise FormatError(offset, "the file ends")
    kind, length, index, term, _ = journal_format._RECORD.unpack_from(head)
    return kind, index, term, length


def _never_torn(_data: bytes, _header: Any, cursor: Any, problem: FormatError) -> None:
    raise FormatError(cursor.offset, problem.text)


def _checkpointer_without_sync(path: str, vfs: str) -> Any:
    connection = _open_checkpointer(path, vfs)
    connection.execute("PRAGMA synchronous = OFF").fetchall()
    return connection


_open_checkpointer = machine.open_checkpointer


def _make_current_without_sync(files: Files, directory: str, generation: str) -> None:
    temporary = f"{directory}/CURRENT.new"
    file = files.open(temporary, create=True)
    file.truncate(0)
    file.write_at(0, (generation.rpartition("/")[2] + "\n").encode("ascii"))
    file.close()
    files.rename(temporary, f"{directory}/CURRENT")
    files.sync_directory(directory)


_real_commit = Applier._commit


def _progress_apart(self: Any, last: Any) -> None:
    """Rows are committed first, and how far they go afterwards."""
    self._content.flush()
    self.sessions.flush()
    self._control(_COMMIT)
    self._control(_BEGIN)
    with (
        patch.object(self._content, "flush", _do_nothing),
        patch.object(self.sessions, "flush", _do_nothing),
    ):
        _real_commit(self, last)


def _sessions_apart(self: Any, last: Any) -> None:
    """Replies are stored after the effect was committed."""
    with (
        patch.object(self.sessions, "flush", _do_nothing),
        patch.object(self.sessions, "committed", _do_nothing),
    ):
        _real_commit(self, last)
    self._control(_BEGIN)
    self.sessions.flush()
    self._control(_COMMIT)
    self.sessions.committed()


def _do_nothing() -> None:
    pass


def _applied_too_early(self: Any) -> None:
    """What is queued counts as what is durable."""
    last, applied = int(self.journal.last_index), int(self.machine.applied()[0])
    if last > applied:
        self.apply_some(last)


def _recompute_wal(directory: Path) -> None:
    """As a reader of the write-ahead log that believes every frame: all checksums are made to fit
    (https://www.sqlite.org/fileformat2.html#checksum_algorithm)."""
    for path in directory.rglob("*.sqlite-wal"):
        data = bytearray(path.read_bytes())
        if len(data) < 32:
            continue
        order = ">" if data[3] & 1 else "<"
        sums = _wal_sum(data[:24], order, (0, 0))
        if struct.unpack(">II", data[24:32]) != sums:
            continue
        frame = 24 + struct.unpack(">I", data[8:12])[0]
        for start in range(32, len(data) - frame + 1, frame):
            data[start + 8 : start + 16] = data[16:24]
            sums = _wal_sum(data[start : start + 8], order, sums)
            sums = _wal_sum(data[start + 24 : start + frame], order, sums)
            data[start + 16 : start + 24] = struct.pack(">II", *sums)
        path.write_bytes(data)


def _wal_sum(data: bytes, order: str, sums: tuple[int, int]) -> tuple[int, int]:
    one, two = sums
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for first, second in zip(words[::2], words[1::2], strict=True):
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return one, two


def _none() -> Sequence[Any]:
    return ()


PLANTED = [
    Planted(
        "no_directory_sync",
        "a new name is not made durable: founding, rolling and the mark rely on luck",
        ("rolls", "clients"),
        lambda: [patch.object(RecordingFiles, "sync_directory", lambda _self, _path: None)],
    ),
    Planted(
        "ack_before_fdatasync",
        "a batch counts as durable once it is written",
        ("clients",),
        lambda: [patch.object(journal_module, "write_batch", _write_batch(lambda _plan: False))],
    ),
    Planted(
        "hard_state_without_sync",
        "a batch with nothing but a term and a vote is not synced",
        ("elections",),
        lambda: [
            patch.object(
                journal_module, "write_batch", _write_batch(lambda p: not _only_hard_state(p))
            )
        ],
    ),
    Planted(
        "no_rewrite_at_start",
        "a start believes the page cache (rule J1)",
        ("restarts", "mixed"),
        lambda: [patch.object(recovery, "replace_file", _no_rewrite)],
    ),
    Planted(
        "replace_without_sync",
        "a file is renamed into place before its content is durable",
        ("rolls", "clients"),
        lambda: _everywhere(_replace_without_sync),
    ),
    Planted(
        "footer_before_successor",
        "a segment is sealed before the next one is durable",
        ("rolls",),
        lambda: [patch.object(writer, "_roll", _footer_first)],
    ),
    Planted(
        "footer_not_synced",
        "batches follow in the next segment while the footer of the last one is not durable",
        ("rolls",),
        lambda: [patch.object(writer, "_roll", _footer_not_synced)],
    ),
    Planted(
        "mark_before_batch",
        "the mark names a batch that is not durable yet",
        ("clients",),
        lambda: [patch.object(journal_module, "write_batch", _mark_first)],
    ),
    Planted(
        "files_dropped_too_early",
        "old segments are removed before the record of it is durable",
        ("rolls",),
        lambda: [patch.object(journal_module.Journal, "drop_prefix", _drop_at_once)],
    ),
    Planted(
        "dropped_to_applied",
        "the journal drops what is applied, though no checkpoint made it durable (rule M2)",
        ("rolls", "mixed"),
        lambda: [
            patch.object(Machine, "durable_index", property(lambda self: Index(self.applied()[0])))
        ],
    ),
    Planted(
        "record_without_checksum",
        "a record of a torn batch is believed",
        ("clients", "conflicts"),
        lambda: [patch.object(journal_format, "_decode_record", _unchecked_record)],
    ),
    Planted(
        "torn_taken_for_rot",
        "a batch that was cut short stops the node",
        ("clients",),
        lambda: [patch.object(recovery, "check_torn", _never_torn)],
    ),
    Planted(
        "wal_without_checksum",
        "every frame of the write-ahead log is believed",
        ("checkpoints",),
        _none,
        _recompute_wal,
    ),
    Planted(
        "checkpoint_without_sync",
        "pages go to the database's file while the write-ahead log is not durable",
        ("checkpoints",),
        lambda: [patch.object(machine, "open_checkpointer", _checkpointer_without_sync)],
    ),
    Planted(
        "current_without_sync",
        "a copy becomes current before it is durable (rule M3)",
        ("copies",),
        lambda: [patch.object(generations, "make_current", _make_current_without_sync)],
    ),
    Planted(
        "applied_index_apart",
        "the applied index is committed after the rows",
        ("clients",),
        lambda: [patch.object(Applier, "_commit", _progress_apart)],
    ),
    Planted(
        "replies_apart",
        "the session's reply is committed after the effect",
        ("clients",),
        lambda: [patch.object(Applier, "_commit", _sessions_apart)],
    ),
    Planted(
        "applied_before_durable",
        "entries are applied that the own journal does not hold durably",
        ("clients", "mixed"),
        lambda: [patch.object(Script, "_apply", _applied_too_early)],
    ),
]

__all__ = ["PLANTED", "Planted", "find", "in_force"]
