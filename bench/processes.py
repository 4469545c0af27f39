"""Processes that never outlive the measurement."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from bench.errors import BenchError

STOP_S = 10.0
POLL_S = 0.02
LOG_TAIL_LINES = 25
_PR_SET_PDEATHSIG = 1
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """In the child: SIGKILL when the harness dies, however it dies."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Service:
    """One process with its log file, in a session of its own (Ctrl-C reaches the harness only)."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log_path: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log_path = log_path
        with log_path.open("ab") as log:
            self.process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def log_tail(self) -> str:
        """The last lines of its output."""
        lines = self.log_path.read_text(errors="replace").splitlines()
        return "\n".join(lines[-LOG_TAIL_LINES:])

    def check(self) -> None:
        """Raise BenchError when it ended."""
        code = self.process.poll()
        if code is not None:
            raise BenchError(f"{self.name} ended with {code}; its last words:\n{self.log_tail()}")

    def cpu_s(self) -> float:
        """User and system time so far, in seconds, to 10 ms."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S

    def memory_mb(self) -> tuple[float, float]:
        """Resident set now, and at its highest, in 10^6 bytes."""
        found = {}
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            key, _, value = line.partition(":")
            if key in ("VmRSS", "VmHWM"):
                found[key] = int(value.split()[0]) * 1024 / 1e6
        return found["VmRSS"], found["VmHWM"]

    def wait_for_log(self, text: str, timeout_s: float) -> None:
        """Until `text` is in its output. Raises BenchError when it ends or takes too long."""
        deadline = time.monotonic() + timeout_s
        while text not in self.log_path.read_text(errors="replace"):
            self.check()
            if time.monotonic() > deadline:
                raise BenchError(
                    f"{self.name} did not say {text!r} in {timeout_s:g} s; its last words:\n"
                    f"{self.log_tail()}"
                )
            time.sleep(POLL_S)

    def terminate(self) -> None:
        """Ask it to stop; doesn't wait."""
        if self.process.poll() is None:
            self.process.terminate()

    def join(self) -> None:
        """Wait for its end, and end it the hard way when it takes longer."""
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()


class Supervisor:
    """Starts services and stops all of them at its end, also on Ctrl-C."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.services: list[Service] = []

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> Service:
        """Start one process; its output goes to NAME.log."""
        service = Service(name, command, self.directory / f"{name}.log", environment)
        self.services.append(service)
        return service

    def check(self) -> None:
        """Raise BenchError when one of them ended."""
        for service in self.services:
            service.check()

    def stop(self) -> None:
        """Stop all: politely, then by force. A second Ctrl-C cuts the politeness short."""
        services, self.services = self.services, []
        with ExitStack() as stack:
            for service in services:
                stack.callback(service.join)
                service.terminate()
