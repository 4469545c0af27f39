"""A power cut now, and the journal that starts is the one that is here: its segments with what
counts of each, its end, its term and vote, and the mark that says so (rules J1 to J3). And it reads
the last segment, not the log (J4). The disk is asked what a cut leaves, and the real recovery opens
it: after cuts, resets and rolls of the log, and whenever a segment is removed."""

from __future__ import annotations

import posixpath
from typing import Any

from raftdb.base.errors import Error
from raftdb.journal.format import (
    FOOTER_TAIL_BYTES,
    SEGMENT_HEADER_BYTES,
    decode_mark,
    segment_number,
)
from raftdb.journal.recovery import MARK_NAME, Recovered, recover_journal
from tests.sim.checkers.base import Broken, Checker

STARTS_MAX = {"cut": 8, "roll": 3, "removal": 6}
"""So often in a run, after each kind of thing: reading a journal takes its time."""
ENDS_BYTES = SEGMENT_HEADER_BYTES + FOOTER_TAIL_BYTES
"""What a start reads of a segment that was sealed long ago."""


class StartsAsItIs(Checker):
    def __init__(self) -> None:
        self._due: dict[Any, str] = {}
        """What happened to a node's journal, which is on its way to the disk."""
        self._active: dict[Any, int] = {}
        self._left = dict(STARTS_MAX)

    def on_truncate(self, node: Any, index: int) -> None:
        self._due[node] = "cut"

    def on_reset(self, node: Any) -> None:
        self._due[node] = "cut"

    def on_append(self, node: Any, entries: list[Any]) -> None:
        number = node.journal._segments.active.index.number
        if self._active.setdefault(node, number) != number:
            self._active[node] = number
            self._due.setdefault(node, "roll")
        self._look(node)

    def on_ack_made(self, node: Any, ack: Any) -> None:
        self._look(node)

    def after_event(self, node: Any) -> None:
        self._look(node)

    def on_removed(self, node: Any, path: str) -> None:
        journal = node.journal
        if posixpath.dirname(path) == journal._directory and segment_number(
            posixpath.basename(path)
        ):
            self._start(node, "removal", names=True)
            self._start(node, "removal", names=False)

    def _look(self, node: Any) -> None:
        if node in self._due and node.journal._plan is None and not node.journal._queue.operations:
            self._start(node, self._due.pop(node), names=True)

    def _start(self, node: Any, after: str, *, names: bool) -> None:
        journal = node.journal
        files, directory = journal._files, journal._directory
        if not self._left[after] or files.rotten or files.dropped or journal._fatal:
            return
        self._left[after] -= 1
        from tests.sim.ports import Quiet  # Which knows the checkers.

        twin = files.after_power_cut(directory, names=names)
        twin.reads = {}
        try:
            found = recover_journal(twin, directory, Quiet())
        except Error as error:
            raise Broken("starts as it is", f"{node.name} would not start: {error}") from error
        self._check_reads(node, found, twin.reads)
        if journal._plan is not None:
            # What the disk has of that is not known yet.
            return
        mine = (*_shown(journal._segments), journal._disk_hard_state, journal._next_batch)
        theirs = (*_shown(found.segments), found.hard_state, found.next_batch)
        if mine != theirs or found.chain != journal._chain:
            raise Broken(
                "starts as it is",
                f"{node.name} has (sealed, open, term and vote, batch) {mine}, and would start "
                f"with {theirs}",
            )
        mark = decode_mark(twin.read_file(posixpath.join(directory, MARK_NAME)))
        if mark.batch != found.next_batch - 1:
            what = f"would start at batch {found.next_batch}, with a mark of {mark.batch}"
            raise Broken("starts as it is", f"{node.name} {what}")
        numbers = [segment_number(name) for name in twin.list_directory(directory)]
        if any(one is not None and one < found.segments.oldest for one in numbers):
            what = f"keeps {numbers}, its log begins in {found.segments.oldest}"
            raise Broken("starts as it is", f"{node.name} {what}")

    @staticmethod
    def _check_reads(node: Any, found: Recovered, reads: dict[str, int]) -> None:
        # The newest sealed one is written again where nothing stands behind it yet.
        for segment in found.segments.sealed[:-1]:
            count = reads.get(found.segments.path_of(segment.number), 0)
            if count > ENDS_BYTES:
                raise Broken(
                    "a start reads the end",
                    f"{node.name} would read {count} bytes of segment {segment.number}, the last "
                    f"one is {found.segments.active.index.number}",
                )


def _shown(segments: Any) -> tuple[Any, Any]:
    """What counts of each."""
    active = segments.active.index
    sealed = [(one.number, one.first, one.last) for one in segments.sealed]
    return sealed, (active.number, active.first, active.last, active.last_term)
