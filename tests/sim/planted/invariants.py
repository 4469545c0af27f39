"""Bugs whose harm takes much luck, or time: seen by invariants that are looked at all the time."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable
from typing import Any

from raftdb.base.ports import Files
from raftdb.command import Statement
from raftdb.consensus.core import Core
from raftdb.consensus.messages import Append, RequestVote
from raftdb.consensus.port import NotApplied
from raftdb.consensus.reads import Reads
from raftdb.consensus.wall import Wall
from raftdb.journal.cache import EntryCache
from raftdb.journal.journal import Journal
from raftdb.machine import applier, generations
from raftdb.machine.sessions import Sessions
from raftdb.node.reading import Reading
from tests.sim.planted.bug import Bug, Patch
from tests.sim.planted.locations import ask
from tests.sim.planted.script import Script


class OlderRounds(Wall):
    """Row 10: the round before the read's is as good."""

    def read_confirmed(self, round_sent: int, rounds_acked: Iterable[int]) -> bool:
        return super().read_confirmed(round_sent - 1, rounds_acked)


def _joins_the_round() -> list[Patch]:
    """Reads that come in while a round is under way are answered with those before them."""

    def add(self: Reads, done: Any) -> None:
        under_way = self._round
        (self._waiting if under_way is None else under_way.dones).append(done)
        self.count += 1

    return [(Reads, "add", add)]


def _votes_for_any_log() -> list[Patch]:
    """The pre-vote has looked at the log, so the vote need not."""
    consider = Core.on_request_vote

    def on_request_vote(self: Core, peer: str, message: RequestVote) -> None:
        consider(self, peer, message._replace(last_index=1 << 40))

    return [(Core, "on_request_vote", on_request_vote)]


def _verified_for_good() -> list[Patch]:
    """What one leader has verified stays verified under the next."""
    append = Core.on_append

    def on_append(self: Core, peer: str, message: Append) -> None:
        before = self._verified[1]
        append(self, peer, message)
        term, index = self._verified
        self._verified = term, max(before, index)

    return [(Core, "on_append", on_append)]


def _fresh_as_of_now() -> list[Patch]:
    """The moment of the answer is taken for that of the question."""
    confirmed = Reading._confirmed

    def instead(self: Reading, outcome: Any, level: str, read: Any) -> None:
        if not isinstance(outcome, NotApplied):
            outcome = dataclasses.replace(outcome, begun_s=self._clock.monotonic_s())
        confirmed(self, outcome, level, read)

    return [(Reading, "_confirmed", instead)]


def _drops_too_much() -> list[Patch]:
    """An allowance for entries that are about to be checkpointed."""
    compact = Journal.compact
    return [(Journal, "compact", lambda self, safe: compact(self, safe + 20))]


def _cut_stays_in_memory() -> list[Patch]:
    """The cache forgets where the log ends, not what was behind it."""

    def truncate(self: EntryCache, index: int, last: int) -> None:
        self.first = min(self.first, index)

    return [(EntryCache, "truncate", truncate)]


def _durable_though_cut() -> list[Patch]:
    """A cut does not lower what counts as durable."""
    return [(Journal, "_lower_durable", lambda self, index: None)]


def _closed_and_stored() -> list[Patch]:
    """A session that is closed goes from memory alone."""

    def close(self: Sessions, number: int) -> None:
        self._sessions.pop(number, None)
        self._dirty.pop(number, None)

    return [(Sessions, "close", close)]


def _jumps_count() -> list[Patch]:
    """Sessions expire by logged time, however far a clock has jumped."""
    return [(applier, "SESSION_STEP_MS_MAX", 1 << 60)]


def _current_not_synced() -> list[Patch]:
    """The rename that makes a copy current is left to the page cache."""
    make_current = generations.make_current

    def instead(files: Files, directory: str, generation: str) -> None:
        class Lazy:
            def __getattr__(self, name: str) -> Any:
                return getattr(files, name)

            def sync_directory(self, path: str) -> None:
                if os.path.basename(path) != os.path.basename(directory):
                    files.sync_directory(path)

        lazy: Any = Lazy()
        make_current(lazy, directory, generation)

    return [(generations, "make_current", instead)]


BUGS: tuple[Bug, ...] = (
    Bug("reads-of-an-older-round", "row 10", "the round before the read's is as good", OlderRounds),
    Bug("reads-join-the-round", "row 10", "a read shares a round that left", make=_joins_the_round),
    Bug("votes-for-shorter-logs", "thesis 3.6.1", "a pre-vote is enough", make=_votes_for_any_log),
    Bug("verified-for-good", "row 4", "verified under an older leader", make=_verified_for_good),
    Bug("fresh-as-of-now", "R1", "freshness from the answer's time", make=_fresh_as_of_now),
    Bug("drops-what-is-not-stored", "M2", "the log is cut ahead", make=_drops_too_much),
    Bug("cut-stays-in-memory", "row 3", "a cut entry stays in memory", make=_cut_stays_in_memory),
    Bug("durable-though-cut", "row 1", "a cut end is said to be durable", make=_durable_though_cut),
    Bug("closed-session-stored", "S2", "a restart brings it back", make=_closed_and_stored),
    Bug("sessions-end-by-a-jump", "S2", "expiry by the wall clock", make=_jumps_count),
    Bug("current-not-synced", "M3", "an installed copy can vanish", make=_current_not_synced),
)


def a_clock_jumps(s: Script) -> None:
    """The leader's clock is set ahead by more than a year, between two writes of a client."""
    client = s.new_client()
    probe = (Statement("INSERT INTO w_probe VALUES (1)"),)
    ask(s, client, client._core.execute(probe, timeout_s=5.0))
    s.host(s.leader()).clock.offset_ms += 400 * 86_400_000
    ask(s, client, client._core.execute(probe, timeout_s=5.0))


SCRIPTED = {"sessions-end-by-a-jump": "a-clock-jumps"}
PLAYS: dict[str, tuple[Callable[[Script], None], dict[str, Any]]] = {
    "a-clock-jumps": (a_clock_jumps, {}),
}
