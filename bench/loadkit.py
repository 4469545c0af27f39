"""A load process in Python: the protocol and arithmetic of bench/peers/loadkit (see load.py)."""

from __future__ import annotations

import array
import json
import resource
import sys
import time
from typing import Any, NoReturn


def emit(event: str, **fields: Any) -> None:
    """Tell the harness."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def fail(message: str) -> NoReturn:
    """Tell the harness why there will be no figure, and end."""
    emit("failed", message=message)
    sys.exit(1)


def cpu_s() -> float:
    """User and system time of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def specification(workload: str = "insert") -> dict[str, Any]:
    """What the harness asks for."""
    found: dict[str, Any] = json.load(sys.stdin)
    if found["workload"] != workload:
        fail(f"unknown workload {found['workload']!r}")
    return found


def value(size: int) -> bytes:
    """The value of every row: the alphabet, over and over."""
    alphabet = b"abcdefghijklmnopqrstuvwxyz"
    return (alphabet * (size // 26 + 1))[:size]


def key(prefix: str, connection: int, sequence: int) -> str:
    """The key of one row."""
    return f"{prefix}-{connection:03d}-{sequence:08d}"


class Window:
    """The measured time, and the latencies of what ended in it."""

    def __init__(self, warmup_s: float, seconds: float) -> None:
        self.begin_ns = time.perf_counter_ns() + int(warmup_s * 1e9)
        self.end_ns = self.begin_ns + int(seconds * 1e9)
        self.samples = array.array("I")
        self.acknowledged = 0

    def like(self) -> Window:
        """An empty window of the same time, for one of several threads."""
        made = Window(0, 0)
        made.begin_ns, made.end_ns = self.begin_ns, self.end_ns
        return made

    def add(self, other: Window) -> None:
        """Take over what another window counted."""
        self.samples.extend(other.samples)
        self.acknowledged += other.acknowledged

    def record(self, started_ns: int, ended_ns: int) -> bool:
        """Count one success; says whether there is time for another."""
        self.acknowledged += 1
        if self.begin_ns < ended_ns < self.end_ns:
            self.samples.append((ended_ns - started_ns) // 1000)
        return ended_ns < self.end_ns

    def left_s(self, moment_ns: int) -> float:
        """Seconds until a moment; 0 when it has passed."""
        return max(0.0, (moment_ns - time.perf_counter_ns()) / 1e9)

    def write(self, path: str) -> None:
        """Hand the latencies over."""
        if sys.byteorder != "little":
            self.samples.byteswap()
        with open(path, "wb") as file:
            self.samples.tofile(file)
