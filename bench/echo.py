"""The floor of `bench reads`: one process that answers bytes by bytes, over TLS, and does no more.

Its loop and its TLS are raftdb's, its messages are as long as those of a read by primary key, and
the same generator drives it: what a read takes beyond this is raftdb's own work, the rest is two
processes of Python that wake each other on this machine. `python -m bench.echo` is the server.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from pathlib import Path
from typing import cast

import uvloop

from bench.certificates import make_certificates
from bench.host import free_ports
from bench.processes import Supervisor
from bench.targets.base import Cluster, Target, wait_until
from raftdb.runtime.secure import SecureTransport

REQUEST = bytes(63)
REPLY = bytes(141)
HANDSHAKE_S = 20.0
READY = "ready"


class _Answer(asyncio.Protocol):
    """Answers each REQUEST. One is under way at a time on a connection."""

    def __init__(self) -> None:
        self.missing = len(REQUEST)
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.missing -= len(data)
        if self.missing <= 0:
            self.missing += len(REQUEST)
            assert self.transport is not None
            self.transport.write(REPLY)


class Echo(Target):
    """One process in the place of a cluster."""

    name = "echo"

    def missing(self) -> list[str]:
        """See Target."""
        return []

    def prepare(self) -> dict[str, str]:
        """See Target."""
        return {}

    def start(self, directory: Path, supervisor: Supervisor) -> Cluster:
        """See Target."""
        made = make_certificates(directory / "tls")
        [port] = free_ports(1)
        cluster = Cluster(
            [], [f"127.0.0.1:{port}"], [], str(made.ca), str(made.certificate), str(made.key)
        )
        specification = {
            "ca": cluster.ca,
            "certificate": cluster.certificate,
            "key": cluster.key,
            "port": port,
        }
        service = supervisor.start(
            "echo", [sys.executable, "-m", "bench.echo", json.dumps(specification)]
        )
        wait_until("echo listens", lambda: READY in service.log_tail(), supervisor)
        cluster.nodes.append(service)
        return cluster


def context(specification: dict[str, str], *, server_side: bool) -> ssl.SSLContext:
    """TLS 1.3 with a certificate on both ends, as raftdb has it."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_verify_locations(specification["ca"])
    made.load_cert_chain(specification["certificate"], specification["key"])
    return made


async def _serve(specification: dict[str, str]) -> None:
    loop = asyncio.get_running_loop()
    tls = context(specification, server_side=True)

    def accept() -> SecureTransport:
        return SecureTransport(
            loop, tls, _Answer(), server_side=True, handshake_timeout_s=HANDSHAKE_S
        )

    server = await loop.create_server(accept, "127.0.0.1", int(specification["port"]))
    print(READY, flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(json.loads(sys.argv[1])))
