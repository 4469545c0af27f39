"""The certificate files of a running node: loaded, checked, and loaded again when they change.

New connections use the new files; a broken new file changes nothing but the log. Which open
connections a new revocation ends is the network's business (`RealNetwork.reload`).
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Mapping

from raftdb.base.errors import AuthError, ConfigError
from raftdb.base.identity import NODE, Revocation
from raftdb.base.ids import ClusterId, NodeId
from raftdb.base.ports import Clock, ExpectedPeer, Log, Peer
from raftdb.runtime.clock import RealClock
from raftdb.runtime.tls import (
    Certificate,
    TlsPaths,
    check_peer,
    dialler_context,
    expiry_s,
    own_certificate,
    peer_from_certificate,
    read_revocations,
    roles_for,
    serial_number,
    server_context,
)

EXPIRY_ALARM_DAYS = 30
DAY_S = 86_400

_Stamp = tuple[tuple[int, int, int] | None, ...]


class Credentials:
    """What this node shows to others, and by which it judges them. Used on the loop only."""

    def __init__(
        self,
        paths: TlsPaths,
        cluster_id: ClusterId,
        node_id: NodeId,
        log: Log,
        clock: Clock | None = None,
    ) -> None:
        """Load everything. ConfigError when a file is not usable or names somebody else."""
        self._paths = paths
        self._cluster_id = cluster_id
        self._node_id = node_id
        self._log = log
        self._clock = clock or RealClock()
        self.revoked: Mapping[int, Revocation] = {}
        self.server: ssl.SSLContext
        self.dialler: ssl.SSLContext
        self.certificate: Certificate
        self._seen = self._stamp()
        self._failed: _Stamp | None = None
        self._alarm_s: float | None = None
        self._load()

    def check(self, purpose: str, certificate: Certificate | None, remote: str) -> Peer:
        """Who came in. AuthError when they may not use a port of this purpose."""
        peer = peer_from_certificate(certificate, remote)
        assert certificate is not None
        check_peer(
            peer,
            certificate,
            cluster_id=self._cluster_id,
            roles=roles_for(purpose),
            revoked=self.revoked,
        )
        return peer

    def check_dialled(
        self, expect: ExpectedPeer, certificate: Certificate | None, remote: str
    ) -> Peer:
        """Who answered. AuthError unless it is the node that was meant."""
        peer = peer_from_certificate(certificate, remote)
        assert certificate is not None
        check_peer(
            peer,
            certificate,
            cluster_id=self._cluster_id,
            roles=(NODE,),
            expect=expect.node_id,
            revoked=self.revoked,
        )
        return peer

    def is_revoked(self, serial: int) -> bool:
        """Whether the revocation file names that serial number."""
        return serial in self.revoked

    def days_left(self) -> float:
        """Days until this node's certificate or its CA's expires, whichever is first."""
        return (self._expires_s() - self._clock.wall_ms() / 1000) / DAY_S

    def reload(self, *, patient: bool = False) -> bool:
        """Load what changed since the last look; True when something new is in use.

        `patient` is for the periodic look: certificate and key are two files, so a mismatch that
        is gone at the next look was somebody replacing them, and is not reported.
        """
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        try:
            self._load()
        except ConfigError as error:
            if not patient or stamp == self._failed:
                self._log.error("certificates_not_reloaded", reason=str(error), using="the old")
                # Seen: not reported again until a file changes.
                self._seen = stamp
            self._failed = stamp
            return False
        self._seen, self._failed = stamp, None
        self._log.info(
            "certificates_reloaded",
            serial=f"{serial_number(self.certificate):x}",
            days_left=round(self.days_left(), 1),
            revoked=len(self.revoked),
        )
        return True

    def alarm(self) -> None:
        """Log a warning once a day when the certificate expires soon."""
        now_s = self._clock.monotonic_s()
        left = self.days_left()
        if left > EXPIRY_ALARM_DAYS or (
            self._alarm_s is not None and now_s - self._alarm_s < DAY_S
        ):
            return
        self._alarm_s = now_s
        report = self._log.error if left <= 0 else self._log.warning
        report(
            "certificate_expires",
            days_left=round(left, 1),
            at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._expires_s())),
            hint="run `raftdb cert renew` and copy the files: they are loaded without a restart",
        )

    def _expires_s(self) -> int:
        authorities = [ca for ca in self.dialler.get_ca_certs() if "notAfter" in ca]
        # With two CAs in the file the later one carries on.
        last = max((expiry_s(ca) for ca in authorities), default=expiry_s(self.certificate))
        return min(last, expiry_s(self.certificate))

    def _stamp(self) -> _Stamp:
        paths = self._paths
        stamps: list[tuple[int, int, int] | None] = []
        for path in (paths.ca, paths.certificate, paths.key, paths.revoked):
            try:
                status = os.stat(path) if path is not None else None
            except OSError:
                status = None
            stamps.append(status and (status.st_mtime_ns, status.st_size, status.st_ino))
        return tuple(stamps)

    def _load(self) -> None:
        # Revocations first and on their own: a certificate that is being replaced must not delay
        # them.
        self.revoked = self._read_revoked()
        server, dialler = server_context(self._paths), dialler_context(self._paths)
        certificate = own_certificate(server, dialler)
        self._check_own(certificate)
        self.server, self.dialler, self.certificate = server, dialler, certificate

    def _read_revoked(self) -> Mapping[int, Revocation]:
        path = self._paths.revoked
        if self.revoked and path is not None and not os.path.exists(path):
            raise ConfigError(
                f"{path} is gone, and it revoked {len(self.revoked)} certificates",
                hint="copy it again; a file with an empty list revokes nothing",
            )
        return read_revocations(path)

    def _check_own(self, certificate: Certificate) -> None:
        path = self._paths.certificate
        try:
            own = peer_from_certificate(certificate)
        except AuthError as error:
            raise ConfigError(f"{path}: {error.message}", hint=error.hint) from error
        if (own.role, own.name, own.cluster_id) != (NODE, self._node_id, self._cluster_id):
            raise ConfigError(
                f"{path} is of {own.role} {own.name} of cluster {own.cluster_id}, and this is node "
                f"{self._node_id} of cluster {self._cluster_id}",
                hint="each node has its own certificate: check [tls] in the configuration",
            )
        if self.is_revoked(serial_number(certificate)):
            raise ConfigError(
                f"{path} is revoked", hint="`raftdb cert renew` makes a new one; or retire the node"
            )
