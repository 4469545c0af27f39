"""Certificates of a cluster's directory: list, renew, issue, revoke."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from raftdb.base.errors import ConfigError
from raftdb.base.identity import Revocation, parse_revocations
from raftdb.ops.target import CLIENT_DIRECTORY, CLIENT_FILE
from raftdb.security import (
    Issued,
    distribute,
    expiries,
    issue_client,
    read_certificate,
    renew,
    revoke,
)

AUTHORITY = "ca"
TLS = "tls"


@dataclass(frozen=True, slots=True)
class CertificateState:
    """One certificate file."""

    path: str
    name: str
    days_left: float
    alarm: bool
    revoked: bool


def authority_directory(directory: Path) -> str:
    """Where the cluster's authority is. Raises ConfigError."""
    path = directory / AUTHORITY
    if not (path / "ca.key").is_file():
        raise ConfigError(
            f"{directory} has no certificate authority ({path}/ca.key)",
            hint="give the directory that `raftdb init` made; a cluster founded with --insecure "
            "has none",
        )
    return str(path)


def list_certificates(directory: Path) -> list[CertificateState]:
    """All certificate files in use below a directory, most urgent first. Raises ConfigError."""
    paths = sorted(
        str(path)
        for pattern in ("*.crt", "*/*.crt", "*/tls/*.crt")
        for path in directory.glob(pattern)
        if path.name in ("node.crt", "client.crt") or path.parent.name == AUTHORITY
    )
    if not paths:
        raise ConfigError(f"{directory} holds no certificates", hint="name a cluster's directory")
    revoked = _revoked(directory)
    return [
        CertificateState(
            one.path,
            one.name,
            one.days_left,
            one.alarm,
            one.name != "CA" and read_certificate(one.path).serial in revoked,
        )
        for one in expiries(paths)
    ]


def _revoked(directory: Path) -> frozenset[int]:
    for path in (directory / AUTHORITY / "revoked.json", directory / TLS / "revoked.json"):
        if path.is_file():
            return frozenset(parse_revocations(path.read_text("utf-8"), str(path)))
    return frozenset()


def _node_directories(directory: Path) -> dict[str, str]:
    """Node id to its tls directory, of the nodes below the cluster's directory."""
    return {
        path.parent.parent.name: str(path.parent)
        for path in sorted(directory.glob(f"*/{TLS}/node.crt"))
    }


def renew_certificates(
    directory: Path, names: Sequence[str], days: float
) -> list[tuple[str, Issued]]:
    """New certificates in place of those below the directory; (path, certificate) of each."""
    ca = authority_directory(directory)
    places = _node_directories(directory)
    if (directory / CLIENT_DIRECTORY / "client.crt").is_file():
        places[CLIENT_DIRECTORY] = str(directory / CLIENT_DIRECTORY)
    for name in names:
        if name not in places:
            raise ConfigError(
                f"{directory} holds no certificate for {name!r}",
                hint="it has " + ", ".join(places) if places else "it has none",
            )
    chosen = names or list(places)
    return [(places[name], renew(ca, places[name], days)) for name in chosen]


def issue_client_directory(directory: Path, name: str, target: Path, days: float) -> Issued:
    """A certificate for one more client, in a new directory that `--dir` takes."""
    ca = authority_directory(directory)
    if target.exists() and os.listdir(target):
        raise ConfigError(f"{target} is not empty", hint="give a new directory")
    issued = issue_client(ca, name, str(target), days)
    source = directory / CLIENT_DIRECTORY / CLIENT_FILE
    (target / CLIENT_FILE).write_text(source.read_text("utf-8"), "utf-8")
    return issued


def revoke_certificates(directory: Path, what: str) -> tuple[list[Revocation], list[str]]:
    """Revoke, and tell the nodes whose directories are here. Returns what is newly revoked, and
    the directories that were told."""
    ca = authority_directory(directory)
    revoked = revoke(ca, what)
    told = list(_node_directories(directory).values())
    distribute(ca, told)
    return revoked, told
