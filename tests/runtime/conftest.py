"""Certificates of every sort, made once; and a bench on both kinds of loop."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from raftdb.base.identity import client_uri, node_uri
from raftdb.base.ids import ClusterId, NodeId
from raftdb.security import Authority, Issued, found_certificates, load_authority
from tests.runtime.harness import Bench, bench

CLUSTER = ClusterId("c" * 31 + "1")
OTHER_CLUSTER = ClusterId("d" * 31 + "2")
BOTH = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]


@dataclass
class Pki:
    """A cluster's certificates on disk; `<name>` is a tls directory of its own."""

    root: Path
    authority: Authority

    def directory(self, name: str) -> str:
        return str(self.root / name / "tls")

    def secrets(self) -> list[str]:
        """A line of every private key under the root."""
        return [
            line
            for path in self.root.rglob("*.key")
            for line in path.read_text().splitlines()
            if not line.startswith("-----")
        ]


def put(root: Path, name: str, issued: Issued, ca: bytes) -> None:
    """Files of a node, with whatever certificate."""
    target = root / name / "tls"
    target.mkdir(parents=True, exist_ok=True)
    (target / "ca.crt").write_bytes(ca)
    (target / "node.crt").write_bytes(issued.certificate)
    (target / "node.key").touch(0o600)
    (target / "node.key").write_bytes(issued.key)


@pytest.fixture(scope="session")
def made_pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    root = tmp_path_factory.mktemp("pki")
    found_certificates(str(root), CLUSTER, [NodeId("n1"), NodeId("n2"), NodeId("n3")])
    authority = load_authority(str(root / "ca"))
    ca = authority.certificate_pem
    long_ago = datetime.now(UTC) - timedelta(days=30)
    stranger = Authority.create(CLUSTER)

    def issue(*uris: str, usages: list[object] | None = None) -> Issued:
        return authority.issue(uris, "a test", usages or BOTH)  # type: ignore[arg-type]

    put(root, "expired", authority.issue_node(NodeId("n2"), long_ago, days=1), ca)
    put(root, "stranger", stranger.issue_node(NodeId("n2")), ca)
    put(root, "other-cluster", issue(node_uri(OTHER_CLUSTER, NodeId("n2"))), ca)
    put(root, "a-client", authority.issue_client("app"), ca)
    put(root, "a-client-that-serves", issue(client_uri(CLUSTER, "app")), ca)
    put(
        root,
        "two-names",
        issue(node_uri(CLUSTER, NodeId("n1")), node_uri(CLUSTER, NodeId("n2"))),
        ca,
    )
    put(root, "no-name", authority.issue([], "nobody", BOTH), ca)
    put(root, "web", issue("https://example.org/n2"), ca)
    return Pki(root, authority)


@pytest.fixture
def pki(made_pki: Pki, tmp_path: Path) -> Pki:
    """A copy that a test may change."""
    root = tmp_path / "pki"
    shutil.copytree(made_pki.root, root)
    return Pki(root, made_pki.authority)


@pytest.fixture(params=["uvloop", "asyncio"])
def both(request: pytest.FixtureRequest, made_pki: Pki) -> Iterator[Bench]:
    """A bench on each kind of loop; no secret may be in its log."""
    with bench(request.param) as one:
        yield one
        assert_no_secrets(one, made_pki)


@pytest.fixture
def one(made_pki: Pki) -> Iterator[Bench]:
    """A bench on uvloop; no secret may be in its log."""
    with bench() as made:
        yield made
        assert_no_secrets(made, made_pki)


def assert_no_secrets(bench: Bench, pki: Pki) -> None:
    text = bench.log.text()
    assert "PRIVATE KEY" not in text
    assert not [secret for secret in pki.secrets() if secret[:40] in text]


Edit = Callable[[], None]
