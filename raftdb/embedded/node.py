"""`raftdb.Node`: a full member of a cluster inside the user's own process."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from raftdb.base.config import NodeConfig, load_config
from raftdb.base.errors import ConfigError, Error, FatalError, InterfaceError
from raftdb.base.ports import Log
from raftdb.client import Connection, connect
from raftdb.embedded.assembly import Assembly, StartAgain
from raftdb.embedded.link import EmbeddedLink
from raftdb.embedded.process import Facts, end_loop, ports_of, use_utc
from raftdb.runtime import LoopExecutor, RealNetwork, StreamLog, new_event_loop

START_S = 30.0
STOP_S = 30.0


class Node:
    """One member of the cluster, on a thread of its own.

        with raftdb.Node("cluster/n1/raftdb.toml") as node:
            connection = node.connect(read="local")

    It is the same node that `raftdb start` runs: it votes, replicates and may lead, so the process
    should live as long as any server would. When it can keep a promise no longer it stops;
    `failure` says why, and every call raises.

    SQLite's `localtime` means UTC on every node; the environment's TZ is set to UTC for the whole
    process.
    """

    def __init__(self, config: NodeConfig | str | os.PathLike[str], *, log: Log | None = None):
        """`config`: a NodeConfig, or the path of a raftdb.toml. Nothing is opened before `start`.
        Raises ConfigError."""
        if not isinstance(config, NodeConfig):
            config = load_config(str(Path(config)), os.environ)
        self.config = config
        self.failure: BaseException | None = None
        """What stopped the node, if it stopped by itself."""
        self._log = log or StreamLog(
            level=config.log.level,
            line_format=config.log.format,
            common={"node": config.node_id},
        )
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._ended = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._executor: LoopExecutor | None = None
        self._network: RealNetwork | None = None
        self._assembly: Assembly | None = None
        self._make: Callable[[], Assembly] | None = None

    # ---- life

    def start(self, timeout: float = START_S) -> Node:
        """Open data and ports, and take part. Raises ConfigError or FatalError when that fails.

        Returns when the ports are open; a leader may not be known yet (requests wait for one)."""
        if self._thread is not None:
            raise InterfaceError(
                "the node was started before", hint="make a new Node to start again"
            )
        use_utc()
        self._thread = threading.Thread(
            target=self._run, name=f"raftdb-{self.config.node_id}", daemon=True
        )
        self._thread.start()
        if not self._ready.wait(timeout):
            raise FatalError(f"the node did not open its ports within {timeout:g} s")
        if self.failure is not None:
            raise self.failure
        return self

    def stop(self, timeout: float = STOP_S) -> None:
        """Hand leadership over, finish what is under way, close. Harmless when stopped already."""
        if self._thread is None or self._loop is None or self._ended.is_set():
            return
        if self._assembly is not None and self._executor is not None:
            self._executor.call_threadsafe(self._stop)
        if not self._ended.wait(timeout):
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._ended.wait(5.0)
        self._thread.join(5.0)

    def __enter__(self) -> Node:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether the node takes part."""
        return self._ready.is_set() and not self._ended.is_set() and self.failure is None

    # ---- use

    def link(self) -> EmbeddedLink:
        """A link for one connection."""
        if self._assembly is None or self._executor is None or not self.running:
            raise InterfaceError("the node is not running", hint="call start first")
        return EmbeddedLink(
            self._assembly, self._executor, lambda: self.running, lambda: self._assembly
        )

    def connect(self, **options: Any) -> Connection:
        """A connection that asks this node first, without a socket; writes and linearizable reads
        go to whichever member leads. Options as for `raftdb.connect`."""
        config = self.config
        others = [one for one in config.members if one.node_id != config.node_id]
        if config.tls is not None:
            options = {
                "ca": config.tls.ca,
                "cert": config.tls.certificate,
                "key": config.tls.key,
                **options,
            }
        else:
            options = {"insecure": True, **options}
        options.setdefault("cluster", config.cluster_id)
        addresses = ",".join(str(one.client_address) for one in others)
        url = f"raftdb://{addresses}/" if addresses else None
        return connect(url, link=self.link(), **options)

    def status(self) -> dict[str, Any]:
        """What the node says of itself and of the others."""
        with self.connect() as connection:
            return connection.status()

    # ---- the node's thread

    def _run(self) -> None:
        loop = self._loop = new_event_loop(self._log)
        try:
            ports, self._executor, self._network, facts = ports_of(
                self.config, loop, self._log, self._crashed
            )
            self._assemble(ports, facts)
            loop.run_forever()
        except (Error, OSError) as error:
            self._failed(error)
        finally:
            try:
                end_loop(loop, self._executor, self._network)
            finally:
                self._ended.set()
                self._ready.set()

    def _assemble(self, ports: Any, facts: Facts) -> None:
        assert self._executor is not None
        self._make = lambda: Assembly(self.config, ports, self._stopped, facts)
        self._assembly = self._make()
        loop = self._loop
        assert loop is not None
        loop.call_soon(self._executor.guard, self._assembly.start, self._ready.set)

    def _stopped(self, error: BaseException | None) -> None:
        if isinstance(error, StartAgain):
            # The old one answers (that it does not serve) until the new one is there.
            assert self._make is not None
            try:
                self._assembly = self._make()
            except (Error, OSError) as problem:
                error = problem
            else:
                self._assembly.start(_ignore)
                return
        if error is not None:
            self._failed(error)
        if self._loop is not None:
            self._loop.stop()

    def _stop(self) -> None:
        # On the loop: the node may just have begun anew.
        assert self._assembly is not None
        self._assembly.stop()

    def _crashed(self, error: BaseException) -> None:
        if self._assembly is not None:
            self._assembly.fail(error)
        else:
            self._stopped(error)

    def _failed(self, error: BaseException) -> None:
        self.failure = error if isinstance(error, Error) else ConfigError(str(error))


def _ignore() -> None:
    pass
