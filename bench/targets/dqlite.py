"""dqlite: three nodes of libdqlite run by go-dqlite's `app` package, loaded by its SQL driver."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from bench.build import SOURCES, go_program, missing_go
from bench.host import free_ports
from bench.processes import Supervisor
from bench.targets.base import NODES, START_S, Cluster, Target


class Dqlite(Target):
    """Defaults throughout; the three nodes vote (the load process checks it)."""

    name = "dqlite"

    def missing(self) -> list[str]:
        """See Target."""
        found = missing_go()
        if shutil.which("cc") is None and shutil.which("gcc") is None:
            found.append("a C compiler (apt-get install gcc)")
        if _pkg_config("--exists") is None:
            found.append("libdqlite (apt-get install libdqlite-dev pkg-config)")
        return found

    def prepare(self) -> dict[str, str]:
        """See Target."""
        self._program = go_program("dqlitepeer")
        modules = (SOURCES / "go.mod").read_text().split()
        binding = modules[modules.index("github.com/canonical/go-dqlite") + 1]
        return {"dqlite": _pkg_config("--modversion") or "unknown", "go-dqlite": binding}

    def start(self, directory: Path, supervisor: Supervisor) -> Cluster:
        """See Target."""
        addresses = [f"127.0.0.1:{port}" for port in free_ports(NODES)]
        for i, address in enumerate(addresses):
            data = directory / f"node{i}"
            data.mkdir()
            command = [str(self._program), "serve", "-address", address, "-directory", str(data)]
            if i:
                command += ["-join", addresses[0]]
            supervisor.start(f"dqlite-{i}", command).wait_for_log("ready\n", START_S)
        return Cluster(list(supervisor.services), addresses, [str(self._program), "load"])


def _pkg_config(question: str) -> str | None:
    """pkg-config's answer about libdqlite; None when it, or the library, is not there."""
    if shutil.which("pkg-config") is None:
        return None
    answer = subprocess.run(
        ["pkg-config", question, "dqlite"], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() if answer.returncode == 0 else None
