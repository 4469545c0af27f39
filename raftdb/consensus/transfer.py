"""Handing over leadership in an orderly way (thesis 3.10)."""

from __future__ import annotations

from collections.abc import Callable

from raftdb.base.ports import Executor, Timer
from raftdb.consensus.core import Core
from raftdb.consensus.wall import LEADER


class Transfer:
    """At most one at a time: stop admitting, let the target catch up, tell it to stand, wait."""

    def __init__(self, core: Core, executor: Executor, resume: Callable[[], None]) -> None:
        self._core = core
        self._executor = executor
        self._resume = resume
        self._done: Callable[[str], None] | None = None
        self._target = ""
        self._anyone = False
        """Whoever leads next will do."""
        self._term = 0
        self._asked = False
        self._timer: Timer | None = None

    @property
    def active(self) -> bool:
        """No new entries are made meanwhile."""
        return self._done is not None

    def begin(self, target: str | None, done: Callable[[str], None], timeout_s: float) -> None:
        """Start; `done` gets `` or why not."""
        reason = self._why_not(target)
        chosen = target or best_successor(self._core)
        if not reason and chosen is None:
            reason = "no other member is connected"
        if reason or chosen is None:
            self._executor.call_soon(done, reason)
            return
        self._done = done
        self._target, self._anyone = chosen, target is None
        self._term = self._core.library.term
        self._asked = False
        self._timer = self._executor.call_later(
            timeout_s, self._finish, f"{chosen} did not take over within {timeout_s:g} s"
        )

    def step(self, *, drained: bool) -> None:
        """Go on as far as the state allows. `drained`: every entry is applied here."""
        library = self._core.library
        if library.role == LEADER:
            if library.term != self._term:
                # The other one stood, and this one won again: once more, while there is time.
                self._term, self._asked = library.term, False
            if drained and not self._asked and library.transfer(self._target):
                self._asked = True
                self._core.handed_over_term = self._term
        elif library.leader == self._target:
            self._finish("")
        elif self._anyone and library.leader not in (None, self._core.node_id):
            # Another follower stood at the same moment: leadership moved, as it was asked to.
            self._finish("")
        elif library.leader is not None:
            self._finish(f"{library.leader} leads now, not {self._target}")

    def fail(self, reason: str) -> None:
        """The engine stops."""
        if self._done is not None:
            self._finish(reason)

    def _why_not(self, target: str | None) -> str:
        core = self._core
        if core.library.role != LEADER:
            return "not_leader"
        if self._done is not None:
            return "a transfer is under way"
        if target is not None and target not in core.electorate.peers:
            return f"{target} is not another member"
        if target is not None and target not in core.electorate.voters:
            return f"{target} is a learner, and learners never lead"
        return ""

    def _finish(self, reason: str) -> None:
        done, self._done = self._done, None
        self._core.handed_over_term = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if done is not None:
            done(reason)
            self._resume()


def best_successor(core: Core) -> str | None:
    """The connected voter with the most entries."""
    best: str | None = None
    for peer in core.electorate.voters:
        if core.links.connected(peer) and (
            best is None or core.library.match_index(peer) > core.library.match_index(best)
        ):
            best = peer
    return best
