"""A cluster of processes, every path of which runs through toxiproxy.

Each node has routes to the others through proxies of its own, and clients reach it by another one.
Who watches and judges goes to the node itself, past the proxies.

Here a node's name is that of its place: who takes it after the loss of a disk is another member,
with a new id, at the same addresses and behind the same proxies.
"""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from chaos.links import CLIENTS, Links
from chaos.namespaces import Namespaces, lost_words
from raftdb.base.errors import Error, OperationalError
from raftdb.base.ids import Address, parse_location
from raftdb.base.ports import Clock
from raftdb.base.settings import MemberConfig
from raftdb.client import Connection, connect
from raftdb.drill.cluster import LOCATIONS, DrillCluster, command, found_by
from raftdb.drill.previous import Release, present
from raftdb.ops.found import found_cluster, local_members
from raftdb.ops.ports import free_ports
from raftdb.ops.target import read_client_file
from raftdb.runtime.files import RealFiles
from raftdb.runtime.random import RealRandom
from tests.workloads import Violation

SHIM = Path(__file__).parent / "clock_shim"
SMALL_DISK_BYTES = 96 << 20
IDS = 9
"""Members that one place may have, one after the other, in the life of a cluster."""
EMPTY_S = 60.0
REPLACE_S = 120


class ChaosCluster(DrillCluster):
    """Founded and proxied; `archive` is a directory of its own. `settings`: KEY=VALUE of every
    node; `archived`: whether they upload to it."""

    def __init__(
        self,
        home: Path,
        clock: Clock,
        nodes: int,
        links: Links,
        *,
        settings: Sequence[str] = (),
        archived: bool = True,
        previous: Release | None = None,
        namespaces: Namespaces | None = None,
    ) -> None:
        """`previous`: founds it, and is what its nodes run at first; `namespaces`: its nodes run in
        them."""
        directory = home / "cluster"
        self.home = home
        self.links = links
        self.namespaces = namespaces
        self.archive = home / "archive"
        self.archive.mkdir(parents=True)
        first = free_ports(2 * nodes + nodes * nodes)
        real = self._real_members(nodes, first)
        proxies = iter(range(first + 2 * nodes, first + 2 * nodes + nodes * nodes))
        self._direct = {str(one.node_id): one.client_address for one in real}
        members = []
        for member, location in zip(real, LOCATIONS[nodes], strict=True):
            port = next(proxies)
            links.make(CLIENTS, member.node_id, f"127.0.0.1:{port}", str(member.client_address))
            members.append(
                replace(
                    member,
                    location=parse_location(location),
                    client_address=Address("127.0.0.1", port),
                )
            )
        self._members = {str(one.node_id): one for one in members}
        if previous is None:
            found_cluster(directory, members, RealFiles(), RealRandom(), clock)
        else:
            found_by(previous, directory, members)
        super().__init__(directory, clock)
        self.releases = [] if previous is None else [previous, present()]
        """Of a mixed cluster: that a node is given in turn."""
        self.rest = threading.Event()
        self._small: set[str] = set()
        self.stopped: set[str] = set()
        """Nodes that the runner has taken down itself, or whose end it expects."""
        for member in real:
            self._settle(member, self._make_routes(member, real, proxies), archived, settings)
            if previous is not None:
                self.become(member.node_id, previous)

    def _real_members(self, nodes: int, first: int) -> list[MemberConfig]:
        """Where the nodes themselves listen."""
        found = []
        for one in local_members(nodes, first):
            host = "127.0.0.1" if self.namespaces is None else self.namespaces.address(one.node_id)
            at = [Address(host, address.port) for address in (one.peer_address, one.client_address)]
            found.append(replace(one, peer_address=at[0], client_address=at[1]))
        return found

    def _make_routes(
        self, member: MemberConfig, real: Sequence[MemberConfig], ports: Iterator[int]
    ) -> list[str]:
        """Proxies to the others, whoever they come to be."""
        own = "127.0.0.1" if self.namespaces is None else self.namespaces.gateway(member.node_id)
        routes = []
        for other in real:
            if other is not member:
                listen = f"{own}:{next(ports)}"
                self.links.make(member.node_id, other.node_id, listen, str(other.peer_address))
                routes += [f"{name}={listen}" for name in _ids(other.node_id)]
        return routes

    def _settle(
        self,
        member: MemberConfig,
        routes: Sequence[str],
        archived: bool,
        settings: Sequence[str],
    ) -> None:
        """What its processes are given."""
        node = self.node(member.node_id)
        node.settings = (
            f"client_listen={member.client_address}",
            f"routes={' '.join(routes)}",
            *([f"archive.destinations={self.archive.as_uri()}"] if archived else []),
            *settings,
        )
        if self.namespaces is not None:
            node.before = self.namespaces.enter(member.node_id)
        assert node.environ is not None
        node.environ |= {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(SHIM), os.environ.get("PYTHONPATH")])),
            "CHAOS_CLOCK": str(self._clock_file(member.node_id)),
        }
        self.move_clock(member.node_id, 0)

    def other_release(self, node_id: str) -> Release:
        """The one that a node of a mixed cluster does not run."""
        command = self.node(node_id).command
        environ = self.node(node_id).environ or {}
        return next(
            one
            for one in self.releases
            if (one.command, one.environ(environ)) != (command, environ)
        )

    def connect_to(self, node_id: str, **options: Any) -> Connection:
        """To one node, past the proxies; reads are local."""
        target = read_client_file(self.directory / "client" / "client.toml")
        settings = {"pin": True, "read": "local", "timeout": 5.0, **options}
        return connect(f"raftdb://{self._direct[node_id]}/", **{**target.options, **settings})

    def leader(self) -> str | None:
        """The place of the node that leads, by its own word; the highest term counts."""
        leads = [(int(one["term"]), name) for name, one in self.statuses().items() if _leads(one)]
        return max(leads)[1] if leads else None

    # ---- a lost disk

    def lose_disk(self, name: str) -> None:
        """Kill it, and delete its data."""
        self.take_down(name)
        shutil.rmtree(self.node(name).directory / "data")

    def try_empty(self, name: str) -> None:
        """Start it without its data: it has to end by itself. Raises Violation when it does not."""
        self.start(name)
        try:
            code = self.until_ended(name, EMPTY_S)
        except OperationalError as error:
            self.kill(name)
            raise Violation("rule J5", f"{name} runs on an empty disk: {error}") from error
        if code == 0:
            raise Violation("rule J5", f"{name} ended with 0 on an empty disk")

    def replace_member(self, name: str) -> str:
        """A new member takes the place of one whose disk is lost, as the documents say; returns its
        id. Raises OperationalError."""
        old = self.node(name)
        ids = _ids(name)
        new = ids[ids.index(old.node_id) + 1]
        member = self._members[name]
        spec = ",".join(
            (
                new,
                f"location={member.location}",
                f"peer={member.peer_address}",
                f"client={member.client_address}",
            )
        )
        release = next((one for one in self.releases if one.command == old.command), None)
        where = ("--dir", self.directory, "--timeout", str(REPLACE_S))
        command("member", "prepare", spec, *where, release=release)
        self.processes.nodes[name] = replace(old, node_id=new, directory=self.directory / new)
        shutil.rmtree(old.directory)
        self.bring_up(name)
        command("member", "replace", old.node_id, spec, *where, release=release)
        return new

    def can_lose(self) -> list[str]:
        """Places where a disk may be lost: there is another id, and the disk can be deleted."""
        return [
            name
            for name in self.node_ids
            if name not in self._small and self.node(name).node_id != _ids(name)[-1]
        ]

    # ---- packets

    def lose_packets(self, pairs: Sequence[tuple[str, str]], lost: bool) -> None:
        """Whatever the first of each pair says to the second is lost, or is not any more."""
        assert self.namespaces is not None, "the runner asked for them"
        rules = [
            rule
            for source, target in pairs
            for rule in lost_words(source, target, self.links.ports)
        ]
        (self.namespaces.drop if lost else self.namespaces.pass_again)(rules)

    def heal(self) -> None:
        """Nothing between nodes and clients is broken any more."""
        self.links.heal()
        if self.namespaces is not None:
            self.namespaces.heal()

    # ---- processes

    def take_down(self, *node_ids: str) -> None:
        """SIGKILL, expected."""
        self.stopped |= set(node_ids)
        self.kill(*node_ids)

    def bring_up(self, *node_ids: str) -> None:
        """Start again what is down."""
        for name in node_ids:
            if not self.node(name).running:
                self.start(name)
            self.stopped.discard(name)

    def pause(self, node_id: str, paused: bool) -> None:
        """SIGSTOP, or SIGCONT."""
        pid = self.node(node_id).pid
        if pid is not None and self.node(node_id).running:
            os.kill(pid, signal.SIGSTOP if paused else signal.SIGCONT)

    def ended(self) -> list[str]:
        """Nodes whose process ended by itself, with how."""
        found = []
        for name in self.node_ids:
            node = self.node(name)
            if name not in self.stopped and node.process is not None and not node.running:
                found.append(f"{name} ended with exit code {node.process.returncode}")
        return found

    def wait_for(self, what: str, check: Callable[[], Any], timeout_s: float = 60.0) -> Any:
        """As in a drill; a node that ends by itself is a failure here too, unless expected."""
        deadline_s = self._clock.monotonic_s() + timeout_s
        last: object = None
        while self._clock.monotonic_s() < deadline_s:
            try:
                last = check()
                if last:
                    return last
            except Error as error:
                last = error
            if ended := self.ended():
                raise OperationalError(f"{ended[0]} while waiting for {what}\n{self.logs()}")
            self.rest.wait(0.05)
        raise OperationalError(
            f"{what} did not happen within {timeout_s:g} s (last: {last!r}; {self._positions()})"
        )

    def _positions(self) -> str:
        """How far each node is that answers."""
        return "; ".join(
            f"{name} {one['node_id']} {one['version']} {one['role']} in term {one['term']}, "
            f"{one['applied_index']} applied of {one['commit_index']}, "
            f"{len(one['members'])} members"
            for name, one in self.statuses().items()
        )

    # ---- clock

    def _clock_file(self, node_id: str) -> Path:
        return self.home / f"{node_id}.clock"

    def move_clock(self, node_id: str, seconds: int) -> None:
        """Its wall clock is that far off from now on."""
        path = self._clock_file(node_id)
        # Written in place: the node has it mapped.
        with path.open("r+b" if path.exists() else "wb", buffering=0) as file:
            file.write(struct.pack("<q", seconds * 1_000_000_000))

    # ---- a small disk

    def small_disk(self, node_id: str) -> str:
        """Put a node's data on a file system of its own, of some megabytes, before it first
        starts. Returns why that cannot be, or nothing."""
        data = self.node(node_id).directory / "data"
        aside = data.with_name("data.aside")
        data.rename(aside)
        data.mkdir()
        options = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}", "tmpfs", str(data)]
        try:
            done = subprocess.run(options, capture_output=True, text=True, check=False)
            problem = done.stderr.strip() if done.returncode else ""
        except OSError as error:
            problem = str(error)
        if problem:
            data.rmdir()
            aside.rename(data)
            return f"no file system of its own can be mounted: {problem}"
        self._small.add(node_id)
        for one in sorted(aside.iterdir()):
            subprocess.run(["cp", "-a", str(one), str(data)], check=True)
        return ""

    @property
    def small(self) -> list[str]:
        """Nodes on small disks."""
        return sorted(self._small)

    def fill_disk(self, node_id: str, full: bool) -> None:
        """Take all room that is left on a small disk, or give it back."""
        filler = self.node(node_id).directory / "data" / "filler"
        if not full:
            filler.unlink(missing_ok=True)
            return
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
            except OSError:
                return

    def close(self) -> None:
        """Kill and unmount."""
        for name in self.node_ids:
            self.pause(name, paused=False)
        self.kill()
        while self._small:
            name = self._small.pop()
            subprocess.run(["umount", "-l", str(self.node(name).directory / "data")], check=False)


def _ids(name: str) -> list[str]:
    """Of the members that may come to stand in one place, in turn; a removed id is never used
    again."""
    return [name, *(f"{name}-{number}" for number in range(2, IDS + 1))]


def _leads(status: dict[str, Any]) -> bool:
    return bool(status["role"] == "leader")
