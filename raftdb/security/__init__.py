"""Certificates: the cluster's own authority, its nodes and its clients.

Owns: making, renewing and revoking certificates; their files; every use of `cryptography`.
Promises: a key is never readable by others, not for a moment; files are whole or not there.
May import: base; cryptography.
Never: a socket; the private key in a message, a log line or a repr.
"""

from raftdb.security.authority import (
    AUTHORITY_DAYS,
    CERTIFICATE_DAYS,
    Authority,
    CertificateInfo,
    Issued,
    describe_certificate,
)
from raftdb.security.enrolment import (
    TOKEN_MINUTES,
    TOKEN_MINUTES_MAX,
    JoinToken,
    issue_token,
    read_token,
    write_enrolment,
    write_token,
)
from raftdb.security.store import (
    EXPIRY_ALARM_DAYS,
    Expiry,
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

__all__ = [
    "AUTHORITY_DAYS",
    "CERTIFICATE_DAYS",
    "EXPIRY_ALARM_DAYS",
    "TOKEN_MINUTES",
    "TOKEN_MINUTES_MAX",
    "Authority",
    "CertificateInfo",
    "Expiry",
    "Issued",
    "JoinToken",
    "days_left",
    "describe_certificate",
    "distribute",
    "expiries",
    "found_certificates",
    "issue_client",
    "issue_node",
    "issue_token",
    "issued",
    "load_authority",
    "read_certificate",
    "read_token",
    "renew",
    "revoke",
    "write_enrolment",
    "write_token",
]
