"""Open-loop load on raftdb: requests leave at their time, whatever became of those before.

`python -m bench.overload_load`, with a specification on standard input. First a closed loop finds
what the cluster can do; then each level offers a multiple of that. A request's clock starts when
it is due, not when it is sent, so a generator that is held up does not hide what clients would see
(coordinated omission).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import uvloop

from bench import loadkit
from bench.figures import percentile
from bench.raftdb_load import SETUP_S, EventConnection, EventLoad, LoadFailed
from raftdb import wire
from raftdb.base.errors import Error
from raftdb.command import Failed, Results, Statement, decode_reply

TICK_S = 0.001
SETTLE_S = 3.0
"""After a level: so long its last answers may take, and its connections to be free again."""
SIDE = 50
TABLES = (
    "CREATE TABLE load (id INTEGER PRIMARY KEY, n INTEGER NOT NULL)",
    "CREATE TABLE side (i INTEGER PRIMARY KEY)",
)
FILL = f"INSERT INTO side VALUES {','.join(f'({n})' for n in range(1, SIDE + 1))}"
READ = "SELECT max(a.i + b.i + c.i) FROM side a, side b, side c WHERE a.i <= ?"
WRITE = f"INSERT INTO load (n) {READ}"
"""As many times SIDE * SIDE rows as the parameter says. (Not by a WITH, which is tried out each
time before it enters the log.)"""


@dataclass
class Level:
    """What became of the requests of one level. Times in microseconds."""

    times: float
    offered: int = 0
    held_back: int = 0
    """No connection was free: those that were refused and came again at once are not read from."""
    refused: int = 0
    late: int = 0
    """Answered, or ended by the node, after their deadline."""
    failed: int = 0
    good: list[int] = field(default_factory=list)
    refused_after: list[int] = field(default_factory=list)

    def figures(self, seconds: float) -> dict[str, Any]:
        """Rates per second, latencies in milliseconds."""
        good, refused = sorted(self.good), sorted(self.refused_after)
        return {
            "times": self.times,
            "offered_per_s": self.offered / seconds,
            "held_back_per_s": self.held_back / seconds,
            "refused_per_s": self.refused / seconds,
            "late_per_s": self.late / seconds,
            "failed": self.failed,
            "good_per_s": len(good) / seconds,
            "good_p50_ms": percentile(good, 50) / 1000 if good else None,
            "good_p99_ms": percentile(good, 99) / 1000 if good else None,
            "refused_p50_ms": percentile(refused, 50) / 1000 if refused else None,
        }


class Sender(EventConnection):
    """One connection with one request open at a time."""

    load: OverloadLoad
    due_ns = 0
    acknowledged = 0

    def data_received(self, data: bytes) -> None:
        for message in self.side.receive(data):
            if self.waiting is not None:
                self._settle(message)
            elif type(message) in (wire.Result, wire.Rows, wire.ErrorMessage):
                self._answered(message)
            elif type(message) is not wire.Goodbye:
                self.load.stop(LoadFailed(f"connection {self.number} got {message}"))

    def begin(self, due_ns: int) -> None:
        """Send one request that was due at that time."""
        assert self.transport is not None
        load = self.load
        self.due_ns = due_ns
        statement = Statement(load.statement, ((load.work,),))
        self.request_id += 1
        message: wire.Execute | wire.Query
        if load.is_read:
            message = wire.Query(self.request_id, wire.LINEARIZABLE, load.deadline_ms, (statement,))
        else:
            self.sequence += 1
            message = wire.Execute(
                self.request_id, self.sequence, self.sequence - 1, load.deadline_ms, (statement,)
            )
        self.transport.write(self.side.send(message))

    def _answered(self, message: Any) -> None:
        took_us = (time.perf_counter_ns() - self.due_ns) // 1000
        level = self.load.level
        if type(message) is wire.ErrorMessage:
            error = message.exception()
            if error.outcome == "not_applied" and not self.load.is_read:
                self.sequence -= 1
            if error.code == "overloaded":
                level.refused += 1
                level.refused_after.append(took_us)
            elif error.code == "deadline":
                level.late += 1
            else:
                level.failed += 1
                loadkit.emit("note", message=str(error))
        elif type(message) is wire.Result and type(decode_reply(message.reply)) is Failed:
            level.failed += 1
        else:
            self.acknowledged += type(message) is wire.Result
            if took_us <= self.load.deadline_ms * 1000:
                level.good.append(took_us)
            else:
                level.late += 1
        self.load.free(self)


class OverloadLoad(EventLoad):
    """All connections, and the levels one after the other."""

    connection_class = Sender

    def __init__(self, specification: dict[str, Any]) -> None:
        super().__init__(specification)
        self.is_read = specification["kind"] == "read"
        self.statement = READ if self.is_read else WRITE
        self.work: int = max(1, specification["work"] // (SIDE * SIDE))
        self.deadline_ms: int = specification["deadline_ms"]
        self.level = Level(0.0)
        self._idle: deque[Sender] = deque()
        self._closed_loop = False

    def free(self, sender: Sender) -> None:
        """It has its answer."""
        if self._closed_loop:
            sender.begin(time.perf_counter_ns())
        else:
            self._idle.append(sender)

    async def run(self) -> None:
        """Find the peak, then offer multiples of it."""
        leader = await self._find_leader()
        senders: list[Sender] = []
        for number in range(self.specification["connections"]):
            connection = await self._open(leader, number)
            assert isinstance(connection, Sender)
            senders.append(connection)
        for sql in (*TABLES, FILL):
            await senders[0].execute(sql)
        self._idle.extend(senders)
        self._end = asyncio.get_running_loop().create_future()
        seconds: float = self.specification["seconds"]
        peak = await self._peak(senders[: self.specification["closed_loop"]], seconds)
        for times in self.specification["levels"]:
            await self._offer(times, times * peak, seconds)
        await asyncio.sleep(SETTLE_S)
        self.finished = True
        found = await self._count(senders)
        loadkit.emit("done", acknowledged=sum(one.acknowledged for one in senders), found=found)

    async def _peak(self, senders: list[Sender], seconds: float) -> float:
        for sender in senders:
            self._idle.remove(sender)
        self._closed_loop = True
        self.level = Level(0.0)
        for sender in senders:
            sender.begin(time.perf_counter_ns())
        await self._sleep(seconds / 4)
        self.level = Level(0.0)
        loadkit.emit("begin")
        before = loadkit.cpu_s()
        await self._sleep(seconds)
        level, self.level = self.level, Level(0.0)
        self._closed_loop = False
        figures = level.figures(seconds) | {"load_cpu_s": loadkit.cpu_s() - before}
        loadkit.emit("end", figures=figures)
        await self._sleep(SETTLE_S / 2)
        if not level.good:
            raise LoadFailed("nothing was answered while the cluster had one closed loop to serve")
        return len(level.good) / seconds

    async def _offer(self, times: float, rate: float, seconds: float) -> None:
        """Warm up for a second, so that what is counted is how it stays, then count."""
        await self._requests(Level(times), rate, 1.0)
        level = Level(times)
        loadkit.emit("begin")
        before = loadkit.cpu_s()
        await self._requests(level, rate, seconds)
        cpu_s = loadkit.cpu_s() - before
        # What is under way belongs to this level still; it has no time to be counted in, as that
        # which was under way at its beginning had.
        figures = level.figures(seconds) | {"load_cpu_s": cpu_s}
        self.level = Level(times)
        loadkit.emit("end", figures=figures)
        await self._sleep(SETTLE_S)

    async def _requests(self, level: Level, rate: float, seconds: float) -> None:
        self.level = level
        begin_ns = time.perf_counter_ns()
        end_ns = begin_ns + int(seconds * 1e9)
        interval_ns = 1e9 / rate
        while (now_ns := time.perf_counter_ns()) < end_ns:
            while (due_ns := begin_ns + int(level.offered * interval_ns)) <= now_ns:
                level.offered += 1
                if self._idle:
                    self._idle.popleft().begin(due_ns)
                else:
                    level.held_back += 1
            await self._sleep(TICK_S)

    async def _count(self, senders: list[Sender]) -> int:
        sender = next(one for one in senders if one in self._idle)
        sender.request_id += 1
        statement = Statement("SELECT count(*) FROM load")
        answer = await sender.ask(
            wire.Query(sender.request_id, wire.LINEARIZABLE, int(SETUP_S * 1000), (statement,))
        )
        reply = decode_reply(answer.chunk)
        assert isinstance(reply, Results)
        found = reply.statements[0].rows[0][0]
        assert isinstance(found, int)
        return found


def main() -> None:
    """Read the specification and load."""
    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(OverloadLoad(loadkit.specification("overload")).run())
    except (LoadFailed, Error, OSError) as error:
        loadkit.fail(str(error))
    finally:
        loop.close()


if __name__ == "__main__":
    main()
