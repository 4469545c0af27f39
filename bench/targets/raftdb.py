"""raftdb: three nodes made by `raftdb init` and run by `raftdb start`, as a user would."""

from __future__ import annotations

import json
import platform
import socket
import subprocess
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path

from bench.errors import BenchError
from bench.processes import Supervisor
from bench.targets.base import NODES, Cluster, Target, wait_until
from raftdb import __version__

REPOSITORY = Path(__file__).resolve().parents[2]
RAFTDB = [sys.executable, "-m", "raftdb.cli"]


class Raftdb(Target):
    """Defaults throughout: mutual TLS between nodes and with clients, fdatasync of every commit."""

    name = "raftdb"

    def missing(self) -> list[str]:
        """See Target."""
        return []

    def prepare(self) -> dict[str, str]:
        """See Target."""
        packages = ("apsw", "pysyncobj", "uvloop", "msgpack")
        return {
            "raftdb": __version__,
            **{name: version(name) for name in packages},
            "python": platform.python_version(),
        }

    def start(self, directory: Path, supervisor: Supervisor) -> Cluster:
        """See Target."""
        made = directory / "cluster"
        facts = json.loads(self._init(made))
        for node in facts["nodes"]:
            command = [*RAFTDB, "start", "--config", node["config"]]
            supervisor.start(f"raftdb-{node['node_id']}", command, {"PYTHONUNBUFFERED": "1"})
        addresses = [node["client"] for node in facts["nodes"]]
        for address in addresses:
            wait_until(f"raftdb listens on {address}", partial(_listens, address), supervisor)
        load = [sys.executable, "-m", "bench.raftdb_load", self.options.raftdb_load]
        cluster = Cluster(list(supervisor.services), addresses, load, working=REPOSITORY)
        if not self.options.insecure:
            cluster.ca = str(made / "client" / "ca.crt")
            cluster.certificate = str(made / "client" / "client.crt")
            cluster.key = str(made / "client" / "client.key")
        return cluster

    def _init(self, directory: Path) -> str:
        command = [*RAFTDB, "init", str(directory), "--local", str(NODES), "--json"]
        if self.options.insecure:
            command.append("--insecure")
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode != 0:
            raise BenchError(f"raftdb init ended with {made.returncode}:\n{made.stderr}")
        return made.stdout


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=2):
            return True
    except OSError:
        return False
