"""A replica on fakes: an engine that does what it is told, a loop that is run by hand."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from raftdb.base.ids import Address, ClusterId, HistoryId, Index, NodeId, Term
from raftdb.base.limits import Limits
from raftdb.base.ports import Done
from raftdb.command import Results, SessionId, Statement, StatementResult, encode_reply
from raftdb.consensus.port import EngineStatus, Member, PeerStatus
from raftdb.consensus.waits import DurableWaits
from raftdb.node import Answer, Identity, Replica

HISTORY = HistoryId("ab" * 16)
SESSION = SessionId(bytes.fromhex(HISTORY), 7 << 16, b"t" * 16)
FORGED = SessionId(bytes.fromhex(HISTORY), 7 << 16, b"f" * 16)
MEMBERS = tuple(
    Member(
        NodeId(f"n{i}"), f"r{i}/here", Address("127.0.0.1", 100 + i), Address("10.0.0.1", 200 + i)
    )
    for i in (1, 2, 3)
)


class HandLoop:
    """Executor and Clock: nothing happens until `run` or `pass_time`."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self._ready: list[Callable[[], None]] = []
        self._timers: list[tuple[float, int, Any]] = []
        self._count = 0
        self.lanes: list[str] = []

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return 1_000_000

    def call_soon(self, call: Callable[..., None], *arguments: Any) -> None:
        self._ready.append(lambda: call(*arguments))

    call_threadsafe = call_soon

    def call_later(self, delay_s: float, call: Callable[..., None], *arguments: Any) -> Any:
        timer = SimpleNamespace(call=lambda: call(*arguments))
        timer.cancel = lambda: setattr(timer, "call", None)
        self._count += 1
        heapq.heappush(self._timers, (self.now_s + delay_s, self._count, timer))
        return timer

    def submit(self, lane: str, work: Callable[[], Any], done: Done) -> None:
        self.lanes.append(lane)

        def both() -> None:
            try:
                result = work()
            except Exception as error:
                done(None, error)
            else:
                done(result, None)

        self._ready.append(both)

    def step(self) -> None:
        """What is ready now, and not what comes of it."""
        ready, self._ready = self._ready, []
        for call in ready:
            call()

    def run(self) -> None:
        while self._ready:
            self._ready.pop(0)()

    def pass_time(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        self.run()
        while self._timers and self._timers[0][0] <= end_s:
            self.now_s, _, timer = heapq.heappop(self._timers)
            if timer.call is not None:
                timer.call()
            self.run()
        self.now_s = end_s


class _Waiting:
    """One that waits for an index to be applied."""

    def __init__(self, engine: FakeEngine, item: tuple[int, Callable[[str], None]]) -> None:
        self._engine = engine
        self._item = item

    def cancel(self) -> None:
        """Harmless when it has ended."""
        if self._item in self._engine.waits:
            self._engine.waits.remove(self._item)


@dataclass
class FakeEngine:
    """Remembers what it was asked; the test answers."""

    role: str = "leader"
    leader: str | None = "n1"
    applied: int = 50
    proposals: list[tuple[bytes, Callable[[Any], None]]] = field(default_factory=list)
    reads: list[Callable[[Any], None]] = field(default_factory=list)
    waits: list[tuple[int, Callable[[str], None]]] = field(default_factory=list)
    transfers: list[tuple[Any, Callable[[str], None]]] = field(default_factory=list)
    durable: dict[str, int] = field(default_factory=dict)
    answering: tuple[str, ...] = ("n2", "n3")
    durable_waits: DurableWaits = field(default_factory=DurableWaits)

    def propose(self, payload: bytes, done: Callable[[Any], None]) -> None:
        self.proposals.append((payload, done))

    def read_index(self, done: Callable[[Any], None]) -> None:
        self.reads.append(done)

    @property
    def applied_index(self) -> Index:
        return Index(self.applied)

    def when_applied(self, index: int, done: Callable[[str], None]) -> Any:
        if index <= self.applied:
            done("")
            return None
        self.waits.append((index, done))
        return _Waiting(self, (index, done))

    def apply(self, index: int) -> None:
        """The machine has applied that much."""
        self.applied = index
        ready = [done for wanted, done in self.waits if wanted <= index]
        self.waits = [(wanted, done) for wanted, done in self.waits if wanted > index]
        for done in ready:
            done("")

    def when_durable(self, index: int, level: Any, done: Callable[[str], None]) -> Any:
        return self.durable_waits.add(index, level, done)

    def durable_indexes(self) -> dict[str, int]:
        return self.durable

    def acknowledge(self, **durable: int) -> None:
        """Members have that much on disk."""
        self.durable.update(durable)
        self.durable_waits.look(self.durable)

    def transfer_leadership(self, target: Any, done: Callable[[str], None]) -> None:
        self.transfers.append((target, done))

    def status(self) -> EngineStatus:
        leader = NodeId(self.leader) if self.leader else None
        index = Index(self.applied)
        peers = tuple(
            PeerStatus(NodeId(name), True, Index(0), None, name in self.answering)
            for name in ("n2", "n3")
        )
        return EngineStatus(
            NodeId("n1"), self.role, Term(3), leader, Index(1), index, index, index, index, peers
        )


class FakeMachine:
    """Answers every query with one row."""

    lineage: tuple[tuple[str, int], ...] = ()

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.rows: tuple[tuple[Any, ...], ...] = ((1,),)
        self.asked: list[tuple[int | None, Any]] = []
        self.is_brief = False
        self.brief = 0
        self.shown_index: Callable[[], int] = lambda: 0
        self.seen: set[int] = set()

    def was_applied(self, session: int, sequence: int) -> bool:
        return sequence in self.seen

    def want_sample(self, index: int) -> int:
        return index

    def session_token(self, number: int) -> bytes | None:
        return SESSION.token if number == SESSION.number else None

    def query_briefly(
        self, statements: tuple[Statement, ...], rows_max: int | None, _index: int
    ) -> bytes | None:
        if not self.is_brief:
            return None
        self.brief += 1
        return encode_reply(self.query(*statements, rows_max=rows_max, stop=None))

    def query_reply(
        self, statements: tuple[Statement, ...], rows_max: int | None, stop: Any
    ) -> tuple[bytes, int]:
        reply = encode_reply(self.query(*statements, rows_max=rows_max, stop=stop))
        return reply, self.shown_index()

    def query(self, *statements: Statement, rows_max: int | None = None, stop: Any) -> Results:
        self.asked.append((rows_max, stop))
        if self.error is not None:
            raise self.error
        return Results(tuple(StatementResult(("a",), self.rows, 0, 0) for _ in statements))


class Quiet:
    """A Log."""

    def info(self, event: str, **fields: Any) -> None: ...

    warning = error = info


class Bench:
    """A replica and all that it stands on."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.loop = HandLoop()
        self.engine = FakeEngine()
        self.machine = FakeMachine()
        self.machine.shown_index = lambda: self.engine.applied_index
        self.limits = limits or Limits()
        self.answers: list[Any] = []
        random = SimpleNamespace(random=lambda: 0.5, randbytes=lambda count: b"r" * count)
        self.ports: Any = SimpleNamespace(
            clock=self.loop, executor=self.loop, random=random, log=Quiet(), network=None
        )
        self.replica = Replica(
            identity=Identity(ClusterId("cd" * 16), HISTORY, NodeId("n1"), MEMBERS),
            engine=self.engine,
            machine=self.machine,  # type: ignore[arg-type]
            ports=self.ports,
            limits=self.limits,
        )

    def done(self, answer: Answer | None, error: Exception | None) -> None:
        self.answers.append(error if error is not None else answer)

    def execute(
        self,
        sequence: int = 1,
        session: SessionId = SESSION,
        sql: str = "x",
        durability: str = "",
    ) -> None:
        self.replica.execute(
            session,
            sequence,
            0,
            (Statement(sql),),
            foreign_keys=True,
            timeout_s=5.0,
            done=self.done,
            durability=durability,
        )
        self.loop.run()

    def query(self, level: str = "linearizable", rows_max: int = 0, **options: Any) -> None:
        statements = (Statement("SELECT 1"),)
        self.replica.query(level, statements, rows_max, 5.0, self.done, **options)
        self.loop.run()
