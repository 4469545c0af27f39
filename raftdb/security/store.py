"""Certificates in directories: found a cluster's, issue, renew, revoke, and watch their age.

<cluster>/ca/ca.crt, ca.key, revoked.json, issued/<serial>.crt     the operator's alone
<cluster>/<node id>/tls/ca.crt, node.crt, node.key, revoked.json   to that node's machine
<cluster>/client/ca.crt, client.crt, client.key                    to whoever connects
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from raftdb.base.errors import AuthError, ConfigError
from raftdb.base.identity import (
    NODE,
    Revocation,
    parse_revocations,
    render_revocations,
)
from raftdb.base.ids import ClusterId, NodeId
from raftdb.base.keyfile import check_key_permissions
from raftdb.security.authority import (
    AUTHORITY_DAYS,
    CERTIFICATE_DAYS,
    Authority,
    CertificateInfo,
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

EXPIRY_ALARM_DAYS = 30
DEFAULT_CLIENT = "client"
AUTHORITY_DIRECTORY = "ca"
TLS_DIRECTORY = "tls"


@dataclass(frozen=True, slots=True)
class Expiry:
    """How long one certificate is still good."""

    path: str
    name: str
    days_left: float
    alarm: bool
    """Less than EXPIRY_ALARM_DAYS are left."""


def found_certificates(
    directory: str,
    cluster_id: ClusterId,
    node_ids: Iterable[NodeId],
    *,
    client: str = DEFAULT_CLIENT,
    days: float = CERTIFICATE_DAYS,
    authority_days: float = AUTHORITY_DAYS,
    now: datetime | None = None,
    former: str | None = None,
) -> None:
    """Make a CA and the first certificates under `directory`, as the module's text shows.

    Refused (ConfigError) when there is a CA already: a second one would cut off every node.
    `former` is the directory of this cluster's CA from before: it is copied, so that whoever trusts
    it goes on to.
    """
    ca = os.path.join(directory, AUTHORITY_DIRECTORY)
    if os.path.exists(os.path.join(ca, "ca.key")) or os.path.exists(os.path.join(ca, "ca.crt")):
        raise ConfigError(
            f"{ca} holds a certificate authority already",
            hint="choose another directory, or `raftdb cert` to issue more certificates",
        )
    node_ids = list(node_ids)
    for reserved in {AUTHORITY_DIRECTORY, "client"}.intersection(node_ids):
        raise ConfigError(
            f"a node cannot be called {reserved!r}",
            hint=f"{directory}/{reserved} is for something else: choose another node id",
        )
    if former is None:
        authority = Authority.create(cluster_id, now, authority_days)
        revoked: Iterable[Revocation] = ()
    else:
        authority = load_authority(former)
        revoked = _revocations(os.path.join(former, "revoked.json")).values()
        if authority.cluster_id != cluster_id:
            raise ConfigError(
                f"{former} is the CA of cluster {authority.cluster_id}, and this is {cluster_id}",
                hint="give the CA directory of the same cluster",
            )
    make_directory(os.path.join(ca, "issued"))
    if former is not None:
        _copy_issued(former, ca)
    write_file(os.path.join(ca, "revoked.json"), _rendered(revoked), CERTIFICATE_MODE)
    write_file(os.path.join(ca, "ca.key"), authority.key_pem, KEY_MODE)
    write_file(os.path.join(ca, "ca.crt"), authority.certificate_pem, CERTIFICATE_MODE)
    for node_id in node_ids:
        issue_node(ca, node_id, os.path.join(directory, node_id, TLS_DIRECTORY), days, now)
    issue_client(ca, client, os.path.join(directory, "client"), days, now)


def _copy_issued(former: str, ca: str) -> None:
    """What was issued can still be revoked by name."""
    source = os.path.join(former, "issued")
    for name in sorted(os.listdir(source)) if os.path.isdir(source) else ():
        data = read_file(os.path.join(source, name), "issued certificate", "check the CA directory")
        write_file(os.path.join(ca, "issued", name), data, CERTIFICATE_MODE)


def load_authority(ca: str) -> Authority:
    """The CA in that directory. ConfigError when it is not there, not sound, or its key is open to
    others."""
    hint = "name the directory with ca.crt and ca.key that `raftdb init` made"
    certificate = read_file(os.path.join(ca, "ca.crt"), "CA certificate", hint)
    check_key_permissions(os.path.join(ca, "ca.key"))
    key = read_file(os.path.join(ca, "ca.key"), "CA key", hint)
    return Authority.load(certificate, key, ca)


def issue_node(
    ca: str,
    node_id: NodeId,
    target: str,
    days: float = CERTIFICATE_DAYS,
    now: datetime | None = None,
) -> Issued:
    """Write ca.crt, node.crt, node.key and revoked.json into `target`."""
    authority = load_authority(ca)
    issued = authority.issue_node(node_id, now, days)
    _hand_out(ca, authority, issued, target, "node")
    distribute(ca, [target])
    return issued


def issue_client(
    ca: str,
    name: str,
    target: str,
    days: float = CERTIFICATE_DAYS,
    now: datetime | None = None,
) -> Issued:
    """Write ca.crt, client.crt and client.key into `target`."""
    authority = load_authority(ca)
    issued = authority.issue_client(name, now, days)
    _hand_out(ca, authority, issued, target, "client")
    return issued


def renew(
    ca: str, target: str, days: float = CERTIFICATE_DAYS, now: datetime | None = None
) -> Issued:
    """A new key and certificate for whom the certificate in `target` names (node.crt or
    client.crt there); the old one stays valid until it expires or is revoked.

    Each file is replaced atomically; interrupted between the two, run it again.
    """
    authority = load_authority(ca)
    stem = _stem(target)
    path = os.path.join(target, f"{stem}.crt")
    info = read_certificate(path)
    if info.peer.cluster_id != authority.cluster_id:
        raise ConfigError(
            f"{path} is of cluster {info.peer.cluster_id}, and {ca} of {authority.cluster_id}",
            hint="name the CA of the same cluster",
        )
    if stem == NODE:
        return issue_node(ca, NodeId(info.peer.name), target, days, now)
    return issue_client(ca, info.peer.name, target, days, now)


def revoke(
    ca: str, what: str, now: datetime | None = None, *, keep: int | None = None
) -> list[Revocation]:
    """Revoke by certificate file, serial number (hexadecimal), node id, client name (or the full
    URI): all certificates that this CA issued for it and that have not expired, except the serial
    `keep`. Returns what is newly revoked.

    Only `ca/revoked.json` is written: `distribute` (or an operator) copies it to the nodes, which
    take it up within seconds.
    """
    now = now or datetime.now(UTC)
    authority = load_authority(ca)
    matching = _matching(ca, authority, what)
    if len({info.uri for info in matching}) > 1:
        raise ConfigError(
            f"{what!r} is a node and a client", hint=f"give node/{what} or client/{what}"
        )
    found = [info for info in matching if info.serial != keep]
    if not found:
        raise ConfigError(
            f"this CA issued no certificate for {what!r}",
            hint=f"{ca}/issued holds what it issued; give a node id, a client name, a serial "
            "number or a .crt file",
        )
    path = os.path.join(ca, "revoked.json")
    known = _revocations(path)
    stamp = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    new = [
        Revocation(info.serial, info.uri, stamp)
        for info in found
        if info.serial not in known and info.expires > now
    ]
    write_file(path, _rendered([*known.values(), *new]), CERTIFICATE_MODE)
    return new


def distribute(ca: str, targets: Iterable[str]) -> None:
    """Copy the CA's revocation file into nodes' tls directories on this machine."""
    path = os.path.join(ca, "revoked.json")
    data = _rendered(_revocations(path).values())
    for target in targets:
        write_file(os.path.join(target, "revoked.json"), data, CERTIFICATE_MODE)


def read_certificate(path: str) -> CertificateInfo:
    """Who the certificate in a file names, and until when. ConfigError when it is none."""
    data = read_file(path, "certificate", "check the path")
    try:
        return describe_certificate(data, path)
    except AuthError as error:
        raise ConfigError(f"{path}: {error.message}", hint=error.hint) from error


def days_left(path: str, now: datetime | None = None) -> float:
    """Days until the certificate in the file expires (a CA's too); negative afterwards."""
    data = read_file(path, "certificate", "check the path")
    expires = load_certificate(data, path).not_valid_after_utc
    return (expires - (now or datetime.now(UTC))).total_seconds() / 86_400


def expiries(paths: Iterable[str], now: datetime | None = None) -> list[Expiry]:
    """The age of several certificates, most urgent first."""
    result = []
    for path in paths:
        left = days_left(path, now)
        name = "CA" if os.path.basename(path) == "ca.crt" else read_certificate(path).uri
        result.append(Expiry(path, name, left, left < EXPIRY_ALARM_DAYS))
    return sorted(result, key=lambda one: one.days_left)


def issued(ca: str) -> list[CertificateInfo]:
    """Everything this CA issued, oldest first."""
    directory = os.path.join(ca, "issued")
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(".crt"))
    except OSError as error:
        raise ConfigError(
            f"cannot read {directory}: {error.strerror}", hint="name the directory of the CA"
        ) from error
    found = [read_certificate(os.path.join(directory, name)) for name in names]
    return sorted(found, key=lambda info: (info.starts, info.serial))


def record_issued(ca: str, issued: Issued) -> None:
    """Before it is handed out: a certificate that the CA forgot could not be revoked by name."""
    record = os.path.join(ca, "issued", f"{issued.serial:x}.crt")
    make_directory(os.path.dirname(record))
    write_file(record, issued.certificate, CERTIFICATE_MODE)


def _hand_out(ca: str, authority: Authority, issued: Issued, target: str, stem: str) -> None:
    make_directory(target)
    record_issued(ca, issued)
    write_file(os.path.join(target, "ca.crt"), authority.certificate_pem, CERTIFICATE_MODE)
    write_file(os.path.join(target, f"{stem}.key"), issued.key, KEY_MODE)
    write_file(os.path.join(target, f"{stem}.crt"), issued.certificate, CERTIFICATE_MODE)


def _stem(target: str) -> str:
    stems = [s for s in ("node", "client") if os.path.exists(os.path.join(target, f"{s}.crt"))]
    if len(stems) != 1:
        raise ConfigError(
            f"{target} holds no certificate of raftdb, or two of them",
            hint="name the directory with node.crt or client.crt",
        )
    return stems[0]


def _matching(ca: str, authority: Authority, what: str) -> list[CertificateInfo]:
    if os.path.isfile(what):
        pem = read_file(what, "certificate", "check the path")
        if not authority.signed(pem, what):
            raise ConfigError(
                f"{what} was not issued by the CA in {ca}", hint="name that cluster's CA"
            )
        return [read_certificate(what)]
    return [
        info
        for info in issued(ca)
        if what in (info.uri, info.peer.name, f"{info.peer.role}/{info.peer.name}")
        or what.lower().replace(":", "").lstrip("0") == f"{info.serial:x}"
    ]


def _revocations(path: str) -> dict[int, Revocation]:
    hint = "restore it from the operator's backup: without it, revoked certificates work again"
    data = read_file(path, "revocation file", hint)
    return dict(parse_revocations(data.decode("utf-8", "replace"), path))


def _rendered(revocations: Iterable[Revocation]) -> bytes:
    return render_revocations(revocations).encode()
