"""Who does not wait for a node that may be starting learns at once that nobody listens."""

from __future__ import annotations

import asyncio

import pytest

import raftdb
import raftdb.aio
from tests.client.server import LOCAL, listening_socket


def test_a_refused_connection_ends_the_call() -> None:
    sock = listening_socket()
    port = sock.getsockname()[1]
    sock.close()
    url = f"raftdb://{LOCAL}:{port}/?insecure=1&timeout=600&wait=0"
    with (
        raftdb.connect(url) as db,
        pytest.raises(raftdb.UnavailableError, match=f"{port}: refused the connection"),
    ):
        db.ping()

    async def ask() -> None:
        async with raftdb.aio.connect(url) as db:
            await db.ping()

    with pytest.raises(raftdb.UnavailableError, match=f"{port}: "):
        asyncio.run(ask())
