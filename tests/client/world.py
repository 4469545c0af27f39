"""A cluster in virtual time: messages, not bytes; the rules of sessions, not SQL.

The model is exact where the client depends on it: a write takes effect when it is applied, in the
order of the log; a reply can be lost while the effect stays; what a dead leader had in its log may
be applied by the next one, late. SQL is `add X` (remember X), `fail` (a constraint) and `read`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeVar

from raftdb.base.errors import (
    APPLIED,
    NOT_APPLIED,
    UNKNOWN,
    DataError,
    Error,
    IntegrityError,
    NotLeaderError,
    OperationalError,
    ProgrammingError,
    SessionError,
    UnavailableError,
)
from raftdb.base.ids import Address
from raftdb.client.actions import Await, Dial, Drop, Link, LinkError, Pause, Steps, Transmit
from raftdb.client.core import Core
from raftdb.client.options import Options
from raftdb.command import (
    Failed,
    Opened,
    Reply,
    Results,
    SessionId,
    Statement,
    StatementResult,
    decode_reply,
    encode_reply,
)
from raftdb.wire import (
    Ask,
    AttachSession,
    CloseSession,
    ContentHash,
    Done,
    Endpoint,
    ErrorMessage,
    Execute,
    Goodbye,
    Hello,
    Info,
    Message,
    OpenSession,
    Ping,
    Pong,
    Query,
    Result,
    Status,
    Transfer,
    Welcome,
    rows_messages,
)

CLUSTER, HISTORY = "c" * 32, "d" * 32
DELAY_S = 0.0005
COMMIT_S = 0.001
_Value = TypeVar("_Value")


class WorldLink(Link):
    """One connection: both ends."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.arrived: list[Message] = []
        self.broken = ""
        self.session = b""
        self.node_id, self.cluster_id = node.node_id, CLUSTER


@dataclass
class SessionRecord:
    """What the cluster keeps of a session."""

    sequence: int = 0
    replies: dict[int, bytes] = field(default_factory=dict)


class Node:
    """One node: up or down, paused or not; its view of who leads."""

    def __init__(self, world: World, node_id: str, port: int) -> None:
        self.world = world
        self.node_id = node_id
        self.location = ""
        self.address = Address("node", port)
        self.up = True
        self.paused = False
        self.blackholed = False
        """Reachable by nobody: connecting takes for ever."""
        self.links: list[WorldLink] = []
        self.inbox: list[tuple[WorldLink, Message]] = []
        self.refuse: list[Error] = []
        """Errors to answer the next requests with."""
        self.lose_replies = 0
        """So many replies to writes are lost, with their connection."""
        self.slow_reads_s = 0.0
        self.behind = False
        """Lags: session and bounded reads are sent elsewhere."""
        self.follower_reads = False
        """Answers linearizable reads without leading."""
        self.mute = False
        """Takes requests and applies them, and never answers."""
        self.mute_orders = False
        """The same, of orders and questions about the cluster alone."""
        self.lose_orders = 0
        """So many of them are lost, with their connection."""
        self.refuse_orders: list[Error] = []
        """Errors to answer the next ones with that are not lost."""

    @property
    def leads(self) -> bool:
        return self.world.leader is self

    def receive(self, link: WorldLink, message: Message) -> None:
        if self.paused:
            self.inbox.append((link, message))
        elif self.up and not link.broken:
            self.world.heard.append((self.node_id, message))
            self.handle(link, message)

    def reply(self, link: WorldLink, *messages: Message) -> None:
        if not self.mute:
            self.world.after(DELAY_S, lambda: self.world.deliver(link, messages))

    def handle(self, link: WorldLink, message: Message) -> None:
        if isinstance(message, Hello):
            self.reply(link, self.welcome())
            return
        request_id = message.request_id  # type: ignore[union-attr]
        if self.refuse and not isinstance(message, AttachSession | Status):
            if isinstance(message, CloseSession):
                link.session = b""
            self.reply(link, ErrorMessage.of(request_id, self.refuse.pop(0)))
        elif isinstance(message, Ping):
            self.reply(link, Pong(request_id))
        elif isinstance(message, Status):
            self.reply(link, Info(request_id, self.describe()))
        elif isinstance(message, ContentHash):
            self.reply(link, Info(request_id, {"index": self.world.index, "total": "0"}))
        elif isinstance(message, Query):
            self.query(link, message)
        elif isinstance(message, AttachSession):
            link.session = message.session_id
            self.reply(link, Done(request_id))
        elif not self.leads:
            self.reply(link, ErrorMessage.of(request_id, self.not_leader()))
        elif isinstance(message, Ask | Transfer):
            self.order(link, message)
        else:
            self.propose(link, message)

    def order(self, link: WorldLink, message: Ask | Transfer) -> None:
        """About the cluster: no session, no sequence."""
        if self.lose_orders:
            self.lose_orders -= 1
            self.world.break_link(link, "reset")
        elif self.refuse_orders:
            self.reply(link, ErrorMessage.of(message.request_id, self.refuse_orders.pop(0)))
        elif not self.mute_orders:
            self.reply(link, Done(message.request_id))

    def propose(self, link: WorldLink, message: Any) -> None:
        """Into the log; applied a little later, by whoever leads then; answered if it is still us
        who leads."""
        session = link.session
        if isinstance(message, CloseSession):
            link.session = b""
        if not isinstance(message, OpenSession) and not session:
            error = SessionError("no session", code="session_missing")
            self.reply(link, ErrorMessage.of(message.request_id, error))
            return
        term = self.world.term

        def commit() -> None:
            reply = self.world.apply(session, message)
            if self.up and not self.paused and term == self.world.term:
                if isinstance(reply, Opened):
                    link.session = reply.session.to_bytes()
                if self.lose_replies and isinstance(message, Execute):
                    self.lose_replies -= 1
                    self.world.break_link(link, "reset")
                    return
                index = self.world.index
                self.reply(link, Result(message.request_id, index, encode_reply(reply)))

        self.world.enter_log(commit)

    def query(self, link: WorldLink, message: Query) -> None:
        if message.level == "linearizable" and not self.leads and not self.follower_reads:
            self.reply(link, ErrorMessage.of(message.request_id, self.not_leader()))
        elif self.behind and message.level in ("session", "bounded"):
            error = UnavailableError("lags", code="behind")
            self.reply(link, ErrorMessage.of(message.request_id, error))
        elif any(statement.sql != "read" for statement in message.statements):
            error = ProgrammingError("it writes", code="not_a_query")
            self.reply(link, ErrorMessage.of(message.request_id, error))
        else:
            rows = tuple((effect,) for effect in self.world.effects)
            encoded = encode_reply(Results((StatementResult(("x",), rows, 0, 0),)))
            index = self.world.index
            found = rows_messages(message.request_id, index, encoded, chunk_bytes=16, age_ms=250)
            self.world.after(self.slow_reads_s, lambda: self.reply(link, *found))

    def not_leader(self) -> Error:
        leader = self.world.believed or self.world.leader
        detail: dict[str, Any] = {"term": self.world.term}
        if leader is not None and leader is not self and self.world.hints:
            detail |= {"leader": leader.node_id, "address": str(leader.address)}
        return NotLeaderError("not the leader", detail=detail)

    def welcome(self) -> Welcome:
        world = self.world
        leader = (world.believed or world.leader) if world.hints or self.leads else None
        return Welcome(
            1,
            CLUSTER,
            world.history,
            self.node_id,
            "leader" if self.leads else "follower",
            world.term,
            Endpoint(leader.node_id, str(leader.address)) if leader else None,
            tuple(Endpoint(n.node_id, str(n.address), n.location) for n in world.nodes.values()),
            1 << 20,
            1024,
            "test",
        )

    def describe(self) -> dict[str, Any]:
        leader = self.world.believed or self.world.leader
        leader = None if leader is self and not self.leads else leader
        return {
            "node_id": self.node_id,
            "role": "leader" if self.leads else "follower",
            "term": self.world.term,
            "leader": leader.node_id if leader else None,
            "members": tuple(
                {"node_id": n.node_id, "client_address": str(n.address)}
                for n in self.world.nodes.values()
            ),
        }


class World:
    """Nodes, the log they share, time, and the driver of one or more cores."""

    def __init__(self, nodes: int = 3, leader: int | None = 1) -> None:
        self.now_s = 100.0
        self.index = 0
        self.term = 1
        self.history = HISTORY
        self.hints = True
        self.believed: Node | None = None
        """Whom the others still take for the leader."""
        self.nodes = {f"n{n}": Node(self, f"n{n}", 7000 + n) for n in range(1, nodes + 1)}
        self.leader: Node | None = self.nodes[f"n{leader}"] if leader else None
        self.effects: list[str] = []
        self.sessions: dict[bytes, SessionRecord] = {}
        self.heard: list[tuple[str, Message]] = []
        self.dialled: list[str] = []
        self.stalled_log: list[Callable[[], None]] | None = None
        """Set: entries wait here instead of being applied (no quorum)."""
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    # ---- time

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return int(self.now_s * 1000)

    def random(self) -> float:
        return 0.5

    def randbytes(self, count: int) -> bytes:
        return bytes(count)

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now_s + delay_s, next(self._order), call))

    def run_until(self, until_s: float, done: Callable[[], bool] = lambda: False) -> None:
        while not done():
            if not self._events or self._events[0][0] > until_s:
                self.now_s = max(self.now_s, until_s)
                return
            at_s, _, call = heapq.heappop(self._events)
            self.now_s = max(self.now_s, at_s)
            call()

    # ---- the log and its state

    def enter_log(self, commit: Callable[[], None]) -> None:
        if self.stalled_log is not None:
            self.stalled_log.append(commit)
        else:
            self.after(COMMIT_S, commit)

    def apply(self, session: bytes, message: Any) -> Reply:
        self.index += 1
        if isinstance(message, OpenSession):
            opened = SessionId(bytes.fromhex(self.history), self.index, bytes(16))
            self.sessions[opened.to_bytes()] = SessionRecord()
            return Opened(opened)
        if isinstance(message, CloseSession):
            self.sessions.pop(session, None)
            return Results(())
        record = self.sessions.get(session)
        sequence = message.sequence
        if record is None:
            outcome = UNKNOWN if sequence > 1 else NOT_APPLIED
            return Failed(SessionError("gone", code="session_unknown", outcome=outcome), -1)
        if sequence <= record.sequence:
            kept = record.replies.get(sequence)
            if kept is None:
                error = SessionError("old", code="reply_forgotten", outcome=APPLIED)
                return Failed(error, -1)
            return decode_reply(kept)
        if sequence > record.sequence + 1:
            return Failed(SessionError("gap", code="sequence_gap"), -1)
        reply = self._execute(message.statements)
        record.sequence = sequence
        record.replies = {s: r for s, r in record.replies.items() if s > message.floor}
        record.replies[sequence] = encode_reply(reply)
        return reply

    def _execute(self, statements: Sequence[Statement]) -> Reply:
        if any(statement.sql == "fail" for statement in statements):
            return Failed(IntegrityError("UNIQUE constraint failed"), 0)
        if any(statement.sql == "old key" for statement in statements):
            return Failed(SessionError("too old", code="key_too_old", outcome=UNKNOWN), -1)
        for statement in statements:
            self.effects.append(statement.sql.removeprefix("add "))
        number = len(self.effects)
        return Results(tuple(StatementResult((), (), 1, number) for _ in statements))

    # ---- faults

    def deliver(self, link: WorldLink, messages: Sequence[Message]) -> None:
        if not link.broken:
            link.arrived.extend(messages)

    def break_link(self, link: WorldLink, reason: str) -> None:
        link.broken = link.broken or reason
        link.arrived.clear()

    def kill(self, node_id: str) -> None:
        node = self.nodes[node_id]
        node.up = False
        for link in node.links:
            self.break_link(link, "reset")
        node.links.clear()
        node.inbox.clear()
        if self.leader is node:
            self.leader = None

    def start(self, node_id: str) -> None:
        self.nodes[node_id].up = True

    def elect(self, node_id: str) -> None:
        self.term += 1
        self.leader = self.nodes[node_id]

    def pause(self, node_id: str) -> None:
        """SIGSTOP: connections stay, nothing is answered."""
        self.nodes[node_id].paused = True

    def resume(self, node_id: str) -> None:
        node = self.nodes[node_id]
        node.paused = False
        inbox, node.inbox = node.inbox, []
        for link, message in inbox:
            node.receive(link, message)

    def say_goodbye(self, node_id: str) -> None:
        for link in self.nodes[node_id].links:
            self.deliver(link, (Goodbye("drains"),))

    # ---- driving

    def core(self, *given: str, **options: Any) -> Core:
        addresses = tuple(self.nodes[n].address for n in given or tuple(self.nodes))
        return self.core_at(addresses, **options)

    def core_at(self, addresses: tuple[Address, ...], **options: Any) -> Core:
        """A node is to be found by a second name too: its port and 10,000."""
        return Core(Options(addresses=addresses, insecure=True, **options), self, self)

    def run(self, steps: Steps[_Value]) -> _Value:
        """Drive to the end, as a blocking driver does."""
        try:
            action = next(steps)
            while True:
                try:
                    result = self._do(action)
                except (LinkError, Error, KeyboardInterrupt) as error:
                    action = steps.throw(error)
                else:
                    action = steps.send(result)
        except StopIteration as stop:
            value: _Value = stop.value
            return value

    def _do(self, action: Any) -> Any:
        if isinstance(action, Pause):
            self.run_until(action.until_s)
        elif isinstance(action, Dial):
            return self._dial(action)
        elif isinstance(action, Transmit):
            self._transmit(action)
        elif isinstance(action, Await):
            link: Any = action.link
            self.run_until(action.until_s, lambda: bool(link.arrived or link.broken))
            if link.arrived:
                arrived, link.arrived = link.arrived, []
                return arrived
            if link.broken:
                raise LinkError(link.broken)
            return ()
        else:
            assert isinstance(action, Drop)
            self.break_link(action.link, "closed")  # type: ignore[arg-type]
        return None

    def _dial(self, action: Dial) -> Link:
        port = action.address.port % 10_000
        node = next((n for n in self.nodes.values() if n.address.port == port), None)
        self.dialled.append(node.node_id if node else str(action.address))
        self.run_until(self.now_s + DELAY_S)
        if node is None or node.paused or node.blackholed:
            self.run_until(action.until_s)
            raise LinkError("no answer in time", silent=True)
        if not node.up:
            raise LinkError("refused the connection", refused=True)
        link = WorldLink(node)
        node.links.append(link)
        return link

    def _transmit(self, action: Transmit) -> None:
        link: Any = action.link
        if link.broken:
            raise LinkError(link.broken, unsent=True)
        for message in action.messages:
            if isinstance(message, Execute) and any(
                len(statement.sql) > 1 << 20 for statement in message.statements
            ):
                raise DataError("too large", code="too_large")
        for message in action.messages:
            self.after(DELAY_S, lambda m=message: link.node.receive(link, m))


def add(word: str) -> tuple[Statement, ...]:
    return (Statement(f"add {word}"),)


READ = (Statement("read"),)


def operational(code: str, outcome: str, retryable: bool) -> OperationalError:
    return OperationalError(code, code=code, outcome=outcome, retryable=retryable)


T = 5.0
"""Seconds that a request of a test gets."""


def write(world: World, core: Core, word: str, timeout_s: float = T) -> None:
    world.run(core.execute(add(word), timeout_s=timeout_s))


def read(world: World, core: Core, level: str = "linearizable") -> list[str]:
    outcome = world.run(core.query(READ, level=level, timeout_s=T))
    return [str(row[0]) for row in outcome.results.statements[0].rows]


def sequences(world: World) -> list[int]:
    return [m.sequence for _, m in world.heard if isinstance(m, Execute)]


def heard(world: World, kind: type) -> int:
    return sum(isinstance(message, kind) for _, message in world.heard)
