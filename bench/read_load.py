"""Closed loops of reads (and of batches) on raftdb, rqlite or echo: `python -m bench.read_load`.

All systems are driven from one event loop in Python, each request made of ready bytes as far as
its protocol allows, so that what the generator costs is about the same for all.
"""

from __future__ import annotations

import array
import asyncio
import json
import time
from typing import Any, cast

import uvloop

from bench import echo, loadkit
from bench.figures import latency
from bench.raftdb_load import SETUP_S, EventConnection, EventLoad, LoadFailed
from raftdb import wire
from raftdb.base.errors import Error
from raftdb.command import Failed, Statement, decode_reply
from raftdb.runtime.secure import SecureTransport

ROWS = 1_000
SCHEMA = "CREATE TABLE bench (id INTEGER PRIMARY KEY, k TEXT NOT NULL, v TEXT NOT NULL)"
INSERT = "INSERT INTO bench (k, v) VALUES (?, ?)"
SELECT = "SELECT k, v FROM bench WHERE id = ?"
VALUE = "x" * 100
BATCH = tuple((f"key-{n:08d}", VALUE) for n in range(1_000))
WARMUP_S = 0.3
ONCE = -2 * WARMUP_S
"""The seconds of a phase of one request."""


class Phase:
    """One measurement: what ended within its time."""

    def __init__(self, seconds: float) -> None:
        self.begin_s = time.perf_counter() + WARMUP_S
        self.end_s = self.begin_s + seconds
        self.samples = array.array("I")
        self.open = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def ended(self, started_s: float) -> float:
        """One request; the time when the next one may begin, 0 when there is none."""
        now_s = time.perf_counter()
        if self.begin_s < now_s < self.end_s:
            self.samples.append(int((now_s - started_s) * 1e6))
        if now_s < self.end_s:
            return now_s
        self.open -= 1
        if not self.open and not self.done.done():
            self.done.set_result(None)
        return 0.0

    def fail(self, error: Exception) -> None:
        """It cannot go on."""
        if not self.done.done():
            self.done.set_exception(error)


class RaftdbReader(EventConnection):
    """One connection to one node of raftdb."""

    phase: Phase | None = None
    level = wire.LOCAL
    is_batch = False
    started_s = 0.0

    def data_received(self, data: bytes) -> None:
        for message in self.side.receive(data):
            if self.waiting is not None:
                self._settle(message)
            elif self.phase is not None:
                self._answered(message)

    def begin(self, now_s: float) -> None:
        """The next request."""
        assert self.transport is not None
        self.started_s = now_s
        self.request_id += 1
        message: wire.Query | wire.Execute
        if self.is_batch:
            self.sequence += 1
            message = wire.Execute(
                self.request_id,
                self.sequence,
                self.sequence - 1,
                30_000,
                (Statement(INSERT, BATCH),),
            )
        else:
            number = 1 + self.request_id * 7 % ROWS
            statement = Statement(SELECT, ((number,),))
            message = wire.Query(self.request_id, self.level, 5_000, (statement,))
        self.transport.write(self.side.send(message))

    def _answered(self, message: Any) -> None:
        phase = self.phase
        assert phase is not None
        if type(message) is wire.Rows:
            fine = len(message.chunk) > len(VALUE)
        else:
            fine = type(message) is wire.Result and type(decode_reply(message.reply)) is not Failed
        if not fine:
            phase.fail(LoadFailed(f"a read was answered by {message}"))
        elif (now_s := phase.ended(self.started_s)) > 0:
            self.begin(now_s)


class HttpReader(asyncio.Protocol):
    """One kept-alive connection to rqlite's HTTP API."""

    def __init__(self, path: str, body: bytes, host: str) -> None:
        head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        self.request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        self.transport: asyncio.Transport | None = None
        self.phase: Phase | None = None
        self.started_s = 0.0
        self.got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def begin(self, now_s: float) -> None:
        """The next request."""
        assert self.transport is not None
        self.started_s = now_s
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.got += data
        head, found, body = self.got.partition(b"\r\n\r\n")
        if not found:
            return
        length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
        # A long answer comes in chunks, and ends with an empty one.
        whole = len(body) >= int(length) if length else body.endswith(b"\r\n0\r\n\r\n")
        if not whole or self.phase is None:
            return
        self.got = b""
        if not head.startswith(b"HTTP/1.1 200") or b'"error"' in body:
            self.phase.fail(LoadFailed(f"rqlite answered {head[:80]!r} {body[:200]!r}"))
        elif (now_s := self.phase.ended(self.started_s)) > 0:
            self.begin(now_s)


async def measure(name: str, readers: list[Any], seconds: float) -> None:
    """Run one phase over these connections, and tell its figures."""
    phase = Phase(seconds)
    phase.open = len(readers)
    for reader in readers:
        reader.phase = phase
        reader.begin(time.perf_counter())
    await asyncio.sleep(WARMUP_S)
    loadkit.emit("begin")
    before = loadkit.cpu_s()
    await asyncio.wait({phase.done}, timeout=seconds)
    cpu_s = loadkit.cpu_s() - before
    loadkit.emit("end")
    await asyncio.wait_for(phase.done, SETUP_S)
    found = latency(phase.samples)
    loadkit.emit(
        "phase",
        name=name,
        count=found.count,
        per_s=found.count / seconds,
        p50_ms=found.p50_ms,
        p99_ms=found.p99_ms,
        load_cpu_us=cpu_s / found.count * 1e6,
    )
    for reader in readers:
        reader.phase = None


class RaftdbReads(EventLoad):
    """All phases of raftdb."""

    connection_class = RaftdbReader

    async def run(self) -> None:
        """One after the other."""
        leader = await self._find_leader()
        addresses = [leader, *[a for a in self.specification["addresses"] if a != leader]]
        first = await self._reader(leader, 0)
        first.request_id += 1
        await first.ask(wire.OpenSession(first.request_id, "bench", 5_000))
        await first.execute(SCHEMA)
        first.is_batch = True
        first.phase = Phase(ONCE)
        first.phase.open = 1
        first.begin(time.perf_counter())
        await asyncio.wait_for(first.phase.done, SETUP_S)
        self.finished = True
        many = [await self._reader(leader, n) for n in range(64)]
        spread = [await self._reader(addresses[n % 3], n) for n in range(63)]
        follower = await self._reader(addresses[1], 99)
        seconds: float = self.specification["seconds"]
        phases: list[tuple[str, list[RaftdbReader], str]] = [
            ("linearizable, 1 client", many[:1], wire.LINEARIZABLE),
            ("linearizable at a follower, 1 client", [follower], wire.LINEARIZABLE),
            ("session, 1 client", many[:1], wire.SESSION),
            ("local, 1 client", many[:1], wire.LOCAL),
            ("linearizable, 64 clients", many, wire.LINEARIZABLE),
            ("local, 64 clients of one node", many, wire.LOCAL),
            ("local, 63 clients of three nodes", spread, wire.LOCAL),
        ]
        await asyncio.sleep(0.5)
        for name, readers, level in phases:
            for reader in readers:
                reader.level = level
            await measure(name, readers, seconds)
        await measure("batch of 1,000 rows, 1 client", [first], seconds)
        loadkit.emit("done")

    async def _reader(self, address: str, number: int) -> RaftdbReader:
        connection, _ = await self._dial(address, number)
        assert isinstance(connection, RaftdbReader)
        return connection


class EchoReader(asyncio.Protocol):
    """One connection to bench.echo."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.phase: Phase | None = None
        self.started_s = 0.0
        self.missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def begin(self, now_s: float) -> None:
        """The next request."""
        assert self.transport is not None
        self.started_s, self.missing = now_s, len(echo.REPLY)
        self.transport.write(echo.REQUEST)

    def data_received(self, data: bytes) -> None:
        self.missing -= len(data)
        phase = self.phase
        if self.missing <= 0 and phase is not None and (now_s := phase.ended(self.started_s)) > 0:
            self.begin(now_s)


async def floor(specification: dict[str, Any]) -> None:
    """What the generator, TLS and two processes on this machine take by themselves."""
    loop = asyncio.get_running_loop()
    host, _, port = specification["addresses"][0].rpartition(":")
    tls = echo.context(specification, server_side=False)
    readers: list[EchoReader] = []
    for _ in range(64):
        reader = EchoReader()
        secure = SecureTransport(
            loop, tls, reader, server_side=False, handshake_timeout_s=echo.HANDSHAKE_S
        )
        await loop.create_connection(lambda secure=secure: secure, host, int(port))  # type: ignore[misc]
        await secure.shaken()
        readers.append(reader)
    seconds: float = specification["seconds"]
    await measure("TLS echo, 1 client", readers[:1], seconds)
    await measure("TLS echo, 64 clients", readers, seconds)
    loadkit.emit("done")


async def rqlite(specification: dict[str, Any]) -> None:
    """All phases of rqlite, at its leader."""
    host, _, port = specification["leader"].rpartition(":")
    loop = asyncio.get_running_loop()

    async def connect(path: str, body: list[Any], count: int) -> list[HttpReader]:
        def made() -> HttpReader:
            return HttpReader(path, json.dumps(body).encode(), host)

        return [(await loop.create_connection(made, host, int(port)))[1] for _ in range(count)]

    async def once(path: str, body: list[Any]) -> None:
        [reader] = await connect(path, body, 1)
        reader.phase = Phase(ONCE)
        reader.phase.open = 1
        reader.begin(time.perf_counter())
        await asyncio.wait_for(reader.phase.done, SETUP_S)

    await once("/db/execute", [SCHEMA])
    await once("/db/execute?transaction", [[INSERT, *row] for row in BATCH])
    seconds: float = specification["seconds"]
    read = [[SELECT, 500]]
    for level in ("linearizable", "weak", "none"):
        path = f"/db/query?level={level}"
        await measure(f"{level}, 1 client", await connect(path, read, 1), seconds)
    many = await connect("/db/query?level=linearizable", read, 64)
    await measure("linearizable, 64 clients", many, seconds)
    batch = await connect("/db/execute?transaction", [[INSERT, *row] for row in BATCH], 1)
    await measure("batch of 1,000 rows, 1 client", batch, seconds)
    loadkit.emit("done")


def main() -> None:
    """Read the specification and load."""
    specification = loadkit.specification("reads")
    loop = uvloop.new_event_loop()
    try:
        if specification["system"] == "rqlite":
            loop.run_until_complete(rqlite(specification))
        elif specification["system"] == "echo":
            loop.run_until_complete(floor(specification))
        else:
            loop.run_until_complete(RaftdbReads(specification).run())
    except (LoadFailed, Error, OSError, TimeoutError) as error:
        loadkit.fail(str(error) or type(error).__name__)
    finally:
        loop.close()


if __name__ == "__main__":
    main()
