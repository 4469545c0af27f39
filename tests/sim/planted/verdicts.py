"""Bugs in what becomes of requests that are held for a verdict (M4), and of a copy that the log has
outrun (row 12): what comes twice, or too late."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from raftdb.base.config import CopyConfig, JournalConfig
from raftdb.command import Statement, decode_verdict
from raftdb.consensus.copy_fetch import CopyFetcher
from raftdb.journal import journal as journal_module
from raftdb.journal.format import TRUNCATE
from raftdb.machine.applier import Applier
from raftdb.machine.keys import Keys
from tests.sim.planted.bug import Bug, Patch
from tests.sim.planted.scenarios_content import (
    _long,
    all_agree,
    impatient,
    spoil,
)
from tests.sim.planted.scenarios_copies import SIZES
from tests.sim.planted.scenarios_requests import keep_writing
from tests.sim.planted.script import Script

ROWS = 30_000
"""Enough to be given up where time is over."""


# -- scripts ---------------------------------------------------------------------------------------


def two_verdicts(s: Script) -> None:
    """A leader has put its verdict into the log, and is gone before anybody knows of it. The next
    one, whose processor is slow, thinks otherwise. A member that starts anew reads both at once."""
    client = s.new_client()
    created = s._setup.operation(Statement("CREATE TABLE long(i)"))
    done: list[Any] = []
    client.life.run(client.execute, created, done.append, s._setup)
    s.until(lambda: bool(done))
    old = s.leader()
    others = s.others(old)
    found = _long(s, ROWS, client)
    s.until(lambda: s.node(old).machine.held() is not None)
    [held] = [s.node(old).machine.held()]
    s.slow_disk(0.2, *others)
    s.until(lambda: s.node(old).journal.last_index > held[0])
    end = s.node(old).journal.last_index
    s.until(lambda: all(s.node(name).journal.last_index >= end for name in others))
    s.down(old)
    s.until(lambda: all(int(s.node(name).journal.durable_index) >= end for name in others))
    s.slow_disk(0.0, *others)
    for name in others:
        s.node(name).assembly.cpu_clock.look_s = 0.005
    s.until(lambda: any(node.role == "leader" for node in s.cluster.live()))
    [new] = [node.name for node in s.cluster.leaders()]
    [third] = [name for name in others if name != new]
    # The third has both verdicts on its disk, and hears of neither's commit; the new leader goes by
    # the first before there is a second.
    s.slow_disk(0.1, third)
    s.until(lambda: s.node(new).journal.last_index >= end + 2)
    last = s.node(new).journal.last_index
    s.until(lambda: s.node(new).commit_index > end)
    s.cluster.fabric.block({(new, third)})
    s.until(lambda: int(s.node(third).journal.durable_index) >= last)
    assert s.node(third).applied_index < held[0]
    s.cluster.kill(third, power=False)
    s.slow_disk(0.0, third)
    s.until(lambda: s.node(new).commit_index >= last)
    s.heal()
    s.cluster.start(third)
    s.until(lambda: s.node(third).applied_index >= last)
    s.up(old)
    s.until(lambda: bool(found), within_s=40.0)
    s.written(2)


def outrun_while_it_heals(s: Script) -> None:
    """A member that differs gets a copy, slowly, and keeps next to nothing of its log for it."""
    s.written(2)
    name = s.others(s.leader())[0]
    host = s.host(name)
    s.down(name)
    host.config = replace(
        host.config,
        journal=JournalConfig(keep_bytes=1, pinned_bytes_max=1),
        copy=CopyConfig(rate_bytes_per_s=20_000),
    )
    s.up(name)
    s.run_for(3.0)
    spoil(s, name)
    stop = keep_writing(s, [], every_s=0.1, key=1)
    s.run_for(8.0)
    stop()
    all_agree(s, 1)


def cut_in_the_queue(s: Script) -> None:
    """A follower's disk is slow, and much waits for it that the next leader cuts, in part before it
    is written."""
    old = s.leader()
    near, *rest = s.others(old)
    s.only([old, near], rest)
    s.slow_disk(0.4, near)
    for _ in range(60):
        s.cluster.call(old, s.node(old).assembly.replica.tick)
        s.run_for(0.005)
    s.until(lambda: any(node.role == "leader" and node.name in rest for node in s.cluster.live()))
    s.heal()
    for _ in range(10):
        s.written(1)
        s.run_for(0.2)
    s.slow_disk(0.0, near)


# -- bugs ------------------------------------------------------------------------------------------


def _last_verdict() -> list[Patch]:
    """A later verdict is a better one."""

    def note(self: Applier, payload: bytes) -> None:
        verdict = decode_verdict(payload)
        if verdict is not None:
            self._verdicts[verdict.index, verdict.position] = verdict.keep

    return [(Applier, "note_verdict", note)]


def _early_reversed() -> list[Patch]:
    """What was applied before a request that is held is told the wrong way round."""
    apply_units = Applier._apply_units

    def reversing(self: Applier, entries: Any, units: Any, skipped: Sequence[bytes]) -> Any:
        done = apply_units(self, entries, units, skipped)
        self._early = dict(enumerate(reversed(list(self._early.values()))))
        return done

    return [(Applier, "_apply_units", reversing)]


def _keys_not_read_again() -> list[Patch]:
    """What a transaction that was lost had taken down of keys stays in memory."""
    record = Keys.record

    def clean(self: Keys, *rest: Any) -> None:
        record(self, *rest)
        self.dirty = False

    return [(Keys, "record", clean)]


def _waiting_cut_ignored() -> list[Patch]:
    """What is in this batch is durable when it is written, whatever waits behind it."""
    last_after = journal_module.last_after

    def without(last: int, taken: list[Any], waiting: list[Any]) -> int:
        return last_after(last, taken, [one for one in waiting if one[0] != TRUNCATE])

    return [(journal_module, "last_after", without)]


def _outrun_installed() -> list[Patch]:
    """A copy is installed, whether the log still leads on from it or not."""
    install = CopyFetcher._install

    def regardless(self: CopyFetcher, offer: Any) -> None:
        first_index, self._first_index = self._first_index, lambda: 0
        if self._pin is not None:
            self._pin.overrun = False  # type: ignore[misc]
        install(self, offer)
        self._first_index = first_index

    return [(CopyFetcher, "_install", regardless)]


BUGS: tuple[Bug, ...] = (
    Bug("last-verdict-counts", "M4", "who reads two goes by the last one", make=_last_verdict),
    Bug("early-replies-reversed", "M1", "replies change places", make=_early_reversed),
    Bug("keys-not-read-again", "S3", "a lost transaction's keys stay", make=_keys_not_read_again),
    Bug("waiting-cut-ignored", "row 1", "what waits to be cut counts", make=_waiting_cut_ignored),
    Bug("outrun-copy-installed", "row 12", "a copy with no log behind it", make=_outrun_installed),
)

SCRIPTED = {
    "last-verdict-counts": "two-verdicts",
    "early-replies-reversed": "long-requests",
    "keys-not-read-again": "long-requests",
    "waiting-cut-ignored": "cut-in-the-queue",
    "outrun-copy-installed": "outrun-while-it-heals",
}
PLAYS: dict[str, tuple[Callable[[Script], None], dict[str, Any]]] = {
    "two-verdicts": (two_verdicts, {"environment": impatient, "limits": {"write_ms_max": 100}}),
    "cut-in-the-queue": (
        cut_in_the_queue,
        {"nodes": 5, "limits": {"journal_segment_bytes": 1024, "entry_requests_max": 1}},
    ),
    "outrun-while-it-heals": (outrun_while_it_heals, SIZES),
}
