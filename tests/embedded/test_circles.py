"""What a connection took is free again as soon as it is closed, without the collector, which comes
rarely in a node: some 35 kB each would be held for tens of thousands of connections."""

from __future__ import annotations

import gc
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

import raftdb
from raftdb.runtime.connection import RealConnection
from raftdb.runtime.secure import SecureTransport
from raftdb.server.dispatcher import Dispatcher
from raftdb.server.listener import ClientConnection
from tests.embedded.conftest import Members

KINDS = (RealConnection, SecureTransport, ClientConnection, Dispatcher, ssl.SSLObject)
COUNT = 10
WAIT_S = 60


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def held() -> Counter[str]:
    return Counter(type(one).__name__ for one in gc.get_objects() if isinstance(one, KINDS))


def test_a_closed_connection_leaves_nothing(members: Members, no_collector: None) -> None:
    """Nodes may make connections to each other meanwhile, some at most: a circle keeps each one of
    a kind."""
    members.leader()
    before = held()

    def kept() -> list[str]:
        return [name for name, count in (held() - before).items() if count >= COUNT]

    for number in range(COUNT):
        with raftdb.connect(members.founded.url) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS circles (a)")
            connection.execute("INSERT INTO circles VALUES (?)", (number,))
            assert connection.execute("SELECT count(*) FROM circles").fetchall()
            assert any(held()[kind.__name__] > before[kind.__name__] for kind in KINDS)
    until_s = time.monotonic() + WAIT_S
    while kept() and time.monotonic() < until_s:
        threading.Event().wait(0.05)
    assert not kept()
