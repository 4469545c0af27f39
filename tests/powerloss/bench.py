"""What stands around a node here: a loop that is turned by hand, and ports that do nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from raftdb.base.config import NodeConfig, load_config
from raftdb.base.limits import DEFAULT_LIMITS, Limits
from raftdb.base.ports import Done, Files, Ports
from raftdb.ops.found import found_local
from tests.journal.support import HandExecutor, ListLog, SeededRandom

WALL_MS = 1_780_000_000_000


class StepExecutor(HandExecutor):
    """The executor of the journal's tests, for all lanes, and a clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return WALL_MS + int(self.now_s * 1000)

    def submit(self, lane: str, work: Callable[[], Any], done: Done) -> None:
        self.lane.append((work, done))


class NoNetwork:
    """Nobody calls, nobody answers."""

    def listen(self, *_what: Any) -> None: ...

    def connect(self, *_what: Any) -> None: ...


def ports_for(files: Files, executor: StepExecutor, log: ListLog) -> Ports:
    """All ports of a node that is turned by hand."""
    return Ports(
        clock=executor,
        random=SeededRandom(),
        executor=executor,
        files=files,
        network=NoNetwork(),
        log=log,
    )


@cache
def _founded() -> tuple[NodeConfig, str]:
    with tempfile.TemporaryDirectory() as home:
        founded = found_local(Path(home) / "cluster", locations=("one/place",), insecure=True)
        config = load_config(str(founded.directory / "n1" / "raftdb.toml"), {})
        return config, founded.created


def config_for(data_dir: Path, limits: Limits = DEFAULT_LIMITS) -> NodeConfig:
    """The configuration of a node of one, with its data in `data_dir`."""
    return replace(_founded()[0], data_dir=str(data_dir), limits=limits)


def config_of(data_dir: Path, like: NodeConfig) -> NodeConfig:
    """The same node with its data elsewhere."""
    return replace(like, data_dir=str(data_dir))


def created() -> str:
    """When it was founded, for node.json."""
    return _founded()[1]


def scratch() -> Path:
    """A directory on a file system where a sync costs nothing, if there is one."""
    memory = Path("/dev/shm")
    base = str(memory) if memory.is_dir() else None
    return Path(tempfile.mkdtemp(prefix="raftdb-power-", dir=base))


def nothing(*_what: Any) -> None:
    """Ignore it."""


__all__ = [
    "ListLog",
    "NoNetwork",
    "SeededRandom",
    "SimpleNamespace",
    "StepExecutor",
    "config_for",
    "config_of",
    "created",
    "nothing",
    "ports_for",
    "scratch",
]
