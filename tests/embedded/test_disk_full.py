"""A disk that fills up, for real: a small file system of its own (or, without the right to mount
one, a quota at the files port)."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import raftdb
from raftdb.base.config import DiskConfig, load_config
from raftdb.base.errors import Error
from raftdb.ops.found import found_local
from raftdb.runtime.files import RealFile, RealFiles
from tests.embedded.test_divergence import wait_for

MIB = 1 << 20
DISK = 96 * MIB
RESERVE = 8 * MIB


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory on a file system of DISK bytes."""
    directory = tmp_path / "small"
    directory.mkdir()
    size = f"size={DISK},mode=700"
    command = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(directory)]
    mounted = os.geteuid() == 0 and not subprocess.run(command, capture_output=True).returncode
    if not mounted:
        quota(directory, monkeypatch)
    try:
        yield directory
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(directory)], check=True)


def quota(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same at the files port, for what lies below the directory."""

    def used() -> int:
        return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())

    write_at, keep_room = RealFile.write_at, RealFiles.keep_room

    def free_bytes(_self: RealFiles, path: str) -> int:
        return max(0, DISK - used()) if path.startswith(str(directory)) else DISK

    def full(path: str, more: int) -> None:
        if path.startswith(str(directory)) and used() + more > DISK:
            raise OSError(errno.ENOSPC, "no space left on device", path)

    def bounded_write(self: RealFile, offset: int, data: bytes) -> None:
        full(self._path, max(0, offset + len(data) - self.size()))
        write_at(self, offset, data)

    def bounded_room(self: RealFiles, path: str, size: int) -> None:
        full(path, size)
        keep_room(self, path, size)

    monkeypatch.setattr(RealFiles, "free_bytes", free_bytes)
    monkeypatch.setattr(RealFile, "write_at", bounded_write)
    monkeypatch.setattr(RealFiles, "keep_room", bounded_room)


def fill(directory: Path, leave: int) -> Path:
    """Somebody else's file takes all but so many bytes."""
    ballast = directory / "ballast"
    free = RealFiles().free_bytes(str(directory))
    with ballast.open("ab") as file:
        file.write(bytes(max(0, free - leave)))
    return ballast


def start(config_path: Path, data_dir: Path) -> raftdb.Node:
    config = load_config(str(config_path))
    config = replace(config, disk=DiskConfig(reserve_bytes=RESERVE), data_dir=str(data_dir))
    return raftdb.Node(config).start()


def test_a_full_disk_makes_a_leader_give_way_and_then_wait(small: Path, tmp_path: Path) -> None:
    names = [str(one.node_id) for one in found_local(tmp_path / "c").members]
    first = names[0]
    (tmp_path / "c" / first / "data").rename(tmp_path / "moved")
    subprocess.run(["cp", "-r", str(tmp_path / "moved"), str(small / "data")], check=True)
    nodes = {}
    try:
        for name in names:
            data = small / "data" if name == first else tmp_path / "c" / name / "data"
            nodes[name] = start(tmp_path / "c" / name / "raftdb.toml", data)
        node = nodes[first]
        reserve = small / "data" / "reserve"
        wait_for(lambda: reserve.exists() and reserve.stat().st_size == RESERVE)
        with nodes[names[1]].connect(timeout=15.0) as connection:
            connection.execute("CREATE TABLE t(a)")
            wait_for(lambda: node.status()["leader"] is not None)
            leads_now(nodes, first)
            ballast = fill(small, RESERVE // 2)
            wait_for(lambda: bool(node.status()["disk_full"]))
            assert not reserve.exists(), "its room is for the node now"
            wait_for(lambda: node.status()["role"] != "leader")
            connection.execute("INSERT INTO t VALUES (1)")
            ballast.unlink()
            wait_for(lambda: not node.status()["disk_full"])
            wait_for(reserve.exists)
            leads_now(nodes, first)
            connection.execute("INSERT INTO t VALUES (2)")
    finally:
        for node in nodes.values():
            node.stop()
    assert not reserve.exists()


def leads_now(nodes: dict[str, raftdb.Node], name: str) -> None:
    """Leadership goes to that one."""

    def asked() -> bool:
        leader = next((one for one in nodes.values() if one.status()["role"] == "leader"), None)
        if leader is nodes[name]:
            return True
        if leader is not None:
            with leader.connect(timeout=5.0) as connection, contextlib.suppress(Error):
                connection.transfer_leadership(name)
        return False

    wait_for(asked)


def test_alone_it_refuses_writes_and_reads_on_until_there_is_room(
    small: Path, tmp_path: Path
) -> None:
    [member] = found_local(tmp_path / "c", locations=("local/rack1",)).members
    (tmp_path / "c" / member.node_id / "data").rename(tmp_path / "moved")
    subprocess.run(["cp", "-r", str(tmp_path / "moved"), str(small / "data")], check=True)
    path = tmp_path / "c" / member.node_id / "raftdb.toml"
    node = start(path, small / "data")
    try:
        with node.connect(timeout=5.0) as connection:
            connection.execute("CREATE TABLE t(a)")
            connection.execute("INSERT INTO t VALUES (1)")
            ballast = fill(small, RESERVE // 2)
            wait_for(lambda: bool(node.status()["disk_full"]))
        with node.connect(timeout=1.5) as connection:
            with pytest.raises(Error) as raised:
                connection.execute("INSERT INTO t VALUES (2)")
            assert raised.value.code == "disk_full"
            assert raised.value.retryable
            assert raised.value.outcome == "not_applied"
            assert connection.execute("SELECT a FROM t").fetchall()[0][0] == 1
        ballast.unlink()
        wait_for(lambda: not node.status()["disk_full"])
        with node.connect(timeout=5.0) as connection:
            connection.execute("INSERT INTO t VALUES (3)")
        with node.connect(timeout=1.0) as connection:
            # In spite of the reserve: somebody takes all there is in no time.
            ballast = fill(small, 0)
            with contextlib.suppress(Error):
                for _time in range(40):
                    connection.execute("INSERT INTO t VALUES (?)", (bytes(MIB),))
        if node.failure is None:
            wait_for(lambda: bool(node.status()["disk_full"]))
        else:
            said = f"{node.failure}"
            assert "space" in said or "room" in said
        node.stop()
        ballast.unlink()
        node = start(path, small / "data")
        with node.connect(timeout=5.0) as connection:
            rows = connection.execute("SELECT count(*) FROM t WHERE a IN (1, 3)").fetchall()
            assert rows[0][0] == 2
    finally:
        node.stop()
