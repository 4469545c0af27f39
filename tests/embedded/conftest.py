"""Three members inside the test's own process, with mutual TLS on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import raftdb
from raftdb.ops.found import LocalCluster, found_local


@dataclass
class Members:
    """A cluster of embedded nodes."""

    directory: Path
    founded: LocalCluster
    nodes: dict[str, raftdb.Node]

    def config_path(self, node_id: str) -> Path:
        return self.directory / node_id / "raftdb.toml"

    def leader(self) -> raftdb.Node:
        """Who leads, after a write went through."""
        with next(iter(self.running())).connect(timeout=15.0) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS warm (a)")
        for node in self.running():
            if node.status()["role"] == "leader":
                return node
        raise AssertionError("nobody leads")

    def running(self) -> list[raftdb.Node]:
        return [node for node in self.nodes.values() if node.running]

    def restart(self, node_id: str) -> raftdb.Node:
        """A new Node on the same directory."""
        self.nodes[node_id] = raftdb.Node(self.config_path(node_id)).start()
        return self.nodes[node_id]


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Members]:
    directory = tmp_path_factory.mktemp("embedded") / "cluster"
    founded = found_local(directory)
    nodes = {
        str(one.node_id): raftdb.Node(directory / one.node_id / "raftdb.toml")
        for one in founded.members
    }
    for node in nodes.values():
        node.start()
    found = Members(directory, founded, nodes)
    yield found
    for node in found.nodes.values():
        node.stop()
