"""Where each entry of a segment lies: 12 bytes of memory per entry, terms as runs."""

from __future__ import annotations

from array import array
from bisect import bisect_right

from raftdb.journal.format import FooterTail, encode_footer

__all__ = ["SegmentIndex"]


class SegmentIndex:
    """The entries of one segment that count, after its own truncations.

    Invariant: they are first, first + 1, ... last, with offset, length and term each;
    `previous_term` is the term of entry first - 1.
    """

    __slots__ = ("first", "lengths", "number", "offsets", "previous_term", "term_starts")

    def __init__(self, number: int, first: int, previous_term: int) -> None:
        self.number = number
        self.first = first
        self.previous_term = previous_term
        self.offsets: array[int] = array("Q")
        self.lengths: array[int] = array("I")
        self.term_starts: list[tuple[int, int]] = []
        """(index of a term's first entry here, the term), ascending."""

    @classmethod
    def from_footer(
        cls,
        tail: FooterTail,
        offsets: array[int],
        lengths: array[int],
        term_starts: list[tuple[int, int]],
    ) -> SegmentIndex:
        """As a sealed segment has it at its end."""
        index = cls(tail.number, tail.first_index, tail.previous_term)
        index.offsets = offsets
        index.lengths = lengths
        index.term_starts = term_starts
        return index

    @property
    def last(self) -> int:
        """`first - 1` when there is none."""
        return self.first + len(self.offsets) - 1

    @property
    def last_term(self) -> int:
        """Term of entry `last`, be it here or before."""
        return self.term_starts[-1][1] if self.term_starts else self.previous_term

    def add(self, index: int, term: int, offset: int, length: int) -> None:
        """The next entry: its record is at `offset`, its data has `length` bytes."""
        if index != self.first + len(self.offsets):
            raise ValueError(f"entry {index} follows entry {self.last}")
        if not self.term_starts or self.term_starts[-1][1] != term:
            self.term_starts.append((index, term))
        self.offsets.append(offset)
        self.lengths.append(length)

    def truncate(self, index: int, previous_term: int) -> None:
        """Forget `index` and what follows; `previous_term` is the term of entry index - 1."""
        if index > self.last + 1:
            raise ValueError(f"cannot truncate from {index}: the last entry is {self.last}")
        if index > self.first:
            del self.offsets[index - self.first :]
            del self.lengths[index - self.first :]
            while self.term_starts and self.term_starts[-1][0] >= index:
                self.term_starts.pop()
            return
        self._clear(index, previous_term)

    def reset(self, index: int, term: int) -> None:
        """Forget everything; the next entry follows (index, term), of which only that is known."""
        self._clear(index + 1, term)

    def footer(self, end: int, next_batch: int, chain: int, seed: int) -> bytes:
        """What seals the segment, when its batches end at offset `end` with that chain value."""
        tail = FooterTail(
            number=self.number,
            first_index=self.first,
            last_index=self.last,
            previous_term=self.previous_term,
            last_term=self.last_term,
            index_offset=end,
            entry_count=len(self.offsets),
            term_count=len(self.term_starts),
            next_batch=next_batch,
            chain=chain,
            index_check=0,
        )
        return encode_footer(tail, self.offsets, self.lengths, self.term_starts, seed)

    def _clear(self, first: int, previous_term: int) -> None:
        self.first = first
        self.previous_term = previous_term
        self.offsets = array("Q")
        self.lengths = array("I")
        self.term_starts = []

    def term_at(self, index: int) -> int:
        """Term of an entry from first - 1 to last."""
        if index == self.first - 1:
            return self.previous_term
        assert self.first <= index <= self.last
        position = bisect_right(self.term_starts, index, key=lambda start: start[0])
        return self.term_starts[position - 1][1]
