"""The real Network: TCP with mutual TLS 1.3 on an asyncio or uvloop loop.

Sockets are accepted by hand instead of by `create_server`, so that the bounds hold before a byte
of TLS is spent, and so that each new connection uses the certificates of this moment.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from raftdb.base.errors import AuthError, ConfigError, InterfaceError
from raftdb.base.ids import Address, NodeId
from raftdb.base.limits import DEFAULT_LIMITS, Limits
from raftdb.base.ports import ExpectedPeer, Handler, Listener, Log, Peer
from raftdb.runtime.connection import RealConnection
from raftdb.runtime.credentials import Credentials
from raftdb.runtime.dialling import answering
from raftdb.runtime.executor import LoopExecutor
from raftdb.runtime.listener import RealListener, open_sockets
from raftdb.runtime.secure import SecureTransport
from raftdb.runtime.tls import PURPOSES, Certificate, describe_error

RELOAD_INTERVAL_S = 5.0

Accept = Callable[[], Handler]
Ready = Callable[[Listener | None, BaseException | None], None]


class RealNetwork:
    """The Network port. Used on the loop only."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        executor: LoopExecutor,
        log: Log,
        *,
        credentials: Credentials | None,
        insecure: bool = False,
        limits: Limits = DEFAULT_LIMITS,
        reload_interval_s: float = RELOAD_INTERVAL_S,
        routes: Mapping[NodeId, Address] | None = None,
    ) -> None:
        """Without `credentials`, `insecure` must say that plain TCP for everybody is meant.
        `routes`: nodes that are dialled at another address than the one they are known by."""
        if (credentials is None) != insecure:
            raise InterfaceError("give either credentials or insecure=True")
        self.loop = loop
        self.limits = limits
        self.unsent_bytes_max = limits.connection_buffer_bytes_max
        self.handshake_timeout_s = limits.handshake_timeout_ms / 1000
        self._executor = executor
        self._log = log
        self._routes = dict(routes or {})
        self._credentials = credentials
        self._connections: set[RealConnection] = set()
        self._listeners: list[RealListener] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._revoked: object = credentials and credentials.revoked
        self._reload_timer: asyncio.TimerHandle | None = None
        if credentials is not None:
            credentials.alarm()
            self._reload_interval_s = reload_interval_s
            self._reload_timer = loop.call_later(reload_interval_s, self._look)
        else:
            log.warning("insecure", meaning="plain TCP: anybody who reaches a port is let in")

    def listen(self, purpose: str, address: Address, accept: Accept, ready: Ready) -> None:
        """Open a port; `ready(None, ConfigError)` when it cannot be opened."""
        if purpose not in PURPOSES:
            raise InterfaceError(f"{purpose!r} is no purpose of a port")
        self.start_task(self._listen(purpose, address, accept, ready))

    def connect(
        self,
        purpose: str,
        address: Address,
        expect: ExpectedPeer,
        handler: Handler,
        timeout_s: float,
        failed: Callable[[str], None],
    ) -> None:
        """Dial. A node that does not admit this one says so by closing right after the handshake
        (TLS 1.3 lets the dialler finish first): `connection_made`, then `connection_lost`."""
        if purpose not in PURPOSES:
            raise InterfaceError(f"{purpose!r} is no purpose of a connection")
        if purpose == "peer" and expect.node_id is not None:
            address = self._routes.get(expect.node_id, address)
        dialled = _Dialled(self, expect)
        connection = RealConnection(dialled, str(address), lambda: handler)

        def ended(task: asyncio.Task[None]) -> None:
            reason = "this node stops" if task.cancelled() else dialled.reason
            if not connection.made:
                self._executor.guard(failed, reason or "closed during the handshake")
            elif reason:
                # The time-out struck between the end of the handshake and the task's.
                connection.abort(reason)

        task = self.start_task(self._dial(address, connection, dialled, timeout_s))
        task.add_done_callback(ended)

    def reload(self, *, patient: bool = False) -> bool:
        """Load changed certificates and revocations (SIGHUP); True when something new is in use.

        Connections whose certificate is revoked now are cut."""
        credentials = self._credentials
        if credentials is None:
            return False
        changed = credentials.reload(patient=patient)
        if credentials.revoked is not self._revoked:
            self._revoked = credentials.revoked
            for connection in list(self._connections):
                if credentials.is_revoked(connection.serial):
                    self._log.warning(
                        "connection_revoked",
                        remote=connection.remote,
                        role=connection.peer.role,
                        name=connection.peer.name,
                    )
                    connection.abort("the certificate was revoked")
        return changed

    def certificate_days_left(self) -> float | None:
        """Days until this node's certificate or its CA expires; None without TLS."""
        return None if self._credentials is None else self._credentials.days_left()

    def connection_count(self) -> int:
        """Open connections, after their handshake, in both directions."""
        return len(self._connections)

    def close(self) -> None:
        """Close the ports, give up dialling, abort the connections. Let the loop run on until
        the handlers heard of it."""
        self._closed = True
        if self._reload_timer is not None:
            self._reload_timer.cancel()
        for listener in list(self._listeners):
            listener.close()
        for task in list(self._tasks):
            task.cancel()
        for connection in list(self._connections):
            connection.abort("this node stops")

    # What listeners and connections need.

    def start_task(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run it; what it raises is a defect and stops the node."""
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)
        return task

    def server_context(self) -> ssl.SSLContext | None:
        """TLS for a connection that is accepted now."""
        return None if self._credentials is None else self._credentials.server

    def admit(self, purpose: str, certificate: Certificate | None, remote: str) -> Peer:
        """Who came in. AuthError when they may not."""
        if self._credentials is None:
            return Peer("", "", None, remote)
        return self._credentials.check(purpose, certificate, remote)

    def dialled_peer(
        self, expect: ExpectedPeer, certificate: Certificate | None, remote: str
    ) -> Peer:
        """Who answered. AuthError unless it is the node that was meant."""
        if self._credentials is None:
            return Peer("", "", None, remote)
        return self._credentials.check_dialled(expect, certificate, remote)

    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def refuse(self, purpose: str, remote: str, reason: str) -> None:
        """Log that somebody was not let in."""
        self._log.warning("connection_refused", port=purpose, remote=remote, reason=reason)

    def report(self, event: str, **fields: Any) -> None:
        """Log what an operator must look at."""
        self._log.error(event, **fields)

    def added(self, connection: RealConnection) -> None:
        """A connection was opened, in either direction."""
        self._connections.add(connection)

    def removed(self, connection: RealConnection) -> None:
        """It is gone."""
        self._connections.discard(connection)

    def forget(self, listener: RealListener) -> None:
        """A port was closed."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def crash(self, error: BaseException) -> None:
        """A handler raised: the node must stop."""
        self._executor.crash(error)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.crash(error)

    async def _listen(self, purpose: str, address: Address, accept: Accept, ready: Ready) -> None:
        try:
            sockets = await open_sockets(self.loop, purpose, address)
        except ConfigError as error:
            self._executor.guard(ready, None, error)
            return
        listener = RealListener(self, purpose, address, sockets, accept)
        self._listeners.append(listener)
        if self._closed:
            listener.close()
        self._executor.guard(ready, listener, None)

    async def _dial(
        self, address: Address, connection: RealConnection, dialled: _Dialled, timeout_s: float
    ) -> None:
        credentials = self._credentials
        try:
            async with asyncio.timeout(timeout_s):
                place = await answering(self.loop, address)
                if credentials is None:
                    await self.loop.create_connection(lambda: connection, place.host, place.port)
                    return
                secure = SecureTransport(
                    self.loop,
                    credentials.dialler,
                    connection,
                    server_side=False,
                    handshake_timeout_s=self.handshake_timeout_s,
                )
                await self.loop.create_connection(lambda: secure, place.host, place.port)
                await secure.shaken()
        except TimeoutError as error:
            # The system's ETIMEDOUT is a TimeoutError too, with an errno of its own.
            dialled.reason = dialled.reason or (
                describe_error(error) if error.errno else f"no connection within {timeout_s:g} s"
            )
        except (OSError, UnicodeError) as error:
            dialled.reason = dialled.reason or describe_error(error)

    def _look(self) -> None:
        self._reload_timer = self.loop.call_later(self._reload_interval_s, self._look)
        try:
            self.reload(patient=True)
            if self._credentials is not None:
                self._credentials.alarm()
        except BaseException as error:
            self.crash(error)


class _Dialled:
    """The owner of a connection that this node dialled."""

    def __init__(self, network: RealNetwork, expect: ExpectedPeer) -> None:
        self.loop = network.loop
        self.unsent_bytes_max = network.unsent_bytes_max
        self.reason = ""
        """Why there is no connection, once that is known."""
        self._network = network
        self._expect = expect

    def identify(self, connection: RealConnection, certificate: Certificate | None) -> Peer:
        if self._network.is_closed():
            raise AuthError("this node stops")
        return self._network.dialled_peer(self._expect, certificate, connection.remote)

    def refused(self, connection: RealConnection, reason: str) -> None:
        self.reason = reason
        self._network.refuse("dialled", connection.remote, reason)

    def opened(self, connection: RealConnection) -> None:
        self._network.added(connection)

    def ended(self, connection: RealConnection) -> None:
        self._network.removed(connection)

    def crash(self, error: BaseException) -> None:
        self._network.crash(error)
