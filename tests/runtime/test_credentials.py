"""Certificates of a running node: what is refused at start, and taking up new files."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from raftdb.base.errors import AuthError, ConfigError
from raftdb.base.identity import render_revocations
from raftdb.base.ids import NodeId
from raftdb.runtime.credentials import DAY_S, Credentials
from raftdb.runtime.network import RealNetwork
from raftdb.runtime.tls import client_context, describe_error, peer_from_certificate
from raftdb.security import issue_node, read_certificate, renew, revoke
from tests.runtime.conftest import CLUSTER, OTHER_CLUSTER, Pki, put
from tests.runtime.harness import Bench, End, Recorder, tls_paths


class FakeClock:
    """A clock that a test sets."""

    def __init__(self, now: datetime) -> None:
        self.wall_s = now.timestamp()
        self.mono_s = 1000.0

    def monotonic_s(self) -> float:
        return self.mono_s

    def wall_ms(self) -> int:
        return int(self.wall_s * 1000)


def load(pki: Pki, name: str = "n1", node_id: str = "n1", **options: Any) -> Credentials:
    log = Recorder(lambda: None)
    return Credentials(tls_paths(pki.directory(name)), CLUSTER, NodeId(node_id), log, **options)


@pytest.mark.parametrize(
    ("name", "node_id", "message"),
    [
        ("n2", "n1", "is of node n2"),
        ("expired", "n2", "expired"),
        ("other-cluster", "n2", "of cluster ddd"),
        ("two-names", "n1", "2 URI names"),
        ("no-name", "n1", "0 URI names"),
        ("web", "n2", "no raftdb identity"),
        ("a-client", "n1", "refused by its own CA"),
        ("a-client-that-serves", "n1", "is of client app"),
    ],
)
def test_a_node_does_not_start_with_the_wrong_certificate(
    pki: Pki, name: str, node_id: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(pki, name, node_id)
    assert message in caught.value.message
    assert caught.value.hint


def test_a_certificate_of_another_ca_is_refused_at_start(pki: Pki) -> None:
    ca = Path(pki.directory("stranger")) / "ca.crt"
    own = (Path(pki.directory("n1")) / "ca.crt").read_bytes()
    assert ca.read_bytes() == own
    with pytest.raises(ConfigError, match="refused by its own CA"):
        load(pki, "stranger", "n2")


@pytest.mark.parametrize("file", ["ca.crt", "node.crt", "node.key"])
@pytest.mark.parametrize("damage", ["missing", "empty", "garbage", "directory"])
def test_damaged_files_are_named(pki: Pki, file: str, damage: str) -> None:
    path = Path(pki.directory("n1")) / file
    if damage in ("missing", "directory"):
        path.unlink()
        if damage == "directory":
            path.mkdir(0o700)
    else:
        path.write_bytes(b"" if damage == "empty" else os.urandom(500))
    with pytest.raises(ConfigError) as caught:
        load(pki)
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_a_key_of_another_certificate_is_named(pki: Pki) -> None:
    directory = Path(pki.directory("n1"))
    (directory / "node.key").write_bytes((Path(pki.directory("n2")) / "node.key").read_bytes())
    with pytest.raises(ConfigError, match="not the certificate's"):
        load(pki)


def test_an_encrypted_key_asks_nobody_for_a_password(pki: Pki) -> None:
    from cryptography.hazmat.primitives import serialization

    path = Path(pki.directory("n1")) / "node.key"
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"hush"),
        )
    )
    with pytest.raises(ConfigError, match="encrypted"):
        load(pki)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o666])
def test_a_key_that_others_can_use_is_refused_with_the_remedy(pki: Pki, mode: int) -> None:
    path = Path(pki.directory("n1")) / "node.key"
    path.chmod(mode)
    with pytest.raises(ConfigError) as caught:
        load(pki)
    assert f"mode {mode:04o}" in caught.value.message
    assert caught.value.hint == f"chmod 0600 {path}"
    path.chmod(0o400)
    load(pki)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"version": 2, "revoked": []}', '{"version": 1, "revoked": [{}]}']
)
def test_a_damaged_revocation_file_lets_nobody_in_by_mistake(pki: Pki, text: str) -> None:
    path = Path(pki.directory("n1")) / "revoked.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(pki)
    assert str(path) in caught.value.message


def test_a_missing_revocation_file_revokes_nothing(pki: Pki) -> None:
    (Path(pki.directory("n1")) / "revoked.json").unlink()
    assert load(pki).revoked == {}


def test_a_node_does_not_start_with_its_own_certificate_revoked(pki: Pki) -> None:
    revoked = revoke(str(pki.root / "ca"), "n1")
    (Path(pki.directory("n1")) / "revoked.json").write_text(render_revocations(revoked))
    with pytest.raises(ConfigError, match="is revoked"):
        load(pki)


def test_the_alarm_comes_thirty_days_before_the_end_and_once_a_day(pki: Pki) -> None:
    expires = read_certificate(tls_paths(pki.directory("n1")).certificate).expires
    clock = FakeClock(expires - timedelta(days=31))
    credentials = load(pki, clock=clock)
    log = credentials._log
    assert isinstance(log, Recorder)
    credentials.alarm()
    assert not log.events
    clock.wall_s += 1.5 * DAY_S
    for _ in range(3):
        credentials.alarm()
    assert len(log.of("certificate_expires")) == 1
    assert log.events[0][0] == "warning"
    assert log.of("certificate_expires")[0]["days_left"] == pytest.approx(29.5, abs=0.1)
    assert "cert renew" in log.of("certificate_expires")[0]["hint"]
    clock.mono_s += DAY_S
    clock.wall_s += 30 * DAY_S
    credentials.alarm()
    assert log.events[-1][0] == "error"


def test_the_ca_counts_for_the_alarm_too(pki: Pki, tmp_path: Path) -> None:
    from raftdb.security import found_certificates

    found_certificates(str(tmp_path / "short"), CLUSTER, [NodeId("n1")], authority_days=10, days=9)
    paths = tls_paths(str(tmp_path / "short" / "n1" / "tls"))
    short = Credentials(paths, CLUSTER, NodeId("n1"), Recorder(lambda: None))
    assert 8.9 < short.days_left() <= 9
    assert 360 < load(pki).days_left() <= 365


# Without a restart.


def running(
    bench: Bench, pki: Pki, **options: Any
) -> tuple[RealNetwork, RealNetwork, Any, list[End]]:
    first = bench.network(bench.credentials(pki.directory("n1"), CLUSTER, "n1"), **options)
    second = bench.network(bench.credentials(pki.directory("n2"), CLUSTER, "n2"), **options)
    listener, ends = bench.listen(first)
    return first, second, listener.address, ends


def serial(path: str) -> int:
    return read_certificate(path).serial


def test_a_renewed_certificate_is_taken_up_without_a_restart(both: Bench, pki: Pki) -> None:
    _first, second, address, ends = running(both, pki, reload_interval_s=0.02)
    before = both.dial(second, address, "n1")
    path = tls_paths(pki.directory("n1")).certificate
    old = serial(path)
    assert before.link.serial == old  # type: ignore[attr-defined]
    renew(str(pki.root / "ca"), pki.directory("n1"))
    both.wait(lambda: bool(both.log.of("certificates_reloaded")))
    after = both.dial(second, address, "n1")
    assert after.link.serial == serial(path) != old  # type: ignore[attr-defined]
    # Whoever is connected stays so.
    before.link.write(b"still here")
    both.wait(lambda: any(bytes(end.data) == b"still here" for end in ends))


def test_a_broken_new_file_keeps_the_old_and_says_so_once(one: Bench, pki: Pki) -> None:
    _first, second, address, _ = running(one, pki, reload_interval_s=0.02)
    path = Path(tls_paths(pki.directory("n1")).certificate)
    good = path.read_bytes()
    path.write_bytes(b"this is no certificate")
    one.wait(lambda: bool(one.log.of("certificates_not_reloaded")))
    assert str(path) in one.log.reasons("certificates_not_reloaded")
    assert one.dial(second, address, "n1").made
    one.idle(0.15)
    assert len(one.log.of("certificates_not_reloaded")) == 1
    path.write_bytes(good)
    one.wait(lambda: bool(one.log.of("certificates_reloaded")))
    assert one.dial(second, address, "n1").made


def test_a_certificate_before_its_key_is_not_an_error_yet(one: Bench, pki: Pki) -> None:
    first, _, _, _ = running(one, pki, reload_interval_s=3600)
    old = Path(pki.directory("n1"))
    scratch = pki.root / "scratch"
    issue_node(str(pki.root / "ca"), NodeId("n1"), str(scratch))
    (scratch / "node.crt").replace(old / "node.crt")
    assert not first.reload(patient=True)
    assert not one.log.of("certificates_not_reloaded")
    (scratch / "node.key").replace(old / "node.key")
    assert first.reload(patient=True)
    assert not one.log.of("certificates_not_reloaded")
    # An operator who asks gets the answer at once.
    (old / "node.crt").write_bytes(b"")
    assert not first.reload()
    assert one.log.of("certificates_not_reloaded")


def test_a_new_certificate_of_somebody_else_is_not_taken(one: Bench, pki: Pki) -> None:
    first, second, address, _ = running(one, pki, reload_interval_s=3600)
    put(pki.root, "n1", pki.authority.issue_node(NodeId("n3")), pki.authority.certificate_pem)
    assert not first.reload()
    assert "is of node n3" in one.log.reasons("certificates_not_reloaded")
    assert one.dial(second, address, "n1").made


def test_a_new_revocation_cuts_open_connections_and_refuses_new_ones(both: Bench, pki: Pki) -> None:
    first, second, address, ends = running(both, pki, reload_interval_s=0.02)
    bad = both.dial(second, address, "n1")
    third = both.network(both.credentials(pki.directory("n3"), CLUSTER, "n3"))
    good = both.dial(third, address, "n1")
    both.wait(lambda: len(ends) == 2)
    revoked = revoke(str(pki.root / "ca"), "node/n2")
    (Path(pki.directory("n1")) / "revoked.json").write_text(render_revocations(revoked))
    both.wait(lambda: bool(bad.lost))
    cut = next(end for end in ends if end.link.peer.name == "n2")
    assert cut.lost == ["the certificate was revoked"]
    assert both.log.of("connection_revoked")[0]["name"] == "n2"
    again = both.dial(second, address, "n1")
    both.wait(lambda: bool(again.lost or again.failed))
    assert "was revoked" in both.log.reasons()
    assert not good.lost
    # Losing the file must not make revoked certificates good again.
    (Path(pki.directory("n1")) / "revoked.json").unlink()
    both.wait(lambda: "is gone" in both.log.reasons("certificates_not_reloaded"))
    assert first._credentials is not None
    assert first._credentials.revoked


def test_a_dialled_connection_is_cut_too(one: Bench, pki: Pki) -> None:
    _, second, address, _ = running(one, pki, reload_interval_s=3600)
    end = one.dial(second, address, "n1")
    revoked = revoke(str(pki.root / "ca"), "n1")
    (Path(pki.directory("n2")) / "revoked.json").write_text(render_revocations(revoked))
    assert second.reload()
    one.wait(lambda: bool(end.lost))
    assert end.lost == ["the certificate was revoked"]


def test_the_blocking_client_has_what_it_needs(pki: Pki) -> None:
    paths = tls_paths(pki.directory("n2"))
    context = client_context(paths.ca, paths.certificate, paths.key)
    assert context.minimum_version.name == "TLSv1_3"
    found = {"subjectAltName": (("DNS", "x"), ("URI", f"raftdb://{CLUSTER}/node/n1"))}
    peer = peer_from_certificate(found, "here")
    assert (peer.role, peer.name, peer.cluster_id, peer.remote) == ("node", "n1", CLUSTER, "here")
    for nobody in (None, {}, {"subjectAltName": (("DNS", "n1"),)}):
        with pytest.raises(AuthError):
            peer_from_certificate(nobody)
    assert OTHER_CLUSTER != CLUSTER


def test_failures_in_words() -> None:
    assert describe_error(TimeoutError()) == "timed out"
    assert describe_error(ConnectionRefusedError(111, "x")) == "connection refused"
    assert describe_error(RuntimeError("odd")) == "odd"
    assert describe_error(RuntimeError()) == "RuntimeError"
