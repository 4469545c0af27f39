"""Join tokens: what a new node needs to become one, signed by the cluster's authority.

`raftdb-join-1.<payload>.<signature>`, both base64url without padding (RFC 4648 section 5). The
payload is JSON in UTF-8, the signature ECDSA with SHA-256 (DER) of the payload's bytes by the CA's
key: DESIGN.md. It carries the node's private key, and is as secret as that.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from raftdb.base.errors import AuthError, ConfigError
from raftdb.base.identity import NODE
from raftdb.base.ids import (
    Address,
    ClusterId,
    HistoryId,
    NodeId,
    parse_address,
    parse_cluster_id,
    parse_node_id,
)
from raftdb.base.settings import parse_history_id
from raftdb.security.authority import (
    CERTIFICATE_DAYS,
    Issued,
    describe_certificate,
    load_certificate,
)
from raftdb.security.files import (
    CERTIFICATE_MODE,
    KEY_MODE,
    make_directory,
    read_file,
    write_file,
)
from raftdb.security.store import load_authority, record_issued

PREFIX = "raftdb-join-1"
TOKEN_MINUTES = 60
TOKEN_MINUTES_MAX = 7 * 24 * 60
TOKEN_BYTES_MAX = 1 << 20
_TEXTS = ("cluster_id", "history", "node_id", "ca_sha256", "expires", "ca", "certificate", "key")
_AGAIN = "make a new one, where the cluster's ca/ is: raftdb member token NODE --dir DIR"


@dataclass(frozen=True, slots=True)
class JoinToken:
    """What a token says. `repr` shows no key."""

    cluster_id: ClusterId
    history: HistoryId
    node_id: NodeId
    addresses: tuple[Address, ...]
    """Client addresses of the members when it was made."""
    ca_sha256: str
    """Fingerprint of the CA's certificate: SHA-256 of its DER form, hexadecimal."""
    expires: datetime
    ca: bytes
    certificate: bytes
    key: bytes
    revoked: bytes
    """The revocation file as of then."""

    def __repr__(self) -> str:
        return f"JoinToken({self.node_id!r}, cluster={self.cluster_id}, ca={self.ca_sha256})"


def issue_token(
    ca: str,
    node_id: NodeId,
    history: HistoryId,
    addresses: Sequence[Address],
    *,
    minutes: float = TOKEN_MINUTES,
    days: float = CERTIFICATE_DAYS,
    now: datetime | None = None,
) -> tuple[str, JoinToken, Issued]:
    """A token for a new node, with a new key and a certificate for `days`, by the CA in the
    directory `ca`; the certificate is recorded there, so that it can be revoked. Raises
    ConfigError."""
    if not 0 < minutes <= TOKEN_MINUTES_MAX:
        raise ConfigError(
            f"a join token cannot be good for {minutes:g} minutes",
            hint=f"give more than 0 and at most {TOKEN_MINUTES_MAX}",
        )
    now = now or datetime.now(UTC)
    authority = load_authority(ca)
    issued = authority.issue_node(node_id, now, days)
    record_issued(ca, issued)
    path = os.path.join(ca, "revoked.json")
    token = JoinToken(
        authority.cluster_id,
        history,
        node_id,
        tuple(addresses),
        certificate_sha256(authority.certificate_pem, ca),
        (now + timedelta(minutes=minutes)).replace(microsecond=0),
        authority.certificate_pem,
        issued.certificate,
        issued.key,
        read_file(path, "revocation file", "restore it from the operator's backup"),
    )
    payload = _render(token)
    text = f"{PREFIX}.{_encode(payload)}.{_encode(authority.sign(payload))}"
    if len(text) > TOKEN_BYTES_MAX:
        raise ConfigError(
            f"the token would have {len(text)} bytes: the revocation file is too long",
            hint="use raftdb member prepare instead, and think of a new CA",
        )
    return text, token, issued


def read_token(text: str, now: datetime | None = None) -> JoinToken:
    """Check a token and read it. ConfigError with code `token_damaged`, `token_expired` or
    `token_early` (by this machine's clock)."""
    if len(text) > TOKEN_BYTES_MAX:
        raise _damaged(f"it has more than {TOKEN_BYTES_MAX} bytes")
    parts = text.strip().split(".")
    if len(parts) != 3 or parts[0] != PREFIX:
        raise _damaged(f"it does not read {PREFIX}.….…")
    try:
        payload, signature = (base64.b64decode(_padded(one), b"-_", True) for one in parts[1:])
        token = _parse(json.loads(payload))
        _check_signature(token, payload, signature)
        info = describe_certificate(token.certificate, "the token's certificate")
    except (ValueError, TypeError, KeyError, RecursionError, ConfigError, AuthError) as error:
        # The content is not shown: there is a key in it.
        raise _damaged(_reason(error)) from None
    peer = info.peer
    if (peer.role, peer.name, peer.cluster_id) != (NODE, token.node_id, token.cluster_id):
        raise _damaged("its certificate is somebody else's")
    now = now or datetime.now(UTC)
    if token.expires <= now:
        raise ConfigError(
            f"the join token for {token.node_id} expired at {token.expires:%Y-%m-%d %H:%M} UTC",
            code="token_expired",
            hint=f"{_AGAIN}; check this machine's clock, which says {now:%Y-%m-%d %H:%M} UTC",
        )
    if info.starts > now:
        raise ConfigError(
            f"the certificate in the join token for {token.node_id} is not good before "
            f"{info.starts:%Y-%m-%d %H:%M} UTC, and this machine's clock says {now:%Y-%m-%d %H:%M}",
            code="token_early",
            hint="set the clock that is wrong, here or where the token was made; if it was that "
            f"one, {_AGAIN}",
        )
    return token


def write_enrolment(token: JoinToken, target: str) -> None:
    """ca.crt, node.crt, node.key and revoked.json into `target`, as `issue_node` would."""
    make_directory(target)
    for name, data, mode in (
        ("revoked.json", token.revoked, CERTIFICATE_MODE),
        ("ca.crt", token.ca, CERTIFICATE_MODE),
        ("node.key", token.key, KEY_MODE),
        ("node.crt", token.certificate, CERTIFICATE_MODE),
    ):
        write_file(os.path.join(target, name), data, mode)


def write_token(path: str, text: str) -> None:
    """Into a file that only its owner may read. Raises ConfigError when there is one."""
    if os.path.exists(path):
        raise ConfigError(f"{path} exists", hint="give the name of a new file")
    write_file(path, text.encode() + b"\n", KEY_MODE)


def certificate_sha256(pem: bytes, where: str) -> str:
    """The fingerprint of a certificate: SHA-256 of its DER form. Raises ConfigError."""
    certificate = load_certificate(pem, where)
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def _render(token: JoinToken) -> bytes:
    value = {
        "cluster_id": token.cluster_id,
        "history": token.history,
        "node_id": token.node_id,
        "addresses": [str(one) for one in token.addresses],
        "ca_sha256": token.ca_sha256,
        "expires": token.expires.astimezone(UTC).isoformat(),
        "ca": token.ca.decode(),
        "certificate": token.certificate.decode(),
        "key": token.key.decode(),
        "revoked": token.revoked.decode(),
    }
    return json.dumps(value, separators=(",", ":")).encode()


def _parse(value: Any) -> JoinToken:
    texts = {name: value[name] for name in (*_TEXTS, "revoked")}
    if not all(isinstance(text, str) for text in texts.values()):
        raise ValueError("a field is no text")
    expires = datetime.fromisoformat(texts["expires"])
    if expires.tzinfo is None:
        raise ValueError("its time has no zone")
    return JoinToken(
        parse_cluster_id(texts["cluster_id"]),
        parse_history_id(texts["history"]),
        parse_node_id(texts["node_id"]),
        tuple(parse_address(str(one)) for one in value["addresses"]),
        texts["ca_sha256"],
        expires,
        texts["ca"].encode(),
        texts["certificate"].encode(),
        texts["key"].encode(),
        texts["revoked"].encode(),
    )


def _check_signature(token: JoinToken, payload: bytes, signature: bytes) -> None:
    if certificate_sha256(token.ca, "the token's CA") != token.ca_sha256:
        raise ValueError("its CA is not the one that it names")
    authority = load_certificate(token.ca, "the token's CA")
    key = authority.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("its CA has no key that raftdb uses")
    try:
        key.verify(signature, payload, ec.ECDSA(hashes.SHA256()))
        certificate = load_certificate(token.certificate, "the token's certificate")
        certificate.verify_directly_issued_by(authority)
    except InvalidSignature:
        raise ValueError("it was changed after its CA had signed it") from None


def _reason(error: Exception) -> str:
    own = type(error) is ValueError and error.args and str(error).startswith(("it ", "its "))
    return str(error) if own else "its content cannot be read"


def _damaged(reason: str) -> ConfigError:
    return ConfigError(
        f"this is no sound join token: {reason}",
        code="token_damaged",
        hint=f"copy the whole file that `raftdb member token` wrote, or {_AGAIN}",
    )


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _padded(text: str) -> bytes:
    return (text + "=" * (-len(text) % 4)).encode()
