"""Every fault of an archive: objects that are not what they were, stores that do not do what they
should. For tests, and for the table of `python -m bench archive-faults`.

Faults of objects are seen by `verify` and by restores; faults of stores by the node that uploads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from raftdb.archive import ArchiveUnavailableError, ChainWriter, open_store
from raftdb.archive.hashlog import HashLog
from raftdb.archive.store import PruneStore, Store
from raftdb.archive.uploader import Destination, View
from raftdb.archive.verify import verify_objects
from raftdb.base.config import ArchiveConfig
from raftdb.base.errors import Error
from raftdb.ops.ports import free_ports
from tests.archive.ports import LanesLoop, hand_ports
from tests.archive.s3 import refusing_endpoint, s3_url
from tests.archive.support import Live, filled, restored, sources
from tests.machine.support import FILES

ALARM_S = 60.0
"""A fault of the store is an alarm within this."""
ANSWER_S = 0.02
"""To another node and back."""
ENOUGH_S = 30.0
"""The backlog is gone so long after the fault."""

# ---- objects

FAULTS: dict[str, Callable[[bytes, bytes, bytes], bytes | None]] = {
    "missing": lambda _data, _other, _older: None,
    "truncated": lambda data, _other, _older: data[: len(data) // 2],
    "tampered": lambda data, _other, _older: data[:-5] + bytes([data[-5] ^ 1]) + data[-4:],
    "swapped": lambda _data, other, _older: other,
    "replayed": lambda _data, _other, older: older,
}
"""Each makes other bytes of an object's; `other` is one of its kind, `older` another archive's."""


def damaged(
    store: PruneStore, place: Path, wanted: Callable[[int, int], bool] = lambda _kind, _fault: True
) -> Iterator[tuple[str, str, list[str]]]:
    """Fill the archive, damage one object of each kind in each way, one at a time, and mend it
    again: (fault, object, what reading all of it says is wrong). In the end it restores to the
    same content, or this is an AssertionError. `wanted`: of the numbers of kind and fault."""
    live = filled(place / "live", store)
    content = live.machine.content_hash().total
    live.close()
    elsewhere = filled(place / "old", open_store(f"file://{place}/older"), seed=2)
    older = {
        one.name.rpartition("/")[0]: elsewhere.store.get(one.name)
        for one in elsewhere.store.listing("")
    }
    elsewhere.close()
    folders: dict[str, list[str]] = {}
    for one in store.listing(""):
        folders.setdefault(one.name.rpartition("/")[0], []).append(one.name)
    assert len(folders) >= 5
    for kind, (folder, names) in enumerate(sorted(folders.items())):
        name, other = names[-1], (names[0] if len(names) > 1 else "archive")
        whole = store.get(name)
        assert whole is not None
        for number, (fault, change) in enumerate(FAULTS.items()):
            if not wanted(kind, number):
                continue
            data = change(whole, store.get(other) or b"", older.get(folder) or b"none")
            if data == whole:
                # The archive's only object of its kind cannot be swapped with itself.
                continue
            store.delete(name)
            if data is not None:
                assert store.put(name, data)
            yield fault, name, said(store)
            store.delete(name)
            assert store.put(name, whole)
    _plan, done = restored(sources(store), place / "work")
    assert done.content == content


def said(store: Store) -> list[str]:
    """What reading all of it says is wrong."""
    try:
        found = sources(store)
        return [str(one) for one in found.problems + verify_objects(found.timelines[0])]
    except Error as error:
        return [str(error)]


# ---- stores


class Switched:
    """A store that can be exchanged for a bad one."""

    def __init__(self, good: Store) -> None:
        self.now = self.good = good

    @property
    def url(self) -> str:
        return self.good.url

    def put(self, name: str, data: bytes) -> bool:
        return self.now.put(name, data)

    def get(self, name: str) -> bytes | None:
        return self.now.get(name)

    def listing(self, prefix: str, after: str = "") -> Any:
        return self.now.listing(prefix, after)


def _superseded(error: Exception) -> None:
    raise AssertionError(f"nobody took this archive over: {error}")


class Uploader:
    """One node's uploader over a log that is written by hand."""

    def __init__(self, live: Live, directory: Path, node: str, role: str) -> None:
        self.ports, self.loop, self.log = hand_ports()
        self.live = live
        self.agreed = 0
        """Up to where nodes agree; 0: as far as the log goes."""
        hashes = HashLog(FILES, str(directory), 1 << 20)
        live.machine.record_hashes(hashes.record, hashes.sync)
        idle: Any = SimpleNamespace(
            ready=False, busy=False, index=0, last_size=0, sent_bytes=0, stop=lambda: None
        )
        self.destination = Destination(
            url=live.store.url,
            lane="archive",
            connect=lambda: self._connect(node),
            view=lambda: View(role, 1, self.agreed or live.index, live.index, 3),
            journal=self,
            hashes=hashes,
            base=idle,
            config=ArchiveConfig(destinations=(live.store.url,)),
            ports=self.ports,
            superseded=_superseded,
            changed=lambda: None,
            agree=self._asked,
        )
        self.asked: list[int] = []
        self.answers = False
        """The others agree soon after they were asked, and never by themselves."""
        self.destination.start()

    def _asked(self, index: int) -> None:
        self.asked.append(index)
        if self.answers:
            self.loop.call_later(ANSWER_S, self._agreed, index)

    def _agreed(self, index: int) -> None:
        self.agreed = index
        self.destination.poke()

    def _connect(self, node: str) -> ChainWriter:
        return self.live.new_writer(node)

    @property
    def first_index(self) -> int:
        return 1

    def entries(self, first: int, last: int, _max_bytes: int) -> list[Any]:
        return [
            SimpleNamespace(index=one.index, term=one.term, data=one.data)
            for one in self.live.entries(first, last)
        ]

    def status(self) -> dict[str, Any]:
        return self.destination.status()


def _expired(stack: ExitStack, _loop: LanesLoop) -> Store:
    address = stack.enter_context(refusing_endpoint(403, "ExpiredToken"))
    return open_store(s3_url(address, "x"))


def _refusing(stack: ExitStack, _loop: LanesLoop) -> Store:
    address = stack.enter_context(refusing_endpoint(400, "InvalidRequest"))
    return open_store(s3_url(address, "x"))


def _unreachable(_stack: ExitStack, _loop: LanesLoop) -> Store:
    return open_store(s3_url(f"http://127.0.0.1:{free_ports(1)}", "x"))


def _unmounted(_stack: ExitStack, _loop: LanesLoop) -> Store:
    return open_store("file:///proc/no/such/place")


class Hangs:
    """Gives up after 20 s, as a client with a time-out does."""

    url = "slow://store"

    def _late(self, *_arguments: object) -> Any:
        raise ArchiveUnavailableError("no answer within 20 s")

    put = get = listing = _late


def _slow(_stack: ExitStack, loop: LanesLoop) -> Store:
    loop.lane_s = 20.0
    return Hangs()


STORE_FAULTS = {
    "expired credentials": _expired,
    "refusing": _refusing,
    "unreachable": _unreachable,
    "unmounted": _unmounted,
    "slow": _slow,
}


def outage(fault: str, place: Path) -> float:
    """The store is taken away in that way while there are writes, and comes back. Returns seconds
    (of the node's clock) to the alarm, whose reason is the store's; AssertionError if there is
    none within ALARM_S, or if the backlog does not drain into a whole archive by itself."""
    store = Switched(open_store(f"file://{place}/archive"))
    live = filled(place, store)
    node = Uploader(live, place / "hashes", "n1", "follower")
    node.loop.pass_time(1.0)
    assert node.status()["archived_index"] == live.index
    with ExitStack() as stack:
        store.now = STORE_FAULTS[fault](stack, node.loop)
        for number in range(20):
            live.run((f"INSERT INTO t(x) VALUES ({number})",))
        begun_s = node.loop.now_s
        while not node.status()["alarm"] and node.loop.now_s < begun_s + ALARM_S:
            node.loop.pass_time(1.0)
        state = node.status()
        alarm_s = node.loop.now_s - begun_s
        assert alarm_s <= ALARM_S
        assert state["alarm"]
        assert state["state"] == "failing"
        assert state["error"]
        alarms = [fields for event, fields in node.log.events if event == "archive_lags"]
        assert alarms
        assert alarms[0]["reason"] == state["error"]
    store.now, node.loop.lane_s = store.good, 0.0
    node.loop.pass_time(ENOUGH_S)
    assert node.status()["archived_index"] == live.index
    assert not node.status()["alarm"]
    found = sources(store.good)
    assert [one for one in found.problems if not one.harmless] == []
    _plan, done = restored(found, place / "work")
    assert done.content == live.machine.content_hash().total
    assert done.proven
    live.close()
    return alarm_s


def two_uploaders(place: Path) -> None:
    """Both believe that it is theirs to upload, all the time; the chain has to be whole."""
    live = filled(place)
    both = [
        Uploader(live, place / f"hashes-{number}", f"n{number}", "follower") for number in (1, 2)
    ]
    for number in range(30):
        live.run((f"INSERT INTO t(x) VALUES ({number})",))
        for one in both:
            one.destination._active = True
            one.loop.pass_time(0.5 if number % 3 else 3.0)
    for one in both:
        one.loop.pass_time(10.0)
        assert one.status()["archived_index"] == live.index
    found = sources(live.store)
    assert [one for one in found.problems if not one.harmless] == []
    _plan, done = restored(found, place / "work")
    assert done.content == live.machine.content_hash().total
    live.close()
