"""The real ports of one node on a loop, from its configuration."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from raftdb.base.config import NodeConfig
from raftdb.base.ports import Log, Ports
from raftdb.runtime import Credentials, LoopExecutor, RealNetwork, TlsPaths, real_ports
from raftdb.runtime.files import RealFiles

LANES_END_S = 2.0
NETWORK_END_S = 1.0

Facts = Callable[[], dict[str, Any]]


def use_utc() -> None:
    """SQLite's `localtime` means UTC on every node: it must not depend on the machine."""
    os.environ["TZ"] = "UTC"
    time.tzset()


def ports_of(
    config: NodeConfig,
    loop: asyncio.AbstractEventLoop,
    log: Log,
    on_crash: Callable[[BaseException], None],
) -> tuple[Ports, LoopExecutor, RealNetwork, Facts]:
    """Everything a node touches the world with, and facts about it for the status."""
    credentials: Credentials | None = None
    if config.tls is not None:
        paths = TlsPaths(
            ca=config.tls.ca,
            certificate=config.tls.certificate,
            key=config.tls.key,
            revoked=config.tls.revoked,
        )
        credentials = Credentials(paths, config.cluster_id, config.node_id, log)
    ports, executor, network = real_ports(
        loop,
        RealFiles(),
        log,
        on_crash,
        credentials=credentials,
        insecure=config.insecure,
        limits=config.limits,
        routes=dict(config.routes),
    )

    def facts() -> dict[str, Any]:
        days = None if credentials is None else round(credentials.days_left(), 1)
        return {
            "certificate_days_left": days,
            "rss_bytes": resident_bytes(),
            "pid": os.getpid(),
            "loop": executor.lateness(),
        }

    return ports, executor, network, facts


def end_loop(
    loop: asyncio.AbstractEventLoop, executor: LoopExecutor | None, network: RealNetwork | None
) -> None:
    """Close what is left of a node on a loop that has stopped, and the loop."""
    if network is not None:
        network.close()
        loop.run_until_complete(_until_quiet(loop, network))
    if executor is not None:
        executor.close(timeout_s=LANES_END_S)
    loop.close()


async def _until_quiet(loop: asyncio.AbstractEventLoop, network: RealNetwork) -> None:
    """Let connections and dials hear that they are over."""
    end_s = loop.time() + NETWORK_END_S
    me = asyncio.current_task()
    while loop.time() < end_s:
        await asyncio.sleep(0.01)
        if not network.connection_count() and asyncio.all_tasks(loop) == {me}:
            break


def resident_bytes() -> int:
    """Resident memory of this process, in bytes."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    except (OSError, ValueError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
