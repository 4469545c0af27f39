"""Where a single commit's latency goes: one client, system calls of all processes, medians.

With one connection every commit is alone on its way, so the reads, writes and syncs of the nodes
between a request's departure and its reply's arrival tell where it was. perf's tracepoints record
them at little cost; they need root.
"""

from __future__ import annotations

import itertools
import re
import shutil
import statistics
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError, Missing
from bench.load import Measurement, Specification, run
from bench.processes import Supervisor, die_with_parent
from bench.targets import Options
from bench.targets.raftdb import Raftdb

SECONDS = 3.0
_CALLS = ("read", "write", "fdatasync")
_LINE = re.compile(
    r"\s*\S+\s+(?P<pid>\d+)/(?P<tid>\d+)\s+(?P<time>[\d.]+):\s+syscalls:sys_"
    r"(?P<edge>enter|exit)_(?P<call>\w+):\s+(?P<rest>.*)$"
)
_FD = re.compile(r"fd: (0x[0-9a-f]+)")
_COUNT = re.compile(r"count: (0x[0-9a-f]+)")
_WAKE_BYTES = 8
"""A write of an eventfd: one thread wakes the loop of its own process."""


@dataclass(frozen=True, slots=True)
class Event:
    """One edge of a system call."""

    time_us: float
    pid: int
    tid: int
    call: str
    entered: bool
    fd: int
    size: int
    """Bytes asked for at the entry, result at the exit."""

    @property
    def on_main(self) -> bool:
        """On the process's first thread, which is the node's loop."""
        return self.pid == self.tid


def parse(lines: Iterable[str]) -> list[Event]:
    """Read `perf script -F comm,pid,tid,time,event,trace`. Exits get the fd of their entry."""
    found: list[Event] = []
    descriptors: dict[int, int] = {}
    for line in lines:
        match = _LINE.match(line)
        if match is None:
            continue
        tid, entered, rest = int(match["tid"]), match["edge"] == "enter", match["rest"]
        if entered:
            fd = _FD.search(rest)
            count = _COUNT.search(rest)
            descriptors[tid] = int(fd[1], 16) if fd else -1
            size = int(count[1], 16) if count else 0
        else:
            size = int(rest.split()[0], 16) if rest.startswith("0x") else -1
        found.append(
            Event(
                float(match["time"]) * 1e6,
                int(match["pid"]),
                tid,
                match["call"],
                entered,
                descriptors.get(tid, -1),
                size,
            )
        )
    return sorted(found, key=lambda event: event.time_us)


STEPS = (
    "client: request sent until the leader has read it",
    "leader: decode, admit, propose, until the first append is sent",
    "network and wake-up, until the faster follower has read it",
    "follower: until its journal calls fdatasync",
    "follower: fdatasync",
    "follower: until its acknowledgement is sent",
    "network and wake-up, until the leader has read it",
    "leader: commit, and apply in SQLite, until the loop is woken",
    "leader: until the reply is sent",
    "client: until the reply is read",
)


class _Commit:
    """The events of one commit, looked up in order."""

    def __init__(self, events: list[Event], load: int, nodes: list[int]) -> None:
        self.events = events
        self.load = load
        self.nodes = nodes

    def first(self, after_us: float, fits: Callable[[Event], bool]) -> Event | None:
        for event in self.events:
            if event.time_us >= after_us and fits(event):
                return event
        return None

    def steps(self) -> list[float] | None:
        """Durations of STEPS; None when the commit does not show them all in order."""
        sent = self.events[0]
        arrived = self.first(
            sent.time_us,
            lambda e: e.pid in self.nodes and e.on_main and _got(e) and e.size == sent.size,
        )
        if arrived is None:
            return None
        leader = arrived.pid
        append = self.first(arrived.time_us, lambda e: e.pid == leader and e.on_main and _sends(e))
        if append is None or append.fd == arrived.fd:
            return None
        paths = [self._follower(append, pid) for pid in self.nodes if pid != leader]
        path = min((one for one in paths if one), key=lambda one: one[-1], default=None)
        if path is None:
            return None
        heard = self.first(path[-1], lambda e: e.pid == leader and e.on_main and _got(e))
        if heard is None:
            return None
        replied = self.first(
            heard.time_us,
            lambda e: e.pid == leader and e.on_main and _sends(e) and e.fd == arrived.fd,
        )
        ended = self.first(sent.time_us, lambda e: e.pid == self.load and _got(e))
        if replied is None or ended is None:
            return None
        applied = [
            e.time_us
            for e in self.events
            if e.pid == leader
            and not e.on_main
            and e.entered
            and e.call == "write"
            and e.size == _WAKE_BYTES
            and heard.time_us <= e.time_us <= replied.time_us
        ]
        if not applied:
            return None
        moments = [sent.time_us, arrived.time_us, append.time_us, *path, heard.time_us]
        moments += [applied[-1], replied.time_us, ended.time_us]
        return [after - before for before, after in itertools.pairwise(moments)]

    def _follower(self, append: Event, pid: int) -> list[float] | None:
        """When a follower had read the append, synced from when to when, and answered."""
        read = self.first(
            append.time_us,
            lambda e: e.pid == pid and e.on_main and _got(e) and e.size == append.size,
        )
        if read is None:
            return None
        begun = self.first(read.time_us, lambda e: e.pid == pid and _syncs(e, True))
        if begun is None:
            return None
        synced = self.first(begun.time_us, lambda e: e.pid == pid and _syncs(e, False))
        if synced is None:
            return None
        sent = self.first(
            synced.time_us,
            lambda e: e.pid == pid and e.on_main and _sends(e) and e.fd == read.fd,
        )
        if sent is None:
            return None
        return [read.time_us, begun.time_us, synced.time_us, sent.time_us]


def _got(event: Event) -> bool:
    """Bytes came from a socket."""
    return event.call == "read" and not event.entered and event.size > _WAKE_BYTES


def _sends(event: Event) -> bool:
    """Bytes leave by a socket."""
    return event.call == "write" and event.entered and event.size > _WAKE_BYTES


def _syncs(event: Event, entered: bool) -> bool:
    return event.call == "fdatasync" and event.entered == entered


@dataclass(frozen=True)
class Timeline:
    """Medians in microseconds."""

    commits: int
    """How many commits showed all steps."""
    seen: int
    steps: list[float]
    total: float
    sync: float


def break_down(events: list[Event], load: int, nodes: list[int]) -> Timeline:
    """Cut the events into commits and take medians. Raises BenchError when there are too few."""
    starts = [i for i, e in enumerate(events) if e.pid == load and _sends(e)]
    found: list[list[float]] = []
    for begin, end in itertools.pairwise(starts):
        steps = _Commit(events[begin:end], load, nodes).steps()
        if steps is not None:
            found.append(steps)
    if len(found) < 10:
        raise BenchError(f"only {len(found)} of {len(starts)} commits could be followed")
    return Timeline(
        commits=len(found),
        seen=len(starts),
        steps=[statistics.median(values) for values in zip(*found, strict=True)],
        total=statistics.median([sum(steps) for steps in found]),
        sync=_median_sync(events),
    )


def _median_sync(events: list[Event]) -> float:
    """Median duration of fdatasync over all nodes."""
    begun: dict[int, float] = {}
    durations: list[float] = []
    for event in events:
        if event.call == "fdatasync":
            if event.entered:
                begun[event.tid] = event.time_us
            elif event.tid in begun:
                durations.append(event.time_us - begun.pop(event.tid))
    return statistics.median(durations) if durations else 0.0


def record(options: Options, directory: Path) -> tuple[Measurement, Timeline]:
    """Start a cluster, load it with one connection, and follow the commits."""
    perf = shutil.which("perf")
    if perf is None:
        raise Missing("perf is not installed (apt-get install linux-perf)")
    data = directory / "perf.data"
    recorders: list[subprocess.Popen[bytes]] = []
    loads: list[int] = []
    with Supervisor(directory) as supervisor:
        cluster = Raftdb(options).start(directory, supervisor)
        nodes = [node.process.pid for node in cluster.nodes]

        def begin(load: int) -> None:
            loads.append(load)
            events = ",".join(
                f"syscalls:sys_{edge}_{c}" for c in _CALLS for edge in ("enter", "exit")
            )
            pids = ",".join(map(str, [load, *nodes]))
            command = [perf, "record", "-q", "-e", events, "-p", pids, "-o", str(data)]
            recorders.append(
                subprocess.Popen(
                    [*command, "--", "sleep", str(SECONDS)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                    preexec_fn=die_with_parent,
                )
            )

        specification = Specification(
            addresses=cluster.addresses,
            connections=1,
            seconds=SECONDS + 1,
            warmup_s=2.0,
            prefix="timeline",
            samples_path=str(directory / "samples"),
            ca=cluster.ca,
            certificate=cluster.certificate,
            key=cluster.key,
        )
        try:
            measured = run(
                cluster.load_command,
                specification,
                cluster.nodes,
                supervisor,
                cluster.working,
                begin,
            )
            for recorder in recorders:
                _, errors = recorder.communicate(timeout=60)
                if recorder.returncode != 0:
                    raise BenchError(f"perf can't trace here: {errors.decode().strip()[:500]}")
        finally:
            for recorder in recorders:
                if recorder.poll() is None:
                    recorder.kill()
                    recorder.wait()
    script = [perf, "script", "-i", str(data), "-F", "comm,pid,tid,time,event,trace"]
    text = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    return measured, break_down(parse(text.splitlines()), loads[0], nodes)
