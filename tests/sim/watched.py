"""The real journal under watch, of whole nodes and of toy ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from raftdb.journal import HardState, Journal, LogEntry
from tests.sim.checkers import Checker, told


class Watched:
    """Something whose doings are told to checkers: to those that have an ear for it."""

    KINDS: tuple[str, ...] = ()
    """Methods of Checker that are called."""
    node: Any = None

    def watch(self, node: Any, checkers: Sequence[Checker]) -> None:
        """From now on."""
        self.node = node
        self._told = {kind: told(checkers, kind) for kind in self.KINDS}

    def _tell(self, kind: str) -> Sequence[Callable[..., None]]:
        return self._told[kind] if self.node is not None else ()


class WatchedJournal(Watched, Journal):
    """The real journal; checkers are told of changes."""

    KINDS = ("on_append", "on_truncate", "on_vote", "on_dropped", "on_reset")

    def append(self, entries: Sequence[LogEntry]) -> None:
        for on_append in self._tell("on_append"):
            on_append(self.node, list(entries))
        super().append(entries)

    def truncate_from(self, index: int) -> None:
        if index <= self.last_index:
            for on_truncate in self._tell("on_truncate"):
                on_truncate(self.node, index)
        super().truncate_from(index)

    def reset(self, index: int, term: int) -> None:
        for on_reset in self._tell("on_reset"):
            on_reset(self.node)
        super().reset(index, term)

    def set_hard_state(self, hard_state: HardState) -> None:
        before, after = self.hard_state, hard_state
        if after.vote is not None and (after.term, after.vote) != (before.term, before.vote):
            for on_vote in self._tell("on_vote"):
                on_vote(self.node, int(after.term), str(after.vote))
        super().set_hard_state(hard_state)

    def drop_prefix(self, index: int) -> None:
        before = self.first_index
        super().drop_prefix(index)
        if self.first_index > before:
            for on_dropped in self._tell("on_dropped"):
                on_dropped(self.node)
