"""Load on raftdb: N connections in one process. `python -m bench.raftdb_load events|threads`.

`events` drives the client protocol's sans-IO core from one event loop, as an asyncio client would:
the fair counterpart of the peers' load processes in Go, whose 64 goroutines cost little.
`threads` is what a blocking program does: one `raftdb.connect` and one thread per connection; with
many threads the generator itself, not the cluster, becomes what is measured.

Of `events` a specification may ask for more (bench/lab.py): `grow`, rows into the table of a filled
database, at random places of its index; `idle`, so many more connections that say nothing;
`rate_per_s`, a pace of all together, latencies counting from when a request was due.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from bench import loadkit
from raftdb import wire
from raftdb.base.errors import Error
from raftdb.command import Failed, Results, Statement, decode_reply
from raftdb.runtime.secure import SecureTransport

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS bench (id INTEGER PRIMARY KEY, k TEXT NOT NULL, v BLOB NOT NULL)"
)
INSERT = "INSERT INTO bench (k, v) VALUES (?, ?)"
COUNT = "SELECT count(*) FROM bench WHERE k >= ? AND k < ?"
GROW = "INSERT INTO big (k, v) VALUES (?, ?)"
LAST = "SELECT coalesce(max(id), 0) FROM big"
GROWN = "SELECT count(*) FROM big WHERE id > ?"
SPREAD = 0x9E37_79B9_7F4A_7C15
"""Odd, of 64 bits: its multiples look like random numbers."""
TIMEOUT_MS = 30_000
SETUP_S = 20.0
REFUSED_MS = 50


class LoadFailed(Exception):
    """The load can't go on."""


def client_tls(specification: dict[str, Any]) -> ssl.SSLContext | None:
    """The client's certificate; None for plain text."""
    if not specification["ca"]:
        return None
    from raftdb.runtime import client_context

    return client_context(specification["ca"], specification["certificate"], specification["key"])


class EventConnection(asyncio.Protocol):
    """One connection: requests in order, one open at a time."""

    def __init__(self, load: EventLoad, number: int) -> None:
        self.load = load
        self.number = number
        self.side = wire.ClientSide()
        self.transport: asyncio.Transport | None = None
        self.waiting: asyncio.Future[Any] | None = None
        self.sequence = 0
        self.request_id = 0
        self.started_ns = 0
        self.open: wire.Execute | None = None

    # ---- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        for message in self.side.receive(data):
            if self.waiting is not None:
                self._settle(message)
            elif type(message) is wire.Result:
                self._inserted(message)
            elif type(message) is wire.ErrorMessage:
                self._refused(message.exception())
            else:
                self.load.stop(LoadFailed(f"connection {self.number} got {message}"))

    def connection_lost(self, error: Exception | None) -> None:
        lost = LoadFailed(f"connection {self.number} was lost: {error or 'closed by the node'}")
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_exception(lost)
        elif not self.load.finished:
            self.load.stop(lost)

    # ---- setting up and counting: one answer awaited at a time

    async def ask(self, message: Any) -> Any:
        """Send one message and wait for its answer. Raises LoadFailed."""
        assert self.transport is not None
        self.waiting = asyncio.get_running_loop().create_future()
        self.transport.write(self.side.send(message))
        try:
            answer = await asyncio.wait_for(self.waiting, SETUP_S)
        except TimeoutError:
            raise LoadFailed(f"no answer to {type(message).__name__}") from None
        finally:
            self.waiting = None
        if isinstance(answer, wire.ErrorMessage):
            raise LoadFailed(str(answer.exception()))
        return answer

    def _settle(self, message: Any) -> None:
        if isinstance(message, wire.Goodbye):
            return
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_result(message)

    async def execute(self, sql: str) -> None:
        """Execute one statement outside of the measured time."""
        answer = await self.ask(self._request(sql, ()))
        reply = decode_reply(answer.reply)
        if isinstance(reply, Failed):
            raise LoadFailed(str(reply.error))

    async def count(self, prefix: str) -> int:
        """How many rows with the prefix a linearizable read finds."""
        return await self.number_of(COUNT, (f"{prefix}-", f"{prefix}."))

    async def number_of(self, sql: str, parameters: tuple[Any, ...]) -> int:
        """What a linearizable read of one number finds."""
        self.request_id += 1
        statement = Statement(sql, (parameters,))
        answer = await self.ask(
            wire.Query(self.request_id, wire.LINEARIZABLE, TIMEOUT_MS, (statement,))
        )
        reply = decode_reply(answer.chunk)
        assert isinstance(reply, Results)
        found = reply.statements[0].rows[0][0]
        assert isinstance(found, int)
        return found

    async def close_session(self) -> None:
        """Give the session back, if that can be done now."""
        self.request_id += 1
        with contextlib.suppress(LoadFailed):
            await self.ask(wire.CloseSession(self.request_id, TIMEOUT_MS))

    # ---- the measured part

    def insert(self, now_ns: int) -> None:
        """Send the next row, which was due at `now_ns`."""
        assert self.transport is not None
        load = self.load
        if load.grow:
            load.rows += 1
            key = f"{load.rows * SPREAD % 2**64:016x}"
        else:
            key = loadkit.key(load.prefix, self.number, self.sequence)
        self.started_ns = now_ns
        self.open = self._request(load.sql, (key, load.value))
        self.transport.write(self.side.send(self.open))

    def pour(self, sql: str, count: int) -> None:
        """Send so many requests, and look at no answer."""
        assert self.transport is not None
        for _ in range(count):
            self.transport.write(self.side.send(self._request(sql, ())))

    def _refused(self, error: Error) -> None:
        """Come again when the node says so; the request is the same, and so is its sequence."""
        if error.code != "overloaded":
            self.load.stop(LoadFailed(f"connection {self.number}: {error}"))
            return
        self.load.retries += 1
        delay_s = error.detail.get("retry_after_ms", REFUSED_MS) / 1000
        asyncio.get_running_loop().call_later(delay_s, self._again)

    def _again(self) -> None:
        assert self.transport is not None
        assert self.open is not None
        self.request_id += 1
        self.open = replace(self.open, request_id=self.request_id)
        if not self.transport.is_closing():
            self.transport.write(self.side.send(self.open))

    def _request(self, sql: str, parameters: tuple[Any, ...]) -> wire.Execute:
        self.request_id += 1
        self.sequence += 1
        return wire.Execute(
            self.request_id,
            self.sequence,
            self.sequence - 1,
            TIMEOUT_MS,
            (Statement(sql, (parameters,)),),
        )

    def _inserted(self, message: wire.Result) -> None:
        now_ns = time.perf_counter_ns()
        reply = decode_reply(message.reply)
        if type(reply) is not Results:
            self.load.stop(LoadFailed(f"connection {self.number}: {reply}"))
        elif self.load.window.record(self.started_ns, now_ns):
            if self.load.pace_ns:
                self.load.at(self.started_ns + self.load.pace_ns, self.insert)
            else:
                self.insert(now_ns)
        else:
            self.load.ended(self)


class EventLoad:
    """All connections of one process."""

    window: loadkit.Window
    connection_class: type[EventConnection] = EventConnection

    def __init__(self, specification: dict[str, Any]) -> None:
        self.specification = specification
        self.prefix: str = specification.get("prefix", "")
        self.value = loadkit.value(specification.get("value_bytes", 0))
        self.tls = client_tls(specification)
        self.grow: bool = specification.get("grow", False)
        self.sql = GROW if self.grow else INSERT
        self.rows = time.time_ns() % 2**32
        rate_per_s = specification.get("rate_per_s", 0.0)
        self.pace_ns = int(specification["connections"] * 1e9 / rate_per_s) if rate_per_s else 0
        self.finished = False
        self.retries = 0
        self._active: set[int] = set()
        self._end: asyncio.Future[None] | None = None

    def stop(self, error: LoadFailed) -> None:
        """Something went wrong."""
        if self._end is not None and not self._end.done():
            self._end.set_exception(error)

    def ended(self, connection: EventConnection) -> None:
        """This connection's time is over."""
        self._active.discard(connection.number)
        if not self._active and self._end is not None and not self._end.done():
            self._end.set_result(None)

    def at(self, due_ns: int, send: Callable[[int], None]) -> None:
        """Send when it is due; at once when that has passed."""
        late_ns = time.perf_counter_ns() - due_ns
        if late_ns >= 0:
            send(due_ns)
        else:
            asyncio.get_running_loop().call_later(-late_ns / 1e9, send, due_ns)

    async def run(self) -> None:
        """Prepare, load, count, report."""
        leader = await self._find_leader()
        first = await self._open(leader, 0)
        before = 0
        if self.grow:
            before = await first.number_of(LAST, ())
        else:
            await first.execute(SCHEMA)
        count = self.specification["connections"]
        connections = [first, *[await self._open(leader, i) for i in range(1, count)]]
        idle = range(count, count + self.specification.get("idle", 0))
        silent = [await self._open(leader, number) for number in idle]
        loadkit.emit("ready")
        cpu = await self._measure(connections)
        if self.grow:
            found = await first.number_of(GROWN, (before,))
        else:
            found = await first.count(self.prefix)
        # As a client does at its end: a cluster keeps a bounded number of sessions for the others.
        await asyncio.gather(*[one.close_session() for one in (*connections, *silent)])
        self.finished = True
        self.window.write(self.specification["samples_path"])
        loadkit.emit(
            "done",
            acknowledged=self.window.acknowledged,
            found=found,
            retries=self.retries,
            cpu_s=cpu,
        )

    async def _measure(self, connections: list[EventConnection]) -> float:
        self._end = asyncio.get_running_loop().create_future()
        self._active = {connection.number for connection in connections}
        window = loadkit.Window(self.specification["warmup_s"], self.specification["seconds"])
        self.window = window
        begin_ns = time.perf_counter_ns()
        for number, connection in enumerate(connections):
            self.at(begin_ns + self.pace_ns * number // len(connections), connection.insert)
        await self._sleep(window.left_s(window.begin_ns))
        before = loadkit.cpu_s()
        loadkit.emit("begin")
        await self._sleep(window.left_s(window.end_ns))
        cpu = loadkit.cpu_s() - before
        loadkit.emit("end")
        await asyncio.wait_for(self._end, SETUP_S)
        return cpu

    async def _sleep(self, seconds: float) -> None:
        """Wait, or fail as soon as a connection does."""
        assert self._end is not None
        done, _ = await asyncio.wait([self._end], timeout=seconds)
        for future in done:
            future.result()

    async def _dial(self, address: str, number: int) -> tuple[EventConnection, wire.Welcome]:
        host, _, port = address.rpartition(":")
        loop = asyncio.get_running_loop()
        connection = self.connection_class(self, number)
        if self.tls is None:
            await loop.create_connection(lambda: connection, host, int(port))
        else:
            secure = SecureTransport(
                loop, self.tls, connection, server_side=False, handshake_timeout_s=SETUP_S
            )
            await loop.create_connection(lambda: secure, host, int(port))
            await secure.shaken()
        welcome = await connection.ask(wire.Hello(wire.VERSIONS, "bench"))
        assert isinstance(welcome, wire.Welcome)
        return connection, welcome

    async def _find_leader(self) -> str:
        """Ask all nodes, again and again until one leads: the cluster may have just started."""
        deadline = time.monotonic() + SETUP_S
        while time.monotonic() < deadline:
            for address in self.specification["addresses"]:
                connection, welcome = await self._dial(address, -1)
                assert connection.transport is not None
                connection.transport.close()
                if welcome.role == "leader":
                    return str(address)
            await asyncio.sleep(0.05)
        raise LoadFailed(f"none of the nodes said within {SETUP_S:g} s that it leads")

    async def _open(self, address: str, number: int) -> EventConnection:
        connection, _ = await self._dial(address, number)
        connection.request_id += 1
        await connection.ask(wire.OpenSession(connection.request_id, "bench", TIMEOUT_MS))
        return connection


def run_events(specification: dict[str, Any]) -> None:
    """Load by one event loop."""
    import uvloop

    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(EventLoad(specification).run())
    finally:
        loop.close()


def run_threads(specification: dict[str, Any]) -> None:
    """Load by blocking connections, one thread each."""
    import threading

    import raftdb

    options = {"ca": specification["ca"], "insecure": not specification["ca"]}
    if specification["ca"]:
        options |= {"cert": specification["certificate"], "key": specification["key"]}
    count = specification["connections"]
    connections = [
        raftdb.connect(addresses=specification["addresses"], timeout=SETUP_S, **options)
        for _ in range(count)
    ]
    connections[0].execute(SCHEMA)
    value = loadkit.value(specification["value_bytes"])
    prefix = specification["prefix"]
    for connection in connections:
        connection.execute("SELECT 1")
    loadkit.emit("ready")
    problems: list[BaseException] = []
    windows: list[loadkit.Window] = []

    def work(number: int) -> None:
        cursor = connections[number].cursor()
        sequence = 0
        before = time.perf_counter_ns()
        going = True
        try:
            while going and not problems:
                sequence += 1
                cursor.execute(INSERT, (loadkit.key(prefix, number, sequence), value))
                now = time.perf_counter_ns()
                going = windows[number].record(before, now)
                before = now
        except raftdb.Error as error:
            problems.append(error)

    window = loadkit.Window(specification["warmup_s"], specification["seconds"])
    windows += [window.like() for _ in range(count)]
    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(count)]
    for thread in threads:
        thread.start()
    time.sleep(window.left_s(window.begin_ns))
    before = loadkit.cpu_s()
    loadkit.emit("begin")
    time.sleep(window.left_s(window.end_ns))
    cpu = loadkit.cpu_s() - before
    loadkit.emit("end")
    for thread in threads:
        thread.join(2 * SETUP_S)
    if problems:
        raise LoadFailed(str(problems[0]))
    [found] = connections[0].execute(COUNT, (f"{prefix}-", f"{prefix}.")).fetchone()
    for one in windows:
        window.add(one)
    window.write(specification["samples_path"])
    loadkit.emit("done", acknowledged=window.acknowledged, found=found, retries=0, cpu_s=cpu)


def main() -> None:
    """Read the specification and load."""
    modes = {"events": run_events, "threads": run_threads}
    if len(sys.argv) != 2 or sys.argv[1] not in modes:
        sys.exit(f"use: python -m bench.raftdb_load {'|'.join(modes)}")
    try:
        modes[sys.argv[1]](loadkit.specification())
    except (LoadFailed, Error, OSError) as error:
        loadkit.fail(str(error))


if __name__ == "__main__":
    main()
