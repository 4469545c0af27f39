"""What runs on the journal's lane: one batch to the disk, beside the loop.

A plan holds all that it needs; nothing here touches the journal's own state. Every function
raises OSError as it comes, and is then never called again.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import NamedTuple

from raftdb.base.atomic import replace_file
from raftdb.base.ports import File, Files
from raftdb.journal.format import (
    Mark,
    Operation,
    SegmentHeader,
    encode_batch,
    encode_mark,
    encode_segment_header,
    segment_name,
)
from raftdb.journal.index import SegmentIndex
from raftdb.journal.recovery import MARK_NAME

__all__ = ["BatchPlan", "BatchWritten", "RollPlan", "remove_segments", "write_batch", "write_mark"]


class RollPlan(NamedTuple):
    """Seal the active segment and go on in a new one."""

    header: SegmentHeader
    """Of the new segment; its chain value and first batch are where the old one ends."""
    old_index: SegmentIndex
    """Of the old segment. Nobody changes it while the plan is under way."""
    old_end: int
    """Where the old segment's batches end and its footer begins."""
    old_seed: int


class BatchPlan(NamedTuple):
    """One batch, and where it goes."""

    files: Files
    directory: str
    file: File
    offset: int
    """Where in the (new) active segment the batch begins."""
    operations: Sequence[Operation]
    number: int
    durable_index: int
    chain: int
    seed: int
    roll: RollPlan | None


class BatchWritten(NamedTuple):
    """It is on the disk."""

    chain: int
    file: File
    """The active segment's file; another one after a roll."""
    footer: bytes
    """Of the segment that was sealed; empty when none was."""


def write_batch(plan: BatchPlan) -> BatchWritten:
    """Roll if planned, write, fdatasync."""
    data, chain = encode_batch(
        plan.operations, plan.number, plan.durable_index, plan.chain, plan.seed
    )
    file, footer = (plan.file, b"") if plan.roll is None else _roll(plan, plan.roll)
    file.write_at(plan.offset, data)
    file.sync()
    return BatchWritten(chain, file, footer)


def _roll(plan: BatchPlan, roll: RollPlan) -> tuple[File, bytes]:
    """The successor is durable under its name before the footer is written, so that a sealed
    segment without a successor is a lost file and never a crash; and the footer is durable before
    the first batch behind it, so that recovery need not doubt any but the last two segments."""
    path = posixpath.join(plan.directory, segment_name(roll.header.number))
    replace_file(plan.files, path, encode_segment_header(roll.header))
    header = roll.header
    footer = roll.old_index.footer(roll.old_end, header.first_batch, header.chain, roll.old_seed)
    plan.file.write_at(roll.old_end, footer)
    plan.file.sync()
    return plan.files.open(path), footer


def write_mark(files: Files, directory: str, mark: Mark) -> None:
    """Replace the mark."""
    replace_file(files, posixpath.join(directory, MARK_NAME), encode_mark(mark))


def remove_segments(files: Files, directory: str, paths: Sequence[str]) -> list[str]:
    """Remove dropped segments, the oldest first; returns those that the system would not remove.
    Raises OSError when the directory cannot be synced."""
    left = []
    for path in paths:
        try:
            files.remove(path)
        except OSError:
            left.append(path)
    files.sync_directory(directory)
    return left
