"""What a connection took is free again as soon as it is closed, without the collector, which comes
rarely in a node: some 35 kB each would be held for tens of thousands of connections."""

from __future__ import annotations

import gc
import ssl
import threading
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


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def held() -> Counter[str]:
    return Counter(type(one).__name__ for one in gc.get_objects() if isinstance(one, KINDS))


def test_a_closed_connection_leaves_nothing(members: Members, no_collector: None) -> None:
    members.leader()
    before = held()
    for number in range(COUNT):
        with raftdb.connect(members.founded.url) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS circles (a)")
            connection.execute("INSERT INTO circles VALUES (?)", (number,))
            assert connection.execute("SELECT count(*) FROM circles").fetchall()
            assert any(held()[kind.__name__] > before[kind.__name__] for kind in KINDS)
    for _ in range(3_000):
        if not held() - before:
            break
        threading.Event().wait(0.01)
    assert held() - before == Counter()
