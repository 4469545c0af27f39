"""rqlite: three nodes of the binary that RQLITED names, loaded over its HTTP API from Go."""

from __future__ import annotations

import os
import shutil
import subprocess
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path

from bench.build import go_program, missing_go
from bench.host import free_ports
from bench.processes import Supervisor
from bench.targets.base import NODES, Cluster, Target, wait_until


class Rqlite(Target):
    """Defaults throughout, plain HTTP."""

    name = "rqlite"

    def missing(self) -> list[str]:
        """See Target."""
        found = missing_go()
        binary = os.environ.get("RQLITED")
        if not binary:
            found.append("an rqlited binary: set RQLITED to its path")
        elif shutil.which(binary) is None:
            found.append(f"an rqlited binary: RQLITED is {binary}, which is no program")
        return found

    def prepare(self) -> dict[str, str]:
        """See Target."""
        self._binary = os.environ["RQLITED"]
        self._load = go_program("rqliteload")
        said = subprocess.run([self._binary, "-version"], capture_output=True, text=True)
        words = (said.stdout + said.stderr).split()
        return {"rqlite": words[1] if len(words) > 1 else "unknown"}

    def start(self, directory: Path, supervisor: Supervisor) -> Cluster:
        """See Target."""
        ports = free_ports(2 * NODES)
        http = [f"127.0.0.1:{port}" for port in ports[:NODES]]
        raft = [f"127.0.0.1:{port}" for port in ports[NODES:]]
        for i in range(NODES):
            command = [self._binary, "-node-id", f"node{i}", "-http-addr", http[i]]
            command += ["-raft-addr", raft[i]]
            if i:
                command += ["-join", raft[0]]
            supervisor.start(f"rqlite-{i}", [*command, str(directory / f"node{i}")])
            wait_until("rqlite is ready", partial(_ready, http[i]), supervisor)
        return Cluster(list(supervisor.services), http, [str(self._load)])


def _ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
