"""Which of a host's addresses to dial, some of which may not answer.

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


async def answering(loop: asyncio.AbstractEventLoop, address: Address) -> Address:
    """The first of the host's addresses that answers, to be dialled: an address, or a name's only
    one, is not tried. Raises OSError or UnicodeError; how long it takes is for the caller to bound.

    It is no socket that is handed over: uvloop closes the number of one that it was given, and
    notes the object only after the first call-backs. A connection that ends in them leaves the
    object behind, which closes that number again, whoever has it by then."""
    host, port = address.host, address.port
    if is_literal(host):
        return address
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    waiting = deque([(one[0], one[2], one[4]) for one in found][:ADDRESSES_MAX])
    if len(waiting) == 1:
        return _place(waiting[0][2])
    attempts: set[asyncio.Task[Address]] = set()
    failure: BaseException = OSError(f"{host} has no address")
    try:
        while waiting or attempts:
            if waiting:
                attempts.add(loop.create_task(_try(loop, *waiting.popleft())))
            done, _ = await asyncio.wait(
                attempts,
                timeout=STAGGER_S if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                error = task.exception()
                if error is None:
                    return task.result()
                attempts.discard(task)
                failure = error
    finally:
        for task in attempts:
            task.cancel()
            if task.done() and not task.cancelled():
                task.exception()  # Seen: another one was quicker.
    raise failure


async def _try(loop: asyncio.AbstractEventLoop, family: int, protocol: int, place: Any) -> Address:
    with socket.socket(family, socket.SOCK_STREAM, protocol) as raw:
        raw.setblocking(False)
        await loop.sock_connect(raw, place)
    return _place(place)


def _place(place: Any) -> Address:
    return Address(place[0], place[1])
