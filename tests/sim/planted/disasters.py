"""Bugs in what goes on when a majority is lost, or when a cluster is made anew from a copy: which
log counts, and whose sessions are good (rules A3, S4)."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from raftdb.base.atomic import replace_file
from raftdb.base.ids import HistoryId, Index
from raftdb.base.layout import database_path, journal_path
from raftdb.base.startup import COPY_FILE, IDENTITY_FILE, NodeIdentity, render_identity
from raftdb.journal import inspect_journal, refound_journal
from raftdb.machine import begin_history, fork
from raftdb.machine.pages import open_vfs
from raftdb.node.replica import Replica
from raftdb.ops import recover
from raftdb.ops.inspect import NodeDirectory
from raftdb.ops.recover import find_archives, plan_recovery
from raftdb.ops.survivors import Account, Kept, Survivor
from tests.sim.checkers import Broken
from tests.sim.hosts import CLUSTER, HISTORY
from tests.sim.planted.archive import archive_in, archived, archived_to, begin
from tests.sim.planted.bug import Bug, Patch
from tests.sim.planted.scenarios_requests import expect_rows, run, table, write
from tests.sim.planted.script import Script
from tests.sim.ports import SimRandom
from tests.sim.vfs import Route, simulated

NEXT_HISTORY = HistoryId("8" * 32)


# -- which log counts ------------------------------------------------------------------------------


class _AllDisks:
    """The disks of all machines: a path begins with its machine's name."""

    def __init__(self, s: Script) -> None:
        self._hosts = s.cluster.hosts

    def __getattr__(self, name: str) -> Any:
        def call(path: str, *rest: Any, **more: Any) -> Any:
            return getattr(self._hosts[path.split("/")[1]].files, name)(path, *rest, **more)

        return call


def ticks(s: Script, name: str, count: int) -> None:
    """Entries at a leader that nobody else gets."""
    node = s.node(name)
    for _ in range(count):
        s.cluster.call(name, node.assembly.replica.tick)
        s.run_for(0.001)


def _survivor(s: Script, name: str, applied: int) -> Survivor:
    host, disks = s.host(name), _AllDisks(s)
    node = NodeDirectory(
        host.config.data_dir, NodeIdentity(CLUSTER, HISTORY, host.config.node_id, "2026-01-01")
    )
    files: Any = disks
    found = inspect_journal(files, node.journal)
    account = Account(
        node_id=name,
        cluster_id=CLUSTER,
        history=HISTORY,
        voters=tuple(s.cluster.hosts),
        first_index=int(found.first_index),
        last_index=int(found.last_index),
        last_term=int(found.last_term),
        applied_index=applied,
        time_ms=0,
    )
    return Survivor(account, Path(f"/{name}"), node, host.config, host.config.members)


def _recovered(s: Script, names: Sequence[str], applied: dict[str, int], archives: Any) -> Any:
    files: Any = _AllDisks(s)
    here = [_survivor(s, name, applied[name]) for name in names]
    return plan_recovery(here, [], archives, [], files)


def _require(plan: Any, committed: dict[int, int], s: Script, last: int) -> None:
    """What was acknowledged is in what a recovery would keep."""
    kept, name = plan.kept, plan.source.account.node_id
    files: Any = _AllDisks(s)
    terms = {int(one.index): int(one.term) for one in plan.source.entries(files)}
    for index, term in sorted(committed.items()):
        if index <= min(kept.log_to, last) and terms.get(index, term) != term:
            raise Broken(
                "what survives is recovered",
                f"entry {index} would be that of {name}, of term {terms[index]}: what was "
                f"acknowledged there is of term {term}",
            )
    if plan.last_index < last:
        raise Broken(
            "what survives is recovered",
            f"the recovered log would end at {plan.last_index}, acknowledged was {last}",
        )


def survivors(s: Script) -> None:
    """A majority is lost. A survivor has a long log that nobody else ever had; another one, or the
    archive, has what was acknowledged."""
    store = begin(s)
    old = s.leader()
    s.only([old], s.others(old))
    ticks(s, old, 80)
    s.until(lambda: any(node.role == "leader" and node.name != old for node in s.cluster.live()))
    s.run_for(0.5)
    new = next(node.name for node in s.cluster.leaders() if node.name != old)
    s.written(5)
    last = s.node(new).commit_index
    s.until(lambda: archived_to(s) >= last, within_s=30.0)
    journal = s.node(new).journal
    committed = {at: int(journal.term_at(at)) for at in range(int(journal.first_index), last + 1)}
    applied = {name: s.node(name).applied_index for name in s.cluster.hosts}
    for name in s.cluster.hosts:
        s.down(name, power=False)
    pair = [old, next(name for name in s.others(old) if name != new)]
    _require(_recovered(s, pair, applied, None), committed, s, last)
    archives = find_archives([archive_in(store)], CLUSTER, HISTORY)
    _require(_recovered(s, [old], applied, archives), committed, s, last)
    # The others' machines were only switched off.
    s.heal()
    s.up(*s.cluster.hosts)
    s.run_for(3.0)


# -- whose sessions are good -----------------------------------------------------------------------


@contextlib.contextmanager
def made_anew() -> Iterator[None]:
    """Commands that make databases anew find them on the simulated disks."""

    vfs = open_vfs(simulated().name)
    with mock.patch.object(fork, "open_vfs", return_value=vfs):
        yield


def _make_anew(s: Script, images: dict[str, Any], at: tuple[int, int], *, clone: bool) -> None:
    """As `raftdb restore` and `rejoin` do, with what the disks held at that entry (index, term)."""
    lineage = [] if clone else [(HISTORY, Index(at[0]), 0)]
    routes = simulated().routes
    for name, host in s.cluster.hosts.items():
        s.down(name, power=False)
        host.files = images[name]
        host.excused = True
        host.config = replace(host.config, history=NEXT_HISTORY)
        routes[name] = Route(host.files, s.cluster._locks.new_prefix())
        data = host.config.data_dir
        identity = NodeIdentity(CLUSTER, NEXT_HISTORY, host.config.node_id, "2026-01-02")
        replace_file(host.files, f"{data}/{IDENTITY_FILE}", render_identity(identity))
        host.files.remove(f"{data}/{COPY_FILE}")
        begin_history(database_path(data), NEXT_HISTORY, lineage, files=host.files)
        refound_journal(host.files, journal_path(data), SimRandom(f"anew {name}"), at)
    s.up(*s.cluster.hosts)
    s.leader()


def _images(s: Script) -> tuple[dict[str, Any], tuple[int, int]]:
    """What all disks hold once all are equal and stopped, and at which entry that is."""
    s.run_for(1.0)
    index = s.node(s.leader()).applied_index
    s.until(lambda: all(node.applied_index == index for node in s.cluster.live()))
    term = s.node(s.leader()).journal.term_at(index)
    for name in s.cluster.hosts:
        s.down(name, power=False)
    draw = random.Random("images")
    found = {name: host.files.clone(draw) for name, host in s.cluster.hosts.items()}
    s.up(*s.cluster.hosts)
    s.leader()
    return found, (index, int(term))


def cloned(s: Script) -> None:
    """A clone is a cluster of its own: a client of the first one, which still has a request that it
    does not know the fate of, is told nothing there and changes nothing."""
    table(s)
    client = s.new_client()
    write(s, client, 1)
    session = client._core.session
    images, at = _images(s)
    _make_anew(s, images, at, clone=True)
    client._core.session = session
    write(s, client, 2)
    expect_rows(s, [1], "a clone has its own clients")


def replaced(s: Script) -> None:
    """A cluster is restored to an earlier moment. Sessions from before go on; those from after are
    of a past that is gone, though their numbers come again."""
    table(s)
    kept = s.new_client()
    write(s, kept, 1)
    images, at = _images(s)
    lost = s.new_client()
    write(s, lost, 1)
    gone = lost._core.session
    assert gone is not None
    _make_anew(s, images, at, clone=False)
    # Somebody opens a session under the number that was given in that past.
    other = s.new_client()
    _opened, error = run(s, other, other._core.open(other._core.courier.call(5.0)))
    assert error is None, error
    assert other._core.session.session_id[16:24] == gone.session_id[16:24]
    error = write(s, kept, 2)
    if error is not None:
        raise Broken("sessions go on", f"a session from before the moment: {error!r}")
    write(s, kept, 1)
    lost._core.session = gone
    write(s, lost, 1)
    expect_rows(s, [1, 2], "the lost past stays lost")


# -- bugs ------------------------------------------------------------------------------------------


def _longest() -> list[Patch]:
    """The longest log wins."""
    return [(Account, "newest", property(lambda self: (self.last_index, self.last_term)))]


def _archive_forgotten() -> list[Patch]:
    """A survivor's log is enough."""

    def merge(log: Any, archive: Any) -> Kept:
        return Kept(max(log), max(log), 0)

    return [(recover, "merge", merge)]


def _clone_keeps_sessions() -> list[Patch]:
    """A clone keeps all that is in the database."""
    begin_now = begin_history

    def keeping(directory: str, history: Any, lineage: Any, *, files: Any) -> None:
        begin_now(directory, history, lineage or [(HISTORY, Index(1 << 40), 0)], files=files)

    return [(sys.modules[__name__], "begin_history", keeping)]


def _any_fork() -> list[Patch]:
    """A session counts by its number alone, whichever past it is of."""
    return [(Replica, "refuse_session", lambda self, session: None)]


BUGS: tuple[Bug, ...] = (
    Bug("recovers-the-longest-log", "A3", "survivors are compared by length", make=_longest),
    Bug("recovery-forgets-the-archive", "A3", "the log is all there is", make=_archive_forgotten),
    Bug(
        "clone-keeps-sessions",
        "S4",
        "a clone knows its model's clients",
        make=_clone_keeps_sessions,
    ),
    Bug("session-of-a-lost-past", "S4", "sessions of any fork are good", make=_any_fork),
)

SCRIPTED = {
    "recovers-the-longest-log": "survivors",
    "recovery-forgets-the-archive": "survivors",
    "clone-keeps-sessions": "cloned",
    "session-of-a-lost-past": "replaced",
}
PLAYS: dict[str, tuple[Callable[[Script], None], dict[str, Any]]] = {
    "survivors": (survivors, {"environment": archived}),
    "cloned": (cloned, {"environment": made_anew, "checkers": ()}),
    "replaced": (replaced, {"environment": made_anew, "checkers": ()}),
}
