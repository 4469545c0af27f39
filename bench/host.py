"""What machine this is, and whether its disk and ports can give an honest figure. Linux only."""

from __future__ import annotations

import datetime
import os
import platform
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.errors import Unsuitable
from bench.figures import latency

FORMAT = 1
MEMORY_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"})
FIRST_PORT = 20_000
LAST_PORT = 32_767
"""Below Linux's usual range of ephemeral ports, so that no outgoing connection takes one."""


@dataclass(frozen=True)
class Disk:
    """Where the clusters keep their data."""

    directory: str
    mount_point: str
    file_system: str
    device: str


def parse_mountinfo(text: str) -> dict[str, tuple[str, str, str]]:
    """Map `major:minor` to (mount point, file system, device) from /proc/self/mountinfo.

    Of several mounts of one device the first counts.
    """
    mounts: dict[str, tuple[str, str, str]] = {}
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) >= 5 and len(kind) >= 2:
            mounts.setdefault(fields[2], (fields[4], kind[0], kind[1]))
    return mounts


def read_mountinfo() -> str:
    """What is mounted where."""
    return Path("/proc/self/mountinfo").read_text()


def disk_of(directory: Path) -> Disk:
    """The disk under `directory`. Raises Unsuitable when it is memory."""
    device = directory.stat().st_dev
    key = f"{os.major(device)}:{os.minor(device)}"
    mounts = parse_mountinfo(read_mountinfo())
    point, kind, name = mounts.get(key, ("?", "unknown", key))
    if kind in MEMORY_FILE_SYSTEMS:
        raise Unsuitable(
            f"{directory} is on {kind}, where fdatasync costs nothing: a commit's latency there "
            "means nothing. Give a directory on a real disk with --directory."
        )
    return Disk(str(directory), point, kind, name)


def work_directory(wanted: str | None) -> tuple[Path, Disk]:
    """Make a fresh directory on a real disk: under `wanted`, or under /var/tmp."""
    parent = Path(wanted) if wanted else Path("/var/tmp")
    if not parent.is_dir():
        raise Unsuitable(f"{parent} is not a directory: make it, or name another one")
    disk = disk_of(parent)
    made = Path(tempfile.mkdtemp(prefix="raftdb-bench-", dir=parent)).resolve()
    return made, Disk(str(made), disk.mount_point, disk.file_system, disk.device)


def fdatasync_latency(directory: Path, seconds: float = 1.0, size: int = 512) -> dict[str, Any]:
    """Append `size` bytes and fdatasync, one after the other, for `seconds`: the disk's floor."""
    path = directory / "fdatasync-probe"
    samples: list[int] = []
    descriptor = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    try:
        deadline = time.monotonic() + seconds
        block = bytes(size)
        while time.monotonic() < deadline:
            os.write(descriptor, block)
            started = time.perf_counter_ns()
            os.fdatasync(descriptor)
            samples.append((time.perf_counter_ns() - started) // 1000)
    finally:
        os.close(descriptor)
        path.unlink()
    return asdict(latency(samples))


def disk_flushes(directory: Path) -> int:
    """How many flushes the disk under `directory` has completed since the machine started; 0 when
    the kernel doesn't count them. Evidence that commits are durable."""
    device = directory.stat().st_dev
    numbers = [str(os.major(device)), str(os.minor(device))]
    for line in Path("/proc/diskstats").read_text().splitlines():
        fields = line.split()
        if fields[:2] == numbers and len(fields) >= 20:
            return int(fields[18])
    return 0


def free_ports(count: int) -> list[int]:
    """Loopback TCP ports that nobody listens on now, all different."""
    found: list[int] = []
    start = FIRST_PORT + (os.getpid() * 97 + time.monotonic_ns()) % (LAST_PORT - FIRST_PORT)
    for step in range(LAST_PORT - FIRST_PORT):
        port = FIRST_PORT + (start - FIRST_PORT + step) % (LAST_PORT - FIRST_PORT + 1)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise Unsuitable(f"no {count} free ports between {FIRST_PORT} and {LAST_PORT} on 127.0.0.1")


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"


class _Probe:
    def __init__(self, value: int) -> None:
        self.value = value

    def add(self, other: int) -> int:
        return self.value + other


def interpreter_ns(turns: int = 50_000) -> int:
    """What a fixed loop of Python costs, per turn: two calls, an object, a dictionary. Builds of
    one version differ by 1.7 (with and without profile-guided optimisation), and nothing that is
    built in says reliably which one it is."""
    best = float("inf")
    for _ in range(5):
        found: dict[int, int] = {}
        total = 0
        started = time.perf_counter_ns()
        for number in range(turns):
            total += _Probe(number).add(3)
            found[number & 255] = total
        best = min(best, time.perf_counter_ns() - started)
    return round(best / turns)


def describe() -> dict[str, Any]:
    """The machine, for the record."""
    return {
        "cpu": _field("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mb": int(_field("/proc/meminfo", "MemTotal").split()[0]) // 1024,
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "unknown"),
        "python": platform.python_version(),
        "interpreter_ns": interpreter_ns(),
        "load_average": list(os.getloadavg()),
    }


def commit() -> dict[str, Any]:
    """Which commit of this repository is measured, and whether the work tree differs from it."""
    git = shutil.which("git")
    here = Path(__file__).resolve().parent

    def ask(*arguments: str) -> str | None:
        if git is None:
            return None
        answer = subprocess.run(
            [git, "-C", str(here), *arguments], capture_output=True, text=True, check=False
        )
        return answer.stdout.strip() if answer.returncode == 0 else None

    changed = ask("status", "--porcelain", "--untracked-files=no")
    return {"commit": ask("rev-parse", "HEAD") or "unknown", "changed": bool(changed)}


def record(benchmark: str, disk: Disk) -> dict[str, Any]:
    """What every file of results begins with."""
    return {
        "benchmark": benchmark,
        "format": FORMAT,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **commit(),
        "machine": describe(),
        "disk": asdict(disk),
    }


def file_name(results: dict[str, Any]) -> str:
    """Where results go unless told otherwise: BENCHMARK-DATE.json."""
    return f"{results['benchmark']}-{results['date'][:19].replace(':', '')}.json"
