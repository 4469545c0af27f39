"""What waits for the disk, in order."""

from __future__ import annotations

from raftdb.journal.format import (
    ENTRY,
    RECORD_HEADER_BYTES,
    RESET,
    TRUNCATE,
    Operation,
)

__all__ = ["OperationQueue", "last_after"]


class OperationQueue:
    """Operations that are in memory already and go into the next batches."""

    __slots__ = ("bytes", "operations", "sequence")

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.bytes = 0
        """As records, batch header and trailer not counted."""
        self.sequence = 0
        """Number of the operation that was queued last, from 1."""

    def put(self, operation: Operation) -> None:
        """Queue one more."""
        self.operations.append(operation)
        self.bytes += len(operation.data) + RECORD_HEADER_BYTES
        self.sequence += 1

    def take(self, bytes_max: int) -> tuple[list[Operation], int]:
        """All that waits, or as much as fits into `bytes_max` (one at least); and its bytes."""
        operations = self.operations
        if self.bytes <= bytes_max:
            taken_bytes = self.bytes
            self.operations, self.bytes = [], 0
            return operations, taken_bytes
        count = taken_bytes = 0
        for operation in operations:
            size = len(operation.data) + RECORD_HEADER_BYTES
            if count and taken_bytes + size > bytes_max:
                break
            count += 1
            taken_bytes += size
        self.operations = operations[count:]
        self.bytes -= taken_bytes
        return operations[:count], taken_bytes


def last_after(last: int, taken: list[Operation], waiting: list[Operation]) -> int:
    """The last entry that is on disk as it is in memory once `taken` is on disk, whose log ended
    at `last`, while `waiting` still waits."""
    for kind, index, _, _ in taken:
        if kind in (ENTRY, RESET):
            last = index
        elif kind == TRUNCATE:
            last = index - 1
    for kind, index, _, _ in waiting:
        if kind in (TRUNCATE, RESET):
            last = min(last, index - 1)
    return last
