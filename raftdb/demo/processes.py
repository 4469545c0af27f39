"""A cluster of real processes on this machine: start, SIGKILL, start again, stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from raftdb.base.errors import OperationalError


@dataclass(slots=True)
class NodeProcess:
    """One node: its directory, and the process that runs it now."""

    node_id: str
    directory: Path
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    settings: tuple[str, ...] = ()
    """KEY=VALUE, over its configuration file."""
    environ: dict[str, str] | None = None
    """None: as this process."""
    command: tuple[str, ...] = (sys.executable, "-m", "raftdb.cli")
    """What runs `raftdb`: another release, in a drill."""
    before: tuple[str, ...] = ()
    """What runs that: in a network namespace, say."""

    def start(self) -> None:
        """Run `raftdb start`; its log goes to `node.log` beside its configuration."""
        with open(self.directory / "node.log", "ab") as log:
            self.process = subprocess.Popen(
                [
                    *self.before,
                    *self.command,
                    "start",
                    "--config",
                    str(self.directory / "raftdb.toml"),
                    *(part for setting in self.settings for part in ("--set", setting)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={
                    **(os.environ if self.environ is None else self.environ),
                    "PYTHONUNBUFFERED": "1",
                },
            )
        self.starts += 1

    @property
    def pid(self) -> int | None:
        """The process's id, while there is one."""
        return self.process.pid if self.process is not None else None

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL, and wait until the system has taken the process away."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self, timeout_s: float) -> int | None:
        """SIGTERM, then SIGKILL when it takes longer than `timeout_s`. Returns the exit code."""
        if self.process is None:
            return None
        self.process.send_signal(signal.SIGTERM)
        try:
            code: int | None = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return None
        self.process = None
        return code

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of its log, for an error message."""
        try:
            text = (self.directory / "node.log").read_text(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])


class ProcessCluster:
    """The nodes of one directory that `raftdb init --local` made."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        node_directories = sorted(path.parent for path in directory.glob("*/raftdb.toml"))
        self.nodes = {path.name: NodeProcess(path.name, path) for path in node_directories}

    def start(self) -> None:
        """Start every node."""
        for node in self.nodes.values():
            node.start()

    def require_running(self) -> None:
        """Raise OperationalError, with the end of its log, when a node's process has ended."""
        for node in self.nodes.values():
            if node.process is not None and not node.running:
                raise OperationalError(
                    f"node {node.node_id} ended with exit code {node.process.returncode}:\n"
                    f"{node.log_tail()}"
                )

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stop every node in order."""
        for node in self.nodes.values():
            node.stop(timeout_s)

    def kill(self) -> None:
        """SIGKILL every node."""
        for node in self.nodes.values():
            node.kill()
