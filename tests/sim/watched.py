"""The real journal under watch, of whole nodes and of toy ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raftdb.journal import HardState, Journal, LogEntry
from tests.sim.checkers import Checker


class WatchedJournal(Journal):
    """The real journal; checkers are told of changes."""

    watchers: Sequence[Checker] = ()
    node: Any = None

    def append(self, entries: Sequence[LogEntry]) -> None:
        for watcher in self.watchers:
            watcher.on_append(self.node, list(entries))
        super().append(entries)

    def truncate_from(self, index: int) -> None:
        if index <= self.last_index:
            for watcher in self.watchers:
                watcher.on_truncate(self.node, index)
        super().truncate_from(index)

    def set_hard_state(self, hard_state: HardState) -> None:
        before, after = self.hard_state, hard_state
        if after.vote is not None and (after.term, after.vote) != (before.term, before.vote):
            for watcher in self.watchers:
                watcher.on_vote(self.node, int(after.term), str(after.vote))
        super().set_hard_state(hard_state)

    def drop_prefix(self, index: int) -> None:
        before = self.first_index
        super().drop_prefix(index)
        if self.first_index > before:
            for watcher in self.watchers:
                watcher.on_dropped(self.node)
