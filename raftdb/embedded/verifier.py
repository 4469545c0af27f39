"""Restores the archive's newest moment on trial, in a process of its own at the lowest priority.

It is `raftdb archive verify --restore`, as an operator would run it: what is rehearsed is the
real thing, and the node's memory and interpreter stay its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from raftdb.archive import Verified
from raftdb.base.config import NodeConfig
from raftdb.base.ports import Ports

__all__ = ["VerifyProcess"]

POLL_S = 0.5
OUTPUT_BYTES_MAX = 65_536


class VerifyProcess:
    """At most one at a time. On the loop."""

    def __init__(self, config: NodeConfig, ports: Ports) -> None:
        self._config = config
        self._ports = ports
        self._process: subprocess.Popen[bytes] | None = None
        self._done: Callable[[Verified], None] | None = None
        self._scratch = os.path.join(config.data_dir, "archive", "verify")
        self._output = os.path.join(config.data_dir, "archive", "verify.json")

    def start(self, url: str, done: Callable[[Verified], None]) -> None:
        """Restore from `url` into a scratch directory below the node's own; `done` gets the result
        (never if it is stopped before)."""
        assert self._process is None
        self._done = done
        self._ports.files.make_directory(os.path.dirname(self._output))
        command = [sys.executable, "-m", "raftdb.cli", "archive", "verify", "--from", url]
        if self._config.archive.key_file:
            command += ["--key-file", self._config.archive.key_file]
        command += ["--restore", "--quick", "--background", "--scratch", self._scratch, "--json"]
        try:
            with open(self._output, "wb") as output:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
                )
        except OSError as error:
            self._ended(Verified(0, f"cannot start {sys.executable}: {error.strerror}"))
            return
        self._ports.executor.call_later(POLL_S, self._poll)

    def stop(self) -> None:
        """End it; what it has in the scratch directory is removed by the next one."""
        self._done = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _poll(self) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._ports.executor.call_later(POLL_S, self._poll)
            return
        self._process = None
        with open(self._output, "rb") as file:
            self._ended(_read(file.read(OUTPUT_BYTES_MAX)))

    def _ended(self, result: Verified) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(result)


def _read(output: bytes) -> Verified:
    """What the command printed: its document, or an error as one line."""
    try:
        value: Any = json.loads(output)
        if "error" in value:
            return Verified(0, str(value["error"]["message"]))
        [one] = value["restores"]
        damage = one["problem"] or next(iter(value["problems"]), "")
        return Verified(int(str(one.get("point", "0")).partition(".")[0]), str(damage))
    except (ValueError, KeyError, TypeError, IndexError):
        return Verified(0, f"no result: {output[-200:].decode(errors='replace')}")
