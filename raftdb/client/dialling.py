"""A TCP connection by a deadline, in the calling thread, to a host that may have several addresses.

A name may stand for an address that leads nowhere: IPv6 without a way there, a machine that is
down. `socket.create_connection` gives each of them all the time there is, one after the other; and
nothing bounds how long the system looks a name up. Here the next address is tried beside one that
does not answer (RFC 8305), and a name is looked up in a thread of its own, which is not waited for
any longer than there is time.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

STAGGER_S = 0.1
ADDRESSES_MAX = 8
"""Of one host; further ones are left out."""

Now = Callable[[], float]


class LookupTimeoutError(TimeoutError):
    """The system takes long to say what a name stands for."""


class Lookups:
    """Names, looked up in threads: one for each name, however often it is asked for meanwhile."""

    def __init__(self) -> None:
        self._under_way: dict[tuple[str, int], _Lookup] = {}

    def find(self, host: str, port: int, left_s: float) -> Sequence[Any]:
        """As `socket.getaddrinfo`. Raises OSError or UnicodeError; LookupTimeoutError after
        `left_s`."""
        try:
            return socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
            )
        except (OSError, UnicodeError):
            pass  # It is a name.
        key = (host, port)
        lookup = self._under_way.get(key)
        if lookup is None or not lookup.is_alive():
            lookup = self._under_way[key] = _Lookup(host, port)
            lookup.start()
        lookup.join(left_s)
        if lookup.is_alive():
            raise LookupTimeoutError
        self._under_way.pop(key, None)
        if lookup.error is not None:
            raise lookup.error
        return lookup.found


class _Lookup(threading.Thread):
    def __init__(self, host: str, port: int) -> None:
        # Nobody can stop the system's resolver: it must not keep the process.
        super().__init__(name="raftdb-lookup", daemon=True)
        self._place = (host, port)
        self.found: Sequence[Any] = ()
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.found = socket.getaddrinfo(*self._place, type=socket.SOCK_STREAM)
        except Exception as error:
            self.error = error


def connected(found: Sequence[Any], now_s: Now, until_s: float) -> socket.socket:
    """A socket that is connected to the first of these (as `getaddrinfo` gives them) that answers;
    it blocks. Raises OSError; TimeoutError at the deadline."""
    waiting = [(one[0], one[2], one[4]) for one in found[:ADDRESSES_MAX]]
    pending: list[socket.socket] = []
    error: OSError = OSError("it has no address")
    with selectors.DefaultSelector() as selector:
        try:
            next_s = now_s()
            while waiting or pending:
                at_s = now_s()
                if waiting and (at_s >= next_s or not pending):
                    next_s = at_s + STAGGER_S
                    try:
                        pending.append(_begin(*waiting.pop(0)))
                    except OSError as refused:
                        error, next_s = refused, at_s
                        continue
                    selector.register(pending[-1], selectors.EVENT_WRITE)
                if at_s >= until_s:
                    raise TimeoutError("timed out")
                rest_s = min(until_s, next_s if waiting else until_s) - at_s
                for key, _ in selector.select(max(rest_s, 0.0)):
                    raw: Any = key.fileobj
                    selector.unregister(raw)
                    pending.remove(raw)
                    code = raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if not code:
                        raw.setblocking(True)
                        return raw  # type: ignore[no-any-return]
                    raw.close()
                    error, next_s = OSError(code, os.strerror(code)), now_s()
            raise error
        finally:
            for raw in pending:
                raw.close()


def _begin(family: int, protocol: int, place: Any) -> socket.socket:
    raw = socket.socket(family, socket.SOCK_STREAM, protocol)
    try:
        raw.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            raw.connect(place)
    except BaseException:
        raw.close()
        raise
    return raw
