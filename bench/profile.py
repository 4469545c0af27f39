"""Where the leader's processor time goes, per commit: py-spy on a cluster under load."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError, Missing
from bench.load import Measurement, Specification, run
from bench.processes import Service, Supervisor, die_with_parent
from bench.targets import Options
from bench.targets.raftdb import Raftdb

RATE_HZ = 250
_FRAME = re.compile(r"(?P<name>.*) \((?P<file>[^()]*?)(?::\d+)?\)$")
_OURS = re.compile(r".*/(raftdb|pysyncobj)/(?:(\w+)/)?(\w+)\.py$")
_NATIVE = (
    ("libssl", "TLS"),
    ("libcrypto", "TLS"),
    ("_ssl", "TLS"),
    ("apsw", "SQLite"),
    ("sqlite", "SQLite"),
    ("uvloop", "event loop"),
    ("msgpack", "msgpack"),
)


@dataclass(frozen=True)
class Stack:
    """One distinct stack and how often it was seen; frames (function, file), outermost first."""

    thread: str
    frames: tuple[tuple[str, str], ...]
    count: int


def parse_stacks(text: str) -> list[Stack]:
    """Read py-spy's `raw` format with threads and full file names."""
    found: list[Stack] = []
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        if not count.isdigit():
            raise BenchError(f"py-spy wrote a line that is no stack: {line[:120]!r}")
        thread, *frames = stack.split(";")
        name = thread.partition("): ")[2] or thread
        parsed = []
        for frame in frames:
            match = _FRAME.match(frame)
            parsed.append((match["name"], match["file"]) if match else (frame, ""))
        found.append(Stack(name, tuple(parsed), int(count)))
    return found


def place(stack: Stack) -> str:
    """The innermost room or library that is ours to change: `machine`, `pysyncobj`, … Native
    libraries count for themselves where py-spy saw them."""
    for _, file in reversed(stack.frames):
        base = os.path.basename(file)
        for mark, name in _NATIVE:
            if mark in base and not base.endswith(".py"):
                return name
        match = _OURS.match(file)
        if match:
            return "pysyncobj" if match[1] == "pysyncobj" else match[2] or "raftdb"
    return "other"


def function(stack: Stack) -> str:
    """The innermost Python function, as file:function from its room on."""
    for name, file in reversed(stack.frames):
        if file.endswith(".py"):
            parts = file.split("/")
            return f"{'/'.join(parts[-2:])}:{name}"
    return stack.frames[-1][0] if stack.frames else "?"


@dataclass(frozen=True)
class Breakdown:
    """Samples by thread and place, and by function."""

    total: int
    places: list[tuple[str, str, int]]
    functions: list[tuple[str, str, int]]


def break_down(stacks: list[Stack]) -> Breakdown:
    """Add up."""
    places: Counter[tuple[str, str]] = Counter()
    functions: Counter[tuple[str, str]] = Counter()
    for stack in stacks:
        places[stack.thread, place(stack)] += stack.count
        functions[stack.thread, function(stack)] += stack.count
    return Breakdown(
        total=sum(places.values()),
        places=[(*key, count) for key, count in places.most_common()],
        functions=[(*key, count) for key, count in functions.most_common()],
    )


def find_py_spy() -> str:
    """The program. Raises Missing."""
    beside = Path(sys.executable).parent / "py-spy"
    found = shutil.which("py-spy") or (str(beside) if beside.exists() else None)
    if found is None:
        raise Missing("py-spy is not installed: .venv/bin/python -m pip install py-spy")
    return found


@dataclass(frozen=True)
class Profile:
    """What was seen on the busiest node, and what the load measured meanwhile."""

    measurement: Measurement
    busiest: int
    breakdown: Breakdown


def profile(
    options: Options, directory: Path, connections: int, seconds: float, native: bool, raw: Path
) -> Profile:
    """Load a fresh cluster and sample its busiest node. The stacks stay in `raw`."""
    program = find_py_spy()
    target = Raftdb(options)
    started: list[tuple[int, subprocess.Popen[bytes]]] = []
    with Supervisor(directory) as supervisor:
        cluster = target.start(directory, supervisor)

        def attach() -> None:
            busiest = max(range(len(cluster.nodes)), key=lambda i: cluster.nodes[i].cpu_s())
            started.append(
                (busiest, _record(program, cluster.nodes[busiest], seconds, native, raw))
            )

        specification = Specification(
            addresses=cluster.addresses,
            connections=connections,
            seconds=seconds,
            warmup_s=2.0,
            prefix="profile",
            samples_path=str(directory / "samples"),
            ca=cluster.ca,
            certificate=cluster.certificate,
            key=cluster.key,
        )
        try:
            measurement = run(
                cluster.load_command,
                specification,
                cluster.nodes,
                supervisor,
                cluster.working,
                attach,
            )
            busiest, recorder = started[0]
            _, errors = recorder.communicate(timeout=60)
        finally:
            for _, recorder in started:
                if recorder.poll() is None:
                    recorder.kill()
                    recorder.wait()
    if recorder.returncode != 0:
        raise BenchError(f"py-spy ended with {recorder.returncode}: {errors.decode().strip()}")
    return Profile(measurement, busiest, break_down(parse_stacks(raw.read_text())))


def _record(
    program: str, node: Service, seconds: float, native: bool, raw: Path
) -> subprocess.Popen[bytes]:
    command = [program, "record", "--pid", str(node.process.pid), "--format", "raw"]
    command += ["--threads", "--full-filenames", "--rate", str(RATE_HZ), "--nolineno"]
    command += ["--duration", str(max(1, round(seconds))), "--output", str(raw)]
    if native:
        command.append("--native")
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )
