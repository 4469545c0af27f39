"""The CA, what it issues, renewing, revoking, and who may read what."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from raftdb.base.errors import ConfigError, Error
from raftdb.base.identity import parse_revocations
from raftdb.base.ids import ClusterId, NodeId
from raftdb.security import (
    Authority,
    days_left,
    distribute,
    expiries,
    found_certificates,
    issue_client,
    issue_node,
    issued,
    load_authority,
    read_certificate,
    renew,
    revoke,
)
from raftdb.security.files import write_file

CLUSTER = ClusterId("ab" * 16)
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    found_certificates(str(tmp_path / "c"), CLUSTER, [NodeId("n1"), NodeId("n2")])
    return tmp_path / "c"


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_what_founding_makes(cluster: Path) -> None:
    files = sorted(str(path.relative_to(cluster)) for path in cluster.rglob("*") if path.is_file())
    records = [name for name in files if name.startswith("ca/issued/")]
    assert len(records) == 3
    assert [name for name in files if name not in records] == [
        "ca/ca.crt",
        "ca/ca.key",
        "ca/revoked.json",
        "client/ca.crt",
        "client/client.crt",
        "client/client.key",
        "n1/tls/ca.crt",
        "n1/tls/node.crt",
        "n1/tls/node.key",
        "n1/tls/revoked.json",
        "n2/tls/ca.crt",
        "n2/tls/node.crt",
        "n2/tls/node.key",
        "n2/tls/revoked.json",
    ]


def test_keys_are_for_their_owner_only(cluster: Path) -> None:
    old = os.umask(0)
    try:
        issue_client(str(cluster / "ca"), "app", str(cluster / "app"))
    finally:
        os.umask(old)
    keys = list(cluster.rglob("*.key"))
    assert len(keys) == 5
    for path in keys:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    for path in (cluster / "ca", cluster / "n1" / "tls", cluster / "app"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
    # Each key is somebody's own.
    assert len({path.read_bytes() for path in keys}) == 5


def test_what_a_node_certificate_says(cluster: Path) -> None:
    certificate = load(cluster / "n1" / "tls" / "node.crt")
    info = read_certificate(str(cluster / "n1" / "tls" / "node.crt"))
    assert info.uri == f"raftdb://{CLUSTER}/node/n1"
    assert (info.peer.role, info.peer.name, info.peer.cluster_id) == ("node", "n1", CLUSTER)
    assert 364 < (info.expires - datetime.now(UTC)).days + 1 <= 365
    extensions = certificate.extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [type(name) for name in names] == [x509.UniformResourceIdentifier]
    usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"


def test_a_client_certificate_cannot_serve(cluster: Path) -> None:
    certificate = load(cluster / "client" / "client.crt")
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert read_certificate(str(cluster / "client" / "client.crt")).peer.role == "client"


def test_the_ca_signs_no_other_ca(cluster: Path) -> None:
    certificate = load(cluster / "ca" / "ca.crt")
    basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (basic.ca, basic.path_length) == (True, 0)
    assert 3649 <= days_left(str(cluster / "ca" / "ca.crt")) <= 3650


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command")
def test_openssl_agrees(cluster: Path) -> None:
    for name, purpose in (("n1/tls/node.crt", "sslserver"), ("client/client.crt", "sslclient")):
        result = subprocess.run(
            [
                "openssl",
                "verify",
                "-x509_strict",
                "-purpose",
                purpose,
                "-CAfile",
                str(cluster / "ca" / "ca.crt"),
                str(cluster / name),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr


def test_founding_twice_is_refused(cluster: Path) -> None:
    before = (cluster / "ca" / "ca.key").read_bytes()
    with pytest.raises(ConfigError, match="already"):
        found_certificates(str(cluster), CLUSTER, [NodeId("n9")])
    assert (cluster / "ca" / "ca.key").read_bytes() == before


@pytest.mark.parametrize("name", ["ca", "client", "Bad", "", "a/b", "../x"])
def test_names_that_cannot_be_a_nodes(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        found_certificates(str(tmp_path / "c"), CLUSTER, [NodeId(name)])


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "x" * 65, "sp ace", "ü"])
def test_names_that_cannot_be_a_clients(cluster: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        issue_client(str(cluster / "ca"), name, str(cluster / "x"))


@pytest.mark.parametrize("days", [0, -1, 1e9])
def test_odd_durations_are_refused(cluster: Path, days: float) -> None:
    with pytest.raises(ConfigError, match="days"):
        issue_node(str(cluster / "ca"), NodeId("n1"), str(cluster / "x"), days)


def test_a_certificate_does_not_outlive_its_ca() -> None:
    authority = Authority.create(CLUSTER, NOW, days=10)
    assert authority.issue_node(NodeId("n1"), NOW).expires == authority.expires
    with pytest.raises(ConfigError, match="CA expired"):
        authority.issue_node(NodeId("n1"), NOW + timedelta(days=11))


def test_nothing_shows_a_key(cluster: Path) -> None:
    made = Authority.create(CLUSTER).issue_node(NodeId("n1"))
    assert "PRIVATE" not in repr(made)
    key = cluster / "ca" / "ca.key"
    secret = key.read_text().splitlines()[1]
    for damaged in (secret, key.read_text()[:-60], "-----BEGIN PRIVATE KEY-----\n" + secret):
        key.write_text(damaged)
        with pytest.raises(ConfigError) as caught:
            load_authority(str(cluster / "ca"))
        error: BaseException | None = caught.value
        while error is not None:
            assert secret not in repr(error)
            assert secret not in str(error)
            error = error.__cause__


def test_the_ca_key_must_not_be_open_to_others(cluster: Path) -> None:
    key = cluster / "ca" / "ca.key"
    key.chmod(0o644)
    with pytest.raises(ConfigError) as caught:
        issue_node(str(cluster / "ca"), NodeId("n3"), str(cluster / "n3"))
    assert caught.value.hint == f"chmod 0600 {key}"


def test_a_foreign_ca_key_is_found(cluster: Path, tmp_path: Path) -> None:
    found_certificates(str(tmp_path / "other"), CLUSTER, [])
    shutil.copy(tmp_path / "other" / "ca" / "ca.key", cluster / "ca" / "ca.key")
    with pytest.raises(ConfigError, match="not the key of"):
        load_authority(str(cluster / "ca"))
    shutil.copy(cluster / "n1" / "tls" / "node.crt", cluster / "ca" / "ca.crt")
    with pytest.raises(ConfigError, match="not the CA"):
        load_authority(str(cluster / "ca"))


def test_renewing_makes_a_new_key_for_the_same_name(cluster: Path) -> None:
    for directory, stem in ((cluster / "n1" / "tls", "node"), (cluster / "client", "client")):
        before = read_certificate(str(directory / f"{stem}.crt"))
        old_key = (directory / f"{stem}.key").read_bytes()
        renew(str(cluster / "ca"), str(directory), days=100)
        after = read_certificate(str(directory / f"{stem}.crt"))
        assert after.uri == before.uri
        assert after.serial != before.serial
        assert 99 < days_left(str(directory / f"{stem}.crt")) <= 100
        assert (directory / f"{stem}.key").read_bytes() != old_key
        assert stat.S_IMODE((directory / f"{stem}.key").stat().st_mode) == 0o600
    assert not list(cluster.rglob(".new-*"))


def test_renewing_knows_whose_ca_it_is(cluster: Path, tmp_path: Path) -> None:
    found_certificates(str(tmp_path / "other"), ClusterId("cd" * 16), [])
    with pytest.raises(ConfigError, match="is of cluster"):
        renew(str(tmp_path / "other" / "ca"), str(cluster / "n1" / "tls"))
    with pytest.raises(ConfigError, match="holds no certificate"):
        renew(str(cluster / "ca"), str(cluster / "n1"))


def revoked_serials(path: Path) -> set[int]:
    return set(parse_revocations(path.read_text(), str(path)))


def test_revoking_by_name_serial_uri_and_file(cluster: Path) -> None:
    ca = str(cluster / "ca")
    n1, n2 = (read_certificate(str(cluster / n / "tls" / "node.crt")) for n in ("n1", "n2"))
    client = read_certificate(str(cluster / "client" / "client.crt"))
    assert [one.serial for one in revoke(ca, "n1", NOW)] == [n1.serial]
    assert [one.serial for one in revoke(ca, f"{n2.serial:x}".upper())] == [n2.serial]
    assert [one.serial for one in revoke(ca, client.uri)] == [client.serial]
    path = cluster / "ca" / "revoked.json"
    assert revoked_serials(path) == {n1.serial, n2.serial, client.serial}
    entry = parse_revocations(path.read_text(), "x")[n1.serial]
    assert (entry.name, entry.revoked_at) == (n1.uri, "2026-06-01T12:00:00Z")
    # Again: nothing new, nothing lost.
    assert revoke(ca, str(cluster / "n1" / "tls" / "node.crt")) == []
    assert len(revoked_serials(path)) == 3


def test_revoking_a_name_takes_all_its_certificates_but_one_kept(cluster: Path) -> None:
    ca = str(cluster / "ca")
    first = read_certificate(str(cluster / "n1" / "tls" / "node.crt"))
    second = renew(ca, str(cluster / "n1" / "tls"))
    assert [one.serial for one in revoke(ca, "n1", keep=second.serial)] == [first.serial]
    third = renew(ca, str(cluster / "n1" / "tls"))
    assert {one.serial for one in revoke(ca, "node/n1")} == {second.serial, third.serial}


def test_revoking_what_expired_already_adds_nothing(tmp_path: Path) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=20)
    found_certificates(str(tmp_path / "c"), CLUSTER, [NodeId("n1")], days=5, now=long_ago)
    assert revoke(str(tmp_path / "c" / "ca"), "n1") == []


def test_revoking_needs_one_clear_name(cluster: Path, tmp_path: Path) -> None:
    ca = str(cluster / "ca")
    with pytest.raises(ConfigError, match="issued no certificate"):
        revoke(ca, "n7")
    issue_client(ca, "n1", str(cluster / "x"))
    with pytest.raises(ConfigError, match="a node and a client"):
        revoke(ca, "n1")
    assert len(revoke(ca, "client/n1")) == 1
    found_certificates(str(tmp_path / "other"), CLUSTER, [NodeId("n1")])
    with pytest.raises(ConfigError, match="was not issued by the CA"):
        revoke(ca, str(tmp_path / "other" / "n1" / "tls" / "node.crt"))


def test_a_damaged_revocation_list_is_never_replaced(cluster: Path) -> None:
    path = cluster / "ca" / "revoked.json"
    path.write_text("{")
    with pytest.raises(ConfigError, match="not a revocation file"):
        revoke(str(cluster / "ca"), "n1")
    assert path.read_text() == "{"
    path.unlink()
    with pytest.raises(ConfigError, match="cannot read"):
        revoke(str(cluster / "ca"), "n1")


def test_distributing_reaches_the_nodes(cluster: Path) -> None:
    revoke(str(cluster / "ca"), "n2")
    assert revoked_serials(cluster / "n1" / "tls" / "revoked.json") == set()
    distribute(str(cluster / "ca"), [str(cluster / "n1" / "tls")])
    assert len(revoked_serials(cluster / "n1" / "tls" / "revoked.json")) == 1
    # A node that is issued later starts with the list of now.
    issue_node(str(cluster / "ca"), NodeId("n3"), str(cluster / "n3" / "tls"))
    assert len(revoked_serials(cluster / "n3" / "tls" / "revoked.json")) == 1


def test_age_and_alarm(cluster: Path) -> None:
    node = str(cluster / "n1" / "tls" / "node.crt")
    soon = str(cluster / "soon")
    issue_client(str(cluster / "ca"), "soon", soon, days=29.9)
    late = str(cluster / "late")
    issue_client(str(cluster / "ca"), "late", late, days=30.1)
    paths = [node, f"{soon}/client.crt", f"{late}/client.crt", str(cluster / "ca" / "ca.crt")]
    found = expiries(paths)
    assert [one.path for one in found] == [paths[1], paths[2], paths[0], paths[3]]
    assert [one.alarm for one in found] == [True, False, False, False]
    assert found[-1].name == "CA"
    assert expiries([node], datetime.now(UTC) + timedelta(days=400))[0].days_left < 0
    assert len(issued(str(cluster / "ca"))) == 5


@pytest.mark.parametrize("content", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_files_that_are_no_certificates(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.crt"
    path.write_bytes(content)
    for call in (read_certificate, days_left):
        with pytest.raises(ConfigError, match="not a certificate"):
            call(str(path))
    with pytest.raises(ConfigError, match="cannot read"):
        read_certificate(str(tmp_path / "missing.crt"))


def test_a_file_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "node.key"
    write_file(str(path), b"old", 0o600)

    def no_room(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(ConfigError, match="No space left"):
        write_file(str(path), b"new", 0o600)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["node.key"]


def test_directories_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(Error, match="cannot make the directory"):
        found_certificates(str(tmp_path / "file" / "c"), CLUSTER, [])
