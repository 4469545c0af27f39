"""Who gets in: the matrix of certificates, strangers' bytes, slow handshakes and floods."""

from __future__ import annotations

import os
import socket
import ssl
import struct
from contextlib import ExitStack
from typing import Any

import pytest

from raftdb.base.identity import Revocation, render_revocations
from raftdb.base.ids import Address
from raftdb.base.ports import ExpectedPeer
from raftdb.runtime.network import RealNetwork
from raftdb.runtime.tls import TlsPaths, dialler_context, own_certificate, server_context
from raftdb.security import read_certificate, revoke
from tests.runtime.conftest import CLUSTER, Pki
from tests.runtime.harness import Bench, End, small_limits, tls_paths

SOCKET_TIMEOUT_S = 10.0


def server(
    bench: Bench, pki: Pki, purpose: str = "peer", **limits: int
) -> tuple[Address, list[End]]:
    credentials = bench.credentials(pki.directory("n1"), CLUSTER, "n1")
    network = bench.network(credentials, limits=small_limits(**limits))
    listener, ends = bench.listen(network, purpose)
    return listener.address, ends


class Shown:
    """Credentials that show one certificate and judge nobody: a dialler with bad intentions."""

    def __init__(self, paths: TlsPaths) -> None:
        self.dialler = dialler_context(paths)
        self.revoked: dict[int, Any] = {}

    def check_dialled(self, expect: Any, certificate: Any, remote: str) -> Any:
        from raftdb.runtime.tls import peer_from_certificate

        return peer_from_certificate(certificate, remote)

    def alarm(self) -> None:
        return

    def reload(self, *, patient: bool) -> bool:
        return patient


def dialler(bench: Bench, pki: Pki, name: str) -> RealNetwork:
    return bench.network(Shown(tls_paths(pki.directory(name))))  # type: ignore[arg-type]


ADMITTED = [
    ("peer", "n2"),
    ("client", "n2"),
    ("client", "a-client"),
    ("client", "a-client-that-serves"),
]
REFUSED = [
    ("peer", "stranger", "refused"),
    ("client", "stranger", "refused"),
    ("peer", "expired", "expired"),
    ("client", "expired", "expired"),
    ("peer", "other-cluster", "is of cluster ddd"),
    ("client", "other-cluster", "is of cluster ddd"),
    ("peer", "a-client", "only node certificates"),
    ("peer", "a-client-that-serves", "only node certificates"),
    ("peer", "two-names", "has 2 URI names"),
    ("client", "two-names", "has 2 URI names"),
    ("peer", "no-name", "has 0 URI names"),
    ("client", "no-name", "has 0 URI names"),
    ("peer", "web", "no raftdb identity"),
    ("client", "web", "no raftdb identity"),
]


@pytest.mark.parametrize(("purpose", "name"), ADMITTED)
def test_admitted(both: Bench, pki: Pki, purpose: str, name: str) -> None:
    address, ends = server(both, pki, purpose)
    end = both.dial(dialler(both, pki, name), address)
    end.link.write(b"hello")
    both.wait(lambda: bool(ends) and bytes(ends[0].data) == b"hello")
    assert not both.log.of("connection_refused")


@pytest.mark.parametrize(("purpose", "name", "reason"), REFUSED)
def test_refused(both: Bench, pki: Pki, purpose: str, name: str, reason: str) -> None:
    address, ends = server(both, pki, purpose)
    end = both.dial(dialler(both, pki, name), address)
    if end.made:
        end.link.write(b"let me in" * 1000)
    both.wait(lambda: bool(end.lost or end.failed) and bool(both.log.of("connection_refused")))
    assert not any(reason == "closed by the other end" for reason in end.lost)
    assert not ends, "a handler was made for somebody who may not come in"
    line = both.log.of("connection_refused")[0]
    assert reason in line["reason"]
    assert line["remote"].startswith("127.0.0.1:")
    assert line["port"] == purpose


@pytest.mark.parametrize(
    ("name", "expect", "reason"),
    [
        ("n3", "n2", "node n2 was expected, and the certificate is of node n3"),
        ("a-client-that-serves", "n2", "only node certificates"),
        ("a-client-that-serves", None, "only node certificates"),
        ("a-client", "n2", "certificate of the other end is refused"),
        ("other-cluster", "n2", "is of cluster ddd"),
        ("other-cluster", None, "is of cluster ddd"),
        ("stranger", "n2", "certificate of the other end is refused"),
        ("expired", "n2", "expired"),
        ("two-names", "n2", "has 2 URI names"),
    ],
)
def test_the_dialler_checks_the_other_end(
    both: Bench, pki: Pki, name: str, expect: str | None, reason: str
) -> None:
    listener, ends = both.listen(_impostor(both, pki, name))
    network = both.network(both.credentials(pki.directory("n1"), CLUSTER, "n1"))
    end = both.dial(network, listener.address, expect)
    assert not end.made
    assert len(end.failed) == 1
    assert reason in end.failed[0]
    both.wait(lambda: all(one.lost for one in ends))
    assert not any(one.data for one in ends)


def _impostor(bench: Bench, pki: Pki, name: str) -> RealNetwork:
    """A server that shows a certificate which it should not have."""

    class Anybody(Shown):
        def __init__(self, paths: TlsPaths) -> None:
            super().__init__(paths)
            self.server = server_context(paths)

        def check(self, purpose: str, certificate: Any, remote: str) -> Any:
            return self.check_dialled(None, certificate, remote)

    return bench.network(Anybody(tls_paths(pki.directory(name))))  # type: ignore[arg-type]


def test_a_revoked_certificate_is_refused_at_both_ends(both: Bench, pki: Pki) -> None:
    revoked = revoke(str(pki.root / "ca"), "n2")
    for name in ("n1", "n2", "n3"):
        (pki.root / name / "tls" / "revoked.json").write_text(render_revocations(revoked))
    address, ends = server(both, pki)
    end = both.dial(dialler(both, pki, "n2"), address)
    both.wait(lambda: bool(end.lost or end.failed) and bool(both.log.of("connection_refused")))
    assert "was revoked on" in both.log.reasons()
    assert not ends
    listener, _ = both.listen(_impostor(both, pki, "n2"))
    network = both.network(both.credentials(pki.directory("n1"), CLUSTER, "n1"))
    refused = both.dial(network, listener.address, "n2")
    assert "was revoked on" in refused.failed[0]


def test_a_number_that_is_not_revoked_is_fine(one: Bench, pki: Pki) -> None:
    other = Revocation(12345, "raftdb://x/client/y", "2026-01-01T00:00:00Z")
    (pki.root / "n1" / "tls" / "revoked.json").write_text(render_revocations([other]))
    address, _ = server(one, pki)
    assert one.dial(dialler(one, pki, "n2"), address).made


# Strangers with raw sockets; they run on a lane, so blocking is fine.


def _talk(address: Address, data: bytes) -> bytes:
    """Send and read until the other end closes."""
    with socket.create_connection((address.host, address.port), SOCKET_TIMEOUT_S) as raw:
        try:
            raw.sendall(data)
            answer = b""
            while part := raw.recv(65536):
                answer += part
        except ConnectionError:
            pass
    return answer


STRANGE = {
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "zeros": bytes(100_000),
    "a pickle": b"\x80\x04cposix\nsystem\n(S'touch /tmp/owned'\ntR.",
    "a huge frame header": struct.pack(">I", 1 << 30) + b"x" * 100,
    "a huge TLS record": b"\x16\x03\x01\xff\xff" + b"\x01" * 70_000,
    "half a hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(20),
    "an alert": b"\x15\x03\x03\x00\x02\x02\x28",
    "noise": os.urandom(100_000),
}


@pytest.mark.parametrize("purpose", ["peer", "client"])
@pytest.mark.parametrize("what", list(STRANGE))
def test_strange_bytes_reach_no_handler(one: Bench, pki: Pki, purpose: str, what: str) -> None:
    address, ends = server(one, pki, purpose, handshake_timeout_ms=800)
    answer = one.call(lambda: _talk(address, STRANGE[what]))
    assert isinstance(answer, bytes), answer
    assert len(answer) < 1000
    one.wait(lambda: bool(one.log.of("connection_refused")))
    assert not ends
    assert one.dial(dialler(one, pki, "n2"), address).made, "the port serves others no more"


def _shake(address: Address, context: ssl.SSLContext) -> str:
    """Handshake and one read, as a client of one's own making; what came of it."""
    with socket.create_connection((address.host, address.port), SOCKET_TIMEOUT_S) as raw:
        try:
            with context.wrap_socket(raw) as tls:
                tls.sendall(b"hello")
                return f"{tls.version()}: {tls.recv(100)!r}"
        except (ssl.SSLError, ConnectionError) as error:
            return repr(error)


def _anonymous() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def test_no_certificate_is_refused(both: Bench, pki: Pki) -> None:
    address, ends = server(both, pki)
    answer = both.call(lambda: _shake(address, _anonymous()))
    assert "hello" not in answer
    both.wait(lambda: "peer did not return a certificate" in both.log.reasons())
    assert not ends


def test_tls_1_2_is_refused(both: Bench, pki: Pki) -> None:
    address, ends = server(both, pki)
    context = _anonymous()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    paths = tls_paths(pki.directory("n2"))
    context.load_cert_chain(paths.certificate, paths.key)
    answer = both.call(lambda: _shake(address, context))
    assert "EOF" in answer or "PROTOCOL_VERSION" in answer
    both.wait(lambda: "unsupported protocol" in both.log.reasons())
    assert not ends


def test_a_session_cannot_be_resumed_past_the_checks(one: Bench, pki: Pki) -> None:
    address, _ = server(one, pki, "client")
    paths = tls_paths(pki.directory("n2"))

    def reconnect() -> tuple[bool | None, bool]:
        context = dialler_context(paths)
        with (
            socket.create_connection((address.host, address.port), SOCKET_TIMEOUT_S) as raw,
            context.wrap_socket(raw) as tls,
        ):
            tls.settimeout(0.2)
            try:
                tls.recv(1)
            except TimeoutError:
                pass
            session = tls.session
            return tls.session_reused, bool(session and session.has_ticket)

    assert one.call(reconnect) == (False, False)


def test_a_handshake_that_hangs_is_ended(both: Bench, pki: Pki) -> None:
    address, ends = server(both, pki, handshake_timeout_ms=200)
    assert both.call(lambda: _talk(address, b"")) == b""
    both.wait(lambda: bool(both.log.of("connection_refused")))
    assert not ends


def test_idle_strangers_do_not_lock_others_out(both: Bench, pki: Pki) -> None:
    """All places for handshakes are taken by the silent; they lose them to those who come."""
    address, ends = server(both, pki, handshakes_max=4, handshake_timeout_ms=60_000)

    def occupy() -> ExitStack:
        stack = ExitStack()
        for _ in range(12):
            stack.enter_context(
                socket.create_connection((address.host, address.port), SOCKET_TIMEOUT_S)
            )
        return stack

    with both.call(occupy):
        end = both.dial(dialler(both, pki, "n2"), address, timeout_s=15.0)
        assert end.made, end.failed
        both.wait(lambda: bool(ends))
        assert "slow handshake" in both.log.reasons()


def test_a_flood_keeps_within_the_bounds(one: Bench, pki: Pki) -> None:
    address, ends = server(
        one, pki, "client", handshakes_max=8, client_connections_max=20, handshake_timeout_ms=500
    )
    network = one.networks[0]

    def flood() -> int:
        answered = 0
        for _ in range(300):
            with socket.create_connection((address.host, address.port), SOCKET_TIMEOUT_S) as raw:
                raw.sendall(b"\x16\x03\x01")
                answered += 1
        return answered

    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert one.call(flood) == 300
    assert len(network._listeners[0]._handshakes) <= 8
    end = one.dial(dialler(one, pki, "a-client"), address, timeout_s=15.0)
    assert end.made, end.failed
    one.wait(lambda: bool(ends) and not network._listeners[0]._handshakes)
    if before:
        one.idle(0.05)
        assert len(os.listdir("/proc/self/fd")) < before + 20


def test_many_honest_clients_at_once_all_get_in(one: Bench, pki: Pki) -> None:
    """More than there are places for handshakes: they queue, nobody is turned away."""
    address, ends = server(one, pki, "client", handshakes_max=4)
    network = dialler(one, pki, "a-client")
    dialled = [End(one.changed) for _ in range(100)]
    for end in dialled:
        network.connect("client", address, ExpectedPeer(None), end, 20.0, end.fail)
    one.wait(lambda: all(end.made or end.failed for end in dialled) and len(ends) == 100)
    assert not any(end.failed for end in dialled)
    assert not one.log.of("connection_refused")


def test_new_connections_come_at_a_bounded_rate(one: Bench) -> None:
    # Plain TCP, which is so quick that only the bound can take time.
    network = one.network(None, limits=small_limits(handshakes_per_s_max=40))
    listener, ends = one.listen(network, "client")
    dialled = [End(one.changed) for _ in range(60)]
    started_s = one.loop.time()
    for end in dialled:
        network.connect("client", listener.address, ExpectedPeer(None), end, 20.0, end.fail)
    one.wait(lambda: len(ends) == 60)
    # Forty at once, twenty more at forty a second; nobody is turned away.
    assert one.loop.time() - started_s > 0.4
    assert all(end.made for end in dialled)


def test_the_own_certificate_is_seen_as_others_will_see_it(pki: Pki) -> None:
    paths = tls_paths(pki.directory("n1"))
    seen = own_certificate(server_context(paths), dialler_context(paths))
    info = read_certificate(paths.certificate)
    assert int(seen["serialNumber"], 16) == info.serial
