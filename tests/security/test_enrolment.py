"""Join tokens: what is signed, what is refused, and what is never shown."""

from __future__ import annotations

import base64
import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from raftdb.base.errors import ConfigError
from raftdb.base.ids import Address, ClusterId, HistoryId, NodeId
from raftdb.security import (
    found_certificates,
    issue_token,
    load_authority,
    read_certificate,
    read_token,
    revoke,
    write_enrolment,
    write_token,
)

CLUSTER = ClusterId("ab" * 16)
HISTORY = HistoryId("cd" * 16)
NOW = datetime.now(UTC)
ADDRESSES = (Address("10.0.0.1", 7002), Address("::1", 7002))


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("enrolment")
    found_certificates(str(directory / "c"), CLUSTER, [NodeId("n1")])
    return str(directory / "c" / "ca")


@pytest.fixture(scope="module")
def text(ca: str) -> str:
    return issue_token(ca, NodeId("n4"), HISTORY, ADDRESSES, now=NOW)[0]


def refused(text: str, code: str, now: datetime = NOW) -> str:
    with pytest.raises(ConfigError) as caught:
        read_token(text, now)
    assert caught.value.code == code
    assert "member token" in caught.value.hint
    assert "PRIVATE" not in repr(caught.value)
    return caught.value.message


def test_it_brings_what_a_node_needs(ca: str, text: str, tmp_path: Path) -> None:
    token = read_token(f"\n{text}\n", NOW)
    assert (token.node_id, token.cluster_id, token.history) == ("n4", CLUSTER, HISTORY)
    assert token.addresses == ADDRESSES
    assert token.expires <= NOW + timedelta(hours=1)
    assert "PRIVATE" not in repr(token)
    target = tmp_path / "n4" / "tls"
    write_enrolment(token, str(target))
    assert stat.S_IMODE((target / "node.key").stat().st_mode) == 0o600
    assert read_certificate(str(target / "node.crt")).uri == f"raftdb://{CLUSTER}/node/n4"
    assert load_authority(ca).signed((target / "node.crt").read_bytes(), "it")
    assert json.loads((target / "revoked.json").read_text())["revoked"] == []


def test_it_can_be_revoked_by_the_name_of_the_node(ca: str) -> None:
    token = read_token(issue_token(ca, NodeId("n9"), HISTORY, ADDRESSES, now=NOW)[0], NOW)
    assert [one.name for one in revoke(ca, "n9")] == [f"raftdb://{CLUSTER}/node/n9"]
    again = read_token(issue_token(ca, NodeId("n9"), HISTORY, ADDRESSES, now=NOW)[0], NOW)
    assert token.certificate != again.certificate
    assert len(json.loads(again.revoked)["revoked"]) == 1


def test_it_expires(ca: str) -> None:
    text = issue_token(ca, NodeId("n4"), HISTORY, ADDRESSES, minutes=5, now=NOW)[0]
    assert read_token(text, NOW + timedelta(minutes=4)).node_id == "n4"
    assert "expired" in refused(text, "token_expired", NOW + timedelta(minutes=5))
    for minutes in (0, -1, 8 * 24 * 60):
        with pytest.raises(ConfigError, match="minutes"):
            issue_token(ca, NodeId("n4"), HISTORY, ADDRESSES, minutes=minutes, now=NOW)


def test_a_clock_that_is_behind_is_said(ca: str) -> None:
    """The nodes would refuse the certificate, and say no more than that it is bad."""
    text = issue_token(ca, NodeId("n4"), HISTORY, ADDRESSES, now=NOW)[0]
    for moved in (timedelta(0), timedelta(minutes=-10)):
        assert read_token(text, NOW + moved).node_id == "n4"
    assert "clock says" in refused(text, "token_early", NOW - timedelta(days=1))


def test_what_was_changed_is_refused(text: str, tmp_path: Path) -> None:
    prefix, payload, signature = text.split(".")
    value = json.loads(base64.urlsafe_b64decode(payload + "=="))

    def changed(**fields: object) -> str:
        data = json.dumps({**value, **fields}, separators=(",", ":")).encode()
        return f"{prefix}.{base64.urlsafe_b64encode(data).decode().rstrip('=')}.{signature}"

    assert read_token(changed(), NOW).node_id == "n4"
    later = (NOW + timedelta(days=1)).isoformat()
    assert "after its CA had signed" in refused(changed(expires=later), "token_damaged")
    assert "after its CA had signed" in refused(changed(node_id="n5"), "token_damaged")
    assert "not the one that it names" in refused(changed(ca_sha256="00"), "token_damaged")
    # Another CA of the same cluster id did not sign it.
    found_certificates(str(tmp_path / "other"), CLUSTER, [])
    foreign = str(tmp_path / "other" / "ca")
    other = read_token(issue_token(foreign, NodeId("n4"), HISTORY, ADDRESSES, now=NOW)[0], NOW)
    theirs = changed(ca=other.ca.decode(), ca_sha256=other.ca_sha256)
    assert "after its CA had signed" in refused(theirs, "token_damaged")


def test_what_is_no_token_is_refused(text: str) -> None:
    prefix, payload, signature = text.split(".")
    for wrong in (
        "",
        "hello",
        text[:-10],
        text[: len(text) // 2],
        f"raftdb-join-2.{payload}.{signature}",
        f"{prefix}.{payload[:-8]}.{signature}",
        f"{prefix}.!!!.{signature}",
        f"{prefix}.bnVsbA.{signature}",
        f"{prefix}.{base64.urlsafe_b64encode(b'[' * 9000).decode()}.{signature}",
        "x" * (1 << 21),
    ):
        refused(wrong, "token_damaged")


def test_its_file_is_for_the_owner_alone(text: str, tmp_path: Path) -> None:
    path = tmp_path / "n4.token"
    write_token(str(path), text)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_token(path.read_text(), NOW).node_id == "n4"
    with pytest.raises(ConfigError, match="exists"):
        write_token(str(path), text)
