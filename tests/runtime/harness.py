"""A loop with real ports, driven step by step by a test: it runs until what is waited for is so."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from raftdb.base.ids import Address, ClusterId, NodeId
from raftdb.base.limits import Limits
from raftdb.base.ports import Connection, ExpectedPeer, Listener
from raftdb.runtime import Credentials, LoopExecutor, RealNetwork, TlsPaths, new_event_loop
from raftdb.runtime.log import text_line

DEADLINE_S = 20.0
LOCAL = "127.0.0.1"


def free_port() -> int:
    """A port of loopback, below the range of outgoing connections, that is free now."""
    for _ in range(500):
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOCAL, port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


class Recorder:
    """A Log that keeps everything, as values and as text."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.events: list[tuple[str, str, dict[str, Any]]] = []
        self._changed = changed

    def info(self, event: str, **fields: Any) -> None:
        self._add("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._add("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._add("error", event, fields)

    def _add(self, level: str, event: str, fields: dict[str, Any]) -> None:
        self.events.append((level, event, fields))
        self._changed()

    def of(self, event: str) -> list[dict[str, Any]]:
        return [fields for _, name, fields in self.events if name == event]

    def reasons(self, event: str = "connection_refused") -> str:
        return "\n".join(str(fields.get("reason", "")) for fields in self.of(event))

    def text(self) -> str:
        """All lines, before any redaction of values by name."""
        return "".join(
            text_line(0, level, event, fields) + repr(fields)
            for level, event, fields in self.events
        )


@dataclass
class End:
    """A Handler that records."""

    changed: Callable[[], None]
    connection: Connection | None = None
    data: bytearray = field(default_factory=bytearray)
    made: int = 0
    lost: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def connection_made(self, connection: Connection) -> None:
        self.connection = connection
        self.made += 1
        self.changed()

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.changed()

    def connection_lost(self, reason: str) -> None:
        # The network has forgotten the connection when it tells.
        self.lost.append(reason)
        self.changed()

    def fail(self, reason: str) -> None:
        self.failed.append(reason)
        self.changed()

    @property
    def link(self) -> Connection:
        assert self.connection is not None
        return self.connection


class Bench:
    """One loop; `wait` runs it."""

    def __init__(self, kind: str) -> None:
        self.log = Recorder(self.changed)
        self.loop = new_event_loop(self.log) if kind == "uvloop" else asyncio.new_event_loop()
        self.crashes: list[BaseException] = []
        self.executor = LoopExecutor(self.loop, self._crashed)
        self.networks: list[RealNetwork] = []
        self._until: Callable[[], bool] | None = None

    def _crashed(self, error: BaseException) -> None:
        self.crashes.append(error)
        self.changed()

    def changed(self) -> None:
        """Something happened that a test may wait for."""
        if self._until is not None and self._until():
            self._until = None
            self.loop.stop()

    def wait(self, until: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
        """Run the loop until it is so; AssertionError after the deadline."""
        if until():
            return
        late: list[bool] = []

        def give_up() -> None:
            late.append(True)
            self.loop.stop()

        timers: dict[str, asyncio.TimerHandle] = {}

        def tick() -> None:
            # For what changes without telling.
            self.changed()
            timers["tick"] = self.loop.call_later(0.02, tick)

        def begin() -> None:
            # From inside: uvloop's idea of now is old before the loop runs.
            timers["deadline"] = self.loop.call_later(deadline_s, give_up)
            tick()

        self.loop.call_soon(begin)
        while not until() and not late:
            self._until = until
            self.loop.run_forever()
        self._until = None
        for timer in timers.values():
            timer.cancel()
        assert until(), f"not so after {deadline_s} s; the log:\n{self.log.text()}"

    def idle(self, delay_s: float) -> None:
        """Run the loop for a while, to see that something does not happen."""
        ended: list[bool] = []

        def end() -> None:
            ended.append(True)
            self.loop.stop()

        self.loop.call_soon(self.loop.call_later, delay_s, end)
        while not ended:
            self.loop.run_forever()

    def call(self, work: Callable[[], Any]) -> Any:
        """Run blocking work on a lane while the loop runs; its result."""
        results: list[Any] = []

        def done(result: Any, error: BaseException | None) -> None:
            results.append(error or result)
            self.changed()

        self.loop.call_soon(self.executor.submit, "test", work, done)
        self.wait(lambda: bool(results))
        return results[0]

    def network(self, credentials: Credentials | None, **options: Any) -> RealNetwork:
        network = RealNetwork(
            self.loop,
            self.executor,
            self.log,
            credentials=credentials,
            insecure=credentials is None,
            **options,
        )
        self.networks.append(network)
        return network

    def credentials(self, directory: str, cluster_id: str, node_id: str) -> Credentials:
        return Credentials(tls_paths(directory), ClusterId(cluster_id), NodeId(node_id), self.log)

    def listen(self, network: RealNetwork, purpose: str = "peer") -> tuple[Listener, list[End]]:
        """An open port on loopback, and the list in which its connections appear."""
        ends: list[End] = []

        def accept() -> End:
            ends.append(End(self.changed))
            return ends[-1]

        found = self.try_listen(network, purpose, Address(LOCAL, free_port()), accept)
        assert not isinstance(found, BaseException), found
        return found, ends

    def try_listen(
        self, network: RealNetwork, purpose: str, address: Address, accept: Callable[[], End]
    ) -> Listener | BaseException:
        result: list[Listener | BaseException] = []

        def ready(listener: Listener | None, error: BaseException | None) -> None:
            found = listener or error
            assert found is not None
            result.append(found)
            self.changed()

        network.listen(purpose, address, accept, ready)
        self.wait(lambda: bool(result))
        return result[0]

    def dial(
        self,
        network: RealNetwork,
        address: Address,
        expect: str | None = None,
        *,
        purpose: str = "peer",
        timeout_s: float = 10.0,
    ) -> End:
        """Dial and wait for either outcome."""
        end = End(self.changed)
        who = ExpectedPeer(NodeId(expect) if expect is not None else None)
        network.connect(purpose, address, who, end, timeout_s, end.fail)
        self.wait(lambda: bool(end.made or end.failed))
        return end

    def close(self) -> None:
        """Close the networks and the loop; nothing may be left."""
        for network in self.networks:
            network.close()
        self.wait(lambda: not any(network.connection_count() for network in self.networks))
        self.idle(0.02)
        assert [network.connection_count() for network in self.networks] == [0] * len(self.networks)
        assert not asyncio.all_tasks(self.loop)
        assert not self.executor.close(DEADLINE_S)
        self.loop.close()


def tls_paths(directory: str) -> TlsPaths:
    """The files of a node as `raftdb init` names them."""
    return TlsPaths(
        f"{directory}/ca.crt",
        f"{directory}/node.crt",
        f"{directory}/node.key",
        f"{directory}/revoked.json",
    )


@contextmanager
def bench(kind: str = "uvloop") -> Iterator[Bench]:
    """A bench that is closed properly, and on which no callback crashed unexpectedly."""
    one = Bench(kind)
    try:
        yield one
    finally:
        one.close()
    assert not one.crashes, one.crashes


def small_limits(**changes: int) -> Limits:
    """Limits for a test."""
    return Limits(**changes)
