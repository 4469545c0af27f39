"""Bugs in comparing content (rule D1), and in requests that run long (rule M4)."""

from __future__ import annotations

import itertools
from typing import Any

from raftdb.consensus.core import Core
from raftdb.machine.applier import Applier
from raftdb.machine.patience import Held
from raftdb.node import comparison as comparison_module
from raftdb.node.comparison import Comparison
from tests.sim.planted import rules
from tests.sim.planted.bug import Bug, Patch


def _leader_is_right() -> list[Patch]:
    """Whoever differs from the leader is wrong."""
    judge = Comparison._judge

    def by_the_leader(self: Comparison, index: int) -> None:
        leader = self._engine.status().leader
        own = self._machine.sample_at(index)
        if own is None or leader is None:
            judge(self, index)
            return
        values = {self._node_id: (own.content, own.results)}
        for peer, heard in self._heard.items():
            if index in heard.values:
                values[peer] = heard.values[index]
        if str(leader) in values:
            self._judged(index, values, values[str(leader)])

    return [(Comparison, "_judge", by_the_leader)]


def _serves_all_the_same() -> list[Patch]:
    """A node that was found to differ goes on answering."""
    return [(Comparison, "refusal", lambda self, *, local: None)]


def _heals_from_anybody() -> list[Patch]:
    """The copy comes from whoever is asked first, sound or not, and everybody sends one."""
    members = Comparison.sound_members
    stand_down = Core.stand_down

    def differing_first(self: Comparison) -> tuple[str, ...]:
        wrong = tuple(sorted(self.diverged.keys() - {self._node_id}))
        return wrong or members(self)

    def lead_on(self: Core, cause: str, reason: str) -> None:
        stand_down(self, cause, "")

    return [(Comparison, "sound_members", differing_first), (Core, "stand_down", lead_on)]


def _doubt_is_forgotten() -> list[Patch]:
    """Without a majority nobody knows who is right, and writes go on."""
    return [(comparison_module, "DOUBT_S", 1e9), (Comparison, "_enter_doubt", lambda self: None)]


def _own_clock_decides() -> list[Patch]:
    """Each node gives a request up that takes longer than it likes."""
    looks = itertools.count()
    group = Applier._apply_group

    def decide(self: Applier, units: list[Any]) -> int:
        done = group(self, units)
        held = self.held
        if held is not None and done < len(units):
            # Whose processor was slower just now?
            self._verdicts.setdefault(held, next(looks) % 2 == 0)
        return done

    return [(Applier, "_apply_group", decide)]


def _verdict_ignored() -> list[Patch]:
    """A node that has come far with a request finishes it, whatever the log says."""
    looks = itertools.count()
    note = Applier.note_verdict

    def finish(self: Applier, payload: bytes) -> None:
        before = dict(self._verdicts)
        note(self, payload)
        for key in self._verdicts.keys() - before.keys():
            self._verdicts[key] = self._verdicts[key] or next(looks) % 2 == 0

    return [(Applier, "note_verdict", finish)]


def _held_takes_neighbours() -> list[Patch]:
    """A request that is held takes those before it in the transaction with it."""

    def group(self: Applier, units: list[Any]) -> int:
        try:
            return self._transaction(units)
        except Held as held:
            self._connection.set_progress_handler(None, id="raftdb-brief")
            self._held = units[held.place]
            self._undo_long(units[held.place])
            if held.place:
                self._commit(units[held.place - 1], begin=True)
            return held.place

    commit = Applier._commit

    def commit_nothing(self: Applier, last: Any, begin: bool = False) -> None:
        if begin:
            self._control("BEGIN IMMEDIATE /*raftdb*/")
        commit(self, last)

    return [(Applier, "_apply_group", group), (Applier, "_commit", commit_nothing)]


def _quarantine_in_memory() -> list[Patch]:
    """That a node differs is known to its process."""
    return [(Comparison, "_write", lambda self: None)]


def _released_as_it_is() -> list[Patch]:
    """Whose digests are those of the majority is sound."""
    judged = Comparison._judged

    def equal(self: Comparison, *rest: Any) -> None:
        self._from_file = self._from_file or self._rotten
        judged(self, *rest)

    return [(Comparison, "_judged", equal)]


BUGS = [
    Bug(
        "released-as-it-is",
        "D1, M8",
        "a node that was found damaged answers again, since its digests are right",
        make=_released_as_it_is,
    ),
    Bug(
        "quarantine-forgotten",
        "D1",
        "a node that differs from the majority starts anew, and answers",
        make=_quarantine_in_memory,
    ),
    Bug(
        "leaders-content-is-right",
        "D1",
        "whoever differs from the leader is wrong, and takes its content",
        make=_leader_is_right,
    ),
    Bug(
        "differs-and-serves",
        "D1",
        "a node that was found to differ from the majority goes on answering",
        make=_serves_all_the_same,
    ),
    Bug(
        "heals-from-a-minority",
        "D1",
        "a node that differs takes its copy from another one that differs",
        make=_heals_from_anybody,
    ),
    Bug(
        "writes-in-doubt",
        "D1",
        "members differ, no majority agrees, and writes go on",
        make=_doubt_is_forgotten,
    ),
    Bug(
        "log-dropped-behind-a-copy",
        "row 12",
        "a copy is installed, and what was acknowledged behind it is forgotten",
        rules.DropsLogBehindCopy,
    ),
    Bug(
        "own-clock-ends-a-request",
        "M4",
        "each node gives up what takes longer than it likes",
        make=_own_clock_decides,
    ),
    Bug(
        "verdict-ignored",
        "M4",
        "a node finishes a request that the log says was given up",
        make=_verdict_ignored,
    ),
    Bug(
        "held-request-takes-neighbours",
        "M4, M1",
        "a request that is held takes those before it in the transaction with it",
        make=_held_takes_neighbours,
    ),
]
