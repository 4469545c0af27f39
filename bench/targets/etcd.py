"""etcd: three members of Debian's etcd-server, loaded by etcd's own Go client."""

from __future__ import annotations

import shutil
import subprocess
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path

from bench.build import go_program, missing_go
from bench.certificates import Certificates, make_certificates
from bench.host import free_ports
from bench.processes import Supervisor
from bench.targets.base import NODES, Cluster, Target, wait_until


class Etcd(Target):
    """Defaults throughout: 100 ms heartbeat, 1 s election, fsync of every commit."""

    name = "etcd"

    def missing(self) -> list[str]:
        """See Target."""
        found = missing_go()
        if shutil.which("etcd") is None:
            found.append("etcd (apt-get install etcd-server)")
        return found

    def prepare(self) -> dict[str, str]:
        """See Target."""
        self._load = go_program("etcdload")
        said = subprocess.run(["etcd", "--version"], capture_output=True, text=True, check=True)
        return {"etcd": said.stdout.splitlines()[0].removeprefix("etcd Version: ")}

    def start(self, directory: Path, supervisor: Supervisor) -> Cluster:
        """See Target."""
        ports = free_ports(3 * NODES)
        metrics = ports[2 * NODES :]
        certificates = make_certificates(directory / "tls") if self.options.etcd_tls else None
        scheme = "https" if certificates else "http"
        peers = [f"{scheme}://127.0.0.1:{port}" for port in ports[:NODES]]
        clients = [f"{scheme}://127.0.0.1:{port}" for port in ports[NODES : 2 * NODES]]
        members = ",".join(f"node{i}={url}" for i, url in enumerate(peers))
        for i in range(NODES):
            arguments = {
                "name": f"node{i}",
                "data-dir": str(directory / f"node{i}"),
                "listen-peer-urls": peers[i],
                "initial-advertise-peer-urls": peers[i],
                "listen-client-urls": clients[i],
                "advertise-client-urls": clients[i],
                "listen-metrics-urls": f"http://127.0.0.1:{metrics[i]}",
                "initial-cluster": members,
                "initial-cluster-state": "new",
                "log-level": "warn",
                "logger": "zap",
                **(_tls(certificates) if certificates else {}),
            }
            command = ["etcd", *(f"--{key}={value}" for key, value in arguments.items())]
            supervisor.start(f"etcd-{i}", command)
        for port in metrics:
            wait_until("etcd is healthy", partial(_healthy, port), supervisor)
        cluster = Cluster(list(supervisor.services), clients, [str(self._load)])
        if certificates:
            cluster.ca = str(certificates.ca)
            cluster.certificate = str(certificates.certificate)
            cluster.key = str(certificates.key)
        return cluster


def _tls(certificates: Certificates) -> dict[str, str]:
    settings: dict[str, str] = {}
    for prefix in ("", "peer-"):
        settings[f"{prefix}cert-file"] = str(certificates.certificate)
        settings[f"{prefix}key-file"] = str(certificates.key)
        settings[f"{prefix}trusted-ca-file"] = str(certificates.ca)
        settings[f"{prefix}client-cert-auth"] = "true"
    return settings


def _healthy(port: int) -> bool:
    """A member is healthy when the cluster has a leader and takes a proposal."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            return b'"true"' in answer.read()
    except (urllib.error.URLError, OSError):
        return False
