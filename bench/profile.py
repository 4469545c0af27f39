"""Where the busiest node's processor time goes, per commit.

Two loads on one cluster: during the first, py-spy samples which Python code holds the interpreter
lock; during the second, perf (where it is installed) samples which library or the kernel runs, by
thread. The kernel's own accounting per thread gives the totals, so that neither tool's idea of
"idle" matters.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError, Missing
from bench.load import Measurement, Specification, run
from bench.processes import Service, Supervisor, die_with_parent
from bench.targets import Cluster, Options
from bench.targets.raftdb import Raftdb

RATE_HZ = 400
_THREAD = re.compile(r"thread \((\d+)\): (.*)$")
_FRAME = re.compile(r"(?P<name>.*) \((?P<file>[^()]*?)(?::\d+)?\)$")
_OURS = re.compile(r".*/(raftdb|pysyncobj)/(?:(\w+)/)?(\w+)\.py$")
_LIBRARIES = (
    ("libpython", "interpreter"),
    ("python3", "interpreter"),
    ("[kernel", "kernel"),
    ("libssl", "TLS"),
    ("libcrypto", "TLS"),
    ("_ssl.", "TLS"),
    ("loop.", "event loop"),
    ("__init__.", "SQLite"),
    ("apsw", "SQLite"),
    ("_cmsgpack", "msgpack"),
    ("libc.", "libc"),
    ("[vdso]", "libc"),
)
"""Marks in a shared object's name; `loop` is uvloop's and `__init__` is apsw's extension."""


@dataclass(frozen=True)
class Stack:
    """One distinct stack and how often it was seen; frames (function, file), outermost first."""

    thread: str
    tid: int
    frames: tuple[tuple[str, str], ...]
    count: int


def parse_stacks(text: str) -> list[Stack]:
    """Read py-spy's `raw` format with threads and full file names."""
    found: list[Stack] = []
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        head, *frames = stack.split(";")
        thread = _THREAD.match(head)
        if thread is None or not count.isdigit():
            raise BenchError(f"py-spy wrote a line that is no stack: {line[:120]!r}")
        parsed = []
        for frame in frames:
            match = _FRAME.match(frame)
            parsed.append((match["name"], match["file"]) if match else (frame, ""))
        found.append(Stack(thread[2], int(thread[1]), tuple(parsed), int(count)))
    return found


def room(stack: Stack) -> str:
    """The innermost room (or pysyncobj) on the stack: what it calls counts for it."""
    for _, file in reversed(stack.frames):
        match = _OURS.match(file)
        if match:
            return "pysyncobj" if match[1] == "pysyncobj" else match[2] or "raftdb"
    return "other"


def function(stack: Stack) -> str:
    """The innermost Python function, as file:function from its room on."""
    for name, file in reversed(stack.frames):
        if file.endswith(".py"):
            return f"{'/'.join(file.split('/')[-2:])}:{name}"
    return stack.frames[-1][0] if stack.frames else "?"


def library(shared_object: str) -> str:
    """What a shared object is, in plain words."""
    for mark, name in _LIBRARIES:
        if shared_object.startswith(mark):
            return name
    return shared_object


def parse_perf(text: str) -> dict[tuple[int, str], float]:
    """Share of all samples by (thread id, library), from `perf report -t , -s pid,dso`."""
    found: Counter[tuple[int, str]] = Counter()
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != 3 or not fields[0].endswith("%"):
            continue
        tid = fields[1].rpartition(":")[0] or fields[1]
        digits = re.search(r"\d+", tid)
        if digits is not None:
            found[int(digits[0]), library(fields[2])] += float(fields[0][:-1]) / 100  # type: ignore[assignment]
    return dict(found)


@dataclass(frozen=True)
class Row:
    """One line of a table: microseconds of CPU per commit."""

    thread: str
    where: str
    us: float


@dataclass(frozen=True)
class Profile:
    """The busiest node under load. Times are microseconds per commit."""

    sampled: Measurement
    """While py-spy was sampling, which slows the node."""
    plain: Measurement
    """The second load."""
    node_us: float
    threads: list[Row]
    libraries: list[Row]
    """Empty without perf."""
    rooms: list[Row]
    functions: list[Row]


def thread_cpu_s(pid: int) -> dict[int, float]:
    """CPU of each living thread so far, by id."""
    found: dict[int, float] = {}
    for name in os.listdir(f"/proc/{pid}/task"):
        try:
            text = Path(f"/proc/{pid}/task/{name}/schedstat").read_text()
        except FileNotFoundError:
            continue
        found[int(name)] = int(text.split()[0]) / 1e9
    return found


def find_program(program: str) -> str | None:
    """Its path: on the search path, or beside the interpreter."""
    beside = Path(sys.executable).parent / program
    return shutil.which(program) or (str(beside) if beside.exists() else None)


def _record(command: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )


def _finish(recorder: subprocess.Popen[bytes]) -> None:
    try:
        _, errors = recorder.communicate(timeout=60)
    finally:
        if recorder.poll() is None:
            recorder.kill()
            recorder.wait()
    if recorder.returncode != 0:
        name = str(recorder.args[0] if isinstance(recorder.args, list) else recorder.args)
        raise BenchError(f"{name} ended with {recorder.returncode}: {errors.decode().strip()}")


class Profiler:
    """One cluster, two loads."""

    def __init__(self, directory: Path, connections: int, seconds: float, raw: Path) -> None:
        self.directory = directory
        self.connections = connections
        self.seconds = max(2, round(seconds))
        self.raw = raw
        self.perf_data = directory / "perf.data"
        py_spy = find_program("py-spy")
        if py_spy is None:
            raise Missing("py-spy is not installed: .venv/bin/python -m pip install py-spy")
        self.py_spy = py_spy
        self.perf = find_program("perf")
        self.before: dict[int, float] = {}
        self.after: dict[int, float] = {}

    def run(self, options: Options) -> Profile:
        """Start, load twice, stop, add up."""
        with Supervisor(self.directory) as supervisor:
            cluster = Raftdb(options).start(self.directory, supervisor)
            sampled, node = self._sampled(cluster, supervisor)
            plain = self._plain(cluster, supervisor, node)
        stacks = parse_stacks(self.raw.read_text())
        return self._add_up(stacks, sampled, plain, cluster.nodes.index(node))

    def _load(
        self,
        cluster: Cluster,
        supervisor: Supervisor,
        prefix: str,
        on_begin: Callable[[int], None],
        on_end: Callable[[], None],
    ) -> Measurement:
        specification = Specification(
            addresses=cluster.addresses,
            connections=self.connections,
            seconds=self.seconds,
            warmup_s=2.0,
            prefix=prefix,
            samples_path=str(self.directory / "samples"),
            ca=cluster.ca,
            certificate=cluster.certificate,
            key=cluster.key,
        )
        return run(
            cluster.load_command,
            specification,
            cluster.nodes,
            supervisor,
            cluster.working,
            on_begin,
            on_end,
        )

    def _sampled(self, cluster: Cluster, supervisor: Supervisor) -> tuple[Measurement, Service]:
        """py-spy on the busiest node (by then: the leader), Python that holds the lock."""
        started: list[tuple[Service, subprocess.Popen[bytes]]] = []

        def attach(_load: int) -> None:
            node = max(cluster.nodes, key=lambda one: one.cpu_s())
            command = [self.py_spy, "record", "--pid", str(node.process.pid), "--format", "raw"]
            command += ["--threads", "--full-filenames", "--nolineno", "--gil"]
            command += ["--rate", str(RATE_HZ), "--duration", str(self.seconds)]
            started.append((node, _record([*command, "--output", str(self.raw)])))

        try:
            measured = self._load(cluster, supervisor, "sampled", attach, lambda: None)
        finally:
            for _, recorder in started:
                _finish(recorder)
        return measured, started[0][0]

    def _plain(self, cluster: Cluster, supervisor: Supervisor, node: Service) -> Measurement:
        pid = node.process.pid
        started: list[subprocess.Popen[bytes]] = []

        def begin(_load: int) -> None:
            if self.perf is not None:
                command = [self.perf, "record", "-e", "cpu-clock", "-F", "997", "-p", str(pid)]
                command += ["-o", str(self.perf_data), "--", "sleep", str(self.seconds)]
                started.append(_record(command))
            self.before = thread_cpu_s(pid)

        def end() -> None:
            self.after = thread_cpu_s(pid)

        try:
            return self._load(cluster, supervisor, "plain", begin, end)
        finally:
            for recorder in started:
                _finish(recorder)

    def _add_up(
        self, stacks: list[Stack], sampled: Measurement, plain: Measurement, node: int
    ) -> Profile:
        names = {stack.tid: stack.thread for stack in stacks}
        commits = plain.latency.count
        node_us = plain.node_cpu_s[node] * 1e6 / commits
        threads: Counter[str] = Counter()
        for tid, cpu_s in self.after.items():
            spent = cpu_s - self.before.get(tid, 0.0)
            threads[names.get(tid, "others")] += spent * 1e6 / commits  # type: ignore[assignment]
        rooms: Counter[tuple[str, str]] = Counter()
        functions: Counter[tuple[str, str]] = Counter()
        for stack in stacks:
            rooms[stack.thread, room(stack)] += stack.count
            functions[stack.thread, function(stack)] += stack.count
        scale = 1e6 / RATE_HZ / sampled.latency.count
        held = Counter[str]()
        for stack in stacks:
            held[stack.thread] += stack.count
        # A thread may lose its core while it holds the lock: time held is cut down to its CPU.
        fit = {
            name: min(scale, threads[name] / count) if threads[name] else scale
            for name, count in held.items()
        }
        return Profile(
            sampled=sampled,
            plain=plain,
            node_us=node_us,
            threads=[Row(thread, "all", us) for thread, us in threads.most_common()],
            libraries=self._libraries(names, node_us),
            rooms=[Row(*key, count * fit[key[0]]) for key, count in rooms.most_common()],
            functions=[Row(*key, count * fit[key[0]]) for key, count in functions.most_common()],
        )

    def _libraries(self, names: dict[int, str], node_us: float) -> list[Row]:
        if self.perf is None:
            return []
        command = [self.perf, "report", "-i", str(self.perf_data), "--stdio", "-t", ","]
        command += ["-s", "pid,dso"]  # perf's `pid` is the thread
        report = subprocess.run(command, capture_output=True, text=True, check=True)
        found: Counter[tuple[str, str]] = Counter()
        for (tid, name), share in parse_perf(report.stdout).items():
            found[names.get(tid, "others"), name] += share * node_us  # type: ignore[assignment]
        return [Row(*key, us) for key, us in found.most_common()]
