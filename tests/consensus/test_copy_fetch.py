"""Whoever fetches a copy: its timers, its connections, and what comes twice or late."""

from __future__ import annotations

import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raftdb.base.limits import Limits
from raftdb.consensus.copy_fetch import ASK_AGAIN_S, RETRY_S, CopyFetcher
from raftdb.consensus.messages import CopyAsk, CopyFetch, CopyGone, CopyLater, CopyOffer, CopyPart
from raftdb.consensus.wall import Wall
from raftdb.runtime.files import RealFiles
from tests.node.fakes import HandLoop, Quiet

PIECE = 1000
DATA = bytes(range(250)) * 20
OFFER = CopyOffer(b"copy-1", 50, 1, len(DATA), b"description")


class Files(RealFiles):
    free = 1 << 40

    def free_bytes(self, path: str) -> int:
        return self.free


class Link:
    """A connection that stands when the test says so."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.sent: list[Any] = []
        self.open = True

    def send(self, message: Any) -> None:
        assert self.open
        self.sent.append(message)

    def abort(self) -> None:
        self.open = False

    def take(self, kind: type[Any]) -> list[Any]:
        found = [one for one in self.sent if isinstance(one, kind)]
        self.sent.clear()
        return found


class Fetching:
    def __init__(self, path: Path, spare_bytes: int = 0) -> None:
        self.loop = HandLoop()
        self.links: list[Link] = []
        self.files = Files()
        self.installed: list[bytes] = []
        store = SimpleNamespace(install=self._install)
        pin = SimpleNamespace(release=lambda: None, overrun=False)
        settings: Any = SimpleNamespace(
            store=store, directory=str(path), pin=lambda _index: pin, rate_bytes_per_s=1 << 30,
            spare_bytes=spare_bytes,
        )  # fmt: skip
        ports: Any = SimpleNamespace(
            clock=self.loop, executor=self.loop, files=self.files, log=Quiet()
        )
        self.fetcher = CopyFetcher(
            settings=settings,
            ports=ports,
            limits=Limits(peer_part_bytes=PIECE),
            wall=Wall(),
            dial=self._dial,
            applied=lambda: 1,
            first_index=lambda: 1,
            on_installed=lambda: None,
            on_failed=self._failed,
        )

    def _dial(self, source: str) -> Any:
        self.links.append(Link(source))
        return self.links[-1]

    def _install(self, path: str, _description: bytes) -> None:
        self.installed.append(Path(path).read_bytes())

    def _failed(self, error: BaseException) -> None:
        raise error

    def begin(self, *sources: str) -> Link:
        self.fetcher.need(sources, 10)
        self.loop.run()
        return self.opened()

    def opened(self) -> Link:
        link: Any = self.links[-1]
        self.fetcher.on_open(link)
        assert len(link.take(CopyAsk)) == 1
        return link

    def part(self, link: Any, place: int, data: bytes = DATA) -> None:
        piece = data[place : place + PIECE]
        self.fetcher.on_part(link, CopyPart(OFFER.copy, place, zlib.crc32(piece), piece))


@pytest.fixture
def fetching(tmp_path: Path) -> Fetching:
    return Fetching(tmp_path)


def test_another_leader_is_asked_once_whatever_was_to_come_later(fetching: Fetching) -> None:
    """A connection that was lost, or a question that was to be asked again, comes no more."""
    lost: Any = fetching.begin("n1")
    fetching.fetcher.on_lost(lost, "gone")
    fetching.fetcher.need(("n2",), 10)
    link: Any = fetching.opened()
    assert [one.source for one in fetching.links] == ["n1", "n2"]
    fetching.loop.pass_time(2 * RETRY_S)
    assert len(fetching.links) == 2
    fetching.fetcher.on_later(link, CopyLater("a copy is being made"))
    fetching.fetcher.need(("n3",), 10)
    assert not link.open
    third: Any = fetching.links[-1]
    fetching.loop.pass_time(2 * ASK_AGAIN_S)
    assert third.sent == [], "it does not stand yet"
    fetching.opened()
    fetching.fetcher.on_offer(third, OFFER)
    fetching.loop.pass_time(2 * ASK_AGAIN_S)
    assert not third.take(CopyAsk)
    assert (len(fetching.links), fetching.fetcher.state) == (3, "fetching")


def test_pieces_that_come_late_leave_no_hole(fetching: Fetching) -> None:
    """The source could not read one piece and says so; those behind it are on their way."""
    link: Any = fetching.begin("n1")
    fetching.fetcher.on_offer(link, OFFER)
    fetching.loop.run()
    assert [one.offset for one in link.take(CopyFetch)] == [0, 1000, 2000, 3000, 4000]
    fetching.fetcher.on_gone(link, CopyGone(OFFER.copy))
    assert len(link.take(CopyAsk)) == 1
    # It is offered again before they arrive.
    fetching.fetcher.on_offer(link, OFFER)
    fetching.loop.run()
    assert len(link.take(CopyFetch)) == 5
    for place in range(1000, 5000, 1000):
        fetching.part(link, place)
        fetching.loop.run()
    assert fetching.fetcher.received_bytes == 0
    for place in range(0, 5000, 1000):
        fetching.part(link, place)
        fetching.loop.run()
    assert fetching.installed == [DATA]


def test_that_another_copy_is_gone_ends_nothing(fetching: Fetching) -> None:
    link: Any = fetching.begin("n1")
    fetching.fetcher.on_offer(link, OFFER)
    fetching.loop.run()
    fetching.fetcher.on_gone(link, CopyGone(b"copy-0"))
    assert not link.take(CopyAsk)
    assert fetching.fetcher.state == "fetching"


def test_no_copy_fills_up_the_disk(tmp_path: Path) -> None:
    """A node that cannot write its log stops; one that lacks a copy votes."""
    fetching = Fetching(tmp_path, spare_bytes=3000)
    fetching.files.free = len(DATA) + 2999
    link: Any = fetching.begin("n1")
    fetching.fetcher.on_offer(link, OFFER)
    fetching.loop.run()
    assert not link.take(CopyFetch)
    assert list((tmp_path / "incoming").iterdir()) == []
    fetching.files.free += 1
    fetching.loop.pass_time(30 * RETRY_S)
    again: Any = fetching.opened()
    fetching.fetcher.on_offer(again, OFFER)
    fetching.loop.run()
    assert len(again.take(CopyFetch)) == 5
