"""One load process against a running cluster, and what it and the nodes cost meanwhile.

The protocol, the same for every system and every language: the harness writes one JSON object (a
Specification) to the load process's standard input and closes it. The process prepares what the
workload needs, opens the connections, and prints JSON lines: {"event": "ready"}, "begin" and "end"
of the measured window, then "done" with `acknowledged` (all operations that succeeded, warm-up
included), `found` (how many of them a read at the end finds), `retries` and `cpu_s` (its own
processor time within the window), or "failed" with a `message`. Latencies of all operations that
ended within the window go to the file `samples_path` as little-endian uint32 microseconds.

Each connection is a closed loop: the next request starts when the last one was answered.
"""

from __future__ import annotations

import array
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bench.errors import BenchError, NotMeasured
from bench.figures import Latency, latency
from bench.host import disk_flushes
from bench.processes import die_with_parent

SETUP_S = 300.0
"""A thousand connections take a while on a busy machine."""
FINISH_S = 120.0


class Node(Protocol):
    """A process that is measured."""

    def cpu_s(self) -> float:
        """User and system time so far, in seconds."""

    def memory_mb(self) -> tuple[float, float]:
        """Resident set now, and at its highest, in 10^6 bytes."""


class Watcher(Protocol):
    """Whoever runs the nodes."""

    directory: Path
    """On their disk."""

    def check(self) -> None:
        """Raise BenchError when one of them ended."""


@dataclass(frozen=True)
class Specification:
    """What a load process is asked to do."""

    addresses: list[str]
    connections: int
    seconds: float
    prefix: str
    samples_path: str
    workload: str = "insert"
    warmup_s: float = 1.0
    value_bytes: int = 100
    ca: str = ""
    certificate: str = ""
    key: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Measurement:
    """One load on one cluster. CPU in seconds within the window, memory in 10^6 bytes."""

    latency: Latency
    commits_per_s: float
    acknowledged: int
    retries: int
    load_cpu_s: float
    node_cpu_s: list[float]
    node_rss_mb: list[float]
    node_peak_rss_mb: list[float]
    disk_flushes: int


class _Lines:
    """JSON lines from a pipe, with deadlines, while the cluster is watched."""

    def __init__(self, process: subprocess.Popen[bytes], supervisor: Watcher) -> None:
        assert process.stdout is not None
        self._descriptor = process.stdout.fileno()
        self._process = process
        self._supervisor = supervisor
        self._buffer = b""

    def expect(self, event: str, timeout_s: float) -> dict[str, Any]:
        """The next event, which must be `event`."""
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                self._supervisor.check()
                raise BenchError(f"the load process did not reach {event!r} in {timeout_s:g} s")
            if select.select([self._descriptor], [], [], min(left, 0.5))[0]:
                chunk = os.read(self._descriptor, 65_536)
                if not chunk:
                    self._supervisor.check()
                    raise BenchError(
                        f"the load process ended before {event!r}, code {self._process.wait()}"
                    )
                self._buffer += chunk
            else:
                self._supervisor.check()
        line, _, self._buffer = self._buffer.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        if found["event"] == "failed":
            self._supervisor.check()
            raise NotMeasured(f"the load process failed: {found['message']}")
        if found["event"] != event:
            raise BenchError(f"the load process said {found['event']!r} instead of {event!r}")
        return found


def read_samples(path: Path) -> array.array[int]:
    """The latencies that a load process wrote, in microseconds."""
    samples = array.array("I")
    assert samples.itemsize == 4
    samples.frombytes(path.read_bytes())
    if sys.byteorder != "little":
        samples.byteswap()
    return samples


def run(
    command: Sequence[str],
    specification: Specification,
    nodes: Sequence[Node],
    supervisor: Watcher,
    working: Path = Path("/"),
    on_begin: Callable[[int], None] = lambda _pid: None,
    on_end: Callable[[], None] = lambda: None,
) -> Measurement:
    """Run one load process to its end. Raises BenchError on any failure or lost write.

    `on_begin` gets the load process's id when the measured time begins.
    """
    process = subprocess.Popen(
        list(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=working,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )
    try:
        assert process.stdin is not None
        fields = asdict(specification)
        fields.update(fields.pop("extra"))
        process.stdin.write(json.dumps(fields).encode())
        process.stdin.close()
        lines = _Lines(process, supervisor)
        lines.expect("ready", SETUP_S)
        lines.expect("begin", specification.warmup_s + SETUP_S)
        on_begin(process.pid)
        before = [node.cpu_s() for node in nodes]
        flushes = disk_flushes(supervisor.directory)
        lines.expect("end", specification.seconds + FINISH_S)
        after = [node.cpu_s() for node in nodes]
        on_end()
        flushes = disk_flushes(supervisor.directory) - flushes
        memory = [node.memory_mb() for node in nodes]
        done = lines.expect("done", FINISH_S)
        process.wait(FINISH_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
    if done["found"] != done["acknowledged"]:
        raise BenchError(
            f"{done['acknowledged']} writes were acknowledged and {done['found']} are there"
        )
    samples = read_samples(Path(specification.samples_path))
    if not samples:
        raise NotMeasured("no operation ended within the measured time: measure longer")
    summary = latency(samples)
    return Measurement(
        latency=summary,
        commits_per_s=summary.count / specification.seconds,
        acknowledged=done["acknowledged"],
        retries=done["retries"],
        load_cpu_s=done["cpu_s"],
        node_cpu_s=[b - a for a, b in zip(before, after, strict=True)],
        node_rss_mb=[now for now, _ in memory],
        node_peak_rss_mb=[peak for _, peak in memory],
        disk_flushes=flushes,
    )
