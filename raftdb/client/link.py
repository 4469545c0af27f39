"""Links for programs that wait: TLS over TCP in the calling thread, and a node in this process.

A host's name is not compared with the certificate: certificates name nodes (raftdb://<cluster>/
node/<id>), which may move between hosts. What is checked: the CA, the role, the cluster, and that
the welcome names the same node as the certificate.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from raftdb.base.errors import AuthError, ConfigError, Error
from raftdb.base.ids import Address
from raftdb.base.limits import DEFAULT_LIMITS, Limits
from raftdb.base.ports import Clock
from raftdb.client.actions import Link, LinkError
from raftdb.client.dialling import Lookups, LookupTimeoutError, connected
from raftdb.client.options import Options
from raftdb.command import Results, Statement
from raftdb.command.requests import Parameters
from raftdb.wire import (
    ClientSide,
    Hello,
    LocalProtocolError,
    Message,
    RemoteProtocolError,
    Request,
)

RECEIVE_BYTES = 64 * 1024
SEND_BYTES = 64 * 1024
TLS_ALERT = b"\x15\x03"
"""How a TLS server answers plain text."""
IN_PROCESS = Address("(this process)", 0)
"""Stands for the embedded node among the addresses."""


class InProcessLink(Protocol):
    """A node in the same process. Its methods may be called from any thread."""

    @property
    def history(self) -> str:
        """Of its data."""

    def call(self, message: Hello | Request) -> Sequence[Message]:
        """Hand over one message and wait for all of its reply. The Hello is answered by Welcome (or
        ErrorMessage 0); every request ends within its own `timeout_ms`, or soon where it has none.
        Raises nothing but base.Error (the node is stopped)."""

    def local_query(
        self, statements: tuple[Statement, ...], timeout_s: float
    ) -> tuple[Results, int]:
        """Answer a local read in the calling thread: the results, and the log index that they
        reflect at least. Raises base.Error; one of the codes core.NOT_READS has it executed."""

    def local_rows(
        self, sql: str, parameters: Parameters, timeout_s: float
    ) -> tuple[tuple[str, ...], list[tuple[Any, ...]], int]:
        """The same for one statement: columns, rows, index."""

    def close(self) -> None:
        """No more calls will come; calling it again does no harm."""


class SocketLink(Link):
    """One TCP connection, with TLS unless the options say otherwise. Blocks the calling thread,
    never beyond the time it is given."""

    def __init__(self, sock: socket.socket, clock: Clock, limits: Limits = DEFAULT_LIMITS) -> None:
        self._socket = sock
        self._clock = clock
        self._core = ClientSide(limits)
        self._arrived: Sequence[Message] = ()
        self._timeout_s = -1.0
        self._has_arrived = _watch(sock)

    def transmit(self, messages: Sequence[Hello | Request], until_s: float, stall_s: float) -> None:
        """Send all, in one piece. Raises LinkError; DataError when one is too large to send."""
        if self._has_arrived():
            self._look()
        try:
            data = b"".join([self._core.send(message) for message in messages])
        except LocalProtocolError as error:
            raise LinkError(f"is of no use: {error.message}", unsent=True) from error
        rest = memoryview(data)
        # A node that stopped reading is told from a slow line by whether anything moves at all.
        moved_s = self._clock.monotonic_s()
        while rest:
            left_s = min(until_s, moved_s + stall_s) - self._clock.monotonic_s()
            if left_s <= 0:
                raise LinkError("does not take what is sent", silent=True)
            try:
                self._allow(left_s)
                sent = self._socket.send(rest[:SEND_BYTES])
            except TimeoutError:
                continue
            except (OSError, ValueError) as error:
                raise LinkError(*reason_of(error)) from error
            rest = rest[sent:]
            if rest:
                moved_s = self._clock.monotonic_s()

    def _allow(self, left_s: float) -> None:
        """Let the next call wait for about `left_s`, never longer: callers try again if time is
        left. The socket is only told when it matters, because that is a system call."""
        if not left_s / 4 <= self._timeout_s <= left_s:
            self._timeout_s = max(left_s * 0.9, 0.0005)
            self._socket.settimeout(self._timeout_s)

    def _look(self) -> None:
        """Something came while nothing was asked: often the end of the connection. To see it before
        sending saves an outcome from being unknown."""
        try:
            self._timeout_s = -1.0
            self._socket.settimeout(0.0)
            data = self._socket.recv(RECEIVE_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except (OSError, ValueError) as error:
            raise LinkError(*reason_of(error), unsent=True) from error
        if not data:
            raise LinkError("closed the connection", unsent=True)
        self._arrived = (*self._arrived, *self._decoded(data))

    def receive(self, until_s: float) -> Sequence[Message]:
        """What came, at least one message; nothing when `until_s` passed first."""
        if self._arrived:
            arrived, self._arrived = self._arrived, ()
            return arrived
        while True:
            left_s = until_s - self._clock.monotonic_s()
            try:
                self._allow(max(left_s, 0.0005))
                data = self._socket.recv(RECEIVE_BYTES)
            except TimeoutError:
                if left_s <= 0.001:
                    return ()
                continue
            except (OSError, ValueError) as error:
                raise LinkError(*reason_of(error)) from error
            if not data:
                raise LinkError("closed the connection")
            messages = self._decoded(data)
            if messages or left_s <= 0:
                return messages

    def _decoded(self, data: bytes) -> Sequence[Message]:
        try:
            return self._core.receive(data)
        except RemoteProtocolError as error:
            told = "wants TLS" if data[:2] == TLS_ALERT else error.message
            raise LinkError(f"does not speak the protocol: {told}") from error

    def interrupt(self) -> None:
        """Wake the thread that waits for it: the connection ends. From any thread."""
        with contextlib.suppress(OSError):
            # Not SSLSocket's own, which would change the object under the thread that uses it.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def abandon(self) -> None:
        """See Link: TLS says no farewell either."""
        self.close()

    def close(self) -> None:
        """Close; never fails."""
        with contextlib.suppress(OSError):
            self._socket.close()


def _watch(sock: socket.socket) -> Callable[[], object]:
    """A call that says whether something has arrived, without waiting."""
    if not hasattr(select, "poll"):
        return lambda: select.select((sock,), (), (), 0)[0]
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return lambda: poll.poll(0)


class CallLink(Link):
    """A link to the node in this process, in the shape of a connection."""

    def __init__(self, node: InProcessLink) -> None:
        self._node = node
        self._arrived: list[Message] = []

    def transmit(self, messages: Sequence[Hello | Request], until_s: float, stall_s: float) -> None:
        """Call the node for each message. Raises LinkError."""
        for message in messages:
            try:
                self._arrived += self._node.call(message)
            except Error as error:
                raise LinkError(error.message) from error

    def receive(self, until_s: float) -> Sequence[Message]:
        """The replies."""
        arrived, self._arrived = self._arrived, []
        return arrived

    def interrupt(self) -> None:
        """Nothing to do: each of the node's answers comes within its own time."""

    def close(self) -> None:
        """Nothing to close: the node goes on."""


class Dialler:
    """Makes links by the options of one connection."""

    def __init__(
        self,
        options: Options,
        clock: Clock,
        node: InProcessLink | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._options = options
        self._clock = clock
        self._node = node
        self._limits = limits
        self._context = tls_context(options)
        self._lookups = Lookups()

    def dial(self, address: Address, until_s: float) -> SocketLink | CallLink:
        """Connect, TLS included. Raises LinkError."""
        if address == IN_PROCESS:
            if self._node is None:
                raise LinkError("there is no node in this process")
            return CallLink(self._node)
        now_s = self._clock.monotonic_s
        left_s = max(until_s - now_s(), 0.001)
        try:
            found = self._lookups.find(address.host, address.port, left_s)
            sock = connected(found, now_s, max(until_s, now_s() + 0.001))
        except (OSError, UnicodeError) as error:
            silent = isinstance(error, TimeoutError)
            raise LinkError(*reason_of(error), silent=silent, refused=not silent) from error
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return self._secured(sock, until_s)
        except BaseException:
            sock.close()
            raise

    def _secured(self, sock: socket.socket, until_s: float) -> SocketLink:
        if self._context is None:
            if not self._options.insecure:
                raise LinkError(
                    "is not the node in this process, and there are no certificates to go there"
                )
            return SocketLink(sock, self._clock, self._limits)
        try:
            sock.settimeout(max(until_s - self._clock.monotonic_s(), 0.001))
            secured = self._context.wrap_socket(sock, do_handshake_on_connect=False)
        except (OSError, ValueError) as error:
            raise LinkError(*reason_of(error), silent=isinstance(error, TimeoutError)) from error
        try:
            _shake_hands(secured)
            link = SocketLink(secured, self._clock, self._limits)
            link.node_id, link.cluster_id = node_of(secured.getpeercert())
        except BaseException:
            secured.close()
            raise
        return link


def needs_tls(options: Options) -> bool:
    """Whether connections are made by TLS. Raises ConfigError when they should and cannot."""
    if options.insecure:
        return False
    missing = [name for name in ("ca", "cert", "key") if not getattr(options, name)]
    if len(missing) == 3 and IN_PROCESS in options.addresses:
        return False  # The node in this process alone, unless it is insecure.
    if missing:
        raise ConfigError(
            f"{', '.join(missing)} missing: connections are secured by TLS on both ends",
            hint="give ca, cert and key (`raftdb init` and `raftdb cert` make them), or insecure=1"
            " for a cluster that was started so",
        )
    return True


def tls_context(options: Options) -> ssl.SSLContext | None:
    """The TLS context of the options; None for plain text. Raises ConfigError."""
    if not needs_tls(options):
        return None
    from raftdb.runtime.tls import client_context

    context = client_context(options.ca, options.cert, options.key)
    context.sslsocket_class = _SecuredSocket
    return context


def own_cluster(options: Options) -> str:
    """The cluster that the client's own certificate names; `` without one. Raises ConfigError."""
    if not needs_tls(options):
        return ""
    # Late: a library for certificates is not loaded by those who need none.
    from raftdb.security import read_certificate

    found = str(read_certificate(options.cert).peer.cluster_id)
    if options.cluster and found != options.cluster:
        raise ConfigError(
            f"the certificate {options.cert} is of cluster {found}, not of {options.cluster}",
            hint="a certificate opens the cluster only that issued it",
        )
    return found


class _SecuredSocket(ssl.SSLSocket):
    """Closes itself when it was never finished: one that is reset between its connection and its
    wrapping raises from within `wrap_socket`, where nobody else has hold of it."""

    def __del__(self) -> None:
        if not hasattr(self, "_connected"):
            self.close()
        super().__del__()  # type: ignore[misc]  # What warns of a socket that we forgot.


def _shake_hands(sock: ssl.SSLSocket) -> None:
    """By itself, so that a connection that ended before it fails here too. Raises LinkError."""
    try:
        sock.do_handshake()
    except (OSError, ValueError) as error:
        raise LinkError(*reason_of(error), silent=isinstance(error, TimeoutError)) from error


def node_of(certificate: Any) -> tuple[str, str]:
    """Node and cluster that the other end's certificate names. Raises LinkError."""
    from raftdb.runtime.tls import peer_from_certificate

    try:
        peer = peer_from_certificate(certificate)
        if peer.role != "node":
            raise AuthError(
                f"the other end shows the certificate of {peer.role} {peer.name}, not of a node"
            )
    except AuthError as error:
        raise LinkError(error.message, error) from error
    return peer.name, str(peer.cluster_id)


def reason_of(error: Exception) -> tuple[str, Error | None]:
    """A failure in words, and as a lasting error if trying again would not help."""
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = f"its certificate is refused: {error.verify_message}"
        return reason, AuthError(f"a node cannot be trusted: {reason}", hint="check ca")
    if isinstance(error, ssl.SSLError):
        text = (error.reason or str(error)).replace("_", " ").lower()
        if "alert" in text and ("certificate" in text or "unknown ca" in text):
            return f"refuses our certificate: {text}", AuthError(
                f"the node refuses this client's certificate: {text}",
                hint="check cert and key: expired, revoked, or of another cluster?",
            )
        if "record layer" in text or "wrong version number" in text:
            return "does not speak TLS", None
        return f"TLS: {text}", None
    if isinstance(error, LookupTimeoutError):
        return "its name is not known in time: the system looks it up", None
    if isinstance(error, TimeoutError):
        return "no answer in time", None
    if isinstance(error, ConnectionRefusedError):
        return "refused the connection", None
    if isinstance(error, socket.gaierror):
        return f"its name is not known: {(error.strerror or str(error)).lower()}", None
    if isinstance(error, UnicodeError):
        return "its name is not a host name", None
    if isinstance(error, OSError):
        return (error.strerror or str(error) or type(error).__name__).lower(), None
    return str(error), None
