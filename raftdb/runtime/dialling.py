"""A TCP connection to a host that has several addresses, some of which may not answer.

A name may stand for an address that leads nowhere: IPv6 without a way there, a machine that is
down. Tried one after the other, that one would take all the time there is, in every attempt, and
the host would never be reached. So the next one is tried beside it after a moment (RFC 8305).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import deque
from typing import Any

from raftdb.base.ids import Address

STAGGER_S = 0.1
ADDRESSES_MAX = 8
"""Of one host; further ones are left out."""


def is_literal(host: str) -> bool:
    """Whether it is an address, and no name that has to be looked up."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def open_socket(loop: asyncio.AbstractEventLoop, address: Address) -> socket.socket:
    """Connected to the first of the host's addresses that answers. Raises OSError or UnicodeError;
    how long it takes is for the caller to bound."""
    host, port = address.host, address.port
    if is_literal(host):
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    else:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    waiting = deque([(one[0], one[2], one[4]) for one in found][:ADDRESSES_MAX])
    attempts: set[asyncio.Task[socket.socket]] = set()
    failure: BaseException = OSError(f"{host} has no address")
    try:
        while waiting or attempts:
            if waiting:
                attempts.add(loop.create_task(_connect(loop, *waiting.popleft())))
            done, _ = await asyncio.wait(
                attempts,
                timeout=STAGGER_S if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                attempts.discard(task)
                error = task.exception()
                if error is None:
                    attempts |= done - {task}
                    return task.result()
                failure = error
    finally:
        for task in attempts:
            if not task.done():
                task.cancel()
            elif not task.cancelled() and task.exception() is None:
                task.result().close()
    raise failure


async def _connect(
    loop: asyncio.AbstractEventLoop, family: int, protocol: int, place: Any
) -> socket.socket:
    raw = socket.socket(family, socket.SOCK_STREAM, protocol)
    try:
        raw.setblocking(False)
        await loop.sock_connect(raw, place)
    except BaseException:
        raw.close()
        raise
    return raw
