"""What the harness finds out about the machine."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from bench import host
from bench.errors import Unsuitable

MOUNTINFO = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
26 22 0:22 / /dev/shm rw,nosuid shared:5 - tmpfs tmpfs rw
31 22 254:0 /data /srv rw,relatime - ext4 /dev/vda rw
"""


def test_mountinfo_with_and_without_optional_fields() -> None:
    assert host.parse_mountinfo(MOUNTINFO) == {
        "254:0": ("/", "ext4", "/dev/vda"),
        "0:22": ("/dev/shm", "tmpfs", "tmpfs"),
    }


def test_a_directory_in_memory_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    device = tmp_path.stat().st_dev
    line = f"26 22 {os.major(device)}:{os.minor(device)} / /somewhere rw - tmpfs tmpfs rw\n"
    monkeypatch.setattr(host, "read_mountinfo", lambda: line)
    with pytest.raises(Unsuitable, match="fdatasync costs nothing"):
        host.disk_of(tmp_path)


def test_ports_are_free_different_and_not_ephemeral() -> None:
    with socket.socket() as taken:
        ports = host.free_ports(2)
        taken.bind(("127.0.0.1", ports[0]))
        again = host.free_ports(9)
    assert len(set(again)) == 9
    assert ports[0] not in again
    assert all(host.FIRST_PORT <= port <= host.LAST_PORT < 32_768 for port in again)


def test_fdatasync_probe_measures_and_leaves_nothing(tmp_path: Path) -> None:
    found = host.fdatasync_latency(tmp_path, seconds=0.05)
    assert found["count"] >= 1
    assert 0 < found["p50_ms"] <= found["p99_ms"] <= found["max_ms"]
    assert list(tmp_path.iterdir()) == []
