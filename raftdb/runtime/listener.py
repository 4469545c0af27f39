"""An open port: accepting by hand, within bounds, before any byte of TLS is spent."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from raftdb.base.errors import AuthError, ConfigError
from raftdb.base.ids import Address
from raftdb.base.limits import Limits
from raftdb.base.ports import Handler, Peer
from raftdb.runtime.connection import RealConnection
from raftdb.runtime.secure import SecureTransport
from raftdb.runtime.tls import Certificate, describe_error

BACKLOG = 512
ACCEPTS_PER_TURN = 32
"""So that a flood of connections leaves the loop to others in between."""
SLOW_HANDSHAKE_S = 1.0
"""When all handshake places are taken, one that takes longer than this gives up its place."""
RETRY_S = 0.05
EXHAUSTED_RETRY_S = 1.0
SOCKETS_PER_PORT_MAX = 8

_ADVICE = {
    errno.EADDRINUSE: (
        "is in use by another process",
        "is this node running already? `ss -ltnp` shows who listens there; "
        "stop it, or set another {setting}",
    ),
    errno.EADDRNOTAVAIL: (
        "is not an address of this machine",
        "set {setting} to an address of this machine, or 0.0.0.0:port for all of them",
    ),
    errno.EACCES: (
        "may not be opened by this user",
        "ports below 1024 are for root: set {setting} to a higher one",
    ),
}


class Owner(Protocol):
    """What a port needs of the network."""

    loop: asyncio.AbstractEventLoop
    limits: Limits
    unsent_bytes_max: int
    handshake_timeout_s: float

    def start_task(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]: ...

    def server_context(self) -> ssl.SSLContext | None: ...

    def admit(self, purpose: str, certificate: Certificate | None, remote: str) -> Peer: ...

    def refuse(self, purpose: str, remote: str, reason: str) -> None: ...

    def report(self, event: str, **fields: Any) -> None: ...

    def added(self, connection: RealConnection) -> None: ...

    def removed(self, connection: RealConnection) -> None: ...

    def forget(self, listener: RealListener) -> None: ...

    def crash(self, error: BaseException) -> None: ...


def address_text(name: Any) -> str:
    """What `getpeername` returned, for people."""
    if isinstance(name, tuple) and len(name) >= 2:
        return str(Address(str(name[0]), int(name[1])))
    return str(name)


async def open_sockets(
    loop: asyncio.AbstractEventLoop, purpose: str, address: Address
) -> list[socket.socket]:
    """Listening sockets on every address that the host name has. ConfigError with advice."""
    setting = f"{purpose}_listen"
    try:
        found = await loop.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"the {purpose} address {address} has no such host: {describe_error(error)}",
            hint=f"set {setting} to an address of this machine",
        ) from error
    sockets: list[socket.socket] = []
    try:
        for family, _, protocol, _, name in dict.fromkeys(found):
            if len(sockets) < (SOCKETS_PER_PORT_MAX if address.port else 1):
                sockets.append(_listen(family, protocol, name))
    except OSError as error:
        for one in sockets:
            one.close()
        problem, hint = _ADVICE.get(
            error.errno or 0, (f"cannot be opened: {describe_error(error)}", "check {setting}")
        )
        raise ConfigError(
            f"the {purpose} address {address} {problem}", hint=hint.format(setting=setting)
        ) from error
    return sockets


def _listen(family: int, protocol: int, name: Any) -> socket.socket:
    raw = socket.socket(family, socket.SOCK_STREAM, protocol)
    try:
        raw.setblocking(False)
        if os.name == "posix":
            # A restart need not wait for old connections to fade. (Elsewhere it means stealing.)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # [::] serves IPv4 as well; another IPv6 address serves itself.
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(name[0] != "::"))
        raw.bind(name)
        raw.listen(BACKLOG)
    except BaseException:
        raw.close()
        raise
    return raw


class RealListener:
    """The Listener port, and the owner of the connections that came in by it."""

    def __init__(
        self,
        network: Owner,
        purpose: str,
        address: Address,
        sockets: list[socket.socket],
        accept: Callable[[], Handler],
    ) -> None:
        self.loop = network.loop
        self.unsent_bytes_max = network.unsent_bytes_max
        self._network = network
        self._purpose = purpose
        self._sockets = sockets
        self._accept = accept
        self._address = Address(address.host, address.port or sockets[0].getsockname()[1])
        limits = network.limits
        self._connections_max = (
            limits.peer_connections_max if purpose == "peer" else limits.client_connections_max
        )
        self._handshakes_max = limits.handshakes_max
        self._handshakes_per_s = limits.handshakes_per_s_max
        self._credit = float(limits.handshakes_per_s_max)
        """Handshakes that may begin now: a second's worth at most, refilled as time goes by."""
        self._credit_at_s = self.loop.time()
        self._handshakes: dict[RealConnection, tuple[asyncio.Task[None], float]] = {}
        """Oldest first, with the time of their start."""
        self._open: set[RealConnection] = set()
        self._resume_timer: asyncio.TimerHandle | None = None
        self._full = False
        """Resting because all places for handshakes are taken."""
        self._closed = False
        self._watch()

    @property
    def address(self) -> Address:
        """Where it listens, with the real port."""
        return self._address

    def close(self) -> None:
        """Accept no more and drop unfinished handshakes; open connections stay."""
        if self._closed:
            return
        self._closed = True
        self._unwatch()
        for raw in self._sockets:
            raw.close()
        for task, _ in list(self._handshakes.values()):
            task.cancel()
        self._network.forget(self)

    # The owner's part of a connection.

    def identify(self, connection: RealConnection, certificate: Certificate | None) -> Peer:
        """Who came in. AuthError when they may not."""
        if self._closed:
            raise AuthError("this node stops")
        return self._network.admit(self._purpose, certificate, connection.remote)

    def refused(self, connection: RealConnection, reason: str) -> None:
        """Log it."""
        self._network.refuse(self._purpose, connection.remote, reason)

    def opened(self, connection: RealConnection) -> None:
        """Count it, as open and no more as one that may be."""
        self._give_back(connection)
        self._open.add(connection)
        self._network.added(connection)

    def ended(self, connection: RealConnection) -> None:
        """Count it no more."""
        self._open.discard(connection)
        self._network.removed(connection)

    def crash(self, error: BaseException) -> None:
        """A handler raised."""
        self._network.crash(error)

    # Accepting.

    def _watch(self) -> None:
        self._resume_timer = None
        self._full = False
        for raw in self._sockets:
            self.loop.add_reader(raw.fileno(), self._readable, raw)

    def _unwatch(self) -> None:
        for raw in self._sockets:
            self.loop.remove_reader(raw.fileno())
        if self._resume_timer is not None:
            self._resume_timer.cancel()
            self._resume_timer = None

    def _rest(self, delay_s: float, *, for_place: bool) -> None:
        """Accept nothing for a while: what comes waits in the system's backlog."""
        self._unwatch()
        self._full = for_place
        self._resume_timer = self.loop.call_later(delay_s, self._watch)

    def _give_back(self, connection: RealConnection) -> None:
        """A handshake ended, one way or the other: its place is free."""
        self._handshakes.pop(connection, None)
        if self._full and not self._closed:
            self._unwatch()
            self._watch()

    def _readable(self, raw: socket.socket) -> None:
        try:
            self._accept_some(raw)
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            # Out of descriptors or memory; whatever it is, the port must not die of it.
            self._network.report(
                "accept_failed",
                port=self._purpose,
                reason=describe_error(error),
                hint="raise the limit on open files (LimitNOFILE, ulimit -n)",
            )
            self._rest(EXHAUSTED_RETRY_S, for_place=False)
        except BaseException as error:
            self._network.crash(error)

    def _accept_some(self, raw: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            if not self._has_place():
                self._rest(RETRY_S, for_place=True)
                return
            accepted, name = raw.accept()
            self._start_handshake(accepted, address_text(name))

    def _has_place(self) -> bool:
        """Whether one more handshake may begin; a slow one gives up its place."""
        now_s = self.loop.time()
        earned = (now_s - self._credit_at_s) * self._handshakes_per_s
        self._credit = min(self._credit + earned, float(self._handshakes_per_s))
        self._credit_at_s = now_s
        if self._credit < 1:
            return False
        if len(self._handshakes) < self._handshakes_max:
            return True
        oldest, (task, start_s) = next(iter(self._handshakes.items()))
        if now_s - start_s >= SLOW_HANDSHAKE_S:
            del self._handshakes[oldest]
            task.cancel()
            return True
        return False

    def _start_handshake(self, accepted: socket.socket, remote: str) -> None:
        if len(self._open) + len(self._handshakes) >= self._connections_max:
            accepted.close()
            self._network.refuse(
                self._purpose, remote, f"{self._connections_max} connections are open already"
            )
            return
        self._credit -= 1
        accepted.setblocking(False)
        connection = RealConnection(self, remote, self._accept)
        context = self._network.server_context()
        protocol: RealConnection | SecureTransport = connection
        if context is not None:
            protocol = SecureTransport(
                self.loop,
                context,
                connection,
                server_side=True,
                handshake_timeout_s=self._network.handshake_timeout_s,
            )
        task = self._network.start_task(self._handshake(accepted, protocol, remote))
        self._handshakes[connection] = (task, self.loop.time())

        def ended(done: asyncio.Task[None]) -> None:
            self._give_back(connection)
            if done.cancelled():
                reason = "stopping" if self._closed else "slow handshake while others waited"
                self._network.refuse(self._purpose, remote, reason)
            if not protocol.attached:
                # No transport took the socket over.
                accepted.close()

        task.add_done_callback(ended)

    async def _handshake(
        self, accepted: socket.socket, protocol: RealConnection | SecureTransport, remote: str
    ) -> None:
        try:
            await self.loop.connect_accepted_socket(lambda: protocol, accepted)
            if isinstance(protocol, SecureTransport):
                await protocol.shaken()
        except OSError as error:
            self._network.refuse(self._purpose, remote, describe_error(error))
