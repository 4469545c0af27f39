"""TLS contexts, and who a certificate says is at the other end. Only the standard library's ssl.

TLS 1.3 only, both ends show a certificate, and only the cluster's own CA is believed: no system
roots, no host names. Identity is the certificate's single URI name (raftdb.base.identity).
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from raftdb.base.errors import AuthError, ConfigError
from raftdb.base.identity import (
    CLIENT,
    NODE,
    REVOCATION_BYTES_MAX,
    Revocation,
    identity_from_uris,
    parse_revocations,
)
from raftdb.base.ids import ClusterId, NodeId
from raftdb.base.keyfile import check_key_permissions
from raftdb.base.ports import Peer

PURPOSES = ("peer", "client")

Certificate = Mapping[str, Any]
"""What `SSLSocket.getpeercert()` returns: subjectAltName, serialNumber, notAfter, …"""


@dataclass(frozen=True, slots=True)
class TlsPaths:
    """PEM files of one party."""

    ca: str
    """The cluster's CA certificate; several in one file while a CA is being replaced."""
    certificate: str
    key: str
    revoked: str | None = None
    """The revocation file; a missing file revokes nothing."""


def server_context(paths: TlsPaths) -> ssl.SSLContext:
    """For those who accept. The other end must show a certificate of the CA. ConfigError when a
    file is not usable."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # No tickets: a resumed session would skip the check of the certificate.
    context.num_tickets = 0
    return _prepare(context, paths)


def dialler_context(paths: TlsPaths) -> ssl.SSLContext:
    """For those who dial. The other end must show a certificate of the CA that may serve."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Names are checked by identity, not by host: addresses change, members do not.
    context.check_hostname = False
    return _prepare(context, paths)


def client_context(ca: str, certificate: str, key: str) -> ssl.SSLContext:
    """For a blocking client: wrap a connected socket with it, then `peer_from_certificate`."""
    return dialler_context(TlsPaths(ca, certificate, key))


def _prepare(context: ssl.SSLContext, paths: TlsPaths) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    check_key_permissions(paths.key)
    try:
        context.load_verify_locations(cafile=paths.ca)
    except (OSError, ssl.SSLError) as error:
        _unusable("CA certificate", paths.ca, error)
    _check_readable("certificate", paths.certificate)
    try:
        # Without the function OpenSSL would ask for a password on the terminal.
        context.load_cert_chain(paths.certificate, paths.key, password=_no_password(paths.key))
    except (OSError, ssl.SSLError) as error:
        _unusable("certificate and key", f"{paths.certificate} and {paths.key}", error)
    return context


def _no_password(path: str) -> Any:
    def ask() -> NoReturn:
        raise ConfigError(
            f"the key {path} is encrypted",
            hint="a node starts without a person: keep the key in a file only its user can read",
        )

    return ask


def _check_readable(what: str, path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        _unusable(what, path, error)


def _unusable(what: str, where: str, error: Exception) -> NoReturn:
    if isinstance(error, ssl.SSLError):
        reason = error.reason or str(error)
        hint = "the files do not fit together or are damaged: make them again by `raftdb cert`"
        if reason == "KEY_VALUES_MISMATCH":
            reason = "the key is not the certificate's"
    else:
        reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        hint = "check the paths in [tls] and who may read the files"
    raise ConfigError(f"cannot use the {what} {where}: {reason}", hint=hint) from error


def read_revocations(path: str | None) -> Mapping[int, Revocation]:
    """The revocation file; a missing one revokes nothing. ConfigError when it is not usable: a
    damaged file must not silently let everybody in."""
    if path is None:
        return {}
    try:
        with open(path, "rb") as file:
            data = file.read(REVOCATION_BYTES_MAX + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        _unusable("revocation file", path, error)
    if len(data) > REVOCATION_BYTES_MAX:
        raise ConfigError(
            f"{path} has more than {REVOCATION_BYTES_MAX} bytes",
            hint="so many revocations call for a new CA",
        )
    return parse_revocations(data.decode("utf-8", "replace"), path)


def peer_from_certificate(certificate: Certificate | None, remote: str = "") -> Peer:
    """Who a verified certificate (`getpeercert()`) says is there. Raises AuthError."""
    if not certificate:
        raise AuthError("the other end shows no certificate", hint="connect with TLS")
    names = certificate.get("subjectAltName", ())
    return identity_from_uris((value for kind, value in names if kind == "URI"), remote)


def serial_number(certificate: Certificate) -> int:
    """The certificate's serial number."""
    return int(certificate["serialNumber"], 16)


def expiry_s(certificate: Certificate) -> int:
    """Unix seconds after which the certificate is not valid."""
    return ssl.cert_time_to_seconds(certificate["notAfter"])


def check_peer(
    peer: Peer,
    certificate: Certificate,
    *,
    cluster_id: ClusterId,
    roles: tuple[str, ...],
    expect: NodeId | None = None,
    revoked: Mapping[int, Revocation] | None = None,
) -> None:
    """The rules after the handshake, the same for both ends. Raises AuthError."""
    if revoked:
        found = revoked.get(serial_number(certificate))
        if found is not None:
            raise AuthError(
                f"the certificate of {peer.role} {peer.name} was revoked on {found.revoked_at}",
                hint="issue another by `raftdb cert`",
            )
    if peer.cluster_id != cluster_id:
        raise AuthError(
            f"the certificate is of cluster {peer.cluster_id}, and this is {cluster_id}",
            hint="an address or a certificate belongs to another cluster",
        )
    if peer.role not in roles:
        raise AuthError(
            f"the certificate is of {peer.role} {peer.name}, and only "
            f"{' or '.join(roles)} certificates are admitted here",
            hint="nodes connect to peer addresses, clients to client addresses",
        )
    if expect is not None and peer.name != expect:
        raise AuthError(
            f"node {expect} was expected, and the certificate is of {peer.role} {peer.name}",
            hint="check the members' addresses",
        )


def roles_for(purpose: str) -> tuple[str, ...]:
    """Who may come in by a port of that purpose."""
    return (NODE,) if purpose == "peer" else (NODE, CLIENT)


def own_certificate(server: ssl.SSLContext, dialler: ssl.SSLContext) -> Certificate:
    """One's own certificate, as the other nodes will see it: a handshake with oneself, in memory.

    So a certificate that nobody would accept (expired, of another CA, not for serving) is found at
    start, by name, and not later as a cluster that does not connect. Raises ConfigError.
    """
    to_server, to_dialler = ssl.MemoryBIO(), ssl.MemoryBIO()
    dialling = dialler.wrap_bio(to_dialler, to_server)
    serving = server.wrap_bio(to_server, to_dialler, server_side=True)
    waiting = [dialling, serving]
    for _ in range(10):
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLCertVerificationError as error:
                raise ConfigError(
                    f"this node's own certificate is refused by its own CA: {error.verify_message}",
                    hint="`raftdb cert renew` makes a new one",
                ) from error
            except ssl.SSLError as error:
                raise ConfigError(f"TLS does not work with these files: {error}") from error
    certificate = dialling.getpeercert()
    if waiting or not certificate:
        raise ConfigError("TLS does not work with these files: the handshake does not end")
    return certificate


def describe_error(error: BaseException) -> str:
    """A connection's failure in words, for logs and for `failed`."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate of the other end is refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or str(error)).replace('_', ' ').lower()}"
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, socket.gaierror):
        return (error.strerror or str(error)).lower()
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    if isinstance(error, ConnectionResetError):
        return "closed during the handshake"
    return str(error) or type(error).__name__
