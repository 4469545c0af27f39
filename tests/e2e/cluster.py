"""Clusters of real processes for end-to-end tests: start, kill -9, start again, wait.

Each is founded by the code behind `raftdb init` and started by `raftdb start`, with mutual TLS
unless asked otherwise. Everything waits for something that happens, up to a deadline; when a
deadline passes, the error carries the ends of the nodes' logs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raftdb.base.errors import Error
from raftdb.client import Connection, connect
from raftdb.demo.processes import NodeProcess, ProcessCluster
from raftdb.ops.found import LocalCluster, found_local
from raftdb.runtime import RealClock

START_S = 30.0
POLL_S = 0.05


class DeadlineMissedError(AssertionError):
    """Something did not happen in time."""


class Cluster:
    """A cluster of processes in one directory."""

    def __init__(
        self,
        directory: Path,
        nodes: int = 3,
        *,
        insecure: bool = False,
        locations: tuple[str, ...] | None = None,
    ) -> None:
        places = locations or tuple(f"local/rack{number + 1}" for number in range(nodes))
        self.founded: LocalCluster = found_local(directory, locations=places, insecure=insecure)
        self.directory = directory
        self.processes = ProcessCluster(directory)
        self._clock = RealClock()

    # ---- processes

    @property
    def node_ids(self) -> list[str]:
        """n1, n2, …"""
        return sorted(self.processes.nodes)

    def node(self, node_id: str) -> NodeProcess:
        """One node's process."""
        return self.processes.nodes[node_id]

    def start(self, *node_ids: str) -> None:
        """Start these nodes, or all; does not wait for them."""
        for node_id in node_ids or self.node_ids:
            self.node(node_id).start()

    def start_and_wait(self) -> str:
        """Start all nodes; returns the leader once a write could commit and all nodes answer."""
        self.start()
        leader = self.wait_for_leader()
        for node_id in self.node_ids:
            self.wait_for_node(node_id)
        return leader

    def kill(self, *node_ids: str) -> None:
        """SIGKILL these nodes, or all."""
        for node_id in node_ids or self.node_ids:
            self.node(node_id).kill()

    def stop(self, *node_ids: str, timeout_s: float = 15.0) -> dict[str, int | None]:
        """SIGTERM these nodes, or all; returns their exit codes (None: had to be killed)."""
        return {name: self.node(name).stop(timeout_s) for name in node_ids or self.node_ids}

    # ---- clients

    @property
    def url(self) -> str:
        """All nodes, with the client's certificate."""
        return self.founded.url

    def node_url(self, node_id: str) -> str:
        """One node."""
        return self.founded.node_url(node_id)

    def connect(self, **options: Any) -> Connection:
        """To the cluster: finds the leader by itself."""
        return connect(self.url, **{"timeout": START_S, **options})

    def connect_to(self, node_id: str, **options: Any) -> Connection:
        """To one node and no other; reads are local."""
        settings = {"timeout": 5.0, "read": "local", "pin": True, **options}
        return connect(self.node_url(node_id), **settings)

    def status(self, node_id: str) -> dict[str, Any]:
        """What one node says of itself. Raises Error when it does not answer."""
        with self.connect_to(node_id, timeout=2.0) as connection:
            return dict(connection.status())

    # ---- waiting

    def wait_for(self, what: str, check: Callable[[], Any], timeout_s: float = START_S) -> Any:
        """Call `check` until it gives something true; errors of raftdb count as not yet."""
        deadline_s = self._clock.monotonic_s() + timeout_s
        last: object = None
        pause = threading.Event()
        while self._clock.monotonic_s() < deadline_s:
            try:
                last = check()
                if last:
                    return last
            except Error as error:
                last = error
            self.require_alive()
            pause.wait(POLL_S)
        raise DeadlineMissedError(
            f"{what} did not happen within {timeout_s:g} s; last: {last!r}\n{self.logs()}"
        )

    def wait_for_leader(self, timeout_s: float = START_S) -> str:
        """The node that leads, once it can serve a linearizable read."""

        def leader() -> str | None:
            for node_id in self.node_ids:
                if not self.node(node_id).running:
                    continue
                try:
                    status = self.status(node_id)
                except Error:
                    continue
                if status["role"] == "leader":
                    with self.connect_to(node_id, read="linearizable", timeout=2.0) as connection:
                        connection.execute("SELECT 1").fetchall()
                    return node_id
            return None

        return str(self.wait_for("a leader", leader, timeout_s))

    def wait_for_node(self, node_id: str, timeout_s: float = START_S) -> dict[str, Any]:
        """The node's status, once it answers and knows a leader."""

        def ready() -> dict[str, Any] | None:
            status = self.status(node_id)
            return status if status.get("leader") else None

        found = self.wait_for(f"an answer of {node_id}", ready, timeout_s)
        assert isinstance(found, dict)
        return found

    def wait_for_index(self, index: int, timeout_s: float = START_S) -> None:
        """All running nodes have applied that index."""
        for node_id in self.node_ids:
            if self.node(node_id).running:
                self.wait_for(
                    f"{node_id} at index {index}",
                    lambda node_id=node_id: self.status(node_id)["applied_index"] >= index,
                    timeout_s,
                )

    def require_alive(self) -> None:
        """Fail when a node's process ended by itself."""
        for node in self.processes.nodes.values():
            if node.process is not None and not node.running:
                raise AssertionError(
                    f"{node.node_id} ended with exit code {node.process.returncode}\n"
                    f"{node.log_tail(40)}"
                )

    def logs(self) -> str:
        """The ends of all nodes' logs."""
        return "\n".join(
            f"--- {node.node_id} ({'running' if node.running else 'stopped'})\n{node.log_tail()}"
            for node in self.processes.nodes.values()
        )


@contextmanager
def running_cluster(directory: Path, nodes: int = 3, **options: Any) -> Iterator[Cluster]:
    """A started cluster; every process is gone at the end."""
    cluster = Cluster(directory, nodes, **options)
    try:
        cluster.start_and_wait()
        yield cluster
    finally:
        cluster.kill()


class Finished:
    """What a command did."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code = done.returncode
        self.out = done.stdout
        self.err = done.stderr

    def json(self) -> Any:
        """Its output as one JSON document."""
        return json.loads(self.out)

    def __repr__(self) -> str:
        return f"exit {self.code}\n{self.out}\n{self.err}"


def raftdb(
    *arguments: str | Path,
    stdin: str | None = None,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    timeout_s: float = 150.0,
) -> Finished:
    """Run the installed command as a user would."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("RAFTDB_")}
    done = subprocess.run(
        [sys.executable, "-m", "raftdb.cli", *map(str, arguments)],
        input=stdin if stdin is not None else "",
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**inherited, **(env or {})},
        cwd=cwd,
        timeout=timeout_s,
        check=False,
    )
    return Finished(done)
