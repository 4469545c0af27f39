"""Fake nodes on real sockets, and connections to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import raftdb
from tests.client.server import FakeNode


@pytest.fixture
def node() -> Iterator[FakeNode]:
    """One node without TLS."""
    one = FakeNode()
    yield one
    one.close()


@pytest.fixture
def connect(node: FakeNode) -> Iterator[Callable[..., raftdb.Connection]]:
    """Makes connections to it, and closes them."""
    made = []

    def make(**options: Any) -> raftdb.Connection:
        made.append(raftdb.connect(f"raftdb://{node.address}/?insecure=1", **options))
        return made[-1]

    yield make
    for connection in made:
        connection.close()


@pytest.fixture
def db(connect: Callable[..., raftdb.Connection]) -> raftdb.Connection:
    """A connection."""
    return connect()
