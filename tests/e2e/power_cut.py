"""Power cuts under a whole cluster, on a real file system. Needs root, Linux and ext4.

    python -m tests.e2e.power_cut --cuts 20

The cluster lives on a loop-mounted ext4. In the middle of the load the file system is shut down by
the ioctl that file system developers use for it (FS_IOC_SHUTDOWN without flushing the log): from
that instant nothing more reaches the disk, and all that was not synced is gone, for all nodes at
once. Then the nodes are killed, the disk is mounted again, the cluster is started, and every write
that was ever acknowledged has to be there exactly once on every node.

`--kill-first` kills the nodes by SIGKILL some moments before the cut: what they wrote without
syncing is in the page cache then, and a restart in between must not promise anything that rests on
it (rule J1).
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import random
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from raftdb.client import connect
from raftdb.demo.check import broken_promises, check_nodes
from raftdb.demo.ledger import Ledger
from raftdb.demo.workload import SCHEMA, LoadClient
from tests.e2e.cluster import Cluster
from tests.e2e.leader_kills import CLIENTS, TEXT

FS_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2
IMAGE_MIB = 512


@contextlib.contextmanager
def disk(home: Path) -> Iterator[Disk]:
    """A file system of its own, unmounted at the end."""
    image = home / "disk.img"
    with open(image, "wb") as file:
        file.truncate(IMAGE_MIB << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    mounted = Disk(image, home / "mnt")
    mounted.directory.mkdir()
    mounted.mount()
    try:
        yield mounted
    finally:
        mounted.unmount()


class Disk:
    """A loop-mounted ext4 that can lose its power."""

    def __init__(self, image: Path, directory: Path) -> None:
        self._image = image
        self.directory = directory

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", str(self._image), str(self.directory)], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", str(self.directory)], check=True)

    def cut(self) -> None:
        """From here on nothing reaches the disk."""
        descriptor = os.open(self.directory, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, FS_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(descriptor)


class Round:
    """One load that ends in the dark. Unknown outcomes are allowed; lost ones are not."""

    def __init__(self, cluster: Cluster, ledger: Ledger) -> None:
        self._stop = threading.Event()
        self._ledger = ledger
        self._clients = [
            LoadClient(record, ledger, lambda: cluster.connect(timeout=2.0), ["MAD"], self._stop)
            for record in ledger.records
        ]

    def run(self, seconds: float) -> None:
        """Start, and go on for so long."""
        for client in self._clients:
            client.start()
        self.pause(seconds)

    def pause(self, seconds: float) -> None:
        """Let the load go on."""
        self._stop.wait(seconds)

    def end(self) -> None:
        """Stop. What failed in the dark was allowed to."""
        self._stop.set()
        for client in self._clients:
            client.join(15.0)
        for record in self._ledger.records:
            record.failures.clear()


def main() -> int:
    """Exit code 0 when every promise was kept after every cut."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.e2e.power_cut",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--cuts", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kill-first", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="raftdb-power-") as home, disk(Path(home)) as power:
        cluster = Cluster(power.directory / "cluster")
        try:
            return cut_repeatedly(cluster, power, options)
        finally:
            cluster.kill()


def cut_repeatedly(cluster: Cluster, power: Disk, options: argparse.Namespace) -> int:
    """Load, cut, start again, check; as often as asked."""
    chance = random.Random(options.seed)
    ledger = Ledger(CLIENTS)
    cluster.start_and_wait()
    with connect(cluster.url) as connection:
        for statement in (*SCHEMA, *TEXT):
            connection.execute(statement)
    for cut in range(1, options.cuts + 1):
        load = Round(cluster, ledger)
        load.run(chance.uniform(0.5, 3.0))
        if options.kill_first:
            cluster.kill()
            cluster.start()
            load.pause(chance.uniform(0.0, 2.0))
        power.cut()
        cluster.kill()
        load.end()
        power.unmount()
        power.mount()
        cluster.start_and_wait()
        verdicts = check_nodes(ledger, cluster.node_ids, cluster.connect_to)
        broken = broken_promises(ledger, verdicts)
        print(
            f"cut {cut}: {ledger.totals().acknowledged} rows acknowledged so far,"
            f" {verdicts[0].rows} there, {verdicts[0].unknown} of unknown outcome,"
            f" content {' '.join(v.content_hash[:8] for v in verdicts)}"
            f"{'' if not broken else ' BROKEN'}",
            flush=True,
        )
        for promise in broken:
            print(f"  {promise}")
        if broken:
            return 4
    cluster.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
