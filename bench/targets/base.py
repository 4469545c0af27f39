"""What a system must offer to be measured."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from bench.errors import BenchError
from bench.processes import POLL_S, Service, Supervisor

NODES = 3
START_S = 30.0


@dataclass(frozen=True)
class Options:
    """How the systems are run."""

    etcd_tls: bool = False
    """Mutual TLS for etcd too. Without it they run in plain text, at their best."""
    insecure: bool = False
    """raftdb without TLS, to see what TLS costs. Never for a recorded result."""
    raftdb_load: str = "events"


@dataclass
class Cluster:
    """Three running nodes and how to load them."""

    nodes: list[Service]
    addresses: list[str]
    load_command: list[str]
    ca: str = ""
    certificate: str = ""
    key: str = ""
    working: Path = Path("/")
    """Working directory of the load process."""
    extra: dict[str, Any] = field(default_factory=dict)


class Target(ABC):
    """One system. Objects live for the whole measurement; `start` is called once per round."""

    name: ClassVar[str]

    def __init__(self, options: Options) -> None:
        self.options = options

    @abstractmethod
    def missing(self) -> list[str]:
        """What isn't installed and how to install it; empty when all is there."""

    @abstractmethod
    def prepare(self) -> dict[str, str]:
        """Build what must be built; the versions of what will be measured."""

    @abstractmethod
    def start(self, directory: Path, supervisor: Supervisor) -> Cluster:
        """Start a fresh cluster of three in `directory` and return once it takes writes."""


def wait_until(what: str, ready: Callable[[], bool], supervisor: Supervisor) -> None:
    """Poll `ready` until it is true. Raises BenchError after START_S or when a node ended."""
    deadline = time.monotonic() + START_S
    while not ready():
        supervisor.check()
        if time.monotonic() > deadline:
            tails = "\n".join(f"--- {s.name}\n{s.log_tail()}" for s in supervisor.services)
            raise BenchError(f"{what}: not within {START_S:g} s\n{tails}")
        time.sleep(POLL_S)
