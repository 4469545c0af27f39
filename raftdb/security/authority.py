"""The cluster's certificate authority: makes itself, and issues certificates for nodes and clients.

ECDSA on P-256 throughout. A certificate names its holder by one URI (raftdb.base.identity); host
names and addresses are not in it, so that moving a node needs no new certificate. A client's
certificate lacks the "server" usage: whoever steals it cannot pose as a node.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from raftdb.base.errors import ConfigError
from raftdb.base.identity import (
    client_uri,
    identity_from_uris,
    node_uri,
    parse_client_name,
)
from raftdb.base.ids import ClusterId, NodeId, parse_cluster_id, parse_node_id
from raftdb.base.ports import Peer

AUTHORITY_DAYS = 3_650
CERTIFICATE_DAYS = 365
CERTIFICATE_DAYS_MAX = 3_650
BACKDATED = timedelta(hours=1)
"""Validity begins this much before the making, for nodes whose clocks are a little behind."""
_AUTHORITY_NAME = "raftdb cluster "


@dataclass(frozen=True, slots=True)
class Issued:
    """A new certificate and its key, both PEM. `repr` shows no key."""

    uri: str
    serial: int
    expires: datetime
    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return f"Issued({self.uri!r}, serial={self.serial:x}, expires={self.expires:%Y-%m-%d})"


@dataclass(frozen=True, slots=True)
class CertificateInfo:
    """What a certificate says."""

    peer: Peer
    uri: str
    serial: int
    starts: datetime
    expires: datetime

    def days_left(self, now: datetime) -> float:
        """Days until it expires; negative afterwards."""
        return (self.expires - now) / timedelta(days=1)


class Authority:
    """A CA of one cluster, with its key."""

    def __init__(
        self, cluster_id: ClusterId, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
    ) -> None:
        self.cluster_id = cluster_id
        self._certificate = certificate
        self._key = key

    @classmethod
    def create(
        cls, cluster_id: ClusterId, now: datetime | None = None, days: float = AUTHORITY_DAYS
    ) -> Authority:
        """A new CA with a new key."""
        parse_cluster_id(cluster_id)
        now = now or datetime.now(UTC)
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name(
            [x509.NameAttribute(NameOID.COMMON_NAME, f"{_AUTHORITY_NAME}{cluster_id}")]
        )
        usage = _key_usage(key_cert_sign=True, crl_sign=True)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(identifier, critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(cluster_id, certificate, key)

    @classmethod
    def load(cls, certificate_pem: bytes, key_pem: bytes, where: str) -> Authority:
        """From the two files' content; `where` is for messages. ConfigError when they are no CA of
        a cluster."""
        certificate = load_certificate(certificate_pem, f"{where}/ca.crt")
        try:
            key = serialization.load_pem_private_key(key_pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            # The library's message is not passed on: nothing about a key is.
            raise ConfigError(
                f"{where}/ca.key is not a private key that raftdb can use",
                hint="it is an unencrypted PEM file, written by `raftdb init`",
            ) from error
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        text = str(common[0].value) if common else ""
        if not text.startswith(_AUTHORITY_NAME) or not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ConfigError(f"{where}/ca.crt is not the CA of a raftdb cluster")
        if key.public_key() != certificate.public_key():
            raise ConfigError(
                f"{where}/ca.key is not the key of {where}/ca.crt",
                hint="both files belong together: take them from the same backup",
            )
        return cls(parse_cluster_id(text.removeprefix(_AUTHORITY_NAME)), certificate, key)

    @property
    def certificate_pem(self) -> bytes:
        """ca.crt, for everybody."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """ca.key, for nobody else."""
        return _key_pem(self._key)

    @property
    def expires(self) -> datetime:
        """When the CA itself expires."""
        return self._certificate.not_valid_after_utc

    def issue_node(
        self, node_id: NodeId, now: datetime | None = None, days: float = CERTIFICATE_DAYS
    ) -> Issued:
        """A certificate for a node; it serves and dials."""
        uri = node_uri(self.cluster_id, parse_node_id(node_id))
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return self.issue([uri], f"node {node_id}", usages, now, days)

    def issue_client(
        self, name: str, now: datetime | None = None, days: float = CERTIFICATE_DAYS
    ) -> Issued:
        """A certificate for a client; it dials only."""
        uri = client_uri(self.cluster_id, parse_client_name(name))
        return self.issue([uri], f"client {name}", [ExtendedKeyUsageOID.CLIENT_AUTH], now, days)

    def issue(
        self,
        uris: Iterable[str],
        common_name: str,
        usages: list[x509.ObjectIdentifier],
        now: datetime | None = None,
        days: float = CERTIFICATE_DAYS,
    ) -> Issued:
        """Sign whatever is asked for; `issue_node` and `issue_client` ask for the right things."""
        if not 0 < days <= CERTIFICATE_DAYS_MAX:
            raise ConfigError(
                f"a certificate cannot be valid for {days:g} days",
                hint=f"give more than 0 and at most {CERTIFICATE_DAYS_MAX}",
            )
        now = now or datetime.now(UTC)
        if self.expires <= now:
            raise ConfigError(
                f"the CA expired on {self.expires:%Y-%m-%d}", hint="docs/security.md: a new CA"
            )
        uris = list(uris)
        key = ec.generate_private_key(ec.SECP256R1())
        expires = min(now + timedelta(days=days), self.expires)
        issuer = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(expires)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(u) for u in uris]),
                critical=False,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer.value), False
            )
            .sign(self._key, hashes.SHA256())
        )
        return Issued(
            uri=uris[0] if uris else "",
            serial=certificate.serial_number,
            expires=certificate.not_valid_after_utc,
            certificate=certificate.public_bytes(serialization.Encoding.PEM),
            key=_key_pem(key),
        )

    def sign(self, data: bytes) -> bytes:
        """ECDSA with SHA-256, DER."""
        return self._key.sign(data, ec.ECDSA(hashes.SHA256()))

    def signed(self, certificate_pem: bytes, where: str) -> bool:
        """Whether this CA issued that certificate."""
        try:
            load_certificate(certificate_pem, where).verify_directly_issued_by(self._certificate)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True


def load_certificate(pem: bytes, where: str) -> x509.Certificate:
    """The first certificate of a PEM file; `where` is its path. ConfigError when there is none."""
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise ConfigError(f"{where} is not a certificate (PEM)", hint="check the path") from error


def describe_certificate(pem: bytes, where: str) -> CertificateInfo:
    """Who a certificate names and until when. ConfigError or AuthError when it names nobody."""
    certificate = load_certificate(pem, where)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        uris = []
    except ValueError as error:
        raise ConfigError(f"{where} is not a sound certificate: {error}") from error
    return CertificateInfo(
        peer=identity_from_uris(uris, where),
        uri=uris[0],
        serial=certificate.serial_number,
        starts=certificate.not_valid_before_utc,
        expires=certificate.not_valid_after_utc,
    )


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
