"""The event loop that a node runs on, and all real ports on it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from typing import Any

from raftdb.base.ids import Address, NodeId
from raftdb.base.limits import DEFAULT_LIMITS, Limits
from raftdb.base.ports import Files, Log, Ports
from raftdb.runtime.clock import RealClock
from raftdb.runtime.credentials import Credentials
from raftdb.runtime.executor import LoopExecutor
from raftdb.runtime.network import RealNetwork
from raftdb.runtime.random import RealRandom

SWITCH_INTERVAL_S = 0.0005


def new_event_loop(log: Log) -> asyncio.AbstractEventLoop:
    """A uvloop loop, or asyncio's own where there is none. It belongs to one node alone."""
    loop = _make_loop()

    def report(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # What raftdb's own callbacks raise goes to LoopExecutor's on_crash; what gets here is
        # about single transports, such as a connection that broke while it was written to.
        error = context.get("exception")
        log.warning(
            "loop_error",
            message=str(context.get("message", "")),
            error="" if error is None else f"{type(error).__name__}: {error}",
        )

    loop.set_exception_handler(report)
    return loop


def _make_loop() -> asyncio.AbstractEventLoop:
    if sys.platform == "win32":
        return asyncio.SelectorEventLoop()
    import uvloop

    return uvloop.new_event_loop()


def tune_switching() -> None:
    """Let a lane that comes back from the disk have the interpreter after 0.5 instead of 5 ms.

    Affects the whole process, so an embedded node leaves it to its host (DESIGN.md has figures).
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def real_ports(
    loop: asyncio.AbstractEventLoop,
    files: Files,
    log: Log,
    on_crash: Callable[[BaseException], None],
    *,
    credentials: Credentials | None,
    insecure: bool = False,
    limits: Limits = DEFAULT_LIMITS,
    routes: Mapping[NodeId, Address] | None = None,
) -> tuple[Ports, LoopExecutor, RealNetwork]:
    """All ports of one node on `loop`, and the two of them that must be closed after use."""
    executor = LoopExecutor(loop, on_crash)
    network = RealNetwork(
        loop,
        executor,
        log,
        credentials=credentials,
        insecure=insecure,
        limits=limits,
        routes=routes,
    )
    ports = Ports(
        clock=RealClock(),
        random=RealRandom(),
        executor=executor,
        files=files,
        network=network,
        log=log,
    )
    return ports, executor, network
