"""Names in certificates, the revocation file, and the permissions of keys: formats."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftdb.base.errors import AuthError, ConfigError
from raftdb.base.identity import (
    Revocation,
    client_uri,
    identity_from_uris,
    node_uri,
    parse_client_name,
    parse_identity_uri,
    parse_revocations,
    render_revocations,
)
from raftdb.base.ids import ClusterId, NodeId
from raftdb.base.keyfile import check_key_permissions

CLUSTER = ClusterId("ab" * 16)


def test_uris_round_trip() -> None:
    assert parse_identity_uri(node_uri(CLUSTER, NodeId("n-1"))) == ("node", "n-1", CLUSTER)
    assert parse_identity_uri(client_uri(CLUSTER, "App_1.x")) == ("client", "App_1.x", CLUSTER)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "raftdb://",
        f"raftdb://{CLUSTER}/node/",
        f"raftdb://{CLUSTER}/node/N1",
        f"raftdb://{CLUSTER}/node/n1/",
        f"raftdb://{CLUSTER}/node/n1\n",
        f"raftdb://{CLUSTER}/node/n1\0",
        f"raftdb://{CLUSTER}/nodes/n1",
        f"raftdb://{CLUSTER}/admin/n1",
        f"raftdb://{CLUSTER}/node/n1?x=1",
        f"raftdb://{CLUSTER.upper()}/node/n1",
        f"raftdb://{CLUSTER[:-1]}/node/n1",
        f"http://{CLUSTER}/node/n1",
        f" raftdb://{CLUSTER}/node/n1",
        f"raftdb://{CLUSTER}/client/{'x' * 65}",
        f"raftdb://{CLUSTER}/client/../node/n1",
    ],
)
def test_anything_else_is_nobody(uri: str) -> None:
    with pytest.raises(AuthError):
        parse_identity_uri(uri)


@given(st.text())
def test_any_text_is_an_identity_or_refused(uri: str) -> None:
    with pytest.raises(AuthError):
        parse_identity_uri(uri)


@given(st.from_regex(r"raftdb://[0-9a-f]{32}/(node|client)/[A-Za-z0-9._-]{1,70}", fullmatch=True))
def test_identities_are_what_they_say(uri: str) -> None:
    try:
        role, name, cluster = parse_identity_uri(uri)
    except AuthError:
        return
    assert uri == f"raftdb://{cluster}/{role}/{name}"


def test_exactly_one_name() -> None:
    uri = node_uri(CLUSTER, NodeId("n1"))
    assert identity_from_uris([uri], "here").name == "n1"
    for uris in ([], [uri, uri], [uri, "https://example.org/"]):
        with pytest.raises(AuthError, match=f"has {len(uris)} URI names"):
            identity_from_uris(uris, "here")


@given(st.text())
def test_client_names_make_uris_that_read_back(name: str) -> None:
    try:
        parse_client_name(name)
    except ConfigError:
        return
    assert parse_identity_uri(client_uri(CLUSTER, name)) == ("client", name, CLUSTER)


REVOCATION = st.builds(Revocation, st.integers(0, 2**160 - 1), st.text(), st.text())


@given(st.lists(REVOCATION, unique_by=lambda one: one.serial))
def test_revocations_round_trip(revocations: list[Revocation]) -> None:
    found = parse_revocations(render_revocations(revocations), "x")
    assert sorted(found.values(), key=lambda one: one.serial) == sorted(
        revocations, key=lambda one: one.serial
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"version": 1}',
        '{"version": 1, "revoked": {}}',
        '{"version": 1, "revoked": [1]}',
        '{"version": 1, "revoked": [{"serial": 5, "name": "", "revoked_at": ""}]}',
        '{"version": 1, "revoked": [{"serial": "xyz", "name": "", "revoked_at": ""}]}',
        '{"version": 1, "revoked": [{"serial": "-1", "name": "", "revoked_at": ""}]}',
        '{"version": 1, "revoked": [{"serial": "1"}]}',
        "[" * 100_000,
    ],
)
def test_damaged_revocation_files(text: str) -> None:
    with pytest.raises(ConfigError, match=r"/x/revoked\.json is not a revocation file"):
        parse_revocations(text, "/x/revoked.json")


@given(st.text())
def test_any_text_is_a_revocation_file_or_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_revocations(text, "x")


def test_root_may_hand_a_key_to_a_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    path = tmp_path / "key"
    path.touch()
    path.chmod(0o640)
    real = os.stat

    class Rooted:
        def __init__(self, uid: int) -> None:
            self.st_uid, self.st_mode = uid, real(path).st_mode

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "stat", lambda _: Rooted(0))
    check_key_permissions(str(path))
    monkeypatch.setattr(os, "stat", lambda _: Rooted(1000))
    with pytest.raises(ConfigError, match="0640"):
        check_key_permissions(str(path))
