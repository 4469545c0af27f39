"""`raftdb start`: a node in the foreground, until a signal or a broken promise ends it."""

from __future__ import annotations

import gc
import signal

from raftdb.base.config import NodeConfig
from raftdb.base.errors import Error
from raftdb.base.exits import ExitCode, exit_code
from raftdb.embedded.assembly import Assembly, StartAgain
from raftdb.embedded.process import end_loop, ports_of, use_utc
from raftdb.runtime import StreamLog, new_event_loop, tune_malloc, tune_switching
from raftdb.runtime.signals import Signals

GC_ALLOCATIONS = 20_000
"""Net allocations between two looks at the youngest objects (Python's default: 700)."""

STOP_TIMEOUT_S = 30.0
"""A node that did not stop in order by then is ended: its journal makes that harmless."""


def run_node(config: NodeConfig) -> int:
    """Run until SIGTERM, SIGINT or a failure; returns the exit code.

    The first signal hands leadership over and finishes what is under way; a second ends at once.
    One that came before, or while the node opens what it has, counts as well. Who is asked to stop
    while it ends by itself ends with the exit code that says why.
    """
    held = Signals.held()
    signals = held or Signals()
    use_utc()
    tune_malloc()
    tune_switching()
    log = StreamLog(
        level=config.log.level,
        line_format=config.log.format,
        common={"node": config.node_id},
    )
    try:
        if signals.stop_asked:
            log.info("stopped", reason="it was asked to before it began")
            return int(ExitCode.OK)
        return _run(config, log, signals)
    finally:
        # A thread writes the lines: the last ones say why the node ends.
        log.close()
        if held is None:
            signals.release()


def _run(config: NodeConfig, log: StreamLog, signals: Signals) -> int:
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

    def on_signal(number: int) -> None:
        if number == signal.SIGHUP:
            network.reload()
            return
        if assembly is not None:
            assembly.stop()
        loop.call_later(STOP_TIMEOUT_S, stopped, None)

    loop.call_soon(executor.guard, assembly.start, _ready)
    loop.call_soon(signals.hand_to, loop, on_signal)
    _tune_collector()
    loop.run_forever()
    signals.take_back()
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
