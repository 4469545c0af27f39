"""Bugs in what goes off-site: whether it is there, whose it is, and whether it is right. The store
is in memory, and everything else of the archive is the real code."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from unittest import mock

from raftdb.archive import Archive, ArchiveUnavailableError, Claim, Listed, Sources, load_timeline
from raftdb.archive import restore as restore_now
from raftdb.archive.envelope import Sealer
from raftdb.archive.keys import Keyring
from raftdb.archive.service import ArchiveService
from raftdb.archive.uploader import View
from raftdb.archive.writer import ChainWriter
from raftdb.base.config import ArchiveConfig, JournalConfig
from raftdb.base.errors import Error
from raftdb.consensus.entry import decode_payloads
from raftdb.embedded import assembly
from tests.machine.support import FILES, MemoryLog
from tests.sim.checkers import Broken
from tests.sim.planted.bug import Bug, Patch
from tests.sim.planted.script import Script


class MemoryStore:
    """A store that is there, or is not."""

    url = "memory://archive"

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.refuses = ""
        """Objects with this in their names cannot be made now."""
        self.deleted: list[str] = []

    def put(self, name: str, data: bytes) -> bool:
        if self.refuses and self.refuses in name:
            raise ArchiveUnavailableError("no answer")
        return self.objects.setdefault(name, data) is data

    def get(self, name: str) -> bytes | None:
        return self.objects.get(name)

    def delete(self, name: str) -> None:
        """Pruning may, and nobody else."""
        self.deleted.append(name)
        self.objects.pop(name, None)

    def listing(self, prefix: str, after: str = "") -> list[Listed]:
        names = sorted(name for name in self.objects if name.startswith(prefix) and name > after)
        return [Listed(name, len(self.objects[name]), 0) for name in names]


_stores: list[MemoryStore] = []


@contextlib.contextmanager
def archived() -> Iterator[None]:
    """Nodes archive to one store."""
    store = MemoryStore()
    _stores.append(store)
    service = functools.partial(ArchiveService, stores=lambda _url: store)
    try:
        with mock.patch.object(assembly, "ArchiveService", service):
            yield
    finally:
        _stores.remove(store)


def begin(s: Script, journal: JournalConfig | None = None, **options: Any) -> MemoryStore:
    """From now on nodes archive."""
    options = {"interval_ms": 200, **options}
    config = ArchiveConfig(destinations=("file:///archive",), **options)
    for name, host in s.cluster.hosts.items():
        s.down(name, power=False)
        kept = journal or host.config.journal
        host.config = replace(host.config, archive=config, journal=kept)
    s.up(*s.cluster.hosts)
    s.leader()
    s.written(3)
    s.until(lambda: archived_to(s) >= 3, within_s=30.0)
    return _stores[-1]


def _destinations(s: Script) -> dict[str, Any]:
    return {
        node.name: node.assembly._archive._destinations[0]
        for node in s.cluster.live()
        if node.assembly._archive is not None
    }


def archived_to(s: Script) -> int:
    """Entries up to here are said to be archived."""
    return max((one.archived for one in _destinations(s).values()), default=0)


def _uploader(s: Script) -> str:
    return next(name for name, one in _destinations(s).items() if one._active)


def sources_of(store: MemoryStore) -> Sources:
    """All that is there, read anew."""
    return Sources([load_timeline(archive_in(store))])


def archive_in(store: MemoryStore) -> Archive:
    """As a command opens it."""
    return Archive.open(store, Sealer(Keyring({}), lambda count: bytes(count)))


def restored(s: Script, store: MemoryStore) -> None:
    """A restore of all that is said to be archived gives what the cluster has there."""
    s.run_for(2.0)
    said = archived_to(s)
    try:
        found = sources_of(store)
        plan = found.plan(found.last())
        with tempfile.TemporaryDirectory() as work:
            done = restore_now(
                found, plan, f"{work}/r", files=FILES, log=MemoryLog(), decode=decode_payloads
            )
    except Error as error:
        raise Broken("archived means restorable", str(error)) from error
    if done.index < said:
        raise Broken("archived means restorable", f"{done.index} is there, {said} was said")
    for node in s.cluster.live():
        sample = node.machine.sample_at(done.index)
        if done.index == node.applied_index and node.machine.content_hash().total != done.content:
            raise Broken("archived means restorable", f"not what {node.name} has: {sample}")


def store_refuses(s: Script) -> None:
    """For a while the store takes some objects, and others not."""
    store = begin(s)
    store.refuses = "segments/"
    s.written(5)
    s.run_for(2.0)
    store.refuses = ""
    s.written(3)
    s.run_for(6.0)
    restored(s, store)


def uploader_differs(s: Script) -> None:
    """The member that uploads has other content than the others."""
    store = begin(s)
    name = _uploader(s)
    machine = s.node(name).machine
    s.cluster.note("content spoilt", name)
    with machine._writer_lock:
        machine._writer.execute("UPDATE w_register SET value = 777777 /*raftdb*/").fetchall()
    s.written(3, key=1)
    s.run_for(12.0)
    restored(s, store)


def restored_elsewhere(s: Script) -> None:
    """Somebody restores the archive as another cluster, and this one goes on."""
    store = begin(s)
    for host in s.cluster.hosts.values():
        host.excused = True
    before = set(store.objects)
    archive = archive_in(store)
    archive.make_claim(Claim(2, "9" * 32, 1, 3, 0, "elsewhere", 0, "elsewhere"))
    [claim] = set(store.objects) - before
    _let_stop(s, 11.0)
    count = len(store.objects)
    s.write()
    _let_stop(s, 4.0)
    added = len(store.objects) - count
    # It was a mistake, and is taken back.
    del store.objects[claim]
    if added:
        raise Broken("one history goes on", f"{added} objects more after the claim")


def _let_stop(s: Script, seconds: float) -> None:
    """Nodes stop by themselves here, and nobody starts them again."""
    end_s = s.world.now_s + seconds
    while s.world.now_s < end_s:
        s.run_for(0.05)
        for host in s.cluster.hosts.values():
            host.held_down = host.held_down or host.life is None


# -- bugs ------------------------------------------------------------------------------------------


def _failed_counts() -> list[Patch]:
    """An object that the store did not take counts as made."""
    put = ChainWriter._put

    def forgive(self: ChainWriter, name: str, data: bytes) -> bytes:
        try:
            return put(self, name, data)
        except ArchiveUnavailableError:
            return data

    return [(ChainWriter, "_put", forgive)]


def _unconfirmed() -> list[Patch]:
    """What is applied here is archived, whatever the others say."""
    view = ArchiveService._view

    def alone(self: ArchiveService) -> View:
        found = view(self)
        return replace(found, upto=found.applied)

    return [(ArchiveService, "_view", alone)]


def _unfenced() -> list[Patch]:
    """Nobody looks whether another history has taken over."""
    claims = Archive.claims

    def first(self: Archive) -> list[Claim]:
        return claims(self)[:1]

    return [(ChainWriter, "check_epoch", lambda self: None), (Archive, "claims", first)]


BUGS = [
    Bug(
        "failed-upload-counts",
        "A1",
        "an object that the store did not take is named by a manifest",
        make=_failed_counts,
    ),
    Bug(
        "superseded-and-uploads",
        "A2",
        "a cluster that was restored elsewhere goes on uploading",
        make=_unfenced,
    ),
    Bug(
        "archived-before-it-is-confirmed",
        "A5, D1",
        "a content hash that no other member has is archived",
        make=_unconfirmed,
    ),
]

PLAYS: dict[str, tuple[Callable[[Script], None], dict[str, Any]]] = {
    "store-refuses": (store_refuses, {"environment": archived}),
    "restored-elsewhere": (restored_elsewhere, {"environment": archived}),
    "uploader-differs": (uploader_differs, {"environment": archived}),
}
"""By name: the script, and the options of its run."""

SCRIPTED = {
    "failed-upload-counts": "store-refuses",
    "superseded-and-uploads": "restored-elsewhere",
    "archived-before-it-is-confirmed": "uploader-differs",
}
