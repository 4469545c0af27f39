"""`raftdb start`: a node in the foreground, until a signal or a broken promise ends it."""

from __future__ import annotations

import gc
import os
import signal

from raftdb.base.config import NodeConfig
from raftdb.base.errors import Error
from raftdb.base.exits import ExitCode, exit_code
from raftdb.embedded.assembly import Assembly, StartAgain
from raftdb.embedded.process import end_loop, ports_of, use_utc
from raftdb.runtime import StreamLog, new_event_loop, tune_malloc, tune_switching

GC_ALLOCATIONS = 20_000
"""Net allocations between two looks at the youngest objects (Python's default: 700)."""

STOP_TIMEOUT_S = 30.0
"""A node that did not stop in order by then is ended: its journal makes that harmless."""


def run_node(config: NodeConfig) -> int:
    """Run until SIGTERM, SIGINT or a failure; returns the exit code.

    The first signal hands leadership over and finishes what is under way; a second ends at once.
    """
    use_utc()
    tune_malloc()
    tune_switching()
    log = StreamLog(
        level=config.log.level,
        line_format=config.log.format,
        common={"node": config.node_id},
    )
    try:
        return _run(config, log)
    finally:
        # A thread writes the lines: the last ones say why the node ends.
        log.close()


def _run(config: NodeConfig, log: StreamLog) -> int:
    loop = new_event_loop(log)
    outcome: list[BaseException | None] = []

    assembly: Assembly | None = None

    def stopped(error: BaseException | None) -> None:
        nonlocal assembly
        if isinstance(error, StartAgain):
            assembly = None
            try:
                assembly = Assembly(config, ports, stopped, facts)
            except (Error, OSError) as problem:
                error = problem
            else:
                assembly.start(_ready)
                return
        outcome.append(error)
        loop.stop()

    def crashed(error: BaseException) -> None:
        if assembly is not None:
            assembly.fail(error)
        else:
            stopped(error)

    ports, executor, network, facts = ports_of(config, loop, log, crashed)
    assembly = Assembly(config, ports, stopped, facts)

    signals: list[int] = []

    def on_signal(number: int) -> None:
        if signals:
            os._exit(128 + number)
        signals.append(number)
        if assembly is not None:
            assembly.stop()
        loop.call_later(STOP_TIMEOUT_S, stopped, None)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    loop.add_signal_handler(signal.SIGHUP, network.reload)
    loop.call_soon(executor.guard, assembly.start, _ready)
    _tune_collector()
    loop.run_forever()
    error = outcome[0]
    if error is not None:
        # Whatever threads are doing now, nothing is promised any more: don't wait for them.
        log.error("exit", code=int(exit_code(error)), reason=str(error))
        return int(exit_code(error))
    end_loop(loop, executor, network)
    return int(ExitCode.OK)


def _ready() -> None:
    pass


def _tune_collector() -> None:
    """What is there now stays for good, so the collector need not look at it again; requests leave
    few cycles, so it need not look often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, 20, 20)
