"""The cluster that a drill breaks: processes on this machine, seen as any client sees them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from raftdb.base.config import load_config
from raftdb.base.errors import ConfigError, Error, OperationalError
from raftdb.base.ids import Address, parse_location
from raftdb.base.ports import Clock
from raftdb.base.settings import MemberConfig
from raftdb.client import Connection, connect
from raftdb.demo.processes import NodeProcess, ProcessCluster
from raftdb.drill.previous import Release
from raftdb.ops.found import CONFIG_FILE, PORTS_PER_NODE, found_local, local_members
from raftdb.ops.inspect import DATA_DIRECTORY
from raftdb.ops.ports import free_ports
from raftdb.ops.target import read_client_file

POLL_S = 0.02
ASK_S = 1.0
START_S = 60.0
COMMAND_S = 600.0
STOP_S = 60.0
LOCATIONS = {
    1: ("eu/madrid",),
    3: ("eu/madrid", "us/virginia", "ap/tokyo"),
    5: ("eu/madrid", "eu/dublin", "us/virginia", "us/oregon", "ap/tokyo"),
}


def own_environ() -> dict[str, str]:
    """Of the drill's processes: no setting that is meant for another cluster reaches them."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RAFTDB_")}


class DrillCluster:
    """One directory of nodes. `settings`: keys of the configuration for every node."""

    ask_s = ASK_S
    """How long a node may take to say something of itself."""
    died_s: tuple[float, float] | None = None
    """When the first and the last of those that were killed ended, where the killing itself takes
    time; on the drill's monotonic clock."""

    def __init__(
        self,
        directory: Path,
        clock: Clock,
        *,
        settings: Sequence[str] = (),
    ) -> None:
        self.directory = directory
        self._clock = clock
        self._settings = tuple(settings)
        self.processes = ProcessCluster(directory)
        self._addresses: dict[str, Address] = {}
        for node in self.processes.nodes.values():
            self._equip(node)

    def _equip(self, node: NodeProcess) -> None:
        node.settings = self._settings
        node.environ = own_environ()

    @classmethod
    def found(
        cls,
        directory: Path,
        clock: Clock,
        nodes: int,
        *,
        settings: Sequence[str] = (),
        release: Release | None = None,
    ) -> DrillCluster:
        """Found a new one, each node in a place of its own; by another `release`, and its nodes
        run that, if one is given. Raises ConfigError."""
        if nodes not in LOCATIONS:
            raise ConfigError(f"a drill with {nodes} nodes", hint="take 3 or 5")
        if release is None:
            found_local(directory, locations=LOCATIONS[nodes])
            return cls(directory, clock, settings=settings)
        members = local_members(nodes, free_ports(PORTS_PER_NODE * nodes))
        placed = zip(members, LOCATIONS[nodes], strict=True)
        found_by(
            release, directory, [replace(one, location=parse_location(at)) for one, at in placed]
        )
        cluster = cls(directory, clock, settings=settings)
        for name in cluster.node_ids:
            cluster.become(name, release)
        return cluster

    # ---- nodes

    @property
    def node_ids(self) -> list[str]:
        """n1, n2, …"""
        return sorted(self.processes.nodes)

    def node(self, node_id: str) -> NodeProcess:
        """One node's process."""
        return self.processes.nodes[node_id]

    def running(self) -> list[str]:
        """Nodes whose process lives."""
        return [name for name in self.node_ids if self.node(name).running]

    def location(self, node_id: str) -> str:
        """Where a node stands."""
        for member in self.status(self.running()[0])["members"]:
            if member["node_id"] == node_id:
                return str(member["location"])
        raise ConfigError(f"{node_id} is no member")

    def start(self, *node_ids: str) -> None:
        """Start these nodes, or all; does not wait."""
        for name in node_ids or self.node_ids:
            self.node(name).start()

    def stop(self, node_id: str) -> None:
        """As an operator does: SIGTERM, upon which it hands over, finishes and ends. Raises
        OperationalError when it does not."""
        code = self.node(node_id).stop(STOP_S)
        if code != 0:
            how = f"had to be killed after {STOP_S:g} s" if code is None else f"ended with {code}"
            raise OperationalError(f"{node_id} was to stop, and {how}")

    def until_ended(self, node_id: str, timeout_s: float) -> int:
        """Wait until a process ends by itself; returns its exit code. Raises OperationalError."""
        process = self.node(node_id).process
        assert process is not None, "it was started"
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise OperationalError(f"{node_id} did not end within {timeout_s:g} s") from error
        self.node(node_id).process = None
        return code

    def become(self, node_id: str, release: Release) -> None:
        """From its next start on, the node runs that release."""
        node = self.node(node_id)
        node.command = release.command
        node.environ = release.environ(own_environ() if node.environ is None else node.environ)

    def restart_as(self, node_id: str, release: Release) -> None:
        """Stop a node in order and start it on the same directory with that release; does not wait
        for it. Raises OperationalError."""
        self.stop(node_id)
        self.become(node_id, release)
        self.start(node_id)

    def versions(self) -> dict[str, str]:
        """What the nodes that answer say they run."""
        return {name: str(one["version"]) for name, one in self.statuses().items()}

    def kill(self, *node_ids: str) -> None:
        """SIGKILL these nodes, or all: all signals first, then wait for their ends."""
        nodes = [self.node(name) for name in node_ids or self.node_ids]
        for node in nodes:
            if node.process is not None:
                node.process.kill()
        for node in nodes:
            node.kill()

    def abandon(self) -> None:
        """Leave nothing running."""
        self.kill()

    def lose(self, node_id: str) -> None:
        """Kill a node, and remove its directory: it is gone for good."""
        self.kill(node_id)
        shutil.rmtree(self.processes.nodes.pop(node_id).directory)

    def delete_data(self, node_id: str) -> None:
        """Remove what a node that does not run had: its disk is gone, and a new one is there."""
        shutil.rmtree(self.node(node_id).directory / DATA_DIRECTORY)

    def adopt(self, node_id: str) -> None:
        """A directory of a new node has been made."""
        node = self.processes.nodes[node_id] = NodeProcess(node_id, self.directory / node_id)
        self._equip(node)

    def delete(self) -> None:
        """Remove every node's directory, and everything else of the cluster."""
        shutil.rmtree(self.directory)

    # ---- clients

    def connect(self, **options: Any) -> Connection:
        """To the cluster."""
        target = read_client_file(self.directory / "client" / "client.toml")
        return connect(target.url, **{**target.options, "timeout": 5.0, **options})

    def connect_to(self, node_id: str, **options: Any) -> Connection:
        """To one node and no other; reads are local."""
        target = read_client_file(self.directory / "client" / "client.toml")
        settings = {"pin": True, "read": "local", "timeout": 5.0, **options}
        return connect(f"raftdb://{self.address(node_id)}/", **{**target.options, **settings})

    def address(self, node_id: str) -> Address:
        """Where clients reach a node."""
        if node_id not in self._addresses:
            config = load_config(str(self.node(node_id).directory / CONFIG_FILE), {})
            self._addresses[node_id] = config.member.client_address
        return self._addresses[node_id]

    def status(self, node_id: str) -> dict[str, Any]:
        """What one node says of itself. Raises Error when it does not answer."""
        with self.connect_to(node_id, timeout=self.ask_s) as connection:
            return dict(connection.status())

    def statuses(self) -> dict[str, dict[str, Any]]:
        """What the nodes that answer say."""
        found = {}
        for name in self.running():
            try:
                found[name] = self.status(name)
            except Error:
                continue
        return found

    def leader(self) -> str | None:
        """Who leads, by its own word; the highest term counts."""
        leaders = [one for one in self.statuses().values() if one["role"] == "leader"]
        newest = max(leaders, key=lambda one: int(one["term"]), default=None)
        return None if newest is None else str(newest["node_id"])

    # ---- waiting

    def wait_for(self, what: str, check: Callable[[], Any], timeout_s: float = START_S) -> Any:
        """Until `check` gives something true; errors of raftdb count as not yet. Raises
        OperationalError after `timeout_s`."""
        deadline_s = self._clock.monotonic_s() + timeout_s
        pause = threading.Event()
        last: object = None
        while self._clock.monotonic_s() < deadline_s:
            try:
                last = check()
                if last:
                    return last
            except Error as error:
                last = error
            self.processes.require_running()
            pause.wait(POLL_S)
        raise OperationalError(f"{what} did not happen within {timeout_s:g} s (last: {last!r})")

    def wait_for_leader(self, timeout_s: float = START_S) -> str:
        """The node that leads, once it can commit."""

        def leads() -> str | None:
            name = self.leader()
            if name is not None:
                with self.connect_to(name, read="linearizable", timeout=self.ask_s) as connection:
                    connection.execute("SELECT 1").fetchall()
            return name

        return str(self.wait_for("a leader", leads, timeout_s))

    def whole(self) -> bool:
        """Every member answers, and has applied what the leader had committed just now."""
        found = self.statuses()
        leaders = [one for one in found.values() if one["role"] == "leader"]
        if not leaders or len(found) < len(leaders[0]["members"]):
            return False
        behind = max(int(one["commit_index"]) for one in leaders)
        missing = [name for name, one in found.items() if int(one["applied_index"]) < behind]
        return all(int(self.status(name)["applied_index"]) >= behind for name in missing)

    def logs(self) -> str:
        """The ends of the nodes' logs."""
        return "\n".join(
            f"--- {node.node_id}\n{node.log_tail()}" for node in self.processes.nodes.values()
        )


def found_by(release: Release, directory: Path, members: Sequence[MemberConfig]) -> None:
    """Found a cluster by another release's `raftdb init`. Raises OperationalError."""
    nodes = []
    for one in members:
        places = f"location={one.location},peer={one.peer_address},client={one.client_address}"
        nodes += ["--node", f"{one.node_id},{places}"]
    command("init", directory, *nodes, release=release)


def command(
    *arguments: str | Path,
    environ: Mapping[str, str] | None = None,
    release: Release | None = None,
) -> dict[str, Any]:
    """Run `raftdb …  --json`, as an operator would, and give what it printed; by default this
    release, and without any setting of another cluster. Raises OperationalError with its message
    when it fails."""
    environ = own_environ() if environ is None else environ
    program: tuple[str, ...] = (sys.executable, "-m", "raftdb.cli")
    if release is not None:
        environ, program = release.environ(environ), release.command
    done = subprocess.run(
        [*program, *map(str, arguments), "--json"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=environ,
        timeout=COMMAND_S,
        check=False,
    )
    if done.returncode != 0:
        shown = " ".join(map(str, arguments))
        said = done.stderr.strip()[-500:]
        raise OperationalError(
            f"`raftdb {shown}` ended with exit code {done.returncode}: {said}",
            code=_code_in(done.stderr),
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _code_in(text: str) -> str:
    """Of the error that a command printed as JSON."""
    for line in reversed(text.splitlines()):
        try:
            return str(json.loads(line)["error"]["code"])
        except (ValueError, KeyError, TypeError):
            continue
    return "failed"
