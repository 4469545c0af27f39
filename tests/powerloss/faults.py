"""System calls of a real node that fail: EIO and ENOSPC, by strace, on one kind of file each.

A cluster of one takes writes from one client until the call fails. Then: the node stops by itself
with exit code 4 and says what failed, where, and what to do; a sync that failed is not tried again;
nothing is acknowledged after the failure; and started again without the fault it has every
acknowledged row once.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from raftdb.base.errors import Error
from raftdb.base.exits import ExitCode
from raftdb.client import connect
from raftdb.demo.processes import NodeProcess
from raftdb.ops.found import LocalCluster, found_local
from tests.powerloss import strace

SYNCS = "fdatasync,fsync"
END_S = 60.0
ROWS_MAX = 400
BESIDE_S = 20.0
"""For a call that lies beside the writes: they go on until it comes, so long at most."""
WRITE_S = 2.5
"""How long the client tries to get a row in, once the node is gone."""
IDLE_S = 3.0
"""The journal's mark is written after a second without a write."""


@dataclass(frozen=True)
class Fault:
    """The `nth` of these calls on this file fails."""

    name: str
    calls: str
    path: str
    """Below the data directory."""
    nth: int = 1
    error: str = "EIO"
    says: str = ""
    """Of the message; the file's name when empty."""
    settings: tuple[str, ...] = ()
    idle: bool = False
    """It comes when nothing is written."""
    beside: bool = False
    """It comes beside the writes and not before one's acknowledgement: those that are durable in
    the journal may still be acknowledged until the node has noticed."""

    def with_error(self, error: str) -> Fault:
        return Fault(**{**vars(self), "name": f"{self.name}-{error}", "error": error})


_DATABASE = "database/generation-000001/database.sqlite"
_SMALL = ("limits.journal_segment_bytes=4096",)
_OFTEN = ("checkpoint.wal_bytes=8192",)
_SECOND = "journal/00000000000000000002.segment"
_KINDS = (
    Fault("segment-write", "pwrite64", "journal/00000000000000000001.segment", 14),
    Fault("segment-sync", SYNCS, "journal/00000000000000000001.segment", 14),
    Fault("first-vote-sync", SYNCS, "journal/00000000000000000001.segment", 1),
    Fault("roll-write", "pwrite64", f"{_SECOND}.new", settings=_SMALL),
    Fault("roll-sync", SYNCS, f"{_SECOND}.new", settings=_SMALL),
    Fault("roll-rename", "rename", f"{_SECOND}.new", settings=_SMALL),
    Fault("rolled-write", "pwrite64", _SECOND, 2, settings=_SMALL),
    Fault("directory-sync", SYNCS, "journal", 4, settings=_SMALL, says="journal"),
    Fault("mark-write", "pwrite64", "journal/mark.new", 1, idle=True),
    Fault("mark-sync", SYNCS, "journal/mark.new", 1, idle=True),
    Fault("mark-rename", "rename", "journal/mark.new", 1, idle=True),
    Fault("wal-write", "write,pwrite64", f"{_DATABASE}-wal", 90),
    Fault("wal-sync", SYNCS, f"{_DATABASE}-wal", 3, settings=_OFTEN, beside=True),
    Fault("database-write", "write,pwrite64", _DATABASE, 2, settings=_OFTEN, beside=True),
    Fault("database-sync", SYNCS, _DATABASE, 2, settings=_OFTEN, beside=True),
)
FAULTS = {
    one.name: one for kind in _KINDS for one in (kind.with_error("EIO"), kind.with_error("ENOSPC"))
}
QUICK = ("segment-sync-EIO", "roll-rename-ENOSPC", "wal-write-ENOSPC", "database-sync-EIO")


@dataclass
class Seen:
    """What happened."""

    fault: Fault
    exit_code: int | None = None
    log: str = ""
    acked: dict[int, float] = field(default_factory=dict)
    """Row to the time of its acknowledgement, in Unix seconds."""
    failed_s: float | None = None
    retried: list[str] = field(default_factory=list)
    rows: Counter[int] = field(default_factory=Counter)

    def problems(self) -> list[str]:
        """What should not have been."""
        found = []
        fault = self.fault
        if self.failed_s is None:
            return ["the fault was never met"]
        if self.exit_code != ExitCode.BROKEN:
            found.append(f"exit code {self.exit_code}, not {int(ExitCode.BROKEN)}")
        file = fault.says or os.path.basename(fault.path).removesuffix("-wal")
        last = "\n".join(line for line in self.log.splitlines() if " node_stops " in line)
        if file not in last:
            found.append(f"the message does not name {file}: {last or self.log[-800:]}")
        if "start the node again" not in last:
            found.append(f"the message does not say what to do: {last}")
        if self.retried:
            found.append(f"a failed call was made again: {self.retried}")
        late = [row for row, at_s in self.acked.items() if at_s > self.failed_s]
        if late and not fault.beside:
            found.append(f"acknowledged after the failure: {late}")
        missing = [row for row in self.acked if self.rows[row] != 1]
        if missing:
            found.append(f"acknowledged, and not there once: {missing}")
        if any(count != 1 for count in self.rows.values()):
            found.append(f"rows that are there more than once: {self.rows}")
        return found


def meet(fault: Fault, home: Path) -> Seen:
    """Run a node into the fault, and start it again without."""
    cluster = found_local(home / "cluster", locations=("one/place",), insecure=True)
    node = NodeProcess("n1", cluster.directory / "n1")
    seen = Seen(fault)
    _run(fault, cluster, node, seen)
    seen.log = node.log_tail(60)
    _read_trace(fault, home / "strace", seen)
    if seen.failed_s is not None:
        _start_again(cluster, node, seen)
    return seen


def _run(fault: Fault, cluster: LocalCluster, node: NodeProcess, seen: Seen) -> None:
    data = Path(os.path.realpath(cluster.directory)) / "n1" / "data"
    calls = fault.calls if fault.calls != "rename" else "rename,renameat,renameat2"
    options = ["--seccomp-bpf", "-P", str(data / fault.path), "-e", f"trace={calls}"]
    options += ["-e", f"inject={calls}:error={fault.error}:when={fault.nth}"]
    settings = [part for one in fault.settings for part in ("--set", one)]
    program = [sys.executable, "-m", "raftdb.cli", "start"]
    program += ["--config", str(node.directory / "raftdb.toml"), *settings]
    output = cluster.directory.parent / "strace"
    with open(node.directory / "node.log", "ab") as log:
        node.process = subprocess.Popen(
            strace.command(output, options, program),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        _write(cluster, fault, seen, node)
        with contextlib.suppress(subprocess.TimeoutExpired):
            seen.exit_code = node.process.wait(IDLE_S * 5 if fault.idle else END_S / 3)
    finally:
        if node.running:
            node.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                node.process.wait(5.0)
        node.kill()


def _write(cluster: LocalCluster, fault: Fault, seen: Seen, node: NodeProcess) -> None:
    """Rows 1, 2, 3, … one after the other, until one fails or there are enough."""
    with contextlib.suppress(Error), connect(cluster.url, timeout=END_S) as first:
        if not fault.name.startswith("first"):
            first.execute("CREATE TABLE t(id INTEGER, body TEXT)")
    with contextlib.suppress(Error), connect(cluster.url, timeout=WRITE_S) as connection:
        until_s = time.monotonic() + BESIDE_S
        for row in itertools.count(1):
            if row >= (4 if fault.idle else ROWS_MAX) and not (
                fault.beside and time.monotonic() < until_s
            ):
                break
            connection.execute("INSERT INTO t VALUES (?, ?)", (row, "x" * 200))
            seen.acked[row] = time.time()
            if not node.running:
                break


def _read_trace(fault: Fault, output: Path, seen: Seen) -> None:
    for call in strace.read_calls(output):
        if call.injected and seen.failed_s is None:
            seen.failed_s = call.time_s
        elif seen.failed_s is not None and call.name in SYNCS.split(",") and call.result == 0:
            seen.retried.append(f"{call.name} {call.path}")


def _start_again(cluster: LocalCluster, node: NodeProcess, seen: Seen) -> None:
    node.start()
    try:
        with connect(cluster.url, timeout=END_S) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER, body TEXT)")
            connection.execute("INSERT INTO t VALUES (0, '')")
            rows = connection.execute("SELECT id FROM t").fetchall()
            seen.rows = Counter(row[0] for row in rows)
    finally:
        node.kill()
